"""How this process reaches a network, where the user's settings for pip say more than the environment."""

from __future__ import annotations

import os
import ssl
from pathlib import Path

from localai.errors import FetchError
from models.fetch.pip_settings import Settings
from models.header import printable


def use(settings: Settings) -> None:
    """Reach everything from now on by the proxy, and with the certificates, of `settings`.

    They are put into the environment of this process, which serves one source and ends.
    """
    if settings.proxy:
        address = settings.proxy if "://" in settings.proxy else f"http://{settings.proxy}"
        for name in ("https_proxy", "http_proxy"):
            os.environ[name] = os.environ[name.upper()] = address
    if settings.cert:
        path = Path(settings.cert).expanduser()
        if not path.exists():
            raise FetchError(
                f"The certificates {printable(settings.cert)} are not there", "Mend pip's setting `cert`"
            )
        for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR"):
            os.environ.pop(name, None)
        os.environ["SSL_CERT_DIR" if path.is_dir() else "SSL_CERT_FILE"] = str(path)


def insecure() -> ssl.SSLContext:
    """For hosts that the user trusts whatever they show: what comes is known by its digest."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
