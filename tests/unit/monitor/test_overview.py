"""What is told of a watch: courses at equal steps, and the budget."""

from __future__ import annotations

import msgspec
import pytest

from modelyard.events import Failures
from modelyard.monitor.base import Minute
from modelyard.monitor.overview import POINTS, courses, overview
from modelyard.monitor.settings import Monitored
from modelyard.monitor.watch import Kept
from modelyard.types import Digest, Verdict

DIGEST = Digest("sha256:" + "1" * 64)


def minute(start: int, *, requests: int = 60, failed: int = 0) -> Minute:
    failures = {"model_failed": Failures(requests=failed, seconds=0.0), "schema_mismatch": Failures(requests=9, seconds=0.0)}
    return Minute(
        start=start, version=1, digest=DIGEST, requests=requests, rows=requests, latencies={320: requests}, failures=failures, dropped={}, counts=None
    )


def test_courses_are_of_equal_steps_with_nothing_where_nothing_was() -> None:
    found = {series.name: series for series in courses([minute(0), minute(120, failed=20)], {}, since=0, until=180)}
    assert found["requests"].values == (1.0, 0.0, 1.0) and found["requests"].unit == "/s"
    assert found["errors"].values == (0.0, None, 0.25), "what callers got wrong is no error"
    p99 = found["p99"].values
    assert p99[0] == pytest.approx(0.00104, rel=0.02) and p99[1] is None and set(found) == {"requests", "p50", "p99", "errors"}


def test_a_long_span_has_few_points_and_loses_no_request() -> None:
    minutes = [minute(start) for start in range(0, 86_400, 60)]
    found = courses(minutes, {}, since=0, until=86_400)
    (requests,) = [series for series in found if series.name == "requests"]
    assert len(requests.values) <= POINTS
    assert sum(each or 0 for each in requests.values) * 86_400 / len(requests.values) == pytest.approx(60 * 1440)


def test_what_was_tracked_is_drawn_by_its_largest() -> None:
    track = {"drift": [(60, 0.5), (90, 1.5), (500, 9.0)], "performance:mae": [(60, -3.0), (61, 2.0)], "old": [(-60, 1.0)]}
    found = {series.name: series for series in courses([], track, since=0, until=120)}
    assert found["drift"].values == (None, 1.5) and found["drift"].unit == "level"
    assert found["performance:mae"].values == (None, -3.0) and found["performance:mae"].unit == "" and "old" not in found


def test_an_overview_tells_what_pages_and_what_of_the_budget_is_left() -> None:
    failed = Verdict(outcome="fail", rule="drift:a", evidence="moved")
    kept = Kept(version=3, digest=DIGEST, through=180, judged_at=201.0, verdicts=(failed, failed), late=4)
    for at in (90.0, 100.0, 170.0):
        kept = kept.with_page(at)
    found = overview("m", kept, [minute(0)], settings=Monitored(), span=(0, 180), may_page=lambda verdict: verdict.outcome == "fail")
    assert (found.version, found.judged_through, found.judged_at, found.pages, found.late) == (3, 180, 201, ("drift:a",), 4)
    assert (found.budget.spent, found.budget.left, found.requests, found.rows) == (3, 0, 60, 60) and 0.05 < found.budget.chance < 0.1
    assert msgspec.json.decode(msgspec.json.encode(found), type=type(found)) == found
    none = overview("m", None, [], settings=Monitored(), span=(0, 60))
    assert none.version is None and none.judged_through is None and none.verdicts == () and none.budget.left == 1.0
