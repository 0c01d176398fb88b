"""Fault 28 on the gRPC wires: 10,000 fuzzed messages over every method, and what reading one may take."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import messaging
import pytest
from h2 import connected, fields
from messaging import MOST, Good, fuzz, goods, judge

from modelyard.protocols import bind
from modelyard.protocols.messages import kind
from serving import LINE, Running, home_with, running

pytestmark = pytest.mark.system
MIB = 1 << 20
LIMIT_BYTES = 4 * MIB


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(home_with(tmp_path_factory.mktemp("home") / "h", "line", "shop", "grid")) as server:
        yield server


def test_what_the_fuzz_begins_with_is_good(server: Running) -> None:
    for good in goods():
        with connected(str(server.grpc)) as caller:
            number = caller.call(good.body, fields(good.path))
            assert caller.answer(number)["grpc-status"] == "0", good
            if good.is_stream:
                told = kind("inference.ModelStreamInferResponse").FromString(caller.body(number)[5:])
                assert not told.error_message, good


def test_whatever_comes_is_answered_or_refused_by_field_and_rule(server: Running) -> None:
    workers = server.workers()
    report = fuzz(server, 10_000)
    assert report.faults == [], report.faults[:5]
    assert report.cases == sum(report.statuses.values()) == 10_000
    assert set(report.refused) == {good.path for good in goods() if not good.is_stream}
    assert sum(report.refused.values()) > 3_000  # the fuzz is one
    assert server.workers() == workers
    assert server.is_well()


def test_the_judge_finds_what_must_not_be() -> None:
    """The negative control: each kind of wrong answer is seen."""
    good = Good("/x", b"")
    told = {"x-error-field": "f", "x-error-rule": "r"}
    assert "status" in judge(good, "13", told, b"")
    assert "status" in judge(good, "none", {}, b"")
    assert "echo" in judge(good, "3", told | {"grpc-message": "canary4711"}, b"")
    assert "field" in judge(good, "3", {"x-error-rule": "r"}, b"")
    assert "failure" in judge(Good("/x", b"", is_stream=True), "0", {}, b"\x0a\x24the server failed on this request")
    assert not judge(good, "3", told, b"") and not judge(good, "0", {}, b"")


def test_the_fuzz_is_the_same_every_time() -> None:
    first, second = ([messaging.changed(draw, good.body) for good in goods()] for draw in (messaging.random.Random(1), messaging.random.Random(1)))
    assert first == second


def test_reading_takes_at_most_twice_its_size() -> None:
    """What each of them takes of memory, protobuf's own included, seen from outside; the last is the negative control of the measure."""
    done = subprocess.run(
        [sys.executable, messaging.__file__, str(LIMIT_BYTES)],
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
        env={**os.environ, "PYTHONPATH": str(Path(messaging.__file__).parent)},
    )
    *found, control = json.loads(done.stdout)
    assert {name for name, *_ in found} == set(MOST)
    assert sum(was_read for *_, was_read in found) > len(MOST) / 2, "they are read where they are small enough"
    for name, size, grown, _ in found:
        assert grown <= 2 * size + 16 * MIB, (name, size, grown / size)
    assert control[2] > 60 * MIB


@pytest.mark.parametrize("body", [b"\x0a\x04line\x28\x01", b"\x0a\x04line\x2d1234"], ids=["an integer", "four bytes"])
def test_a_field_of_another_sort_is_none_of_the_messages(body: bytes) -> None:
    """An integer in the place of an input ended as a failure of the server."""
    with pytest.raises(messaging.InvalidInput) as caught:
        bind("line", LINE)["oip_v2_grpc"].decode(body, "")
    assert caught.value.rule == "required"
