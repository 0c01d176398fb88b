"""One deployment's turn: what is handed to detectors, and what is said when time, rows or a detector are not as they should be."""

from __future__ import annotations

import math
import sys

import estimating
import msgspec
import numpy as np
import pytest
from watching import START, Told

from modelyard.monitor import explained as of_turn
from modelyard.monitor import watch
from modelyard.monitor.base import MINUTE_S, Minute, Reference
from modelyard.monitor.explained import MOST
from modelyard.monitor.profile import FeatureProfile, Profile
from modelyard.monitor.settings import Drift, Monitored, Section
from modelyard.monitor.watch import AWAY_S, CATCH_UP, Kept, Seen, Span, begin, closed, importance, is_page, span, turn
from modelyard.types import Digest, Schema, Verdict

DIGEST = Digest("sha256:" + "1" * 64)
FEATURES = tuple(FeatureProfile(name=name, role="input", kind="missing", source=name.partition("[")[0]) for name in ("a", "b", "X[0]"))
REFERENCE = Reference(
    digest=DIGEST, schema=Schema(inputs=(), outputs=(), layout="frame", task="other"), profile=Profile(features=FEATURES), importance={}, quality={}
)
DEFAULTS = Monitored()
NOW = START + 30 * MINUTE_S


def minute(start: float, *, requests: int = 2) -> Minute:
    return Minute(
        start=int(start), version=3, digest=DIGEST, requests=requests, rows=requests, latencies={}, failures={}, dropped={}, counts=np.zeros(3, int)
    )


def minutes(first: int, last: int, **more: int) -> list[Minute]:
    return [minute(START + place * MINUTE_S, **more) for place in range(first, last)]


def judged(kept: Kept, found: list[Minute], *detectors: Told, now: float = NOW, settings: Monitored = DEFAULTS, pages: float = 1.0) -> Kept:
    over = closed(now)
    seen = Seen(name="m", reference=REFERENCE, minutes=found, labelled=None, span=span(kept, settings=settings, closed=over), now=now)
    wanted = [each for each in seen.minutes if seen.span.since <= each.start < seen.span.until]
    return turn(kept, seen._replace(minutes=wanted), {each.rule: each for each in detectors}, settings=settings, pages=pages)


def fresh(now: float = NOW) -> Kept:
    return begin(DIGEST, 3, settings=DEFAULTS, now=now)


def test_a_minute_is_over_when_what_was_counted_in_it_has_had_time_to_come() -> None:
    assert closed(START + 60 + watch.GRACE_S) == START + 60
    assert closed(START + 59 + watch.GRACE_S) == START
    assert closed(START + 60, grace_s=0) == START + 60


def test_each_minute_is_handed_once_and_states_go_on() -> None:
    told = Told()
    first = judged(fresh(), minutes(0, 10), told, now=START + 5 * MINUTE_S + watch.GRACE_S)
    second = judged(first, minutes(0, 10), told, now=START + 8 * MINUTE_S + watch.GRACE_S)
    assert told.starts == [START + place * MINUTE_S for place in range(8)]
    assert second.verdicts[0].numbers == {"minutes": 8.0} and second.through == START + 8 * MINUTE_S
    assert [len(evidence.recent) for evidence in told.handed] == [5, 8] and second.version == 3


def test_a_new_release_begins_with_what_detectors_knew_and_nothing_else() -> None:
    told = Told()
    before = judged(fresh(), minutes(0, 10), told)
    after = begin(Digest("sha256:" + "2" * 64), 4, settings=DEFAULTS, now=NOW, before=before)
    assert after.states == before.states and after.verdicts == () and after.handed == {} and after.through < before.through
    assert after.begun == NOW


def test_without_traffic_detectors_are_asked_all_the_same() -> None:
    told = Told()
    assert judged(fresh(), [], told).verdicts[0].rule == "told" and told.handed[0].fresh == []


