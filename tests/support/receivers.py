"""Who alerts are sent to, for tests: a real HTTP receiver and a real SMTP server in this process, and alerts to send."""

from __future__ import annotations

import contextlib
import email
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from email.message import EmailMessage
from email.policy import default
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from modelyard.monitor.alerts import Alert, Notification
from modelyard.types import Verdict

NOW = 1_800_000_000.0


def verdict(outcome: Any = "fail", rule: str = "drift:age", **more: Any) -> Verdict:
    """One that fails as a real one does, unless said otherwise."""
    given: dict[str, Any] = {
        "evidence": "age moved by 0.31 sd",
        "numbers": {"value": 41.5, "threshold": 20.0},
        "window": (NOW - 3600.0, NOW),
        "columns": ("age",),
        "harm": 0.03,
    }
    return Verdict(outcome=outcome, rule=rule, **(given | more))


def alert(**more: Any) -> Alert:
    """One that fires."""
    given: dict[str, Any] = {
        "id": "a1",
        "deployment": "churn",
        "rule": "drift:age",
        "severity": "page",
        "state": "firing",
        "verdict": verdict(),
        "since": NOW - 600.0,
        "fired_at": NOW - 300.0,
        "cause": "population shift",
        "why": "more of the young since 14:03",
        "advice": "Look at how age moved.",
    }
    return Alert(**(given | more))


def over(**more: Any) -> Alert:
    """One that is over."""
    return alert(**({"id": "b2", "rule": "concept", "state": "resolved", "resolved_at": NOW, "ended": "it passes again"} | more))


def notification(**more: Any) -> Notification:
    """News of one that fires and one that is over."""
    given: dict[str, Any] = {
        "deployment": "churn",
        "severity": "page",
        "kind": "new",
        "at": NOW,
        "firing": (alert(),),
        "resolved": (over(),),
    }
    return Notification(**(given | more))


class Asked(NamedTuple):
    """One request."""

    path: str
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """Its body."""
        return json.loads(self.body)


class Receiver:
    """An HTTP server that keeps what it is asked. `answer` says how: a status, or what to do with the handler instead."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self.asked: list[Asked] = []
        self.answer: int | Callable[[BaseHTTPRequestHandler], None] = 200
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                receiver.asked.append(Asked(self.path, {name.lower(): value for name, value in self.headers.items()}, body))
                if callable(receiver.answer):
                    receiver.answer(self)
                    return
                self.send_response(receiver.answer)
                self.send_header("content-length", "2")
                if 300 <= receiver.answer < 400:
                    self.send_header("location", f"http://127.0.0.1:{receiver.port}/elsewhere")
                self.end_headers()
                self.wfile.write(b"ok")

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: object) -> None:
                pass  # a handshake that a test lets fail

        self._server = Server(self._address(), Handler)
        if context is not None:
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    def _address(self) -> tuple[str, int]:
        return "127.0.0.1", 0

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    def close(self) -> None:
        """Listen no more."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@contextlib.contextmanager
def receiver(context: ssl.SSLContext | None = None) -> Iterator[Receiver]:
    """A receiver while the block runs."""
    made = Receiver(context)
    try:
        yield made
    finally:
        made.close()


def empty_object(handler: BaseHTTPRequestHandler) -> None:
    """An answer of a receiver: 200 with `{}`."""
    handler.send_response(200)
    handler.send_header("content-length", "2")
    handler.end_headers()
    handler.wfile.write(b"{}")


class Mailbox:
    """A real SMTP server (aiosmtpd) in a thread; the mails that it took, with their envelopes."""

    def __init__(self, *, context: ssl.SSLContext | None = None, users: dict[str, str] | None = None) -> None:
        from aiosmtpd.controller import Controller
        from aiosmtpd.smtp import AuthResult, LoginPassword

        self.mails: list[EmailMessage] = []
        self.envelopes: list[Any] = []
        self.refuses: dict[str, str] = {}
        self.says = "250 taken"
        mailbox = self

        class Handler:
            async def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, options: Any) -> str:
                if address in mailbox.refuses:
                    return mailbox.refuses[address]
                envelope.rcpt_tos.append(address)
                return "250 OK"

            async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
                if mailbox.says.startswith("250"):
                    mail = email.message_from_bytes(envelope.content, policy=default)
                    assert isinstance(mail, EmailMessage)
                    mailbox.mails.append(mail)
                    mailbox.envelopes.append(envelope)
                return mailbox.says

        def believes(server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> AuthResult:
            is_known = isinstance(data, LoginPassword) and (users or {}).get(data.login.decode()) == data.password.decode()
            return AuthResult(success=is_known, handled=False)

        options: dict[str, Any] = {}
        if context is not None:
            options |= {"tls_context": context, "require_starttls": True}
        if users is not None:
            options |= {"authenticator": believes, "auth_required": True}
        self.port = _free_port()
        self._controller = Controller(Handler(), hostname="127.0.0.1", port=self.port, **options)
        self._controller.start()

    def close(self) -> None:
        """Take no more."""
        self._controller.stop()


@contextlib.contextmanager
def mailbox(**options: Any) -> Iterator[Mailbox]:
    """A mailbox while the block runs."""
    made = Mailbox(**options)
    try:
        yield made
    finally:
        made.close()


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def wait_for(is_so: Callable[[], Any], timeout_s: float = 30.0) -> Any:
    """What `is_so` gives once it gives something; fails when that takes longer than only a hang does."""
    until = time.monotonic() + timeout_s
    while not (found := is_so()):
        assert time.monotonic() < until, "it did not come to that"
        time.sleep(0.02)
    return found
