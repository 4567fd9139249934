"""tokenizer.json -> GGUF vocabulary. Only byte-level BPE, which all R1 distills have."""

from __future__ import annotations

import os
from collections.abc import Container, Iterator
from dataclasses import dataclass
from typing import Any

from gguf import GGUFWriter, TokenType

from localai.errors import CheckpointError, UnsupportedModel
from quantize import pretokenizer, strict_json
from quantize.checkpoint import Checkpoint
from quantize.special_tokens import KINDS, SpecialTokens, read_special_tokens, token_text


@dataclass(frozen=True)
class Vocabulary:
    """What GGUF says of a tokenizer. `tokens` and `types` have one entry for each row of the embedding."""

    tokens: list[str]
    types: list[int]
    merges: list[str]
    pre_tokenizer: str
    special: SpecialTokens

    def add_metadata(self, writer: GGUFWriter) -> None:
        """Write it, in the order in which llama.cpp's converter does."""
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(self.pre_tokenizer)
        writer.add_token_list(self.tokens)
        writer.add_token_types(self.types)
        if self.merges:
            writer.add_token_merges(self.merges)
        self.special.add_metadata(writer)


def read_vocabulary(checkpoint: Checkpoint, vocab_size: int, pre_tokenizer: str = "") -> Vocabulary:
    """The vocabulary of `checkpoint`, padded to `vocab_size` tokens.

    `pre_tokenizer` is llama.cpp's name of it; "" finds it out. CheckpointError or UnsupportedModel if the
    tokenizer is malformed or of another kind.
    """
    path = checkpoint.folder / "tokenizer.json"
    if not os.path.lexists(path):
        if (checkpoint.folder / "tokenizer.model").is_file():
            raise UnsupportedModel(
                f"{checkpoint.folder} has a SentencePiece tokenizer, no tokenizer.json", _ONLY_BPE
            )
        raise CheckpointError(f"{checkpoint.folder} has no tokenizer.json", "Fetch tokenizer.json, too")
    tokenizer = strict_json.read_object(path)
    _require_byte_level_bpe(tokenizer)
    added = _added_tokens(tokenizer)
    _add_declared(added, tokenizer["model"]["vocab"], checkpoint, vocab_size)
    special = read_special_tokens(checkpoint, tokenizer, vocab_size)
    if pre_tokenizer:
        name = pretokenizer.require_known(pre_tokenizer)
    else:
        name = pretokenizer.name_for(tokenizer, special.add.get("bos", False))
    tokens, types = _tokens(tokenizer["model"]["vocab"], added, vocab_size)
    return Vocabulary(tokens, types, _merges(tokenizer["model"].get("merges")), name, special)


def _require_byte_level_bpe(tokenizer: dict[str, Any]) -> None:
    model = tokenizer.get("model")
    if not isinstance(model, dict) or not isinstance(model.get("vocab"), dict | list):
        raise CheckpointError("tokenizer.json has no vocabulary", _FETCH_AGAIN)
    decoder = tokenizer.get("decoder")
    inner = decoder.get("decoders") if isinstance(decoder, dict) else None
    decoders = [decoder, *(inner if isinstance(inner, list) else [])]
    byte_level = any(isinstance(step, dict) and step.get("type") == "ByteLevel" for step in decoders)
    kind = model.get("type", "BPE")
    if kind != "BPE" or model.get("byte_fallback") or not byte_level or not isinstance(model["vocab"], dict):
        found = f"{kind} with byte fallback" if model.get("byte_fallback") else f"{kind} without a byte level"
        raise UnsupportedModel(
            f"the tokenizer is {kind if kind != 'BPE' else found}, which is not supported", _ONLY_BPE
        )


