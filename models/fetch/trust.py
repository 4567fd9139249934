"""Whom this process trusts beyond what the environment says, as the user has set it for pip.

It is the process's own, which serves one source and ends. What comes from a host that is trusted without a
certificate is known by its digest all the same.
"""

from __future__ import annotations

import ssl

from localai.errors import FetchError
from models.fetch.where import server
from models.header import printable

hosts: set[str] = set()
"""HOST or HOST:PORT, in lower case, of which no certificate is asked."""
own_certificate: list[str] = []
"""At most one file with a certificate and its key, that shows servers who we are."""


def is_trusted(url: str) -> bool:
    """Whether the host of `url` is trusted whatever it shows. FetchError if it is no address."""
    asked = server(url)
    return bool({asked.host, f"{asked.host}:{asked.port}"} & hosts)


def unverified() -> ssl.SSLContext:
    """For hosts that are trusted."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def identify(context: ssl.SSLContext) -> ssl.SSLContext:
    """`context`, with our own certificate if there is one. FetchError if it cannot be read."""
    for file in own_certificate:
        try:
            context.load_cert_chain(file)
        except OSError as error:  # ssl.SSLError is one
            reason = error.strerror or printable(str(error))
            raise FetchError(
                f"The certificate {printable(file)} cannot be used: {reason}",
                "Mend pip's setting `client-cert`: it names a file with a certificate and its key",
            ) from error
    return context
