from __future__ import annotations

import pytest

from modelyard.errors import UnsupportedMedia
from modelyard.serve.routes.base import Route


def route(*, is_strict: bool = False) -> Route:
    return Route(lambda exchange, route: None, "invoke", wire="wire", has_forms=True, is_strict=is_strict)


@pytest.mark.parametrize(
    ("media", "accept", "is_strict", "wire"),
    [
        ("", "", False, "wire"),
        ("application/json", "*/*", True, "wire"),
        ("application/octet-stream", "", False, "wire"),
        ("application/json", "text/csv", False, "wire::csv"),
        ("text/csv", "", True, "wire:csv:"),
        ("text/csv", "", False, "wire:csv:csv"),
        ("text/csv", "application/json", False, "wire:csv:"),
        ("application/jsonlines", "*/*", False, "wire:json_lines:json_lines"),
        ("text/csv", "text/html, application/json;q=0.5, text/csv;q=0.9, application/jsonlines;q=0", True, "wire:csv:csv"),
        ("text/csv", "Text/CSV;q=x, application/*", True, "wire:csv:"),
        ("", "image/png", False, "wire"),
    ],
)
def test_content_type_and_accept_choose_the_form(media: str, accept: str, is_strict: bool, wire: str) -> None:
    given = route(is_strict=is_strict)
    assert given.settled(media, accept).wire == wire
    assert given.wire == "wire"


def test_a_strict_route_refuses_what_it_cannot_write() -> None:
    with pytest.raises(UnsupportedMedia, match="text/csv"):
        route(is_strict=True).settled("", "image/png, text/csv;q=0")
