"""Special token ids, the add-bos/eos/sep flags, and the chat template, from a checkpoint's small files.

Which file wins is what llama.cpp's converter does: tokenizer_config.json before config.json for ids (the
published R1-Distill-Qwen checkpoints have a wrong bos in config.json), tokenizer.json's template before
tokenizer_config.json for the flags. What neither states comes from generation_config.json.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gguf import GGUFWriter

from localai.errors import CheckpointError
from quantize import strict_json
from quantize.checkpoint import Checkpoint, require_inside

KINDS = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")
"""What a special token can be for, in the order of transformers and of llama.cpp's converter."""


@dataclass
class SpecialTokens:
    """`ids` and `add` by kind ("bos", "eos", ...), in the order in which they are written."""

    ids: dict[str, int] = field(default_factory=dict)
    add: dict[str, bool] = field(default_factory=dict)
    chat_template: str | list[dict[str, str]] | None = None

    def add_metadata(self, writer: GGUFWriter) -> None:
        """Write all that GGUF has a key for."""
        for kind, number in self.ids.items():
            if add_id := getattr(writer, f"add_{kind}_token_id", None):
                add_id(number)
        for kind, value in self.add.items():
            if add_flag := getattr(writer, f"add_add_{kind}_token", None):
                add_flag(value)
        if self.chat_template is not None:
            writer.add_chat_template(self.chat_template)


def read_special_tokens(checkpoint: Checkpoint, tokenizer: dict[str, Any], vocab_size: int) -> SpecialTokens:
    """The special tokens of `checkpoint`, whose tokenizer.json is `tokenizer`."""
    folder = checkpoint.folder
    config = checkpoint.tokenizer_config
    texts = {kind: token_text(config.get(f"{kind}_token")) for kind in KINDS}
    texts["bos"] = texts["bos"] or texts["cls"]
    texts["eos"] = texts["eos"] or texts["sep"]
    found = SpecialTokens(chat_template=_chat_template(folder, config))
    _read_post_processor(tokenizer.get("post_processor"), texts, found.add)
    for kind in texts:
        flag = config.get(f"add_{kind}_token")
        if isinstance(flag, bool):
            found.add.setdefault(kind, flag)
    _read_ids(found.ids, texts, tokenizer, (checkpoint.config, checkpoint.generation))
    for kind, number in found.ids.items():
        if not 0 <= number < vocab_size:
            raise CheckpointError(
                f"{folder} has the {kind} token {number}, but only {vocab_size} tokens",
                "Its JSON files are of different models: fetch them again",
            )
    return found


def _read_ids(
    ids: dict[str, int], texts: dict[str, str], tokenizer: dict[str, Any], configs: tuple[dict[str, Any], ...]
) -> None:
    added: dict[str, int] = {}
    for token in tokenizer.get("added_tokens") or []:
        added.setdefault(token["content"], token["id"])
    ids.update({kind: added[text] for kind, text in texts.items() if text in added})
    for config in configs:
        for kind in texts:
            number = config.get(f"{kind}_token_id")
            if type(number) is int:  # a list of several, as Llama has for eos, has no key in GGUF
                ids.setdefault(kind, number)


def token_text(token: Any) -> str:
    """The text of a token as tokenizer_config.json has it: plain, or an object with its properties."""
    match token:
        case str(text) | {"content": str(text)}:
            return text
        case _:
            return ""


def _chat_template(folder: Path, config: dict[str, Any]) -> str | list[dict[str, str]] | None:
    """As one text, or as a list of named ones, as `tokenizer.chat_template` takes them."""
    template = config["chat_template"] if "chat_template" in config else _template_of_its_own(folder)
    named = isinstance(template, list) and all(
        isinstance(one, dict) and all(isinstance(value, str) for value in one.values()) for one in template
    )
    return template if isinstance(template, str) or named else None


def _template_of_its_own(folder: Path) -> Any:
    """The template from files of its own: `chat_template.jinja` and what adds to it, or the older .json."""
    path = folder / "chat_template.jinja"
    if not path.is_file():
        return strict_json.read_optional(folder / "chat_template.json").get("chat_template")
    additional = [
        one for one in sorted((folder / "additional_chat_templates").glob("*.jinja")) if one.is_file()
    ]
    for one in additional:
        require_inside(folder, one)
    if not additional:
        return _read_text(path)
    return [
        {"name": "default", "template": _read_text(path)},
        *({"name": one.stem, "template": _read_text(one)} for one in additional),
    ]


def _read_text(path: Path) -> str:
    """The text of `path`; CheckpointError if it cannot be read."""
    try:
        return path.read_bytes().decode("utf-8").replace("\r\n", "\n")
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"cannot read {path}: {error}", "Fetch the file again") from error


def _read_post_processor(processor: Any, texts: dict[str, str], add: dict[str, bool]) -> None:
    """What the tokenizer adds around a text goes into `add`; `texts` learns of tokens not named elsewhere."""
    match processor:
        case {"processors": list(parts)}:
            for part in parts:
                _read_post_processor(part, texts, add)
        case {"type": "ByteLevel"}:
            add.setdefault("bos", False)
            add.setdefault("eos", False)
        case {"type": "RobertaProcessing"}:
            add |= {"bos": True, "eos": True, "sep": True}
            for kind in ("cls", "sep"):
                match processor.get(kind):
                    case [str(text), *_]:
                        texts[kind] = texts[kind] or text
        case {"type": "TemplateProcessing", "single": list(single)}:
            pair = processor.get("pair")
            _read_template(single, pair if isinstance(pair, list) else [], texts, add)
        case _:
            pass


def _read_template(single: list[Any], pair: list[Any], texts: dict[str, str], add: dict[str, bool]) -> None:
    first = _special(single[0]) if len(single) > 1 else ""
    last = _special(single[-1]) if len(single) > 1 else ""
    if first:
        if first not in (texts["bos"], texts["cls"]):
            texts["bos"] = texts["bos"] or first
            texts["cls"] = texts["cls"] or first
        add["bos"] = first in (texts["bos"], texts["cls"])
    if last:
        if last != texts["eos"]:
            previous = "eot" if "eot" not in texts else "eom"
            texts[previous] = texts["eos"]
            texts["eos"] = last
        add["eos"] = True
    _read_separator(pair, first, last, texts, add)


def _read_separator(
    pair: list[Any], first: str, last: str, texts: dict[str, str], add: dict[str, bool]
) -> None:
    """Whether a pair of texts has a separator between them, once what goes around is taken off."""
    if first and pair and _special(pair[0]) == first:
        pair = pair[1:]
    if last and pair and _special(pair[-1]) == last:
        pair = pair[:-1]
    middle = pair[1:-1]
    if not middle or (_sequence(pair[0]), _sequence(pair[-1])) != ("A", "B"):
        return
    separators = [text for text in (texts["sep"], texts["eos"]) if text]
    add["sep"] = (_special(middle[0]) in separators and not last) or (
        len(middle) == 2 and _special(middle[1]) in separators
    )
    if add["sep"] and not texts["sep"]:
        texts["sep"] = texts["eos"]


def _special(entry: Any) -> str:
    match entry:
        case {"SpecialToken": {"id": str(text)}}:
            return text
        case _:
            return ""


def _sequence(entry: Any) -> str:
    match entry:
        case {"Sequence": {"id": str(name)}}:
            return name
        case _:
            return ""
