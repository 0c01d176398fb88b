"""Which servers a client believes, and which certificate it shows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from modelyard import errors

if TYPE_CHECKING:
    import ssl


def trusting(
    authority: Path | None, *, certificate: Path | None = None, key: Path | None = None, pinned: Path | None = None
) -> ssl.SSLContext | None:
    """Which servers to believe and which client certificate to show; None where nothing is said, which is the system's authorities.

    `pinned` believes exactly the certificate in that file, under whatever name: for a server that one owns. Raises InvalidConfig.
    """
    import ssl

    if authority is None and certificate is None and pinned is None:
        return None
    try:
        context = ssl.create_default_context(cafile=authority or pinned)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if pinned is not None:
            context.check_hostname = False
            context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        if certificate is not None:
            context.load_cert_chain(certificate, key, password=lambda: "")
    except (ssl.SSLError, OSError, ValueError) as error:
        raise errors.InvalidConfig("the certificate, its key or the authority cannot be read as PEM", field="cacert", rule="form") from error
    return context
