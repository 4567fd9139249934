"""How this machine reaches the web, as the environment or the system says: proxies and certificates.

HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY say how; SSL_CERT_FILE, SSL_CERT_DIR, REQUESTS_CA_BUNDLE and
CURL_CA_BUNDLE whom to trust.
"""

from __future__ import annotations

import os
import ssl
import sys
import urllib.request
from pathlib import Path
from typing import Final

from localai.errors import FetchError
from models.fetch.where import server
from models.header import printable

_BUNDLES: Final = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
"""Environment variables that name a file or a folder of certificates; the first that is set counts."""


def proxy_for(url: str) -> str:
    """The proxy that the environment, or the system, has for that address; "": none.

    FetchError if it is no address.
    """
    asked = server(url)
    if urllib.request.proxy_bypass(f"{asked.host}:{asked.port}"):
        return ""
    known = urllib.request.getproxies()
    proxy = known.get(asked.scheme) or known.get("all") or ""
    return proxy if not proxy or "://" in proxy else f"http://{proxy}"


def tls_context() -> ssl.SSLContext:
    """Whom to trust. FetchError if the certificates that the environment names cannot be used."""
    name = next((name for name in _BUNDLES if os.environ.get(name)), "")
    if not name:
        return _system_context()
    place = Path(os.environ[name])
    try:
        if place.is_dir():
            return ssl.create_default_context(capath=str(place))
        return ssl.create_default_context(cafile=str(place))
    except OSError as error:
        raise FetchError(
            f"The certificates {printable(str(place))} cannot be read: {error.strerror or error}",
            f"Mend {name}",
        ) from error


def _system_context() -> ssl.SSLContext:
    """The system's own store of certificates: OpenSSL finds it on Linux alone."""
    if sys.platform in ("darwin", "win32"):
        import truststore

        return truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    return ssl.create_default_context()
