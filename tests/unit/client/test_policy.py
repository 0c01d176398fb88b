"""Asking again, as a generator that is handed its replies: how often, how soon, for what, and what a refusal becomes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from modelyard import errors
from modelyard.client import policy
from modelyard.client.policy import Budgets, asking, decoded, idempotency_key, refusal
from modelyard.client.steps import Pause, Reply, Send
from modelyard.errors import Conflict, DeadlineExceeded, InvalidInput, ModelyardError, NotFound, Overloaded, PayloadTooLarge, Unavailable
from modelyard.retries import RESERVE, SHARE, Budget

SEND = Send("GET", "http://h/x", {}, None, 30.0)
GONE, FINE = Unavailable("gone"), Reply(200, {}, b"{}")
BUSY = Reply(429, {"retry-after": "2"}, b'{"error": "why"}')


def play(*told: Any, may_repeat: bool = True, budget: Budget | None = None, send: Send = SEND) -> tuple[Any, int, list[float]]:
    """What comes of asking when these are the replies: the answer or the error, how often it was sent, and the pauses."""
    replies, pauses, sent = list(told), [], 0
    steps = asking(budget or Budget(), send, may_repeat=may_repeat)
    reply: Any = None
    try:
        while True:
            effect = steps.send(reply)
            if isinstance(effect, Pause):
                pauses.append(effect.seconds)
                reply = None
            else:
                sent += 1
                reply = replies.pop(0)
    except StopIteration as stop:
        return stop.value, sent, pauses
    except ModelyardError as error:
        return error, sent, pauses


def test_what_may_be_repeated_is_asked_again_not_before_the_time_that_was_named() -> None:
    answer, sent, pauses = play(GONE, BUSY, FINE)
    assert (answer, sent) == (FINE, 3)
    assert len(pauses) == 2 and pauses[0] < 0.2 and 2.0 <= pauses[1] < 2.5


def test_it_gives_up_after_some_tries_and_when_the_time_would_not_do() -> None:
    error, sent, _ = play(GONE, GONE, GONE, FINE)
    assert error is GONE and sent == 3
    error, sent, pauses = play(BUSY, FINE, send=SEND._replace(timeout_s=1.0))
    assert (type(error), sent, pauses) == (Overloaded, 1, [])


@pytest.mark.parametrize("told", [Reply(504, {}, b""), Reply(507, {}, b""), Reply(400, {}, b""), Reply(500, {}, b""), DeadlineExceeded("slow")])
def test_what_would_end_the_same_way_is_not_asked_again(told: Any) -> None:
    error, sent, pauses = play(told, FINE)
    assert isinstance(error, ModelyardError) and (sent, pauses) == (1, [])


def test_what_may_not_be_repeated_is_asked_once() -> None:
    assert play(GONE, FINE, may_repeat=False) == (GONE, 1, [])


def test_against_a_server_that_fails_the_budget_ends_the_tries() -> None:
    budget, sent = Budget(), 0
    for _ in range(100):
        sent += play(*[GONE] * 3, budget=budget)[1]
    assert sent <= 100 + RESERVE + SHARE * 100


def test_each_kind_of_question_has_its_own_budget() -> None:
    budgets = Budgets()
    assert budgets.of("GET") is budgets.of("GET") is not budgets.of("data POST")


def test_keys_are_never_the_same() -> None:
    assert len({idempotency_key() for _ in range(100)}) == 100


def test_what_is_no_json_did_not_come_from_one_of_ours() -> None:
    assert decoded(Reply(200, {}, b""), "http://h") is None
    with pytest.raises(Unavailable, match="no JSON"):
        decoded(Reply(200, {}, b"<html>"), "http://h")
    assert isinstance(play(Reply(502, {}, b"<html>"), *[Reply(502, {}, b"<html>")] * 2)[0], Unavailable)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, InvalidInput),
        (404, NotFound),
        (413, PayloadTooLarge),
        (429, Overloaded),
        (503, Unavailable),
        (504, DeadlineExceeded),
        (500, ModelyardError),
    ],
)
def test_a_plain_refusal_is_told_by_its_status(status: int, kind: type[ModelyardError]) -> None:
    assert type(refusal(status, {"error": "why"})) is kind and refusal(status, {"error": "why"}).message == "why"
    assert type(refusal(status, None)) is kind


def test_a_code_of_another_release_is_still_an_error() -> None:
    assert type(refusal(400, {"error": {"code": "from_the_future", "message": "m"}})) is errors.ModelyardError


def test_who_lost_a_race_learns_what_there_is() -> None:
    told = refusal(409, json.loads('{"error": {"code": "conflict", "message": "m", "rule": "generation", "current": {"generation": 3}}}'))
    assert isinstance(told, Conflict) and told.current == {"generation": 3} and told.rule == "generation"
    assert policy.refusal(409, {"error": "m"}).current is None  # type: ignore[attr-defined]