def test_the_budget_is_split_among_those_that_page() -> None:
    page, other, report, quiet = Told("page"), Told("drift"), Told("report", pages=False), Told("shift")
    settings = Monitored(drift=Drift(pages=False), shift=Section(enabled=False))
    after = judged(fresh(), minutes(0, 3), page, other, report, quiet, settings=settings, pages=4.0)
    assert [each.handed[0].false_pages for each in (page, other, report)] == [4.0, 0.0, 0.0]
    assert not quiet.handed and {verdict.rule for verdict in after.verdicts} == {"page", "drift", "report"}
    judged(fresh(), minutes(0, 3), page, other, pages=4.0)
    assert page.handed[-1].false_pages == other.handed[-1].false_pages == 2.0
    failed = Verdict(outcome="fail", rule="drift:a", evidence="")
    assert not is_page(failed, {"drift": other}, settings) and is_page(failed, {"drift": other}, DEFAULTS)
    assert not is_page(failed, {}, DEFAULTS)


def test_a_detector_that_fails_is_unknown_keeps_its_state_and_stops_nobody() -> None:
    broken, well = Told("broken"), Told("well")
    before = judged(fresh(), minutes(0, 3), broken, well, now=START + 3 * MINUTE_S + watch.GRACE_S)
    broken.raising = ZeroDivisionError("by zero")
    after = judged(before, minutes(0, 9), broken, well)
    said = {verdict.rule: verdict for verdict in after.verdicts}
    assert said["broken"].outcome == "unknown" and said["well"].outcome == "pass"
    assert after.states["broken"] == before.states["broken"] and after.failed == {"broken": "ZeroDivisionError('by zero')"}
    broken.raising = None
    assert judged(after, minutes(0, 9), broken).failed == {}


def test_rows_that_come_late_are_counted_and_reported_but_not_handed_again() -> None:
    told = Told()
    before = judged(fresh(), minutes(0, 5), told, now=START + 5 * MINUTE_S + watch.GRACE_S)
    late = [*minutes(0, 4), minute(START + 4 * MINUTE_S, requests=7), *minutes(5, 6)]
    after = judged(before, late, told, now=START + 6 * MINUTE_S + watch.GRACE_S)
    said = next(verdict for verdict in after.verdicts if verdict.rule == "watch:late")
    assert said.numbers == {"late": 5.0, "late_total": 5.0} and after.late == 5
    assert told.starts == [START + place * MINUTE_S for place in range(6)]
    assert sum(each.requests for each in told.handed[-1].recent) == 2 * 5 + 7
    again = judged(after, late, told, now=START + 7 * MINUTE_S + watch.GRACE_S)
    assert again.late == 5 and all(verdict.rule != "watch:late" for verdict in again.verdicts), "each is counted once"


def test_what_was_never_judged_is_not_late() -> None:
    """Of a release that served long before it was the current one, and after an absence of days."""
    found = minutes(0, 1000)
    now = START + DEFAULTS.window_s + 3610
    kept = judged(fresh(now), found, Told(), now=now)
    assert kept.through < closed(now), "so much is caught up with in more than one turn"
    again = judged(kept, found, Told(), now=now + MINUTE_S)
    assert again.late == 0 and all(verdict.rule != "watch:late" for verdict in again.verdicts)
    away = judged(judged(fresh(), minutes(0, 10), Told()), minutes(0, 2 * 1440 + 100), Told(), now=NOW + 2 * AWAY_S)
    assert away.late == 0 and [verdict.rule for verdict in away.verdicts if verdict.rule.startswith("watch")] == ["watch:away"]
    more = judged(again, minutes(0, 1000, requests=3), Told(), now=now + 2 * MINUTE_S)
    assert more.late > 0, "what comes to judged minutes is"


