"""Which of llama.cpp's pre-tokenizers a tokenizer.json defines.

Recognised by the definition: the pattern that cuts text into words, the steps around it, and what the
tokenizer adds. llama.cpp's converter hashes the tokens of one sentence instead, which only works for
vocabularies that it has seen. The patterns here are those of llama.cpp's src/llama-vocab.cpp.
"""

from __future__ import annotations

import difflib
import json
from typing import Any

from localai.errors import CheckpointError, UsageError

_CUT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|%s"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_QWEN2 = _CUT % r"\p{N}"
_LLAMA3 = _CUT % r"\p{N}{1,3}"

# fmt: off
KNOWN = (
    "deepseek-r1-qwen", "qwen2", "qwen35", "llama-bpe", "llama4", "smaug-bpe", "smollm", "gpt-2", "gpt-4o",
    "default", "deepseek-llm", "deepseek-coder", "deepseek-v3", "falcon", "falcon3", "mpt", "starcoder",
    "refact", "command-r", "stablelm2", "olmo", "dbrx", "tekken", "codeshell", "exaone", "minerva-7b",
    "megrez", "seed-coder", "hunyuan",
)
# fmt: on
"""Names of llama.cpp that `--pre-tokenizer` takes."""

# Other normalizers change the text before it is cut, and llama.cpp would not.
_HARMLESS_NORMALIZERS = ("NFC",)


def name_for(tokenizer: dict[str, Any], adds_bos: bool) -> str:
    """llama.cpp's name for the pre-tokenizer of `tokenizer` (a tokenizer.json).

    `adds_bos`: the tokenizer puts a begin-of-sentence token first. CheckpointError if none fits.
    """
    steps = _steps(tokenizer.get("pre_tokenizer"))
    ignore_merges = bool(tokenizer.get("model", {}).get("ignore_merges"))
    normalizers = _steps(tokenizer.get("normalizer"), "normalizers")
    if all(step.get("type") in _HARMLESS_NORMALIZERS for step in normalizers):
        found = _match([_describe(step) for step in steps], ignore_merges, adds_bos)
        if found:
            return found
    raise CheckpointError(
        f"tokenizer.json cuts text in a way that has no known name: {_show(steps, normalizers)}",
        "If you know the name, give it with --pre-tokenizer NAME",
    )


def require_known(name: str) -> str:
    """`name` if llama.cpp has a pre-tokenizer of that name, else UsageError."""
    if name in KNOWN:
        return name
    near = difflib.get_close_matches(name, KNOWN, n=1)
    raise UsageError(
        f"llama.cpp has no pre-tokenizer {name!r}",
        f"Did you mean {near[0]}?" if near else f"Known: {', '.join(KNOWN)}",
    )


def _match(steps: list[str], ignore_merges: bool, adds_bos: bool) -> str:
    match steps, ignore_merges:
        case [pattern, "bytes"], False if pattern == f"split {_QWEN2}":
            return "deepseek-r1-qwen" if adds_bos else "qwen2"  # one and the same to llama.cpp
        case [pattern, "bytes"], _ if pattern == f"split {_LLAMA3}":
            return "llama-bpe" if ignore_merges else "smaug-bpe"
        case ["digits", "bytes with gpt-2's pattern"], False:
            return "smollm"
        case ["bytes with gpt-2's pattern"], False:
            return "gpt-2"
        case _:
            return ""


def _steps(part: Any, children: str = "pretokenizers") -> list[dict[str, Any]]:
    """A pre-tokenizer or normalizer as the flat list of its steps."""
    match part:
        case None:
            return []
        case {"type": "Sequence"} if isinstance(nested := part.get(children), list):
            return [step for child in nested for step in _steps(child, children)]
        case {"type": str()}:
            return [part]
        case _:
            raise CheckpointError(
                f"tokenizer.json has a malformed list of {children}", "Fetch tokenizer.json again"
            )


def _describe(step: dict[str, Any]) -> str:
    """The step in one line, without what does not change how text is cut; "" for one with no counterpart."""
    match step:
        case {"type": "Split", "pattern": {"Regex": str(pattern)}, "behavior": "Isolated"} if not step.get(
            "invert"
        ):
            return f"split {pattern}"
        case {"type": "ByteLevel", "add_prefix_space": False}:
            return "bytes with gpt-2's pattern" if step.get("use_regex", True) else "bytes"
        case {"type": "Digits", "individual_digits": True}:
            return "digits"
        case _:
            return ""


def _show(steps: list[dict[str, Any]], normalizers: list[dict[str, Any]]) -> str:
    text = json.dumps([*normalizers, *steps], ensure_ascii=False)
    return text if len(text) <= 400 else f"{text[:400]}..."
