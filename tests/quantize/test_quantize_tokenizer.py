"""tokenizer.json -> GGUF vocabulary."""

from __future__ import annotations

import json
import lzma
from pathlib import Path

import pytest
from gguf import TokenType

from localai.errors import CheckpointError, LocalAIError, UnsupportedModel, UsageError
from quantize.checkpoint import Checkpoint
from quantize.pretokenizer import name_for
from quantize.tokenizer import Vocabulary, read_vocabulary
from tests.quantize.making import NANO

R1 = Path(__file__).parents[1] / "data" / "r1-tokenizer"
NORMAL, CONTROL, USER, UNUSED = (
    int(t) for t in (TokenType.NORMAL, TokenType.CONTROL, TokenType.USER_DEFINED, TokenType.UNUSED)
)
BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
GPT2 = {**BYTES, "use_regex": True}
QWEN_CUT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def split(pattern: str, **changes: object) -> dict:
    return {
        "type": "Split",
        "pattern": {"Regex": pattern},
        "behavior": "Isolated",
        "invert": False,
        **changes,
    }


def sequence(*steps: dict) -> dict:
    return {"type": "Sequence", "pretokenizers": list(steps)}


TEMPLATE = {
    "type": "TemplateProcessing",
    "single": [{"SpecialToken": {"id": "<bos>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
    "pair": [
        {"SpecialToken": {"id": "<bos>", "type_id": 0}},
        {"Sequence": {"id": "A", "type_id": 0}},
        {"SpecialToken": {"id": "<bos>", "type_id": 1}},
        {"Sequence": {"id": "B", "type_id": 1}},
    ],
}


def tiny() -> dict:
    """A tokenizer.json of five tokens, as Qwen2 would have it."""
    return {
        "added_tokens": [
            {"id": 4, "content": "<bos>", "special": True, "normalized": False},
            {"id": 5, "content": "<think>", "special": False, "normalized": False},
            {"id": 7, "content": "<|call|>", "special": False, "normalized": False},
        ],
        "normalizer": None,
        "pre_tokenizer": sequence(split(QWEN_CUT), BYTES),
        "post_processor": BYTES,
        "decoder": GPT2,
        "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "Ġ": 2, "ab": 3}, "merges": [["a", "b"]]},
    }


def vocabulary(
    folder: Path,
    tokenizer: dict,
    config: dict | None = None,
    generation: dict | None = None,
    **tokenizer_config: object,
) -> Vocabulary:
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    checkpoint = Checkpoint(folder, config or {}, generation or {}, tokenizer_config, {})
    return read_vocabulary(checkpoint, vocab_size=10)


def test_tokens_and_types(tmp_path: Path) -> None:
    found = vocabulary(tmp_path, tiny())
    assert found.tokens == ["a", "b", "Ġ", "ab", "<bos>", "<think>", "[PAD6]", "<|call|>", "[PAD8]", "[PAD9]"]
    assert found.types == [NORMAL] * 4 + [CONTROL, USER, UNUSED, CONTROL, UNUSED, UNUSED]
    assert found.merges == ["a b"]
    assert found.pre_tokenizer == "qwen2"


@pytest.mark.parametrize("merges", [[["a", "b"], ["Ġ", "a"], [" ", "b"]], ["a b", "Ġ a", "Ġ b"]])
def test_both_spellings_of_merges(tmp_path: Path, merges: list) -> None:
    tokenizer = tiny()
    tokenizer["model"]["merges"] = merges
    assert vocabulary(tmp_path, tokenizer).merges == ["a b", "Ġ a", "Ġ b"]


@pytest.mark.parametrize("merge", ["ab", "a b c", ["a"], ["a", "b", "c"], [1, 2], 3, " "])
def test_malformed_merges(tmp_path: Path, merge: object) -> None:
    tokenizer = tiny()
    tokenizer["model"]["merges"] = [merge]
    with pytest.raises(CheckpointError, match="malformed merge"):
        vocabulary(tmp_path, tokenizer)


def test_an_added_token_is_written_as_it_decodes(tmp_path: Path) -> None:
    tokenizer = tiny()
    tokenizer["added_tokens"] = [
        {"id": 4, "content": "Ġx", "special": False, "normalized": False},
        {"id": 5, "content": "Ġx", "special": False, "normalized": True},
        {"id": 6, "content": "\u2581y", "special": False, "normalized": True},
    ]
    assert vocabulary(tmp_path, tokenizer).tokens[4:7] == [" x", "Ġx", " y"]


def test_ids_of_tokenizer_config_win_over_config(tmp_path: Path) -> None:
    """The published R1-Distill-Qwen checkpoints name a wrong bos in config.json."""
    found = vocabulary(
        tmp_path,
        tiny(),
        config={"bos_token_id": 1, "eos_token_id": [1, 2]},
        generation={"bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0},
        bos_token={"content": "<bos>"},
        add_bos_token=True,
        add_eos_token=False,
        chat_template="{{ x }}",
    )
    assert found.special.ids == {"bos": 4, "eos": 3, "pad": 0}
    assert found.special.add == {"bos": False, "eos": False}, "the post-processor of tokenizer.json wins"
    assert found.special.chat_template == "{{ x }}"


def test_a_template_adds_bos_and_makes_it_r1(tmp_path: Path) -> None:
    tokenizer = tiny() | {"post_processor": {"type": "Sequence", "processors": [BYTES, TEMPLATE]}}
    found = vocabulary(tmp_path, tokenizer, bos_token="<bos>")
    assert found.special.add == {"bos": True, "eos": False, "sep": False}
    assert found.pre_tokenizer == "deepseek-r1-qwen"


def test_the_chat_template_may_have_its_own_file(tmp_path: Path) -> None:
    (tmp_path / "chat_template.jinja").write_text("{{ own }}")
    assert vocabulary(tmp_path, tiny()).special.chat_template == "{{ own }}"
    assert vocabulary(tmp_path, tiny(), chat_template="{{ x }}").special.chat_template == "{{ x }}"


def test_what_only_tokenizer_config_declares_is_added_as_transformers_adds_it(tmp_path: Path) -> None:
    """Numbers as convert_hf_to_gguf.py of llama-cpp-python 0.3.36 has them, with transformers 4 and 5."""
    found = vocabulary(
        tmp_path,
        tiny(),
        added_tokens_decoder={
            "5": {"content": "<think>", "special": True, "normalized": False},
            "9": {"content": "<new>", "special": False, "normalized": False},
        },
        pad_token="<pad!>",
        bos_token={"content": "<bos>"},
        unk_token=None,
        extra_special_tokens={"image": "b", "far": "<too far>"},
    )
    assert found.tokens == ["a", "b", "Ġ", "ab", "<bos>", "<think>", "[PAD6]", "<|call|>", "<new>", "<pad!>"]
    assert found.types == [NORMAL, CONTROL, NORMAL, NORMAL, CONTROL, CONTROL, UNUSED, CONTROL, USER, CONTROL]
    assert "pad" not in found.special.ids


def test_added_tokens_json_is_read_where_nothing_newer_is(tmp_path: Path) -> None:
    (tmp_path / "added_tokens.json").write_text('{"<x>": 9}')
    assert vocabulary(tmp_path, tiny()).tokens[8:] == ["<x>", "[PAD9]"]
    assert vocabulary(tmp_path, tiny(), added_tokens_decoder={}).tokens[8:] == ["[PAD8]", "[PAD9]"]


@pytest.mark.parametrize("declared", [[], {"x": {"content": "y"}}, {"8": "y"}, {"8": {"content": 3}}])
def test_malformed_declarations_are_refused(tmp_path: Path, declared: object) -> None:
    with pytest.raises(CheckpointError, match=r"declared|added_tokens_decoder") as caught:
        vocabulary(tmp_path, tiny(), added_tokens_decoder=declared)
    assert caught.value.hint


def test_an_older_chat_template_and_additional_ones(tmp_path: Path) -> None:
    (tmp_path / "chat_template.json").write_text('{"chat_template": "older"}')
    assert vocabulary(tmp_path, tiny()).special.chat_template == "older"
    (tmp_path / "chat_template.jinja").write_text("own")
    assert vocabulary(tmp_path, tiny()).special.chat_template == "own"
    (tmp_path / "additional_chat_templates").mkdir()
    (tmp_path / "additional_chat_templates" / "tools.jinja").write_text("more")
    assert vocabulary(tmp_path, tiny()).special.chat_template == [
        {"name": "default", "template": "own"},
        {"name": "tools", "template": "more"},
    ]


def test_an_additional_template_may_not_be_a_link_to_elsewhere(tmp_path: Path) -> None:
    folder = tmp_path / "m" / "additional_chat_templates"
    folder.mkdir(parents=True)
    (tmp_path / "secret").write_text("x")
    (folder / "tools.jinja").symlink_to(tmp_path / "secret")
    (tmp_path / "m" / "chat_template.jinja").write_text("own")
    with pytest.raises(CheckpointError, match="outside of the checkpoint's folder"):
        vocabulary(tmp_path / "m", tiny())


def test_roberta_processing_adds_all_three(tmp_path: Path) -> None:
    processor = {"type": "RobertaProcessing", "cls": ["<bos>", 4], "sep": ["<|call|>", 7]}
    found = vocabulary(tmp_path, tiny() | {"post_processor": processor}, sep_token=None)
    assert found.special.add == {"bos": True, "eos": True, "sep": True}
    assert found.special.ids == {"sep": 7, "cls": 4}


def test_a_template_that_begins_with_another_token_than_bos_adds_none(tmp_path: Path) -> None:
    tokenizer = tiny() | {"post_processor": TEMPLATE}
    found = vocabulary(tmp_path, tokenizer, cls_token="<|call|>")
    assert found.special.add["bos"] is False


LLAMA_CUT = QWEN_CUT.replace(r"|\p{N}|", r"|\p{N}{1,3}|")
DIGITS = {"type": "Digits", "individual_digits": True}
QWEN35_CUT = QWEN_CUT.replace(r"?\p{L}+", r"?[\p{L}\p{M}]+").replace(r"[^\s\p{L}\p", r"[^\s\p{L}\p{M}\p")
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
TEKKEN_CUT = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}*{LOWER}+|[^\r\n\p{{L}}\p{{N}}]?{UPPER}+{LOWER}*|\p{{N}}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
GPT4O_CUT = (
    TEKKEN_CUT.replace(f"{LOWER}+|", f"{LOWER}+{CONTRACTIONS}|")
    .replace(f"{LOWER}*|", f"{LOWER}*{CONTRACTIONS}|")
    .replace(r"|\p{N}|", r"|\p{N}{1,3}|")
)
# As it stands in DeepSeek-V3's tokenizer.json, escapes and all.
DEEPSEEK_CUT = json.loads(
    r""""[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+"""
    r'''| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+"'''
)
DEEPSEEK_V3 = sequence(split(r"\p{N}{1,3}"), split("[一-龥\u3040-ゟ゠-ヿ]+"), split(DEEPSEEK_CUT), BYTES)
DEEPSEEK_CODER = sequence(
    split("[\r\n]"), split(r"\s?\p{L}+"), split(r"\s?\p{P}+"), split("[一-龥ࠀ-一가-\ud7ff]+"), DIGITS, BYTES
)


@pytest.mark.parametrize(
    ("pre_tokenizer", "model", "name"),
    [
        (sequence(split(QWEN_CUT), BYTES), {}, "qwen2"),
        (sequence(split(LLAMA_CUT), BYTES), {"ignore_merges": True}, "llama-bpe"),
        (sequence(split(LLAMA_CUT), BYTES), {}, "smaug-bpe"),
        (sequence(split(QWEN35_CUT), BYTES), {}, "qwen35"),
        (sequence(split(GPT4O_CUT), BYTES), {}, "gpt-4o"),
        (sequence(split(TEKKEN_CUT), BYTES), {"ignore_merges": True}, "tekken"),
        (DEEPSEEK_V3, {}, "deepseek-v3"),
        (DEEPSEEK_CODER, {}, "deepseek-coder"),
        (sequence(DIGITS, GPT2), {}, "smollm"),
        (GPT2, {}, "gpt-2"),
        (sequence(GPT2), {}, "gpt-2"),
        (sequence(sequence(DIGITS), GPT2), {}, "smollm"),
    ],
)
def test_pre_tokenizers_are_recognised_by_definition(pre_tokenizer: dict, model: dict, name: str) -> None:
    for normalizer in (None, {"type": "NFC"}, {"type": "Sequence", "normalizers": []}):
        tokenizer = {"pre_tokenizer": pre_tokenizer, "model": model, "normalizer": normalizer}
        assert name_for(tokenizer, adds_bos=False) == name


UNKNOWN = {
    "another pattern": {"pre_tokenizer": sequence(split(r"\p{L}+"), BYTES)},
    "another behaviour": {"pre_tokenizer": sequence(split(QWEN_CUT, behavior="Removed"), BYTES)},
    "inverted": {"pre_tokenizer": sequence(split(QWEN_CUT, invert=True), BYTES)},
    "a prefix space": {"pre_tokenizer": {**GPT2, "add_prefix_space": True}},
    "bytes cut again": {"pre_tokenizer": sequence(split(QWEN_CUT), GPT2)},
    "none": {"pre_tokenizer": None},
    "whitespace": {"pre_tokenizer": {"type": "Whitespace"}},
    "digits in runs": {"pre_tokenizer": sequence({"type": "Digits", "individual_digits": False}, GPT2)},
    "a normalizer that changes text": {"pre_tokenizer": GPT2, "normalizer": {"type": "Lowercase"}},
    "merges ignored where llama.cpp does not": {
        "pre_tokenizer": sequence(split(QWEN_CUT), BYTES),
        "model": {"ignore_merges": True},
    },
}


@pytest.mark.parametrize("case", UNKNOWN)
def test_unknown_pre_tokenizers_are_named(case: str) -> None:
    with pytest.raises(CheckpointError, match="--pre-tokenizer") as caught:
        name_for({"model": {}, **UNKNOWN[case]}, adds_bos=False)
    if case == "another pattern":
        assert r"\\p{L}+" in caught.value.message


def test_the_user_names_the_pre_tokenizer(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(json.dumps(tiny() | {"pre_tokenizer": None}))
    checkpoint = Checkpoint(tmp_path, {}, {}, {}, {})
    assert read_vocabulary(checkpoint, 10, "llama-bpe").pre_tokenizer == "llama-bpe"
    with pytest.raises(UsageError, match="Did you mean llama-bpe"):
        read_vocabulary(checkpoint, 10, "llama-bp")


def model(**changes: object) -> dict:
    return {"model": {**tiny()["model"], **changes}}


BAD = {
    "unigram": (model(type="Unigram", vocab=[["a", 0.0]]), UnsupportedModel, "Unigram"),
    "sentencepiece as BPE": (model(byte_fallback=True), UnsupportedModel, "byte fallback"),
    "no byte level": ({"decoder": {"type": "Metaspace"}}, UnsupportedModel, "byte level"),
    "no model": ({"model": None}, CheckpointError, "no vocabulary"),
    "a token past the embedding": (model(vocab={"a": 10}), CheckpointError, "config.json has 10 tokens"),
    "a negative token": (model(vocab={"a": -1}), CheckpointError, "number -1"),
    "a token without a number": (model(vocab={"a": "0"}), CheckpointError, "number '0'"),
    "two tokens, one number": (model(vocab={"a": 0, "b": 0}), CheckpointError, "which 'a' has"),
    "an added token past the embedding": (
        {"added_tokens": [{"id": 99, "content": "x"}]},
        CheckpointError,
        "number 99",
    ),
    "a malformed added token": ({"added_tokens": [{"id": "4"}]}, CheckpointError, "malformed added token"),
    "added tokens that are a number": ({"added_tokens": 3}, CheckpointError, "not a list"),
    "merges that are a number": (model(merges=3), CheckpointError, "not a list"),
    "steps that are a number": ({"pre_tokenizer": 3}, CheckpointError, "malformed list"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_tokenizers(tmp_path: Path, case: str) -> None:
    change, kind, message = BAD[case]
    with pytest.raises(LocalAIError) as caught:
        vocabulary(tmp_path, tiny() | change)
    assert type(caught.value) is kind
    assert message in str(caught.value)


def test_a_special_token_past_the_embedding(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="eos token 99"):
        vocabulary(tmp_path, tiny(), config={"eos_token_id": 99})


def test_no_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no tokenizer\.json"):
        read_vocabulary(Checkpoint(tmp_path, {}, {}, {}, {}), 10)
    (tmp_path / "tokenizer.model").touch()
    with pytest.raises(UnsupportedModel, match="SentencePiece"):
        read_vocabulary(Checkpoint(tmp_path, {}, {}, {}, {}), 10)


def test_r1_nano(tmp_path: Path) -> None:
    config = json.loads((NANO / "tokenizer_config.json").read_text())
    found = read_vocabulary(Checkpoint(NANO, {"bos_token_id": 1}, {}, config, {}), 512)
    assert found.pre_tokenizer == "deepseek-r1-qwen"
    assert found.special.ids == {"bos": 453, "eos": 450}
    assert found.special.add == {"bos": True, "eos": False}
    assert found.types[450:456] == [CONTROL] * 4 + [USER] * 2
    assert found.types[456:] == [UNUSED] * 56
    assert len(found.merges) == 194


def test_the_full_r1_tokenizer(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_bytes(lzma.decompress((R1 / "tokenizer.json.xz").read_bytes()))
    config = json.loads((R1 / "tokenizer_config.json").read_text())
    found = read_vocabulary(Checkpoint(tmp_path, {"bos_token_id": 151643}, {}, config, {}), 151936)
    assert len(found.tokens) == len(found.types) == 151936
    assert len(found.merges) == 151387
    assert found.pre_tokenizer == "deepseek-r1-qwen"
    assert found.special.ids["bos"] == 151646
    assert found.special.ids["eos"] == 151643
    assert found.special.add == {"bos": True, "eos": False, "sep": False}
    assert [found.tokens[i] for i in (151643, 151648)] == ["<｜end▁of▁sentence｜>", "<think>"]
    assert [found.types[i] for i in (0, 151643, 151648, 151665)] == [NORMAL, CONTROL, USER, UNUSED]
    assert found.tokens[151935] == "[PAD151935]"


@pytest.mark.parametrize(
    ("model_type", "changes", "added"),
    [
        ("qwen2", {}, True),
        ("qwen2", {"unk_token": None}, True),
        ("qwen2", {"unk_token": None, "pad_token": "<｜end▁of▁sentence｜>"}, False),
        ("qwen3", {}, False),
        ("qwen3", {"tokenizer_class": None}, True),
        ("llama", {}, False),
        ("llama", {"tokenizer_class": "Qwen2Tokenizer"}, True),
    ],
)
def test_what_qwen2s_class_has_by_default(model_type: str, changes: dict, added: bool) -> None:
    """As the converter with transformers 5: unstated, unknown and padding are a token of their own."""
    stated = {**json.loads((NANO / "tokenizer_config.json").read_text()), **changes}
    found = read_vocabulary(Checkpoint(NANO, {"model_type": model_type}, {}, stated, {}), 512)
    assert (found.tokens[456], found.types[456]) == (
        ("<|endoftext|>", CONTROL) if added else ("[PAD456]", UNUSED)
    )
    assert (found.tokens[457], found.types[457]) == ("[PAD457]", UNUSED)
