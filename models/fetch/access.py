"""Which hub is asked, and with which token: what the user set, and nothing that lies about.

HF_ENDPOINT names a mirror. A token is sent if HF_TOKEN has one, or the file that LOCALAI_HUB_TOKEN_FILE
names: the token that another program has stored is not ours to use.
"""

from __future__ import annotations

import base64
import ipaddress
import netrc
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit, urlunsplit

from localai.errors import UsageError
from models.header import printable

PUBLIC: Final = "https://huggingface.co"
_MAX_TOKEN: Final = 4096


@dataclass(frozen=True)
class Access:
    """A hub, and what authorizes us there. The headers are secret, and are not shown."""

    endpoint: str
    """Without a slash at its end; it may have a path."""
    headers: dict[str, str] = field(default_factory=dict, repr=False)

    @property
    def host(self) -> str:
        """What messages call it."""
        return printable(urlsplit(self.endpoint).netloc)


def from_environment() -> Access:
    """What the environment says. UsageError if it cannot be used."""
    text = os.environ.get("HF_ENDPOINT") or PUBLIC
    endpoint, headers = without_userinfo(text.strip().rstrip("/"))
    parts = urlsplit(endpoint)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise UsageError(
            f"HF_ENDPOINT is {printable(endpoint)!r}, which is not the address of a hub", f"Such as {PUBLIC}"
        )
    if token := _token():
        headers = {"Authorization": f"Bearer {token}"}
    if headers and parts.scheme == "http" and not is_loopback(parts.hostname):
        raise UsageError(
            f"The token for {printable(parts.hostname)} would be sent unencrypted, for all to read",
            "Use https in HF_ENDPOINT, or unset HF_TOKEN",
        )
    return Access(endpoint, headers)


def is_loopback(host: str | None) -> bool:
    """Whether `host` is this machine."""
    if host is None:
        return False
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def without_userinfo(url: str) -> tuple[str, dict[str, str]]:
    """`url` without a user and a password, and the header that has them instead. UsageError if malformed."""
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - it is checked only when it is asked for
    except ValueError as error:
        shown = printable(url.rpartition("@")[2])
        raise UsageError(f"{shown!r} is not an address", "Check it") from error
    userinfo, at, host = parts.netloc.rpartition("@")
    if not at:
        return url, {}
    user, _, password = userinfo.partition(":")
    return urlunsplit(parts._replace(netloc=host)), basic(unquote(user), unquote(password))


def basic(user: str, password: str) -> dict[str, str]:
    """The header for a user and a password."""
    encoded = base64.b64encode(f"{user}:{password}".encode()).decode()
    return {"Authorization": f"Basic {encoded}"}


def _token() -> str:
    token, name = os.environ.get("HF_TOKEN", "").strip(), "HF_TOKEN"
    if not token and (file := os.environ.get("LOCALAI_HUB_TOKEN_FILE")):
        token, name = _read(Path(file).expanduser()), "The token in LOCALAI_HUB_TOKEN_FILE"
    if token and not (
        token.isascii() and token.isprintable() and " " not in token and len(token) <= _MAX_TOKEN
    ):
        raise UsageError(f"{name} is not a token: it has characters that no token has", "Copy it again")
    return token


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(_MAX_TOKEN + 1).decode("utf-8", errors="replace").strip()
    except OSError as error:
        raise UsageError(
            f"The token file {printable(str(path))} cannot be read: {error.strerror}",
            "Mend LOCALAI_HUB_TOKEN_FILE",
        ) from error


def credentials(url: str) -> dict[str, str]:
    """The header with the user and the password that ~/.netrc, or NETRC, has for the host of `url`; or none.

    Its entry for any other host ("default") is passed over: it would go to whoever asks.
    """
    host = urlsplit(url).hostname
    named = os.environ.get("NETRC")
    paths = [Path(named)] if named else [Path.home() / ".netrc", Path.home() / "_netrc"]
    path = next((path for path in paths if path.is_file()), None)
    if host is None or path is None:
        return {}
    try:
        known = netrc.netrc(path).hosts.get(host)
    except (netrc.NetrcParseError, OSError, UnicodeDecodeError):
        return {}
    return basic(known[0], known[2]) if known else {}
