"""TLS of the data plane: the certificate in force, and the next one when its files change.

Hides how a connection gets today's certificate: each listener keeps one context for ever, and a handshake takes the newest from it, so that nothing
is closed or refused when files change. A pair that does not fit is told and the one before goes on. Sessions are not resumed: a client
certificate is looked at in each handshake. TLS 1.2 or later. It must not know what is spoken inside.
"""

from __future__ import annotations

import os
import ssl
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelyard.config import Settings
from modelyard.errors import InvalidConfig, NotFound
from modelyard.files import read_limited

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

HANDSHAKE_TIMEOUT_S = 9.5  # so that 10 s are kept
SHUTDOWN_TIMEOUT_S = 30.0
"""How long a caller may take for what was answered before the connection was closed."""
LIMIT_BYTES = 1 << 20
Stamp = tuple[tuple[int, int, int] | None, ...]


class Tls:
    """The certificate of one worker, for any number of listeners. Lives in the event loop, but for `load`, which blocks and belongs in a thread."""

    def __init__(self, settings: Settings) -> None:
        """Raises NotFound, or InvalidConfig for files that do not fit together, are out of their time, or a key that others can read."""
        self._files = tuple(Path(name) for name in (settings.tls_cert_file, settings.tls_key_file, settings.tls_client_ca_file) if name)
        self._has_clients = bool(settings.tls_client_ca_file)
        self._names = frozenset(name.strip().lower() for name in settings.tls_client_names.split(",") if name.strip())
        self._outer: dict[tuple[str, ...], ssl.SSLContext] = {}
        self._newest: dict[tuple[str, ...], ssl.SSLContext] = {}
        self._seen = self._stamp = self._stamp_now()
        self._make(())  # the first look: bad files stop the start

    def context(self, *protocols: str) -> ssl.SSLContext:
        """What a listener for ALPN `protocols` listens with, once and for ever."""
        if protocols not in self._outer:
            outer = self._make(protocols)
            self._newest[protocols] = outer

            def choose(connection: Any, name: str | None, context: ssl.SSLContext) -> None:  # noqa: ARG001 - asked in each handshake, with a name or without
                connection.context = self._newest[protocols]

            self._outer[protocols] = outer
            outer.sni_callback = choose
        return self._outer[protocols]

    @property
    def is_stale(self) -> bool:
        """Whether the files have changed and rest: the same at two looks, so that a pair is not read between its two writes."""
        now = self._stamp_now()
        rests, self._seen = now == self._seen, now
        return rests and now != self._stamp

    def load(self) -> dict[tuple[str, ...], ssl.SSLContext]:
        """The files as they are now, for `take`. Raises NotFound or InvalidConfig, and then what was in force goes on until they change again."""
        self._stamp = self._seen
        return {protocols: self._make(protocols) for protocols in self._outer}

    def take(self, loaded: dict[tuple[str, ...], ssl.SSLContext]) -> None:
        """Let the next handshakes use what `load` gave."""
        self._newest = loaded

    def admits(self, connection: Any) -> bool:
        """Whether the client behind an established `ssl_object` bears one of the names that are let in; its authority was checked before."""
        if not self._names:
            return True
        certificate = connection.getpeercert() if connection is not None else None
        return any(value.lower() in self._names for _, value in (certificate or {}).get("subjectAltName", ()))

    def _stamp_now(self) -> Stamp:
        return tuple(_stamp(path) for path in self._files)

    def _make(self, protocols: tuple[str, ...]) -> ssl.SSLContext:
        certificate, key, *clients = self._files
        _require_private(key)
        _require_current(certificate)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION
        context.num_tickets = 0
        try:
            context.load_cert_chain(certificate, key, password=lambda: "")
        except (ssl.SSLError, OSError, ValueError) as error:
            what = f"{certificate.name} and {key.name} are not a certificate and its private key, in PEM, without a password"
            raise InvalidConfig(what, field="tls_key_file", rule="pair") from error
        if clients:
            try:
                context.load_verify_locations(clients[0])
            except (ssl.SSLError, OSError) as error:
                what = f"{clients[0].name} holds no certificate of an authority, in PEM"
                raise InvalidConfig(what, field="tls_client_ca_file", rule="form") from error
            context.verify_mode = ssl.CERT_REQUIRED
        if protocols:
            context.set_alpn_protocols(list(protocols))
        return context


def open_tls(settings: Settings) -> Tls | None:
    """The TLS that `settings` ask for; None when they ask for none. Raises InvalidConfig or NotFound."""
    if not settings.tls_cert_file and not settings.tls_key_file:
        if settings.tls_client_ca_file or settings.tls_client_names:
            raise InvalidConfig("client certificates need tls_cert_file and tls_key_file", field="tls_cert_file", rule="pair")
        return None
    if not (settings.tls_cert_file and settings.tls_key_file):
        raise InvalidConfig("TLS needs both tls_cert_file and tls_key_file", field="tls_key_file", rule="pair")
    if settings.tls_client_names and not settings.tls_client_ca_file:
        raise InvalidConfig("tls_client_names need tls_client_ca_file", field="tls_client_ca_file", rule="pair")
    return Tls(settings)


def names(certificate: Path) -> tuple[str, ...]:
    """The names and addresses that a server with this certificate may be asked by, but for patterns. Raises NotFound or InvalidConfig."""
    from cryptography import x509

    found = _first(certificate).extensions
    try:
        alternatives = found.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    texts = (*alternatives.get_values_for_type(x509.DNSName), *map(str, alternatives.get_values_for_type(x509.IPAddress)))
    return tuple(text for text in texts if "*" not in text)


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size


def _require_private(key: Path) -> None:
    try:
        mode = key.stat().st_mode
    except OSError as error:
        raise NotFound(f"no such file: {key}") from error
    if mode & 0o027:
        raise InvalidConfig(f"{key} can be read by other users; run: chmod go-rwx {key}", field="tls_key_file", rule="mode")


def _first(certificate: Path) -> Certificate:
    from cryptography import x509

    data = read_limited(Path(os.path.realpath(certificate)), LIMIT_BYTES)
    try:
        return x509.load_pem_x509_certificate(data)
    except ValueError as error:
        raise InvalidConfig(f"{certificate.name} holds no certificate, in PEM", field="tls_cert_file", rule="form") from error


def _require_current(certificate: Path) -> None:
    first = _first(certificate)
    now = datetime.now(UTC)
    if not first.not_valid_before_utc <= now < first.not_valid_after_utc:
        raise InvalidConfig(f"{certificate.name} is out of its time ({first.not_valid_after_utc:%Y-%m-%d})", field="tls_cert_file", rule="time")
