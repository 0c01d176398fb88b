from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest

from modelyard.events import Failures, Part, Use
from modelyard.serve import usage
from modelyard.serve.usage import Own, Spent, Usage, shared
from modelyard.types import Digest

A, B = (Digest("sha256:" + letter * 64) for letter in "ab")


class Elsewhere:
    """An isolated runtime, as far as a look at it goes."""

    def __init__(self) -> None:
        self.taken: dict[int, int] = {}

    def cpu_us(self) -> dict[int, int]:
        return dict(self.taken)

    def resident_bytes(self) -> int:
        return 500


def version(name: str, digest: Digest, runtime: object = None) -> Any:
    return _Version(name, digest, SimpleNamespace(ran_s=0.0, queued_requests=0), SimpleNamespace(runtime=runtime))


class _Version:
    number = 1

    def __init__(self, name: str, digest: Digest, batcher: Any, loaded: Any) -> None:
        self.name, self.digest, self.batcher, self.loaded = name, digest, batcher, loaded


def part(name: str, digest: Digest, *, requests: int = 0, failed: int = 0, generation: int = 1) -> Part:
    failures = {"model_failed": Failures(requests=failed, seconds=0.0)} if failed else {}
    return Part(name=name, version=1, digest=digest, requests=requests, failures=failures, generation=generation)


def test_each_look_tells_what_was_taken_since_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usage, "Isolated", Elsewhere)
    clock = iter([1_000, 5_000, 6_000])
    there = Elsewhere()
    here, away = version("here", A), version("away", B, there)
    looking = Usage(cpu_us=lambda: next(clock), memory=lambda: 1000)
    here.batcher.ran_s, here.batcher.queued_requests = 0.002, 3
    there.taken = {7: 10_000}
    found = looking.look([here, away])
    assert found == Spent(4_000, 1000, {("here", 1, A): Own(2_000, 3), ("away", 1, B): Own(0, 0, 10_000, 500, is_elsewhere=True)})
    here.batcher.ran_s, here.batcher.queued_requests = 0.0025, 0
    there.taken = {7: 30_000, 8: 5_000}
    assert looking.look([here, away]).versions == {("here", 1, A): Own(500, 0), ("away", 1, B): Own(0, 0, 25_000, 500, is_elsewhere=True)}


def test_a_process_that_took_the_place_of_another_takes_nothing_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usage, "Isolated", Elsewhere)
    there = Elsewhere()
    away = version("away", B, there)
    looking = Usage(cpu_us=lambda: 0, memory=lambda: 0)
    there.taken = {7: 90_000}
    looking.look([away])
    there.taken = {7: 10_000}  # the same pid, another process
    assert looking.look([away]).versions["away", 1, B].cpu_us == 0


def test_a_worker_of_its_own_is_seen_working() -> None:
    looking = Usage()
    until = time.process_time() + 0.05
    while time.process_time() < until:
        pass
    found = looking.look([])
    assert found.cpu_us >= 40_000
    assert found.resident_bytes > 1 << 20


def test_the_models_time_is_their_own_and_the_rest_goes_by_requests() -> None:
    spent = Spent(10_000, 100, {("m", 1, A): Own(3_000, 2), ("n", 1, B): Own(1_000, 0)})
    first, second = shared(spent, [part("m", A, requests=1), part("n", B, requests=1, failed=1)])
    assert first.use == Use(looks=1, cpu_us=3_000 + 2_000, ran_us=3_000, resident_bytes=100, most_resident_bytes=100, queued=2, most_queued=2)
    assert second.use is not None and second.use.cpu_us == 1_000 + 4_000


def test_a_model_elsewhere_has_its_own_time_and_takes_none_of_the_workers_by_running() -> None:
    spent = Spent(4_000, 100, {("m", 1, A): Own(900_000, 0, 800_000, 50, is_elsewhere=True), ("n", 1, B): Own(2_000, 0)})
    first, second = shared(spent, [part("m", A, requests=1), part("n", B, requests=1)])
    assert first.use is not None and second.use is not None
    assert (first.use.cpu_us, first.use.resident_bytes, first.use.ran_us) == (801_000, 150, 900_000)
    assert (second.use.cpu_us, second.use.resident_bytes) == (3_000, 100)


@pytest.mark.parametrize("cpu_us", [0, 1, 7, 999])
def test_the_shares_are_the_whole_also_where_models_waited_more_than_they_worked(cpu_us: int) -> None:
    spent = Spent(cpu_us, 0, {("m", 1, A): Own(2_000, 0), ("n", 1, B): Own(1_001, 0)})
    parts = shared(spent, [part("m", A, requests=5), part("n", B)])
    assert sum(each.use.cpu_us for each in parts if each.use is not None) == cpu_us


def test_the_last_part_of_a_version_has_it_and_what_nobody_looked_at_has_none() -> None:
    spent = Spent(100, 0, {("m", 1, A): Own(10, 0), ("idle", 1, B): Own(0, 0)})
    before, after, other = shared(spent, [part("m", A, requests=1, generation=1), part("m", A, requests=1, generation=2), part("gone", B)])
    assert before.use is None and other.use is None
    assert after.use is not None and after.use.cpu_us == 100
    assert shared(Spent(5, 0, {}), [before]) == (before,)
