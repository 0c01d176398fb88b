"""Mail, by SMTP: plain text with HTML beside it, over TLS unless the settings say otherwise in as many words.

Hides the conversation and the form of the mail. All messages of one group are one thread (`References`), and none asks for an answer by a machine
(`Auto-Submitted`). A password is sent over TLS alone.
"""

from __future__ import annotations

import contextlib
import smtplib
import socket
import ssl
from email.message import EmailMessage
from email.utils import format_datetime, parseaddr
from pathlib import Path
from typing import Any, Literal

import msgspec

from modelyard.bounded import CONNECT_S, Bound, bounded
from modelyard.errors import DeadlineExceeded, InvalidConfig, ModelyardError, Unavailable
from modelyard.exchange import trusting
from modelyard.monitor.alerts import outbox, text
from modelyard.monitor.alerts.base import Notification
from modelyard.monitor.alerts.routes.base import Written, beside, read, secret

TIMEOUT_S = 10.0
"""For each step of the conversation; `WHOLE_S` for all of it."""
WHOLE_S = 30.0
MOST_RECIPIENTS = 100


class Said(Written, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The server, how it is spoken to, who sends and who receives."""

    host: str
    sender: str = msgspec.field(name="from")
    to: tuple[str, ...]
    port: int = 0
    security: Literal["starttls", "tls", "none"] = "starttls"
    user: str = ""
    password_file: str = ""
    password_env: str = ""
    ca_file: str = ""


class _Watched(smtplib.SMTP):
    """Has its socket watched from the first byte on."""

    def __init__(self, bound: Bound, host: str, port: int, **options: Any) -> None:
        self._bound = bound
        super().__init__(host, port, **options)

    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
        made: socket.socket = super()._get_socket(host, port, min(timeout, CONNECT_S))  # type: ignore[misc]  # the one place where smtplib makes it
        made.settimeout(timeout)
        self._bound.watch(made)
        return made


class _Secured(smtplib.SMTP_SSL, _Watched):
    """The same, inside TLS from the first byte on."""

    def __init__(self, bound: Bound, host: str, port: int, **options: Any) -> None:
        self._bound = bound
        smtplib.SMTP_SSL.__init__(self, host, port, **options)


class Smtp:
    """Mailboxes behind one server."""

    kind = "smtp"
    forgets = False

    def __init__(self, name: str, written: dict[str, Any], folder: Path) -> None:
        said = read(name, written, Said)
        self.name = name
        self.severities = said.severities
        self._said = said
        self._password = secret(name, "password", said, folder)
        self._ca_file = beside(folder, said.ca_file)
        for field, addresses in (("from", (said.sender,)), ("to", said.to)):
            for each in addresses:
                if "@" not in parseaddr(each)[1] or not each.isprintable():
                    raise InvalidConfig(f"route {name}: {field} has an address that is none", field=f"routes.{name}.{field}", rule="address")
        if not 0 < len(said.to) <= MOST_RECIPIENTS:
            raise InvalidConfig(f"route {name}: to has 1 to {MOST_RECIPIENTS} addresses", field=f"routes.{name}.to", rule="count")
        if bool(said.user) != (self._password is not None):
            raise InvalidConfig(f"route {name}: a user goes with a password", field=f"routes.{name}.user", rule="required")
        if said.user and said.security == "none":
            raise InvalidConfig(f"route {name}: a password is sent over TLS alone", field=f"routes.{name}.security", rule="tls")
        if not 0 <= said.port <= 65535:
            raise InvalidConfig(f"route {name}: port is a number to 65535", field=f"routes.{name}.port", rule="range")
        self._port = said.port or {"starttls": 587, "tls": 465, "none": 25}[said.security]

    @property
    def target(self) -> str:
        """See `alerts.base.Route`."""
        more = f" and {len(self._said.to) - 1} more" if len(self._said.to) > 1 else ""
        return f"{self._said.to[0]}{more}, by {self._said.host}:{self._port}"

    def send(self, notification: Notification) -> str:
        """See `alerts.base.Route`."""
        mail = message(self.name, notification, sender=self._said.sender, to=self._said.to)
        password = None if self._password is None else self._password.read()
        with bounded(WHOLE_S) as bound:
            try:
                refused = self._conversation(bound, mail, password)
            except ModelyardError:
                raise
            except (OSError, smtplib.SMTPException, ValueError) as error:
                if bound.is_over or isinstance(error, TimeoutError) or isinstance(error.__context__, TimeoutError):
                    raise DeadlineExceeded("it did not take the mail in time") from error
                raise _translated(error) from error
        taken = len(self._said.to) - len(refused)
        return f"it took the mail for {taken} of {len(self._said.to)} addresses"

    def _conversation(self, bound: Bound, mail: EmailMessage, password: str | None) -> dict[str, Any]:
        """The addresses that the server refused, if it took the mail for any."""
        said = self._said
        context = None if said.security == "none" else trusting(self._ca_file)
        options: dict[str, Any] = {"local_hostname": socket.gethostname() or "localhost", "timeout": TIMEOUT_S}
        server: smtplib.SMTP
        if said.security == "tls":
            server = _Secured(bound, said.host, self._port, context=context, **options)
        else:
            server = _Watched(bound, said.host, self._port, **options)
        try:
            if said.security == "starttls":
                server.starttls(context=context)  # raises where the server does not offer it: nothing is sent in the clear
            if password is not None:
                server.login(said.user, password)
            return server.send_message(mail)
        finally:
            with contextlib.suppress(OSError, smtplib.SMTPException):
                server.quit()
            server.close()


def message(route: str, notification: Notification, *, sender: str, to: tuple[str, ...]) -> EmailMessage:
    """The mail."""
    from datetime import UTC, datetime

    mail = EmailMessage()
    mail["Subject"] = text.subject(notification)
    mail["From"] = sender
    mail["To"] = ", ".join(to)
    mail["Date"] = format_datetime(datetime.fromtimestamp(notification.at, UTC))
    mail["Message-ID"] = f"<{outbox.delivery_id(route, notification)}@modelyard>"
    mail["References"] = f"<{notification.severity}.{notification.deployment or 'test'}@modelyard>"
    mail["Auto-Submitted"] = "auto-generated"
    mail.set_content(text.plain(notification))
    mail.add_alternative(text.markup(notification), subtype="html")
    return mail


def _translated(error: Exception) -> ModelyardError:
    """The error of ours: what the server refuses for good is the settings', everything else may go well the next time. No text of the server's."""
    if isinstance(error, smtplib.SMTPAuthenticationError):
        return InvalidConfig("it does not believe user and password", field="user", rule="refused")
    if isinstance(error, smtplib.SMTPNotSupportedError):
        return InvalidConfig('it does not offer what security or user ask for; say security = "tls", or "none"', field="security", rule="tls")
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        codes = [code for code, _ in error.recipients.values()]
        if all(code >= 500 for code in codes):
            return InvalidConfig("it refuses every address", field="to", rule="refused")
        return Unavailable("it takes the mail for no address now")
    if isinstance(error, smtplib.SMTPResponseException) and error.smtp_code >= 500:
        return InvalidConfig(f"it refused the mail with status {error.smtp_code}", field="host", rule="refused")
    if isinstance(error, smtplib.SMTPResponseException):
        return Unavailable(f"it answered with status {error.smtp_code}")
    if isinstance(error, ssl.SSLError):
        return Unavailable("its certificate, or its TLS, is not to be trusted")
    return Unavailable("it cannot be reached, or broke off")
