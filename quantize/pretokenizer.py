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
_QWEN35 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}"
    r"| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# By the case of letters: words that begin with capitals, then others; for gpt-4o both with contractions.
_CASED = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+%s"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*%s"
    r"|%s| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
_GPT4O = _CASED % (_CONTRACTIONS, _CONTRACTIONS, r"\p{N}{1,3}")
_TEKKEN = _CASED % ("", "", r"\p{N}")
# Line ends stand in DeepSeek's patterns as themselves.
_DEEPSEEK_V3 = (
    r"\p{N}{1,3}",
    "[一-龥぀-ゟ゠-ヿ]+",
    r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+"""
    "|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+",
)
_DEEPSEEK_CODER = ("[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[一-龥ࠀ-一가-퟿]+")

# fmt: off
KNOWN = (
    "deepseek-r1-qwen", "qwen2", "qwen35", "llama-bpe", "llama3", "llama-v3", "llama4", "smaug-bpe",
    "smollm", "gpt-2", "gpt-4o", "default", "deepseek-llm", "deepseek-coder", "deepseek-v3", "a.x-4.0",
    "afmoe", "bailingmoe", "bailingmoe2", "bloom", "chameleon", "chatglm-bpe", "codeshell", "cohere2moe",
    "command-r", "dbrx", "exaone", "exaone-moe", "exaone4", "f2llmv2", "falcon", "falcon-h1", "falcon3",
    "gemma4", "gigachat", "glm4", "glm5", "gpt3-finnish", "granite-docling", "granite-embed-multi-311m",
    "granite-embed-multi-97m", "grok-2", "hunyuan", "hunyuan-dense", "hy_v4", "jais", "jais-2", "jina-de",
    "jina-es", "jina-v1-en", "jina-v2-code", "jina-v2-de", "jina-v2-es", "jina-v5-nano", "joyai-llm",
    "kanana2", "kimi-k2", "kormo", "laguna", "lfm2", "llada-moe", "megrez", "mellum", "mellum2", "midm-2.0",
    "minerva-7b", "minicpm5", "minimax-m2", "modern-bert", "mpt", "olmo", "phi-2", "pixtral", "poro-chat",
    "refact", "roberta-bpe", "sarvam-moe", "seed-coder", "solar-open", "spark2_5", "stablelm2", "starcoder",
    "superbpe", "talkie", "tekken", "tiny_aya", "trillion", "ufakzeka", "viking", "whitespace", "youtu",
)
# fmt: on
"""Names that `--pre-tokenizer` takes: all that llama.cpp (of llama-cpp-python 0.3.36) has for BPE."""

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
        case [pattern, "bytes"], False if pattern == f"split {_QWEN35}":
            return "qwen35"
        case [pattern, "bytes"], False if pattern == f"split {_GPT4O}":
            return "gpt-4o"
        case [pattern, "bytes"], True if pattern == f"split {_TEKKEN}":
            return "tekken"
        case [*patterns, "bytes"], False if patterns == [f"split {cut}" for cut in _DEEPSEEK_V3]:
            return "deepseek-v3"
        case [*patterns, "digits", "bytes"], False if patterns == [f"split {cut}" for cut in _DEEPSEEK_CODER]:
            return "deepseek-coder"
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
