"""Hostile tokenizer.json and tokenizer_config.json in a checkpoint that is otherwise r1-nano's."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.hostile.case import Case, Make, Scene
from tests.hostile.checkpoints import QUANTIZE, Edit, edited, folder, odd, replaced

FILE = "tokenizer.json"
CONFIG = "tokenizer_config.json"


def model(**fields: Any) -> Make:
    """With other fields in the tokenizer's model."""
    return edited(FILE, lambda value: value["model"].update(fields))


def vocab(edit: Callable[[dict[str, Any]], object]) -> Make:
    return edited(FILE, lambda value: edit(value["model"]["vocab"]))


def added(**fields: Any) -> Make:
    """With one more added token."""
    return edited(FILE, lambda v: v["added_tokens"].append({"id": 500, "content": "<x>", **fields}))


def top(**fields: Any) -> Edit:
    return lambda value: value.update(fields)


def split(pattern: str) -> Edit:
    step = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    return top(pre_tokenizer={"type": "Sequence", "pretokenizers": [step, {"type": "ByteLevel"}]})


def nested(key: str, depth: int) -> Edit:
    """Sequences in sequences: deeper than JSON is refused for, and than Python calls."""

    def edit(value: dict[str, Any]) -> None:
        step: dict[str, Any] = {"type": "ByteLevel"}
        children = "normalizers" if key == "normalizer" else "pretokenizers"
        for _ in range(depth):
            step = {"type": "Sequence", children: [step]}
        value[key] = step

    return edit


def outside(scene: Scene) -> Path:
    made = folder(scene)
    (made / FILE).unlink()
    (made / FILE).symlink_to(scene.root / "home" / ".bashrc")
    return made


def huge(scene: Scene) -> Path:
    """A string of 500 MB, of which nothing is on the disk."""
    made = folder(scene)
    path = made / FILE
    path.write_bytes(b'{"model": "')
    os.truncate(path, 500 << 20)
    return made


