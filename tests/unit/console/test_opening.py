"""What cannot be opened yet says why, and is opened as soon as it can be."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from world import wait_until

from modelyard.console.opening import App, Opening
from modelyard.errors import InvalidConfig, ModelyardError, Tampered, Unavailable, UnsupportedFormat


def says(word: str) -> App:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send((word, scope["path"], await receive()))

    return app


def ask(app: App) -> str:
    sent: list[Any] = []

    async def receive() -> str:
        return "body"

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(app({"type": "http", "path": "/api/v1/status"}, receive, send))  # type: ignore[arg-type]
    ((word, path, body),) = sent
    assert (path, body) == ("/api/v1/status", "body")
    return str(word)


class Store:
    """A store that opens once nothing is wrong with it."""

    def __init__(self, *wrong: Exception) -> None:
        self.wrong = list(wrong)

    def open(self) -> App:
        if self.wrong:
            raise self.wrong.pop(0)
        return says("open")


def opening(store: Store) -> Opening:
    return Opening(store.open, lambda why: says(why.message))


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modelyard.console.opening.REST_S", 0.01)


def test_what_can_be_opened_is_open_from_the_first_request() -> None:
    made = opening(Store())
    assert "starting" in ask(made)
    assert made.begin() == "" and ask(made) == "open"
    made.end()


def test_it_says_why_and_opens_by_itself() -> None:
    store = Store(Unavailable("locked"), Tampered("damaged"), RuntimeError("odd"))
    made = opening(store)
    assert made.begin() == "locked"
    wait_until(lambda: ask(made) == "open")
    assert store.wrong == []
    made.end()


def test_it_goes_on_waiting_until_its_end() -> None:
    store = Store(*(Tampered("damaged") for _ in range(100_000)))
    made = opening(store)
    assert made.begin() == "damaged" and ask(made) == "damaged"
    made.end()
    left = len(store.wrong)
    assert left and ask(made) == "damaged" and len(store.wrong) == left


@pytest.mark.parametrize("kind", [InvalidConfig, UnsupportedFormat])
def test_what_no_waiting_mends_ends_the_start(kind: type[ModelyardError]) -> None:
    with pytest.raises(kind):
        opening(Store(kind("for good"))).begin()
