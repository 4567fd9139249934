"""How good a passphrase is, in words."""

from __future__ import annotations

from typing import Final

_CLASSES: Final = (str.islower, str.isupper, str.isdigit)
_WEAK, _FAIR = 30.0, 45.0
"""Bits. Guessing costs a tenth of a second and 64 MB each (Argon2id), so 45 bits last for any attacker."""


def strength(passphrase: str, least: int) -> str:
    """One short sentence on `passphrase`, which must have at least `least` letters; "" for an empty one."""
    if not passphrase:
        return ""
    if len(passphrase) < least:
        return f"At least {least} letters. Several words are good."
    bits = _bits(passphrase)
    if bits < _WEAK:
        return "Easy to guess. Another word or two would make it strong."
    return "Fair. Another word would make it strong." if bits < _FAIR else "Strong."


def _bits(text: str) -> float:
    """A cautious guess: two bits for a letter, as in words, and more where kinds of letters are mixed."""
    kinds = {next((n for n, is_kind in enumerate(_CLASSES) if is_kind(letter)), -1) for letter in text}
    return min(len(text), 2 * len(set(text))) * (2 + 0.5 * (len(kinds) - 1))
