"""One exchange over HTTP, within bounds, with a server that the operator named.

Hides HTTP and TLS. No redirect is followed, no proxy of the environment used, certificates are checked, the whole takes so long and an answer is read
up to a limit. Neither URL nor answer goes into a message: both may hold secrets. It must not judge an answer: that is its caller's.
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import SplitResult, urlsplit

from modelyard.bounded import CONNECT_S, Bound, bounded
from modelyard.errors import DeadlineExceeded, InvalidConfig, Unavailable

if TYPE_CHECKING:
    import ssl  # with http.client 4 MB, which who only judges a URL does not need


class Answer(NamedTuple):
    """What the server said; of a body that is longer than was asked for, the beginning."""

    status: int
    body: bytes


def exchange(
    method: str, url: str, content: bytes | None = None, *, headers: Mapping[str, str], ca_file: str = "", timeout_s: float, answer_bytes: int
) -> Answer:
    """Ask `url`, which is http or https, once. Raises Unavailable where no answer came, DeadlineExceeded where it did not come in time."""
    import http.client
    import ssl

    with bounded(timeout_s) as bound:
        try:
            return _asked(method, urlsplit(url), bound, content, headers, ca_file=ca_file, timeout_s=timeout_s, answer_bytes=answer_bytes)
        except ssl.SSLError as error:
            if bound.is_over:
                raise DeadlineExceeded(f"it did not answer in {timeout_s:g} s") from error
            raise Unavailable("its certificate, or its TLS, is not to be trusted") from error
        except (OSError, http.client.HTTPException) as error:
            if bound.is_over or isinstance(error, TimeoutError):
                raise DeadlineExceeded(f"it did not answer in {timeout_s:g} s") from error
            raise Unavailable("it cannot be reached, or broke off") from error


def _asked(
    method: str,
    url: SplitResult,
    bound: Bound,
    content: bytes | None,
    fields: Mapping[str, str],
    *,
    ca_file: str,
    timeout_s: float,
    answer_bytes: int,
) -> Answer:
    import http.client

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
            connection.request(method, path, body=content, headers={"user-agent": "modelyard", "connection": "close", **fields})
            answer = connection.getresponse()
            body = answer.read(answer_bytes)
            if bound.is_over:  # what was read ended there
                raise TimeoutError
            return Answer(answer.status, body)


def trusting(ca_file: str) -> ssl.SSLContext:
    """What believes the system's authorities, or those in `ca_file` alone; for all that asks over https. Raises InvalidConfig."""
    import ssl

    try:
        context = ssl.create_default_context(cafile=ca_file or None)
    except OSError as error:
        raise InvalidConfig("the authority's file holds no certificates, in PEM, that can be read", field="ca_file", rule="file") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def is_confidential(url: str) -> bool:
    """Whether nobody on the way can read or change what is said to `url`: https, or http on loopback. False for what is no such URL."""
    try:
        parts = urlsplit(url)
        is_one = bool(parts.hostname) and parts.port != 0 and not parts.username and not parts.password
    except ValueError:
        return False
    if not is_one or not (url.isascii() and url.isprintable() and " " not in url):
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and _is_here(parts.hostname or ""))


def _is_here(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