def _added_tokens(tokenizer: dict[str, Any]) -> dict[int, dict[str, Any]]:
    added = tokenizer.get("added_tokens") or []
    if not isinstance(added, list):
        raise CheckpointError("tokenizer.json has added tokens that are not a list", _FETCH_AGAIN)
    for token in added:
        match token:
            case {"id": int(), "content": str()}:
                pass
            case _:
                raise CheckpointError(
                    f"tokenizer.json has a malformed added token: {str(token)[:100]}", _FETCH_AGAIN
                )
    return {token["id"]: token for token in added}


def _add_declared(
    added: dict[int, dict[str, Any]], vocab: dict[str, Any], checkpoint: Checkpoint, vocab_size: int
) -> None:
    """Put into `added` what only the files beside tokenizer.json say of added tokens.

    As transformers does: what is declared there wins, and a token without a number gets the next free one.
    One that has no row in the embedding is left out: the model cannot know it.
    """
    numbers = {entry["content"]: number for number, entry in added.items()}
    for entry in _declared(checkpoint, numbers):
        text = entry["content"]
        free = max(len(vocab), 1 + max(added, default=-1))
        number = numbers.get(text, vocab.get(text, free))
        if text and type(number) is int and number < vocab_size:
            added[number] = entry
            numbers[text] = number


def _declared(checkpoint: Checkpoint, known: Container[str]) -> Iterator[dict[str, Any]]:
    """The added tokens that tokenizer_config.json or added_tokens.json declare; then the special tokens, if
    they are not `known` otherwise."""
    config = checkpoint.tokenizer_config
    special = list(_special_texts({**_defaults(checkpoint), **config}))
    listed = config.get("added_tokens_decoder")
    if listed is None:
        older = strict_json.read_optional(checkpoint.folder / "added_tokens.json")
        listed = {number: {"content": text} for text, number in older.items()}
    if not isinstance(listed, dict):
        raise CheckpointError("tokenizer_config.json has an added_tokens_decoder of no use", _FETCH_CONFIG)
    seen = set()
    for _, entry in sorted(listed.items(), key=lambda item: _number(item[0])):
        match entry:
            case {"content": str(text)}:
                seen.add(text)
                is_special = bool(entry.get("special")) or text in special
                yield {"normalized": not is_special, **entry, "special": is_special}
            case _:
                raise CheckpointError(f"a declared token is malformed: {str(entry)[:100]}", _FETCH_CONFIG)
    for text in dict.fromkeys(special):
        if text not in known and text not in seen:
            yield {"content": text, "special": True, "normalized": False}


def _defaults(checkpoint: Checkpoint) -> dict[str, str]:
    """The special tokens that the tokenizer's class has where tokenizer_config.json does not state them.

    transformers (5) takes its Qwen2Tokenizer for these; stated as null, there is none, as in R1's own files.
    """
    model, kind = checkpoint.config.get("model_type"), checkpoint.tokenizer_config.get("tokenizer_class")
    is_qwen2 = model == "qwen2" or kind in _QWEN2 or (kind is None and model == "qwen3")
    return {"unk_token": "<|endoftext|>", "pad_token": "<|endoftext|>"} if is_qwen2 else {}


def _number(text: Any) -> int:
    try:
        return int(text)
    except (TypeError, ValueError) as error:
        raise CheckpointError(
            f"a declared token has the number {str(text)[:100]!r}", _FETCH_CONFIG
        ) from error


def _special_texts(config: dict[str, Any]) -> Iterator[str]:
    """The special tokens that tokenizer_config.json names, in transformers' order."""
    more: list[Any] = []
    for key in ("additional_special_tokens", "extra_special_tokens"):
        named = config.get(key)
        more += named.values() if isinstance(named, dict) else named if isinstance(named, list) else []
    for token in [*(config.get(f"{kind}_token") for kind in KINDS), *more]:
        if text := token_text(token):
            yield text


