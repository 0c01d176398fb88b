"""The one way in which routes ask over HTTP: POST, once, within bounds.

Hides what a status means for another try. The URL is what the operator wrote into the settings and nothing else is ever asked, within the bounds of
`exchange`. Neither URL nor answer goes into a message: both may hold secrets.
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit

from modelyard.errors import InvalidConfig, Unavailable
from modelyard.exchange import Answer, exchange

TIMEOUT_S = 10.0
ANSWER_BYTES = 64 << 10
AGAIN = frozenset({408, 425, 429})
"""Statuses below 500 that are worth another try."""


def post(
    url: str, content: bytes, *, headers: Mapping[str, str], ca_file: str = "", timeout_s: float = TIMEOUT_S, media: str = "application/json"
) -> Answer:
    """Send `content` to `url`. Raises Unavailable where another try may help, InvalidConfig where it was refused."""
    fields = {"content-type": media, **headers}
    answer = exchange("POST", require_url(url), content, headers=fields, ca_file=ca_file, timeout_s=timeout_s, answer_bytes=ANSWER_BYTES)
    status = answer.status
    if 200 <= status < 300:
        return answer
    if 300 <= status < 400:
        raise InvalidConfig(
            f"it answered with a redirect ({status}), which is not followed; write the URL that it leads to", field="url", rule="redirect"
        )
    if status in AGAIN or status >= 500:
        raise Unavailable(f"it answered with status {status}")
    raise InvalidConfig(f"it refused the message with status {status}", field="url", rule="refused")


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
