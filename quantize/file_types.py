"""The output types, by name. Imports nothing heavy: a command line lists them."""

from __future__ import annotations

import difflib

from localai.errors import UsageError

FILE_TYPES = {
    "F32": 0,
    "F16": 1,
    "BF16": 32,
    "Q8_0": 7,
    "Q6_K": 18,
    "Q5_K_M": 17,
    "Q5_K_S": 16,
    "Q5_0": 8,
    "Q5_1": 9,
    "Q4_K_M": 15,
    "Q4_K_S": 14,
    "Q4_0": 2,
    "Q4_1": 3,
    "Q3_K_L": 13,
    "Q3_K_M": 12,
    "Q3_K_S": 11,
    "Q2_K": 10,
}
"""The output types, best first within a width, and their numbers in llama.cpp (`llama_ftype`)."""


def output_type(name: str) -> str:
    """The output type `name`, as it is spelled; UsageError with the nearest ones if there is none."""
    upper = name.upper()
    if upper in FILE_TYPES:
        return upper
    near = difflib.get_close_matches(upper, FILE_TYPES, n=3)
    raise UsageError(
        f"there is no output type {name!r}",
        f"Did you mean {' or '.join(near)}?" if near else f"Supported: {', '.join(FILE_TYPES)}",
    )