def test_after_an_absence_a_turn_does_a_bounded_part_and_the_next_goes_on() -> None:
    told = Told()
    kept = judged(fresh(), [], told)
    now = NOW + 3 * CATCH_UP * MINUTE_S
    found = [minute(NOW + place * MINUTE_S) for place in range(CATCH_UP // 2, 3 * CATCH_UP)]
    first = judged(kept, found, told, now=now)
    assert first.through == NOW + CATCH_UP * 1.5 * MINUTE_S and told.handed[-1].now == first.through, "the past is judged as of then"
    assert told.handed[-1].recent[-1] == told.handed[-1].fresh[-1], "and knows nothing of what came after"
    second = judged(first, found, told, now=now)
    third = judged(second, found, told, now=now)
    assert third.through == closed(now) and told.handed[-1].now == now
    assert told.starts == [each.start for each in found if each.start < closed(now)]


def test_what_lies_too_far_back_is_said_to_be_unjudged() -> None:
    told = Told()
    kept = judged(fresh(), [], told)
    after = judged(kept, [], told, now=NOW + AWAY_S + 86_400)
    said = next(verdict for verdict in after.verdicts if verdict.rule == "watch:away")
    assert said.outcome == "unknown" and said.numbers["minutes"] == pytest.approx(86_400 / 60, abs=2) and said.window is not None
    assert after.through == closed(NOW + AWAY_S + 86_400)


def of_clock(kept: Kept) -> list[Verdict]:
    return [verdict for verdict in kept.verdicts if verdict.rule == "watch:clock"]


def test_a_clock_that_was_put_back_is_said_for_a_window_and_judging_goes_on() -> None:
    told = Told()
    kept = judged(fresh(), minutes(0, 30), told)
    back = START + 10 * MINUTE_S + watch.GRACE_S
    after = judged(kept, minutes(0, 30), told, now=back)
    (said,) = of_clock(after)
    assert said.outcome == "unknown" and said.numbers == {"minutes": (closed(back) - kept.through) / 60, "times": 1.0}
    assert "was put back by 19 minutes" in said.evidence and after.through == closed(back)
    on = judged(after, minutes(0, 30), told, now=back + MINUTE_S)
    assert on.through == after.through + MINUTE_S and of_clock(on) == [said], "who looks a minute later is told as well"
    assert of_clock(judged(on, minutes(0, 30), told, now=back + DEFAULTS.window_s + MINUTE_S)) == []


@pytest.mark.parametrize(("seconds", "words"), [(3600.0, "went 60 minutes too far"), (-86_400.0, "put back by 1,440 minutes")])
def test_a_clock_that_strayed_from_time_is_named_and_counted(seconds: float, words: str) -> None:
    kept = judged(fresh(), minutes(0, 30), Told())
    assert of_clock(kept) == []
    now = NOW + 60 + seconds
    noted = watch.strayed(kept, at=now, seconds=seconds, since=now - 20)
    after = judged(noted, minutes(0, 30), Told(), now=now)
    (said,) = of_clock(after)
    assert words in said.evidence and said.numbers == {"minutes": seconds / 60, "times": 1.0}, "named once, not again as a span that goes back"
    assert after.through == closed(now), "and judging goes on from there"
    twice = judged(watch.strayed(after, at=now + 60, seconds=seconds, since=now + 60), [], Told(), now=now + 60)
    assert of_clock(twice)[0].numbers["times"] == 2.0
    assert len(twice.with_gap(twice.gaps[0]).gaps) == 3 and begin(DIGEST, 4, settings=DEFAULTS, now=now, before=twice).gaps == twice.gaps


def test_jumps_to_and_fro_are_all_counted() -> None:
    there = watch.strayed(fresh(), at=NOW + 3600, seconds=3600.0, since=NOW + 3600)
    back = watch.strayed(there, at=NOW - 86_400, seconds=-90_000.0, since=NOW - 86_400)
    (said,) = of_clock(judged(back, [], Told(), now=NOW - 86_400 + 30))
    assert said.numbers == {"minutes": -1500.0, "times": 2.0} and "2 times in this window" in said.evidence


def test_a_release_that_is_new_has_missed_nothing_however_long_the_window() -> None:
    settings = msgspec.structs.replace(DEFAULTS, window_s=3.0 * AWAY_S)
    kept = begin(DIGEST, 3, settings=settings, now=NOW)
    assert judged(kept, minutes(0, 2), Told(), settings=settings).gaps == ()


def test_gaps_are_remembered_within_bounds() -> None:
    kept = fresh()
    for place in range(watch.GAPS + 5):
        kept = watch.strayed(kept, at=NOW + place, seconds=90.0, since=NOW)
    assert len(kept.gaps) == watch.GAPS and kept.gaps[-1].at == NOW + watch.GAPS + 4


def test_columns_to_ignore_have_no_importance_and_no_verdicts() -> None:
    told = Told()
    told.say = (
        Verdict(outcome="fail", rule="told:a", evidence=""),
        Verdict(outcome="fail", rule="told:b", evidence="", columns=("b",)),
        Verdict(outcome="fail", rule="told", evidence="", columns=("a", "b")),
        Verdict(outcome="fail", rule="told:X[0]", evidence="", columns=("X[0]",)),
    )
    after = judged(fresh(), minutes(0, 3), told, settings=Monitored(ignore=("a", "X")))
    assert {verdict.rule for verdict in after.verdicts} == {"told:b", "told"}
    assert told.handed[-1].reference.importance == {"a": 0.0, "b": 1.0, "X[0]": 0.0}
    judged(fresh(), minutes(0, 3), told, settings=Monitored(ignore=("y",)))
    assert told.handed[-1].reference.importance == {}, "nothing known is nothing known"
    judged(fresh(), minutes(0, 3), told, settings=Monitored(ignore=("a", "b", "X")))
    assert set(told.handed[-1].reference.importance.values()) == {0.0}


def test_numbers_that_json_cannot_hold_are_bounded() -> None:
    told = Told()
    told.say = (Verdict(outcome="fail", rule="told", evidence="", numbers={"value": math.inf, "of": math.nan, "threshold": 2.0}, harm=math.nan),)
    (said,) = judged(fresh(), minutes(0, 3), told).verdicts
    assert said.numbers == {"value": sys.float_info.max, "threshold": 2.0} and said.harm is None


def test_the_course_of_levels_is_kept_in_steps_and_bounded() -> None:
    told, kept = Told("drift"), fresh()
    for place in range(10):
        told.say = tuple(
            Verdict(outcome="pass", rule=f"drift:{name}", evidence="", numbers={"value": value * place, "threshold": 4.0})
            for name, value in (("a", 1.0), ("b", 2.0))
        )
        kept = judged(kept, [], told, now=NOW + place * MINUTE_S)
    starts, values = zip(*kept.track["drift"], strict=True)
    assert values[-1] == 4.5 and sorted(values) == list(values) and all(at % 297 == 0 for at in starts) and 2 <= len(values) <= 4
    track: dict[str, tuple[tuple[int, float], ...]] = {}
    for at in range(0, 60 * 200, 60):
        track = watch._tracked(track, told.say, at=at, step_s=60)
    assert len(track["drift"]) == watch.TRACKED and track["drift"][-1] == (60 * 199, 4.5)
    assert DEFAULTS.window_s / 297 < watch.TRACKED, "the whole window is kept"


def test_figures_of_performance_have_a_course_of_their_own() -> None:
    told = Told("performance")
    told.say = (
        Verdict(outcome="pass", rule="performance:mae", evidence="", numbers={"mae": 12.3456, "value": 1.0, "threshold": 8.0}),
        Verdict(outcome="pass", rule="estimated_performance:accuracy", evidence="", numbers={"value": 0.9, "bound": 0.8}),
        Verdict(outcome="unknown", rule="performance:rmse", evidence="", numbers={"value": 0.0, "threshold": 8.0}),
    )
    track = judged(fresh(), [], told).track
    assert {name: points[-1][1] for name, points in track.items()} == {
        "performance:mae": 12.35,
        "estimated_performance:accuracy": 0.9,
        "performance": 0.125,
    }


def test_what_fails_is_explained_and_a_failing_explanation_is_said_to_be_none(monkeypatch: pytest.MonkeyPatch) -> None:
    told = Told()
    told.say = (
        *(Verdict(outcome="fail", rule=f"told:{place}", evidence="", harm=place / 100) for place in range(MOST + 2)),
        Verdict(outcome="warn", rule="told:w", evidence=""),
    )
    after = judged(fresh(), minutes(0, 3), told)
    assert set(after.causes) == {f"told:{place}" for place in range(2, MOST + 2)}, "the most important"
    assert {cause.kind for cause in after.causes.values()} <= {"unknown", "population shift", "upstream break", "concept shift"}

    def broken(*_: object, **__: object) -> object:
        raise ZeroDivisionError

    monkeypatch.setattr(of_turn, "explain", broken)
    after = judged(fresh(), minutes(0, 3), told)
    assert {cause.evidence for cause in after.causes.values()} == {"the explanation failed (ZeroDivisionError)"}


def test_what_pages_comes_first_then_what_harms() -> None:
    page, report = Told("page"), Told("report", pages=False)
    detectors = {"page": page, "report": report}
    said = [
        Verdict(outcome="pass", rule="page:a", evidence=""),
        Verdict(outcome="fail", rule="report:b", evidence="", harm=0.5),
        Verdict(outcome="unknown", rule="page:c", evidence=""),
        Verdict(outcome="fail", rule="page:d", evidence="", harm=0.01),
        Verdict(outcome="fail", rule="page:e", evidence="", harm=0.2),
        Verdict(outcome="warn", rule="report:f", evidence="", numbers={"effect": -3.0}),
        Verdict(outcome="warn", rule="report:g", evidence="", numbers={"effect": 1.0}),
    ]
    found = sorted(said, key=lambda verdict: importance(verdict, detectors, DEFAULTS))
    assert [verdict.rule[-1] for verdict in found] == ["e", "d", "b", "f", "g", "c", "a"]


def test_every_detector_of_the_table_is_one() -> None:
    for rule, detector in watch.load().items():
        assert detector.rule == rule and isinstance(detector.pages, bool)


def test_a_span_is_of_whole_minutes_and_never_ends_before_it_starts() -> None:
    for through in (START - 3 * AWAY_S, START, START + 9e5):
        found = span(Kept(version=1, digest=DIGEST, through=int(through)), settings=DEFAULTS, closed=int(START))
        assert isinstance(found, Span) and found.since <= found.start <= found.until and all(each % MINUTE_S == 0 for each in found)


def test_a_drift_is_priced_by_what_the_bundle_carries_and_by_the_rows_of_its_window() -> None:
    given = estimating.rows(estimating.TWO, 5_000)
    taught = estimating.learnt(estimating.TWO, given)
    known = estimating.bins(estimating.TWO, given)
    reference = REFERENCE._replace(profile=known, learnt=taught)
    old = estimating.counts(known, estimating.rows(estimating.TWO, 2_000, ages=(65, 85)))
    young = estimating.counts(known, estimating.rows(estimating.TWO, 2_000, ages=(20, 50)))
    seen = [minute(START)._replace(counts=young), minute(START + 60)._replace(counts=old), minute(START + 120)]
    drift = Verdict(outcome="fail", rule="drift:age", evidence="age has moved", columns=("age",), window=(START + 60.0, START + 180.0))
    (found,) = watch._priced([drift], reference, seen)
    assert found.harm is not None and found.harm > 0.05
    earlier = msgspec.structs.replace(drift, window=(float(START), START + 60.0))
    assert next(iter(watch._priced([earlier], reference, seen))).harm == 0
    for verdict, other in ((drift, reference._replace(learnt=None)), (msgspec.structs.replace(drift, outcome="pass"), reference)):
        assert list(watch._priced([verdict], other, seen)) == [verdict]
    assert list(watch._priced([drift], reference, seen[:1])) == [drift], "no row of the window is left"
    many = np.array([2**62, *old[1:]])
    beyond = [minute(START + 60 * at)._replace(counts=many) for at in (1, 2)]
    assert list(watch._priced([drift], reference, beyond)) == [drift], "counts whose sum cannot be have no price, and end no turn"
