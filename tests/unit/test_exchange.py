"""One exchange over HTTP: what comes back comes back, and nothing of it leads elsewhere. Its bounds are held with alerts' `post` as well."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from issuing import Issuer, issuer

from modelyard.errors import DeadlineExceeded, Unavailable
from modelyard.exchange import exchange, is_confidential


@pytest.fixture
def server() -> Iterator[Issuer]:
    with issuer() as made:
        yield made


def test_an_answer_is_given_as_it_is_up_to_a_limit(server: Issuer) -> None:
    server.body, server.status = b"0123456789", 404
    answer = exchange("GET", f"{server.url}/jwks", headers={}, timeout_s=5.0, answer_bytes=4)
    assert (answer.status, answer.body) == (404, b"0123")


def test_a_redirect_is_an_answer(server: Issuer) -> None:
    server.status, server.headers = 302, {"location": f"{server.url}/elsewhere"}
    assert exchange("GET", f"{server.url}/jwks", headers={}, timeout_s=5.0, answer_bytes=4).status == 302
    assert server.asked == ["/jwks"]


def test_who_does_not_answer_or_is_not_there(server: Issuer) -> None:
    server.hold.clear()
    with pytest.raises(DeadlineExceeded):
        exchange("GET", f"{server.url}/jwks", headers={}, timeout_s=0.2, answer_bytes=4)
    with pytest.raises(Unavailable, match="cannot be reached"):
        exchange("GET", "http://127.0.0.1:1/", headers={}, timeout_s=5.0, answer_bytes=4)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://login.example/realms/a", True),
        ("http://127.0.0.1:8080", True),
        ("http://[::1]:8080/a", True),
        ("http://localhost", True),
        ("http://login.example", False),
        ("http://127.0.0.1.example", False),
        ("http://127.0.0.1@login.example", False),
        ("https://user:secret@login.example", False),
        ("https://", False),
        ("https://login.example:0", False),
        ("https://login.example:x", False),
        ("https://login.example/a b", False),
        ("https://login.example/\n", False),
        ("file:///etc/passwd", False),
        ("", False),
        ("https://[", False),
    ],
)
def test_what_nobody_on_the_way_can_read(url: str, expected: bool) -> None:
    assert is_confidential(url) == expected
