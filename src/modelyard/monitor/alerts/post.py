"""The one way in which routes ask over HTTP: POST, once, within bounds.

Hides HTTP. The URL is what the operator wrote into the settings and nothing else is ever asked: no redirect is followed, no proxy of the environment
used, certificates are checked, the whole takes so long and an answer is read up to a limit. Neither URL nor answer goes into a message: both may hold
secrets.
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import SplitResult, urlsplit

from modelyard.errors import DeadlineExceeded, InvalidConfig, Unavailable
from modelyard.monitor.alerts.bounded import CONNECT_S, Bound, bounded

TIMEOUT_S = 10.0
ANSWER_BYTES = 64 << 10
AGAIN = frozenset({408, 425, 429})
"""Statuses below 500 that are worth another try."""


class Answer(NamedTuple):
    """What the receiver said."""

    status: int
    body: bytes


def post(
    url: str, content: bytes, *, headers: Mapping[str, str], ca_file: str = "", timeout_s: float = TIMEOUT_S, media: str = "application/json"
) -> Answer:
    """Send `content` to `url`. Raises Unavailable where another try may help, InvalidConfig where it was refused."""
    with bounded(timeout_s) as bound:
        try:
            status, body = _asked(
                urlsplit(require_url(url)), bound, content, {"content-type": media, **headers}, ca_file=ca_file, timeout_s=timeout_s
            )
        except ssl.SSLError as error:
            if bound.is_over:
                raise DeadlineExceeded(f"it did not answer in {timeout_s:g} s") from error
            raise Unavailable("its certificate, or its TLS, is not to be trusted") from error
        except (OSError, http.client.HTTPException) as error:
            if bound.is_over or isinstance(error, TimeoutError):
                raise DeadlineExceeded(f"it did not answer in {timeout_s:g} s") from error
            raise Unavailable("it cannot be reached, or broke off") from error
    if 200 <= status < 300:
        return Answer(status, body)
    if 300 <= status < 400:
        raise InvalidConfig(
            f"it answered with a redirect ({status}), which is not followed; write the URL that it leads to", field="url", rule="redirect"
        )
    if status in AGAIN or status >= 500:
        raise Unavailable(f"it answered with status {status}")
    raise InvalidConfig(f"it refused the message with status {status}", field="url", rule="refused")


def _asked(url: SplitResult, bound: Bound, content: bytes, fields: Mapping[str, str], *, ca_file: str, timeout_s: float) -> tuple[int, bytes]:
    host, is_secure = url.hostname or "", url.scheme == "https"
    context = trusting(ca_file) if is_secure else None
    sock = socket.create_connection((host, url.port or (443 if is_secure else 80)), timeout=min(timeout_s, CONNECT_S))
    with contextlib.closing(sock):
        sock.settimeout(timeout_s)
        bound.watch(sock)
        kind = http.client.HTTPSConnection if is_secure else http.client.HTTPConnection
        with contextlib.closing(kind(host, url.port)) as connection:
            connection.sock = sock if context is None else context.wrap_socket(sock, server_hostname=host)
            path = f"{url.path or '/'}?{url.query}" if url.query else url.path or "/"
            connection.request("POST", path, body=content, headers={"user-agent": "modelyard", "connection": "close", **fields})
            answer = connection.getresponse()
            body = answer.read(ANSWER_BYTES)
            if bound.is_over:  # what was read ended there
                raise TimeoutError
            return answer.status, body


def trusting(ca_file: str) -> ssl.SSLContext:
    """What believes the system's authorities, or those in `ca_file`. Raises InvalidConfig."""
    try:
        return ssl.create_default_context(cafile=ca_file or None)
    except OSError as error:
        raise InvalidConfig("ca_file holds no certificates that can be read", field="ca_file", rule="file") from error


def shown(url: str) -> str:
    """`url` as may be shown: scheme and host, for paths and queries of receivers hold their secrets."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{f'[{host}]' if ':' in host else host}{port}/…"


def require_url(url: str) -> str:
    """`url`, when it is http or https with a host and without a password in it. Raises InvalidConfig."""
    try:
        parts = urlsplit(url)
        is_one = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_one = False
    if not is_one:
        raise InvalidConfig("url is that of the receiver, http or https", field="url", rule="url")
    if not (url.isascii() and url.isprintable() and " " not in url):
        raise InvalidConfig("url is that of the receiver, written in ASCII without spaces", field="url", rule="url")
    if parts.username or parts.password:
        raise InvalidConfig("a password does not stand in the URL; use token_file or url_file", field="url", rule="secret")
    return url
