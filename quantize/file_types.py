"""The output types, by name. Imports nothing heavy: a command line lists them."""

from __future__ import annotations

import difflib

from localai.errors import UsageError
from models.ggml_types import WRITABLE

FILE_TYPES = {
    "F32": 0,
    "BF16": 32,
    "F16": 1,
    "Q8_0": 7,
    "Q6_K": 18,
    "Q5_K_M": 17,
    "Q5_K_S": 16,
    "Q5_1": 9,
    "Q5_0": 8,
    "Q4_K_M": 15,
    "Q4_K_S": 14,
    "IQ4_NL": 25,
    "IQ4_XS": 30,
    "Q4_1": 3,
    "Q4_0": 2,
    "Q3_K_L": 13,
    "Q3_K_M": 12,
    "IQ3_M": 27,
    "IQ3_S": 26,
    "IQ3_XS": 22,
    "Q3_K_S": 11,
    "IQ3_XXS": 23,
    "Q2_K": 10,
    "IQ2_M": 29,
    "Q2_K_S": 21,
    "IQ2_S": 28,
    "IQ2_XS": 20,
    "IQ2_XXS": 19,
    "IQ1_M": 31,
    "IQ1_S": 24,
    "TQ2_0": 37,
    "TQ1_0": 36,
}
"""The output types, best first, and their numbers in llama.cpp (`llama_ftype`)."""

ALIASES = {"Q3_K": "Q3_K_M", "Q4_K": "Q4_K_M", "Q5_K": "Q5_K_M"}
"""Short names that llama-quantize takes, too."""

TERNARY = ("TQ1_0", "TQ2_0")
"""Types for models that were trained with weights of -1, 0 and 1; others lose their mind."""


def output_type(name: str) -> str:
    """The output type `name`, as it is spelled; UsageError with the nearest ones if there is none."""
    upper = ALIASES.get(name.upper(), name.upper())
    if upper in FILE_TYPES:
        return upper
    raise UsageError(f"there is no output type {name!r}", _nearest(upper, list(FILE_TYPES)))


def tensor_type(name: str) -> int:
    """ggml's number of the tensor type `name`, in any case; UsageError if rows cannot be made of it."""
    if name.upper() in WRITABLE:
        return WRITABLE[name.upper()]
    raise UsageError(f"there is no tensor type {name!r}", _nearest(name.upper(), list(WRITABLE)))


def tensor_type_rule(text: str) -> tuple[str, int]:
    """PATTERN=TYPE as the pattern in lower case and ggml's number; UsageError if it has another form."""
    pattern, equals, kind = text.partition("=")
    if not pattern or not equals or "\0" in pattern:
        raise UsageError(
            f"{text!r} is not of the form PATTERN=TYPE", r"An example: --tensor-type 'ffn_down=Q6_K'"
        )
    return pattern.lower(), tensor_type(kind)


def _nearest(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=3)
    return f"Did you mean {' or '.join(near)}?" if near else f"Supported: {', '.join(known)}"