CASES = [
    Case("missing", replaced(FILE, None), QUANTIZE, "has no tokenizer.json", names="checkpoint"),
    Case("empty", replaced(FILE, b""), QUANTIZE, "not valid JSON", names=FILE),
    Case("not JSON", replaced(FILE, b"\x80\x04\x95"), QUANTIZE, "not UTF-8", names=FILE),
    Case("100,000 lists deep", replaced(FILE, "[" * 100_000), QUANTIZE, "nested", names=FILE),
    Case("100,000 objects deep", replaced(FILE, '{"model":' * 100_000), QUANTIZE, "nested", names=FILE),
    Case("a string of 500 MB", huge, QUANTIZE, "larger than", names=FILE),
    Case(
        "a number of 100,000 digits",
        replaced(FILE, '{"a":' + "9" * 100_000 + "}"),
        QUANTIZE,
        "JSON",
        names=FILE,
    ),
    Case("a key twice", replaced(FILE, '{"model":{},"model":{}}'), QUANTIZE, "twice", names=FILE),
    Case(
        "a million empty lists",
        replaced(FILE, '{"a":[' + "[]," * 999_999 + "[]]}"),
        QUANTIZE,
        "vocabulary",
        names=FILE,
    ),
    Case("a pipe", odd(FILE, "pipe"), QUANTIZE, "pipe", names=FILE),
    Case("/dev/zero", odd(FILE, "/dev/zero"), QUANTIZE, "device", names=FILE),
    Case("a link to a file of the user's", outside, QUANTIZE, "outside", names=FILE),
    Case("no model", edited(FILE, top(model=None)), QUANTIZE, "vocabulary", names=FILE),
    Case("a vocabulary that is a text", model(vocab="abc"), QUANTIZE, "vocabulary", names=FILE),
    Case("a vocabulary of another kind", model(type="Unigram"), QUANTIZE, "Unigram", names="tokenizer"),
    Case("an empty vocabulary", model(vocab={}), QUANTIZE, "loads and generates", code=0),
    Case("a number twice", vocab(lambda v: v.update(twice=0)), QUANTIZE, "number 0", names=FILE),
    Case("a number of -1", vocab(lambda v: v.update(low=-1)), QUANTIZE, "number -1", names=FILE),
    Case("a number of 2^64", vocab(lambda v: v.update(high=1 << 64)), QUANTIZE, "512 tokens", names=FILE),
    Case("a number that is a fraction", vocab(lambda v: v.update(half=0.5)), QUANTIZE, "0.5", names=FILE),
    Case("a number that is a truth", vocab(lambda v: v.update(yes=True)), QUANTIZE, "True", names=FILE),
    Case(
        "a token with NUL", vocab(lambda v: v.update({"a\0b": 500})), QUANTIZE, "'a' is there twice", names=""
    ),
    Case(
        "a token of 10 MB",
        vocab(lambda v: v.update({"x" * 10_000_000: 500})),
        QUANTIZE,
        "loads and generates",
        code=0,
    ),
    Case("an added token of 2^31", added(id=1 << 31), QUANTIZE, "2147483648", names=FILE),
    Case("an added token of -1", added(id=-1), QUANTIZE, "-1", names=FILE),
    Case("an added token without text", added(content=None), QUANTIZE, "malformed added token", names=FILE),
    Case(
        "added tokens that are a text",
        edited(FILE, top(added_tokens="x" * 99)),
        QUANTIZE,
        "not a list",
        names=FILE,
    ),
    Case(
        "an added token in the place of another",
        added(id=0, content="\x1b[2J"),
        QUANTIZE,
        "loads and generates",
        code=0,
    ),
    Case("merges a number", model(merges=7), QUANTIZE, "merges", names=FILE),
    Case("a merge of three", model(merges=[["a", "b", "c"]]), QUANTIZE, "malformed merge", names=FILE),
    Case("a merge of nothing", model(merges=[""]), QUANTIZE, "malformed merge", names=FILE),
    Case(
        "a merge of nested lists", model(merges=[[["a"] * 99] * 99]), QUANTIZE, "malformed merge", names=FILE
    ),
    Case(
        "merges in a circle",
        model(merges=["a b", "ab a", "aba b", "b a", "ba ab"] * 2000),
        QUANTIZE,
        "loads and generates",
        code=0,
    ),
    Case(
        "a pattern that backtracks",
        edited(FILE, split(r"(a+)+$|(\w*)*\d")),
        QUANTIZE,
        "--pre-tokenizer",
        names=FILE,
    ),
    Case("a pattern of 1 MB", edited(FILE, split("(" * 1_000_000)), QUANTIZE, "--pre-tokenizer", names=FILE),
    Case("steps 300 deep", edited(FILE, nested("pre_tokenizer", 300)), QUANTIZE, "no known name", names=FILE),
    Case(
        "normalizers 300 deep", edited(FILE, nested("normalizer", 300)), QUANTIZE, "no known name", names=FILE
    ),
    Case("a step of no type", edited(FILE, top(pre_tokenizer=[1])), QUANTIZE, "malformed list", names=FILE),
    Case(
        "a decoder that is a text",
        edited(FILE, top(decoder="ByteLevel")),
        QUANTIZE,
        "byte level",
        names="tokenizer",
    ),
    Case(
        "decoders that are a number",
        edited(FILE, top(decoder={"decoders": 7})),
        QUANTIZE,
        "byte level|decoder",
        names="tokenizer",
    ),
    Case(
        "a post-processor of nothing",
        edited(FILE, top(post_processor={"type": "TemplateProcessing", "single": 5})),
        QUANTIZE,
        "loads and generates",
        code=0,
    ),
    Case("a config nested deep", replaced(CONFIG, '{"a":' * 100_000), QUANTIZE, "nested", names=CONFIG),
    Case("a config that is a list", replaced(CONFIG, "[]"), QUANTIZE, "JSON object", names=CONFIG),
    Case(
        "a begin token that is a list",
        edited(CONFIG, top(bos_token=[["x"]])),
        QUANTIZE,
        "loads and generates",
        code=0,
    ),
    Case(
        "a template that is a number",
        edited(CONFIG, top(chat_template=7)),
        QUANTIZE,
        "loads and generates",
        code=0,
    ),
    Case(
        "a template of 64 MB",
        edited(CONFIG, top(chat_template="{{" * (32 << 20))),
        QUANTIZE,
        "loads and generates",
        code=0,
    ),
    Case(
        "declared tokens of no number",
        edited(CONFIG, top(added_tokens_decoder={"x": {"content": "y"}})),
        QUANTIZE,
        "number",
        names="token",
    ),
    Case(
        "declared tokens in a list",
        edited(CONFIG, top(added_tokens_decoder=[1])),
        QUANTIZE,
        "added_tokens_decoder",
        names=CONFIG,
    ),
    Case(
        "added_tokens.json nested deep",
        replaced("added_tokens.json", "[" * 99_999),
        QUANTIZE,
        "nested too deeply",
        names="",
    ),
]
