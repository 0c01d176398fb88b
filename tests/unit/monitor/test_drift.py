"""The detector that pages on drift: what it finds, what it leaves alone, what it remembers, and that bad data gets a verdict and no exception."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from drifting import DIGEST, MONDAY, OTHER, cell_shares, drawn, evidence, minute, normal_reference, vector
from hypothesis import given
from hypothesis import strategies as st

from modelyard.monitor import cycles, profile
from modelyard.monitor.base import Evidence, Judged, Minute, Reference
from modelyard.monitor.cause import explain
from modelyard.monitor.drift import Drift
from modelyard.monitor.estimate import Learnt
from modelyard.monitor.profile import Binner
from modelyard.monitor.settings import Drift as Section
from modelyard.monitor.settings import Monitored
from modelyard.types import Schema, TensorSpec, Verdict

AT_ONCE = Monitored(drift=Section(learn_days=0))
DAY = 1440


def judge(reference: Reference, fresh: list[Minute], state: bytes = b"", *, settings: Monitored = AT_ONCE, detector: Drift | None = None) -> Judged:
    return (detector or Drift()).judge(evidence(reference, fresh, settings=settings), state)


def of(judged: Judged, rule: str) -> Verdict:
    return next(verdict for verdict in judged.verdicts if verdict.rule == rule)


def test_a_shift_is_told_with_its_column_size_and_beginning() -> None:
    reference = normal_reference(("a", "b"))
    rng = np.random.default_rng(0)
    quiet = judge(reference, drawn(rng, reference.profile, range(200), rows=139))
    assert {verdict.outcome for verdict in quiet.verdicts} == {"pass"}
    found = judge(reference, drawn(rng, reference.profile, range(200, 260), rows=139, mean=np.array([0.5, 0.0])), quiet.state)
    told = of(found, "drift:a")
    assert told.outcome == "fail"
    assert told.columns == ("a",)
    assert told.numbers["shift"] == pytest.approx(0.5, abs=0.1)
    assert told.numbers["value"] >= told.numbers["threshold"]
    assert told.window is not None
    assert abs(told.window[0] - (MONDAY + 200 * 60)) <= 5 * 60
    assert told.window[1] == MONDAY + 260 * 60
    assert "higher by 0.5" in told.evidence or "higher by 0.4" in told.evidence
    assert of(found, "drift:b").outcome == "pass"
    assert [verdict.rule for verdict in found.verdicts] == ["drift:a", "drift:b"]  # no second alert on the same


def test_where_the_window_shows_a_sharp_beginning_it_is_told_as_its_cause_tells_it() -> None:
    reference = normal_reference(("a", "b"))
    rng = np.random.default_rng(0)
    before = drawn(rng, reference.profile, range(200), rows=139)
    shifted = drawn(rng, reference.profile, range(200, 260), rows=139, mean=np.array([0.5, 0.0]))
    quiet = judge(reference, before)
    seen = evidence(reference, shifted, settings=AT_ONCE)._replace(recent=[*before, *shifted])
    found = Drift().judge(seen, quiet.state)
    told = of(found, "drift:a")
    cause = explain(told, seen)
    assert told.window is not None and told.window[0] == cause.first_bad
    assert abs(told.window[0] - (MONDAY + 200 * 60)) <= 60, "to the minute"
    kept = Drift().judge(seen._replace(fresh=[], recent=shifted), found.state)
    assert of(kept, "drift:a").window[0] == told.window[0], "it stays what was told"  # type: ignore[index]


def test_what_moved_up_is_not_told_as_spread_wider_after_a_while() -> None:
    """Evidence is let go beyond the threshold: a strong shift reaches that in several directions, and for days."""
    reference = normal_reference(tuple("abcdefgh"))
    rng = np.random.default_rng(0)
    state, names = b"", [f"drift:{name}" for name in "abcdefgh"]
    for begin in range(0, 100, 20):
        state = judge(reference, drawn(rng, reference.profile, range(begin, begin + 20), rows=139, mean=1.0), state).state
        found = judge(reference, [], state)
        assert all("lies higher by" in of(found, name).evidence for name in names)


def test_an_alarm_ends_when_its_cause_has() -> None:
    reference = normal_reference(("a",))
    rng = np.random.default_rng(0)
    found = judge(reference, drawn(rng, reference.profile, range(60), rows=139, mean=0.5))
    assert of(found, "drift:a").outcome == "fail"
    later = judge(reference, drawn(rng, reference.profile, range(60, 100), rows=139), found.state)
    assert of(later, "drift:a").outcome == "fail"
    assert "holds" in of(later, "drift:a").evidence and "holds" not in of(found, "drift:a").evidence
    over = judge(reference, drawn(rng, reference.profile, range(100, 200), rows=139), later.state)
    assert of(over, "drift:a").outcome == "pass"


def test_an_alarm_that_is_held_tells_what_raised_it_also_by_what_a_release_before_wrote() -> None:
    import zlib

    reference = normal_reference(("a",))
    rng = np.random.default_rng(0)
    found = judge(reference, drawn(rng, reference.profile, range(40), rows=139, mean=0.6))
    fields = msgspec.msgpack.decode(zlib.decompress(found.state))
    before = zlib.compress(msgspec.msgpack.encode([*fields[:5], fields[5][:15]]))
    well = drawn(rng, reference.profile, range(40, 60), rows=139)
    held, other = (of(judge(reference, well, state), "drift:a") for state in (found.state, before))
    assert held.outcome == other.outcome == "fail" and held.window == other.window
    assert held.numbers["value"] < held.numbers["threshold"] < held.numbers["peak"] and "evidence reached" in held.evidence
    assert other.numbers.get("peak", 0.0) <= held.numbers["peak"], "what is known since then"


def test_turns_of_any_length_find_the_same() -> None:
    reference = normal_reference(("a", "b"))
    minutes = drawn(np.random.default_rng(0), reference.profile, range(60), rows=139, mean=np.array([0.2, 0.0]))
    whole = judge(reference, minutes)
    state = b""
    for each in minutes:
        parts = judge(reference, [each], state)
        state = parts.state
    for one, other in zip(whole.verdicts, parts.verdicts, strict=True):
        assert one.outcome == other.outcome
        assert one.numbers == pytest.approx(other.numbers, rel=1e-3)


def test_an_unused_column_is_told_and_pages_nobody() -> None:
    minutes = drawn(np.random.default_rng(0), normal_reference().profile, range(60), rows=139, mean=np.array([1.0, 0.0]))
    unused = judge(normal_reference(importance={"a": 0.0, "b": 1.0}), minutes)
    assert of(unused, "drift:a").outcome == "warn"
    assert "pages nobody" in of(unused, "drift:a").evidence
    assert of(judge(normal_reference(importance={"a": 0.5, "b": 0.5}), minutes), "drift:a").outcome == "fail"


def test_who_may_be_woken_less_often_needs_more_evidence() -> None:
    reference = normal_reference()
    thresholds = [
        of(
            Drift().judge(evidence(reference, drawn(np.random.default_rng(0), reference.profile, [0], rows=9), false_pages=pages), b""), "drift:a"
        ).numbers["threshold"]
        for pages in (1.0, 0.01)
    ]
    assert thresholds[1] - thresholds[0] == pytest.approx(2.0)


def test_the_first_week_is_learnt_and_cycles_page_nobody_after() -> None:
    reference = normal_reference(("cyclic", "still"), swings={"cyclic": 0.8})
    rng = np.random.default_rng(0)
    state, detector, settings = b"", Drift(), Monitored()
    failed = []
    for hour in range(24 * 10):
        mean = np.array([0.8 * np.sin(2 * np.pi * hour / 24), 0.0])
        minutes = drawn(rng, reference.profile, range(60 * hour, 60 * hour + 60, 6), rows=200, mean=mean)
        judged = judge(reference, minutes, state, settings=settings, detector=detector)
        state = judged.state
        failed += [verdict for verdict in judged.verdicts if verdict.outcome == "fail"]
        if hour == 100:
            assert of(judged, "drift").outcome == "unknown"
            assert "learnt" in of(judged, "drift:cyclic").evidence
    assert not failed
    assert of(judged, "drift").outcome == "pass"
    shifted = drawn(rng, reference.profile, range(60 * 240, 60 * 241), rows=200, mean=np.array([0.0, 0.4]))
    assert of(judge(reference, shifted, state, settings=settings), "drift:still").outcome == "fail"
    higher = state
    for hour in range(240, 264):  # lies higher than it ever did, at its peaks alone
        mean = np.array([0.3 + 0.8 * np.sin(2 * np.pi * hour / 24), 0.0])
        judged = judge(reference, drawn(rng, reference.profile, range(60 * hour, 60 * hour + 60, 6), rows=2000, mean=mean), higher, settings=settings)
        higher = judged.state
    assert of(judged, "drift:cyclic").outcome == "fail"


def test_a_bundle_that_tells_of_cycles_needs_no_first_week() -> None:
    reference = normal_reference(("a",))
    told = {cycles.key(reference.profile.features[0]): (0.5, 0.5, 0.0, 0.0, 0.0, 0.0, 0.6)}
    known = reference._replace(learnt=Learnt(cycles=told))
    rng = np.random.default_rng(0)
    within = judge(known, drawn(rng, reference.profile, range(60), rows=139, mean=0.5), settings=Monitored())
    assert of(within, "drift:a").outcome == "pass"
    beyond = judge(known, drawn(rng, reference.profile, range(60), rows=139, mean=0.9), settings=Monitored())
    assert of(beyond, "drift:a").outcome == "fail"
    for useless in ({}, {"input number other": told[cycles.key(reference.profile.features[0])]}, {cycles.key(reference.profile.features[0]): (0.5,)}):
        learning = judge(reference._replace(learnt=Learnt(cycles=useless)), drawn(rng, reference.profile, range(9), rows=139), settings=Monitored())
        assert of(learning, "drift:a").outcome == "unknown"


def test_missing_and_unknown_values_page_in_the_first_week_too() -> None:
    reference = normal_reference(("a",))
    rng = np.random.default_rng(0)
    counts = [rng.multinomial(130, cell_shares(reference.profile)) for _ in range(10)]
    found = judge(reference, [minute(at, vector(reference.profile, each, missing=9)) for at, each in enumerate(counts)], settings=Monitored())
    assert of(found, "drift:a").outcome == "fail"
    assert "missing in" in of(found, "drift:a").evidence
    over = judge(reference, drawn(rng, reference.profile, range(10, 120), rows=139), found.state, settings=Monitored())
    assert of(over, "drift:a").outcome == "pass"
    shifted = judge(reference, drawn(rng, reference.profile, range(60), rows=139, mean=0.5), settings=Monitored())
    assert of(shifted, "drift:a").outcome == "unknown"


def test_a_new_release_begins_anew_and_keeps_what_was_learnt_of_cycles() -> None:
    reference = normal_reference(("a",))
    rng = np.random.default_rng(0)
    state = b""
    for hour in range(24 * 7 + 3):
        minutes = drawn(rng, reference.profile, [60 * hour], rows=2000, mean=0.8 * np.sin(2 * np.pi * hour / 24))
        state = judge(reference, minutes, state, settings=Monitored()).state
    fresh = normal_reference(("a",), seed=5, digest=OTHER)
    at_peak = drawn(rng, fresh.profile, range(20_000, 20_060), rows=139, mean=0.8)
    at_peak = [each._replace(digest=OTHER) for each in at_peak]
    known = judge(fresh, at_peak, state, settings=Monitored())
    assert of(known, "drift:a").outcome == "pass"
    assert "begins anew" in of(known, "drift").evidence
    assert of(judge(fresh, at_peak, settings=AT_ONCE), "drift:a").outcome == "fail"  # without what was learnt
    other = normal_reference(("other",), digest=OTHER)
    assert of(judge(other, at_peak, state, settings=Monitored()), "drift:other").outcome == "unknown"


@pytest.mark.parametrize("state", [b"no", b"\x78\x9c\x03\x00\x00\x00\x00\x01", "old", "cut"])
def test_state_of_no_use_begins_anew(state: bytes | str) -> None:
    reference = normal_reference(("a",))
    minutes = drawn(np.random.default_rng(0), reference.profile, range(3), rows=139)
    if isinstance(state, str):
        good = judge(reference, minutes).state
        import zlib

        fields = msgspec.msgpack.decode(zlib.decompress(good))
        fields = [99, *fields[1:]] if state == "old" else [*fields[:4], fields[4][:3]]
        state = zlib.compress(msgspec.msgpack.encode(fields))
    found = judge(reference, minutes, state)
    assert of(found, "drift").outcome == "pass"
    assert "begins anew" in of(found, "drift").evidence


def test_bad_data_is_unknown_and_named() -> None:
    reference = normal_reference(("a", "b"))
    empty: list[Minute] = [minute(0, None), minute(1, np.zeros(profile.size(reference.profile), dtype=np.int64))]
    other = normal_reference(("a",)).profile
    strangers = drawn(np.random.default_rng(0), other, range(2), rows=10)
    nothing = reference._replace(profile=profile.Profile(features=()))
    for fresh, known, said in (
        ([], reference, "no row"),
        (empty, reference, "no row"),
        (strangers, reference, "another profile"),
        ([each._replace(digest=OTHER) for each in strangers], reference, "no row"),
        (empty, nothing, "no profile"),
        (empty, normal_reference(rows=20), "20 rows"),
    ):
        found = judge(known, fresh)
        assert [verdict.outcome for verdict in found.verdicts] == ["unknown"]
        assert said in found.verdicts[0].evidence


def test_rows_that_came_only_late_are_told_as_such() -> None:
    reference = normal_reference(("a", "b"))
    seen = drawn(np.random.default_rng(0), reference.profile, range(3), rows=10)
    for recent, said in (
        (seen, "only after their minutes were judged: 30"),
        ([], "no row"),
        ([each._replace(digest=OTHER) for each in seen], "no row"),
    ):
        (told,) = Drift().judge(evidence(reference, [], recent=recent, settings=AT_ONCE), b"").verdicts
        assert told.outcome == "unknown" and said in told.evidence


def test_a_feature_of_nothing_but_nan_is_missing() -> None:
    reference = normal_reference(("a", "b"))
    binner = Binner(reference.profile)
    rng = np.random.default_rng(0)
    binner.add({"a": np.full((300, 1), np.nan), "b": rng.normal(size=(300, 1))}, {})
    found = judge(reference, [minute(0, binner.take())])
    assert of(found, "drift:a").outcome == "fail"
    assert of(found, "drift:a").numbers["missing"] == 1.0
    assert of(found, "drift:b").outcome == "pass"


def test_a_gap_and_a_clock_that_jumps_change_no_verdict() -> None:
    reference = normal_reference(("a",))
    rng = np.random.default_rng(0)
    for places in ([0, 1, 50_000, 50_001], [0, 1, -900_000, 2], [10**9, 3]):
        assert of(judge(reference, drawn(rng, reference.profile, places, rows=139)), "drift:a").outcome == "pass"


def test_without_a_row_what_was_well_is_unknown_and_an_alarm_stands() -> None:
    reference = normal_reference(("a", "b"))
    rng = np.random.default_rng(0)
    found = judge(reference, drawn(rng, reference.profile, range(60), rows=139))
    silent = evidence(reference, [], settings=AT_ONCE)
    for later, outcome in ((60 * 60 + AT_ONCE.window_s, "pass"), (60 * 60 + AT_ONCE.window_s + 1, "unknown")):
        told = Drift().judge(silent._replace(now=MONDAY + later), found.state)
        assert {verdict.outcome for verdict in told.verdicts} == {outcome}
    assert "no row since 2026" in of(told, "drift").evidence and "no row since 2026" in of(told, "drift:a").evidence
    moved = judge(reference, drawn(rng, reference.profile, range(60, 120), rows=139, mean=np.array([0.5, 0.0])), found.state)
    told = Drift().judge(silent._replace(now=MONDAY + 30 * DAY * 60), moved.state)
    assert of(told, "drift:a").outcome == "fail" and of(told, "drift:b").outcome == "unknown"


def test_of_very_many_streams_only_those_that_spoke_up_are_told_apart() -> None:
    names = tuple(f"x{place}" for place in range(300))
    reference = normal_reference(names, rows=500)
    mean = np.zeros(300)
    mean[7] = 2.0
    found = judge(reference, drawn(np.random.default_rng(0), reference.profile, range(30), rows=139, mean=mean))
    assert [verdict.rule for verdict in found.verdicts] == ["drift:x7"]


@given(st.lists(st.lists(st.integers(-5, 10**12), min_size=5, max_size=40), max_size=4), st.booleans(), st.integers(-(10**9), 10**9))
def test_whatever_counts_come_there_is_a_verdict_and_a_state(vectors: list[list[int]], fits: bool, at: int) -> None:
    reference = normal_reference(("a",), rows=500)
    size = profile.size(reference.profile)
    made = [np.resize(np.array(each), size) if fits else np.array(each) for each in vectors]
    found = judge(reference, [minute(at + place, each) for place, each in enumerate(made)])
    assert found.verdicts
    assert all(np.isfinite(value) for verdict in found.verdicts for value in verdict.numbers.values())
    assert judge(reference, drawn(np.random.default_rng(0), reference.profile, [at + 9], rows=9), found.state).verdicts


def test_state_is_small() -> None:
    names = tuple(f"x{place}" for place in range(100))
    reference = normal_reference(names)
    found = judge(reference, drawn(np.random.default_rng(0), reference.profile, range(30), rows=139))
    assert len(found.state) < 40_000


def test_an_evidence_names_an_output_that_is_called_like_an_input() -> None:
    reference = normal_reference(("a",))
    both = reference.profile.features[0]
    twice = reference._replace(profile=profile.Profile(features=(both, msgspec.structs.replace(both, role="output"))))
    counts = np.random.default_rng(0).multinomial(139, cell_shares(twice.profile))
    found = judge(twice, [minute(0, vector(twice.profile, counts), digest=DIGEST)])
    assert [verdict.rule for verdict in found.verdicts] == ["drift", "drift:a", "drift:output a"]
    assert of(found, "drift:output a").numbers["threshold"] < of(found, "drift:a").numbers["threshold"]


def test_the_kind_of_evidence_is_that_of_the_port() -> None:
    given: Evidence = evidence(normal_reference(), [])
    assert Drift().judge(given, b"").state


def holidays(rng: np.random.Generator, days: range, *, on: tuple[int, ...], is_by_row: bool = False) -> list[Minute]:
    """A row an hour of a column that is 1 on the days `on` and else 0; `is_by_row`: in one row of thirty, whichever."""
    known = calendar()
    found = []
    for hour in range(days.start * 24, days.stop * 24):
        value = float(rng.random() < 1 / 30) if is_by_row else float(hour // 24 in on)
        binner = Binner(known.profile)
        binner.add({"holiday": np.array([[value]])}, {})
        found.append(Minute(MONDAY + hour * 3600, 1, DIGEST, 1, 1, {}, {}, {}, binner.take()))
    return found


def calendar() -> Reference:
    """Of a hundred and twenty days four were holidays."""
    schema = Schema(inputs=(TensorSpec(name="holiday", datatype="FP64", shape=(-1, 1)),), outputs=(), layout="frame", task="regression")
    days = np.repeat(np.arange(120) % 30 == 7, 24).astype(np.float64)[:, None]
    return Reference(DIGEST, schema, profile.measure({"holiday": days}, schema), {}, {})


def test_a_holiday_is_one_draw_and_not_as_many_as_its_rows() -> None:
    rng = np.random.default_rng(0)
    found = judge(calendar(), holidays(rng, range(30), on=(9, 23)), settings=Monitored())
    assert of(found, "drift:holiday").outcome == "pass"
    mixed = judge(calendar(), holidays(rng, range(9), on=(), is_by_row=True), settings=Monitored())
    stuck = judge(calendar(), holidays(rng, range(9, 10), on=(9,)), mixed.state, settings=Monitored())
    assert of(stuck, "drift:holiday").outcome == "fail", "where it went by the row before, a day of nothing else is a shift"
