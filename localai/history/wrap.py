"""A key in an envelope that a passphrase opens: Argon2id (RFC 9106) and ChaCha20-Poly1305 (RFC 8439)."""

from __future__ import annotations

import os
import unicodedata
from typing import Annotated, Final

import msgspec

from localai.errors import HistoryError, HistoryLocked

MEMORY_KIB: Final = 64 * 1024
PASSES: Final = 3
LANES: Final = 4
"""The second choice that RFC 9106 recommends: about 0.1 s for each passphrase that is tried."""
_BOUND_TO: Final = b"localai history key, envelope 1"


class Envelope(msgspec.Struct, frozen=True, kw_only=True):
    """A key, encrypted, and what is needed besides the passphrase to open it."""

    # Bounded: who can write the file could otherwise make us take all memory.
    memory_kib: Annotated[int, msgspec.Meta(ge=8 * 1024, le=2 * 1024 * 1024)]
    passes: Annotated[int, msgspec.Meta(ge=1, le=100)]
    lanes: Annotated[int, msgspec.Meta(ge=1, le=64)]
    salt: Annotated[bytes, msgspec.Meta(min_length=16, max_length=64)]
    nonce: Annotated[bytes, msgspec.Meta(min_length=12, max_length=12)]
    sealed: bytes


def seal(key: bytes, passphrase: str, *, memory_kib: int = MEMORY_KIB, passes: int = PASSES) -> Envelope:
    """Wrap `key`. Raises HistoryLocked for an empty passphrase."""
    from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

    salt, nonce = os.urandom(16), os.urandom(12)
    secret = _secret(passphrase, salt, memory_kib, passes, LANES)
    return Envelope(
        memory_kib=memory_kib,
        passes=passes,
        lanes=LANES,
        salt=salt,
        nonce=nonce,
        sealed=ChaCha20Poly1305(secret).encrypt(nonce, key, _BOUND_TO),
    )


def unseal(envelope: Envelope, passphrase: str) -> bytes:
    """The key. Raises HistoryLocked for a wrong passphrase."""
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

    secret = _secret(passphrase, envelope.salt, envelope.memory_kib, envelope.passes, envelope.lanes)
    try:
        return ChaCha20Poly1305(secret).decrypt(envelope.nonce, envelope.sealed, _BOUND_TO)
    except InvalidTag as error:
        raise HistoryLocked("That is not the passphrase of the conversations", "Try again") from error


def _secret(passphrase: str, salt: bytes, memory_kib: int, passes: int, lanes: int) -> bytes:
    from argon2.exceptions import HashingError
    from argon2.low_level import Type, hash_secret_raw

    if not passphrase:
        raise HistoryLocked("The passphrase is empty", "Type the passphrase of the conversations")
    # Another keyboard may compose the same letters otherwise.
    typed = unicodedata.normalize("NFC", passphrase).encode("utf-8", "surrogateescape")
    try:
        return hash_secret_raw(typed, salt, passes, memory_kib, lanes, 32, Type.ID)
    except HashingError as error:
        raise HistoryError(
            f"The passphrase cannot be checked: {error}", f"It takes {memory_kib // 1024} MiB of free memory"
        ) from error