def _tokens(
    vocab: dict[str, Any], added: dict[int, dict[str, Any]], vocab_size: int
) -> tuple[list[str], list[int]]:
    _require_distinct(vocab, vocab_size)
    known = dict(zip(vocab.values(), vocab, strict=True))
    tokens = [known[i] if i in known else f"[PAD{i}]" for i in range(vocab_size)]  # noqa: SIM401 - quicker
    normal, unused = int(TokenType.NORMAL), int(TokenType.UNUSED)
    types = [normal if i in known else unused for i in range(vocab_size)]
    for number, entry in added.items():
        _require_in_range(entry["content"], number, vocab_size)
        tokens[number], types[number] = _added(entry)
    return tokens, types


def _require_distinct(vocab: dict[str, Any], vocab_size: int) -> None:
    """CheckpointError unless each token has a number of its own that the embedding has a row for."""
    numbers = list(vocab.values())
    distinct = set(map(type, numbers)) <= {int} and len(set(numbers)) == len(numbers)
    if distinct and (not numbers or (min(numbers) >= 0 and max(numbers) < vocab_size)):
        return  # quick: there are 150,000 of them
    seen: dict[int, str] = {}
    for token, number in vocab.items():
        _require_in_range(token, number, vocab_size)
        if number in seen:
            raise CheckpointError(
                f"tokenizer.json gives {token!r} the number {number}, which {seen[number]!r} has",
                _FETCH_AGAIN,
            )
        seen[number] = token


def _require_in_range(token: str, number: Any, vocab_size: int) -> None:
    if type(number) is not int or not 0 <= number < vocab_size:
        raise CheckpointError(
            f"tokenizer.json gives {token!r} the number {number!r}, but config.json has {vocab_size} tokens",
            "tokenizer.json and config.json are of different models",
        )


def _added(entry: dict[str, Any]) -> tuple[str, int]:
    """Text and type of an added token: one that is special, or looks it, is control and never printed."""
    text = str(entry["content"])
    if not entry.get("normalized", True):
        text = _as_decoded(text)
    if entry.get("special") or _looks_special(text):
        return text, int(TokenType.CONTROL)
    return text.replace("\u2581", " "), int(TokenType.USER_DEFINED)


def _looks_special(text: str) -> bool:
    # llama.cpp's converter: some models do not mark as special what plainly is
    return (
        text in {"<pad>", "<mask>", "<2mass>", "[@BOS@]"}
        or (text.startswith("<|") and text.endswith("|>"))
        or (text.startswith("<｜") and text.endswith("｜>"))
        or (text.startswith("<unused") and text.endswith(">"))
    )


def _as_decoded(text: str) -> str:
    """`text` as a byte-level decoder prints it: each character is a byte, if each can be one."""
    if all(char in _BYTE_OF for char in text):
        return bytes(_BYTE_OF[char] for char in text).decode("utf-8", errors="replace")
    return text


def _byte_of() -> dict[str, int]:
    """GPT-2's alphabet: printable bytes stand for themselves, the others follow from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}


_BYTE_OF = _byte_of()


def _merges(merges: Any) -> list[str]:
    """Each as "left right", from either spelling; a space within a part becomes its byte-level letter."""
    if merges is None:
        return []
    if not isinstance(merges, list):
        raise CheckpointError("tokenizer.json has merges that are not a list", _FETCH_AGAIN)
    if all(type(merge) is str and merge.count(" ") == 1 and len(merge) > 2 for merge in merges):
        return merges
    return [_merge(merge) for merge in merges]


def _merge(merge: Any) -> str:
    match merge:
        case str(text) if text.count(" ") == 1 and len(text) > 2:
            return text
        case [str(left), str(right)]:
            return f"{left.replace(' ', 'Ġ')} {right.replace(' ', 'Ġ')}"
        case _:
            raise CheckpointError(f"tokenizer.json has a malformed merge: {str(merge)[:100]}", _FETCH_AGAIN)


_QWEN2 = {"Qwen2Tokenizer", "Qwen2TokenizerFast"}
_FETCH_AGAIN = "Fetch tokenizer.json again"
_FETCH_CONFIG = "Fetch tokenizer_config.json and added_tokens.json again"
_ONLY_BPE = "Supported is byte-level BPE, which all DeepSeek-R1 distills have"
