"""Which servers a client believes, and which certificate it shows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from modelyard import errors, exchange

if TYPE_CHECKING:
    import ssl


def trusting(
    authority: Path | None = None, *, certificate: Path | None = None, key: Path | None = None, pinned: Path | None = None
) -> ssl.SSLContext:
    """Which servers to believe, the system's authorities where nothing is said, and which client certificate to show.

    `pinned` believes exactly the certificate in that file, under whatever name: for a server that one owns. Raises InvalidConfig.
    """
    import ssl

    context = exchange.trusting(str(authority or pinned or ""))
    try:
        if pinned is not None:
            context.check_hostname = False
            context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        if certificate is not None:
            context.load_cert_chain(certificate, key, password=lambda: "")
    except (ssl.SSLError, OSError, ValueError) as error:
        raise errors.InvalidConfig("the certificate, or its key, cannot be read as PEM", field="cert", rule="form") from error
    return context
