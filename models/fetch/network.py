"""How this process reaches a network, where the user's settings for pip say more than the environment."""

from __future__ import annotations

import os
from pathlib import Path

from localai.errors import FetchError
from models.fetch import trust
from models.fetch.pip_settings import Settings
from models.header import printable


def use(settings: Settings) -> None:
    """Reach everything from now on by the proxy, and with the certificates, of `settings`.

    They are put into the environment of this process, which serves one source and ends.
    """
    trust.hosts.update(settings.trusted)
    if settings.client_cert:
        trust.own_certificate[:] = [settings.client_cert]
    if settings.proxy:
        address = settings.proxy if "://" in settings.proxy else f"http://{settings.proxy}"
        for name in ("https_proxy", "http_proxy"):
            os.environ[name] = os.environ[name.upper()] = address
    if settings.cert:
        _check_with(Path(settings.cert).expanduser())


def _check_with(certificates: Path) -> None:
    if not certificates.exists():
        raise FetchError(
            f"The certificates {printable(str(certificates))} are not there", "Mend pip's setting `cert`"
        )
    for name in ("CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR"):
        os.environ.pop(name, None)
    os.environ["REQUESTS_CA_BUNDLE"] = str(certificates)
