"""Keys in the system's keyring: macOS keychain, Secret Service, KWallet, Windows credentials.

The `keyring` package takes a noticeable time to import, so that happens only when a key is asked for. Only
backends that the package itself recommends are used: never the ones that keep a secret in a plain file.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Final

from localai.errors import HistoryError
from localai.history.database import KEY_BYTES

if TYPE_CHECKING:
    from keyring.backend import KeyringBackend

SERVICE: Final = "localai"
_REFUSED: Final = ("keyring.backends.null", "keyring.backends.fail", "keyrings.alt")
_HINT: Final = "Unlock the keyring of your desktop, or use a passphrase"


def problem() -> str:
    """Why there is no keyring to use, in a few words; empty if there is one."""
    return "" if _backend() is not None else "this system offers no keyring service"


def store(entry: str, key: bytes) -> None:
    """Keep `key` under the name `entry`, and see that it is there. Raises HistoryError."""
    backend = _needed()
    try:
        backend.set_password(SERVICE, entry, key.hex())
        kept = backend.get_password(SERVICE, entry)
    except Exception as error:  # another process: backends raise whatever their libraries do
        raise _failed("does not take the key", error) from error
    if kept != key.hex():
        raise HistoryError("The keyring does not keep the key", _HINT)


def fetch(entry: str) -> bytes | None:
    """The key of that name; None if the keyring has none. Raises HistoryError, as when it stays locked."""
    backend = _needed()
    try:
        kept = backend.get_password(SERVICE, entry)
    except Exception as error:  # as above
        raise _failed("does not give the key", error) from error
    try:
        key = bytes.fromhex(kept or "")
    except ValueError:
        return None
    return key if len(key) == KEY_BYTES else None


def remove(entry: str) -> None:
    """Forget the key of that name, as far as the keyring can be reached: a key without a file is no harm."""
    backend = _backend()
    if backend is None:
        return
    try:
        backend.delete_password(SERVICE, entry)
    except Exception:  # noqa: BLE001 - as above; it may also be gone already
        return


def _needed() -> KeyringBackend:
    backend = _backend()
    if backend is None:
        raise HistoryError(f"The key cannot be had: {problem()}", _HINT)
    return backend


def _backend() -> KeyringBackend | None:
    backend: KeyringBackend
    try:
        chosen = _library().get_keyring()
        # The chainer stands for several; what it would write to need not be what it reads from.
        for backend in getattr(chosen, "backends", None) or [chosen]:
            if backend.priority >= 1 and not type(backend).__module__.startswith(_REFUSED):
                return backend
    except Exception:  # noqa: BLE001 - as above, and the user's configuration names what is imported
        return None
    return None


def _library() -> ModuleType:
    """The package `keyring`, without the network code that it would bring.

    A package that it needs imports `urllib.request` for a function that is not called: an empty module stands
    for that meanwhile. What a backend imports later is the user's own choice.
    """
    unwanted = "urllib.request"
    stands_in = unwanted not in sys.modules
    if stands_in:
        sys.modules[unwanted] = ModuleType(unwanted)
    try:
        import keyring
    finally:
        if stands_in:
            del sys.modules[unwanted]
    return keyring


def _failed(what: str, error: Exception) -> HistoryError:
    words = " ".join(str(error).split())[:200]
    return HistoryError(f"The keyring {what}: {words or type(error).__name__}", _HINT)
