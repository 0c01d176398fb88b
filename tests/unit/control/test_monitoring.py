"""The leader's monitor on a real home: what is judged, when, against what, and what is written down."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from watching import START, Told, deployed, segment, spooled

from modelyard import config, control
from modelyard.control import monitoring
from modelyard.control.monitoring import Monitoring, last
from modelyard.control.plane import ControlPlane, local_principal
from modelyard.errors import Conflict, InvalidConfig, MalformedPayload, ModelyardError, NotFound, Unavailable
from modelyard.monitor import watch
from modelyard.monitor.alerts import Policy, outbox
from modelyard.monitor.base import Evidence, Judged
from modelyard.monitor.concept import ConceptDrift
from modelyard.monitor.estimate.detector import EstimatedPerformance
from modelyard.monitor.intake import Intake
from modelyard.monitor.labels import labels_path
from modelyard.monitor.performance import Performance
from modelyard.monitor.settings import Bound, Drift, Monitored, Section
from modelyard.monitor.watch import GRACE_S
from modelyard.monitor.windows import Windows
from modelyard.types import Verdict
from serving import Home

WHO = local_principal()


class Watched:
    """A home with a deployment of `line`, a clock that tests move, and the leader's monitor with a detector that is told what to say."""

    def __init__(self, folder: Path) -> None:
        home = Home(folder)
        home.add("line")
        home.add("line", offset=1.0)
        self.plane = ControlPlane(
            config.load({"home": folder, "retention_days": 100_000, "minute_counters_hours": 10**6, "minute_profiles_hours": 10**6})
        )
        self.release = deployed(self.plane, "line:1")
        self.now = START + GRACE_S + 1
        self.put_s = 0.0
        self.detector = Told()
        self.intake = Intake(self.plane.settings)
        self.monitoring = self.again()

    def again(self) -> Monitoring:
        """The monitor of another term, or process."""
        clocks = {"clock": lambda: self.now, "monotonic": lambda: self.now - self.put_s}
        return Monitoring(self.plane, self.plane.registry.records, detectors={"told": self.detector}, **clocks)

    def see(self, at: float, *, rows: int = 3, ids: tuple[str, ...] = (), name: str | None = None) -> None:
        """Let `rows` be answered at a time."""
        inputs = {"a": np.full((rows, 1), 0.5), "b": np.full((rows, 1), 2), "c": np.full((rows, 1), 0.5, np.float32)}
        spooled(self.plane, segment(self.plane, self.release, at, inputs, {"prediction": np.full(rows, 70.5)}, ids=ids, name=name))
        self.intake.drain()

    def kept(self, name: str = "line") -> Any:
        return last(self.plane.registry.records, name)


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    watched = Watched(tmp_path / "home")
    yield watched
    watched.intake.close()
    watched.plane.close()


def test_a_minute_is_judged_once_it_is_over_and_written_down(watched: Watched) -> None:
    watched.see(START + 30)
    watched.monitoring.turn()
    assert watched.detector.starts == []
    watched.now = START + 60 + GRACE_S
    assert not watched.monitoring.turn()
    assert watched.detector.starts == [START]
    (evidence,) = watched.detector.handed[-1:]
    assert evidence.fresh[0].counts is not None and evidence.reference.profile.rows == 64 and evidence.name == "line"
    kept = watched.kept()
    assert kept.through == START + 60 and kept.version == 1 and kept.digest == watched.release.digest and kept.verdicts[0].rule == "told"
    handed = len(watched.detector.handed)
    assert not watched.monitoring.turn() and len(watched.detector.handed) == handed, "nothing is due until the next minute is over"


@pytest.mark.parametrize("hours", [1, -24])
def test_a_clock_that_is_put_is_named_and_nothing_is_silent(watched: Watched, hours: int) -> None:
    watched.see(START + 30)
    watched.now = START + 60 + GRACE_S
    watched.monitoring.turn()
    assert watched.kept().gaps == ()
    watched.put_s = hours * 3600.0
    watched.now += watched.put_s + 60
    at = START + watched.put_s + 90
    watched.see(at)
    watched.monitoring.turn()
    kept = watched.kept()
    (said,) = (each for each in kept.verdicts if each.rule == "watch:clock")
    assert said.outcome == "unknown" and said.numbers == {"minutes": hours * 60.0, "times": 1.0}
    assert kept.through == START + watched.put_s + 120 and watched.detector.starts[-1] == START + watched.put_s + 60, "what comes after is judged"
    watched.now += 60
    watched.monitoring.turn()
    assert len(watched.kept().gaps) == 1, "it is one jump, however often it is looked at"
    assert [each for each in watched.kept().verdicts if each.rule == "watch:clock"] == [said]


def test_a_jump_is_written_though_the_store_was_away_when_it_was_noticed(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    watched.see(START + 30)
    watched.now = START + 60 + GRACE_S
    watched.monitoring.turn()
    watched.put_s, watched.now = 7200.0, watched.now + 7260
    records = watched.plane.registry.records

    @contextlib.contextmanager
    def away() -> Iterator[Any]:
        raise Unavailable("the store is away")
        yield

    with monkeypatch.context() as patched:
        patched.setattr(type(records), "transaction", lambda _: away())
        with pytest.raises(Unavailable):
            watched.monitoring.turn()
    watched.monitoring.turn()
    assert [each.seconds for each in watched.kept().gaps] == [7200.0]


def test_who_takes_over_goes_on_where_the_last_one_stopped(watched: Watched) -> None:
    for place in range(3):
        watched.see(START + 60 * place + 30)
    watched.now = START + 120 + GRACE_S
    watched.monitoring.turn()
    watched.now = START + 240 + GRACE_S
    other = watched.again()
    other.turn()
    assert watched.detector.starts == [START, START + 60, START + 120]
    assert watched.kept().verdicts[0].numbers == {"minutes": 3.0}


def test_what_could_not_be_written_is_judged_again(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    watched.see(START + 30)
    watched.now = START + 60 + GRACE_S
    records = watched.plane.registry.records

    @contextlib.contextmanager
    def away() -> Iterator[Any]:
        raise Unavailable("the store is away")
        yield

    with monkeypatch.context() as patched:
        patched.setattr(type(records), "transaction", lambda _: away())
        with pytest.raises(Unavailable):
            watched.monitoring.turn()
    watched.monitoring.turn()
    assert watched.detector.starts == [START, START] and watched.kept().verdicts[0].numbers == {"minutes": 1.0}, "its state was not kept either"


def test_another_version_begins_anew_and_what_is_gone_is_forgotten(watched: Watched) -> None:
    watched.see(START + 30)
    watched.now = START + 60 + GRACE_S
    watched.monitoring.turn()
    assert watched.kept().verdicts[0].numbers == {"minutes": 1.0}
    second = deployed(watched.plane, "line:2")
    assert not watched.monitoring.turn()
    assert watched.kept().digest == second.digest and watched.detector.handed[-1].fresh == [] and watched.detector.handed[-1].recent == []
    watched.plane.deployments.remove(watched.plane.deployments.get("line"))
    assert not watched.monitoring.turn()
    assert watched.kept() is None


def test_a_version_that_cannot_be_read_is_unknown_and_judged_when_it_can_be(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    watched.see(START + 30)
    watched.now = START + 60 + GRACE_S

    def broken(*_: object) -> object:
        raise NotFound("its blobs are away")

    with monkeypatch.context() as patched:
        patched.setattr(ControlPlane, "opened", broken)
        assert not watched.monitoring.turn()
        assert not watched.monitoring.turn()
    assert [(said.outcome, said.rule) for said in watched.kept().verdicts] == [("unknown", "watch"), ("unknown", "told")]
    assert "its blobs are away" in watched.kept().verdicts[0].evidence and not watched.detector.handed
    watched.now += 60
    watched.monitoring.turn()
    assert watched.detector.starts == [START]


def test_a_damaged_file_of_the_log_is_named_and_ends_no_watch_of_what_was_counted(watched: Watched) -> None:
    watched.see(START + 30, ids=("x", "y", "z"))
    watched.plane.labels(WHO, "line", [("x", 70.0), ("late", 1)])
    watched.now = START + 60 + GRACE_S
    watched.monitoring.turn()
    for kind in ("predictions", "inputs"):
        (good,) = (watched.plane.settings.home / "log" / kind / "line").glob("*/*.parquet")
        good.with_name(f"1-damaged-{kind}.parquet").write_bytes(b"PAR1 and nothing else")
    watched.see(START + 90)
    watched.plane.labels(WHO, "line", [("later", 1)])
    watched.now += 60
    watched.monitoring.turn()
    assert watched.detector.starts == [START, START + 60], "what was counted is judged"
    said = next(verdict for verdict in watched.kept().verdicts if verdict.rule == "watch:log")
    assert said.outcome == "unknown" and "logged rows: the prediction log cannot be read now" in said.evidence and "labels: " in said.evidence
    for bad in (watched.plane.settings.home / "log").glob("*/line/*/1-damaged-*.parquet"):
        bad.unlink()
    watched.now += 60
    watched.monitoring.turn()
    assert all(verdict.rule != "watch:log" for verdict in watched.kept().verdicts)
    assert watched.detector.handed[-1].labelled is not None and watched.detector.handed[-1].logged is not None


@pytest.mark.parametrize("spoil", [lambda path: path.write_bytes(b"no database" * 1000), Path.mkdir], ids=["damaged", "in the way"])
def test_labels_that_cannot_be_opened_end_no_watch_of_what_was_counted(watched: Watched, spoil: Any) -> None:
    spoil(labels_path(watched.plane.settings))
    watched.see(START + 30)
    watched.now = START + 60 + GRACE_S
    watched.monitoring.turn()
    assert watched.detector.starts == [START]
    (told,) = [each for each in watched.kept().verdicts if each.rule == "watch:log"]
    assert "labels.sqlite" in told.evidence
    found = monitoring.overview(watched.plane, "line", now=watched.now)
    assert found.labels is None and any("labels.sqlite" in each for each in found.trouble)


def test_what_cannot_be_gathered_of_one_holds_up_no_other(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    deployed(watched.plane, "line:2", name="other")
    watched.now = START + 60 + GRACE_S
    see = Monitoring._see

    def one(self: Monitoring, name: str, *given: Any, **more: Any) -> Any:
        if name == "line":
            raise ZeroDivisionError("a bug")
        return see(self, name, *given, **more)

    monkeypatch.setattr(Monitoring, "_see", one)
    assert not watched.monitoring.turn()
    assert watched.kept().verdicts[0].outcome == "unknown" and "ZeroDivisionError" in watched.kept().verdicts[0].evidence
    assert watched.kept("other").verdicts[0].outcome == "pass"


def test_a_failure_that_meets_many_is_one_line_that_counts_them(
    watched: Watched, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A thousand deployments whose bundles were away were a thousand lines a minute."""
    for number in range(5):
        deployed(watched.plane, "line:2", name=f"other-{number}")
    turn = watch.turn

    def one(kept: Any, seen: Any, *given: Any, **more: Any) -> Any:
        if seen.name == "other-4":
            raise ZeroDivisionError("a bug")
        if seen.name in ("line", "other-0"):
            return msgspec.structs.replace(turn(kept, seen, *given, **more), failed={"told": "KeyError('x')"})
        raise NotFound(f"the bundle of {seen.name} is away")

    monkeypatch.setattr(watch, "turn", one)
    for _ in range(2):
        caplog.clear()
        watched.now += 60
        watched.monitoring.turn()
        said = sorted(record.getMessage() for record in caplog.records)
        assert said == [
            "the detector told failed on line and 1 other: KeyError('x')",
            "what was seen of other-1 and 2 others cannot be gathered or judged: the bundle of other-1 is away",
            "what was seen of other-4 cannot be gathered or judged",
        ]
        assert "a bug" in caplog.text, "what nobody foresaw is told with where it arose"


def test_a_fault_outside_all_detectors_holds_up_no_other(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    deployed(watched.plane, "line:2", name="other")
    watched.now = START + 60 + GRACE_S
    turn = watch.turn

    def one(kept: Any, seen: Any, *given: Any, **more: Any) -> Any:
        if seen.name == "line":
            raise MalformedPayload("counts that are none")
        return turn(kept, seen, *given, **more)

    monkeypatch.setattr(watch, "turn", one)
    assert not watched.monitoring.turn()
    assert watched.kept().verdicts[0].outcome == "unknown" and "counts that are none" in watched.kept().verdicts[0].evidence
    assert watched.kept("other").verdicts[0].outcome == "pass"


def test_after_an_absence_turns_are_bounded_and_say_that_more_waits(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "CATCH_UP", 2)
    for place in range(5):
        watched.see(START + 60 * place + 30)
    watched.now = START + 300 + GRACE_S
    assert watched.monitoring.turn() and watched.kept().through == START + 120
    assert watched.monitoring.turn() and not watched.monitoring.turn()
    assert watched.detector.starts == [START + 60 * place for place in range(5)] and watched.kept().through == START + 300


def test_a_turn_that_takes_long_leaves_the_rest_to_the_next(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    deployed(watched.plane, "line:1", name="other")
    monkeypatch.setattr(monitoring, "TURN_S", -1.0)
    watched.now = START + 60 + GRACE_S
    assert watched.monitoring.turn()
    assert not watched.monitoring.turn()
    assert [evidence.name for evidence in watched.detector.handed] == ["line", "other"]


def test_a_turn_reads_only_what_is_new_as_long_as_all_windows_at_hand_are_small(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[float] = []
    real = Windows.minutes

    def minutes(self, name, digest, *, since, until):
        read.append(until - since)
        return real(self, name, digest, since=since, until=until)

    monkeypatch.setattr(Windows, "minutes", minutes)
    for minute in range(1, 4):
        watched.now += 60
        watched.see(START + 60 * minute - 30)
        assert watched.monitoring.turn() is False
    window = Monitored().window_s
    assert read[0] >= window and read[1:] == [60, 60]
    assert [len(each.recent) for each in watched.detector.handed] == [1, 2, 3]
    monkeypatch.setattr(monitoring, "RECENT_BYTES", 0)
    read.clear()
    for minute in range(4, 6):
        watched.now += 60
        watched.see(START + 60 * minute - 30)
        watched.monitoring.turn()
    assert read[0] == 60 and read[1] >= window, "what takes too much memory is read anew"


def test_no_more_is_at_hand_within_a_turn_than_may_be(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    deployed(watched.plane, "line:1", name="other")
    held: list[int] = []
    judge = watched.detector.judge

    def looking(evidence: Evidence, state: bytes) -> Judged:
        held.append(sum(each.size_bytes for _, each in watched.monitoring._recent.values()))
        return judge(evidence, state)

    monkeypatch.setattr(watched.detector, "judge", looking)
    for minute in range(1, 7):
        watched.now += 60
        for name in ("line", "other"):
            watched.see(START + 60 * minute - 30, name=name)
        watched.monitoring.turn()
        if minute == 4:
            most = held[-1]
            monkeypatch.setattr(monitoring, "RECENT_BYTES", most)
    assert len(held) == 12 and most / 2 <= min(held[8:]) <= max(held[8:]) <= most
    assert len(watched.monitoring._recent) == 1, "one stays from turn to turn"


def test_settings_count_from_the_next_turn_on(watched: Watched) -> None:
    watched.now = START + 60 + GRACE_S
    watched.monitoring.turn()
    assert watched.detector.handed[-1].false_pages == 1.0
    chosen = watched.plane.monitor_so(WHO, "line", Monitored(false_pages_a_month=4.0, ignore=("a",)), expected_revision=0)
    assert chosen.by == WHO.name and chosen.revision > 0 and watched.plane.monitored("line") == chosen
    watched.now += 60
    watched.monitoring.turn()
    assert watched.detector.handed[-1].false_pages == 4.0 and watched.detector.handed[-1].settings.ignore == ("a",)


def test_settings_that_nobody_could_honour_are_refused_and_nothing_is_changed(watched: Watched) -> None:
    for settings, says in ((Monitored(ignore=("town",)), "no column town"), (Monitored(bounds={"f1": monitoring.settings_of.Bound()}), "f1")):
        with pytest.raises(InvalidConfig, match=says):
            watched.plane.monitor_so(WHO, "line", settings)
    with pytest.raises(NotFound):
        watched.plane.monitor_so(WHO, "other", Monitored())
    assert watched.plane.monitored("line") == monitoring.Chosen(settings=Monitored())
    assert watched.plane.monitored("line").revision == 0


def test_of_two_who_saw_the_same_settings_one_loses(watched: Watched) -> None:
    first = watched.plane.monitor_so(WHO, "line", Monitored(drift=Drift(smallest_shift=0.2)), expected_revision=0)
    with pytest.raises(Conflict):
        watched.plane.monitor_so(WHO, "line", Monitored(), expected_revision=0)
    second = watched.plane.monitor_so(WHO, "line", Monitored(quality=Section(enabled=False)), expected_revision=first.revision)
    assert second.settings.drift == Drift() and monitoring.brief(second.settings) == "quality" and monitoring.brief(Monitored()) == "defaults"
    entries = [each.entry for each in watched.plane.audit_list() if each.entry.action == "monitor"]
    assert [(entry.outcome, entry.detail) for entry in entries] == [("done", "drift"), ("failed", "conflict"), ("done", "quality")]


def test_labels_reach_the_detectors(watched: Watched) -> None:
    watched.see(START + 30, ids=("x", "y", "z"))
    watched.plane.labels(WHO, "line", [("x", 70.0), ("y", 71), ("z", "no number"), ("q", 1)])
    watched.now = START + 60 + GRACE_S
    watched.monitoring.turn()
    logged = watched.detector.handed[-1].logged
    assert logged is not None and logged.inputs["a"].tolist() == [0.5] * 3 and logged.outputs["prediction"].tolist() == [70.5] * 3
    assert logged.truth is not None and np.array_equal(logged.truth, [70.0, 71.0, np.nan], equal_nan=True)
    found = watched.detector.handed[-1].labelled
    assert found is not None and sorted(found.truth.tolist()) == [70.0, 71.0] and found.predicted.tolist() == [70.5, 70.5]
    assert found.times.tolist() == [START + 30] * 2 and found.numbers is not None
    watched.plane.labels(WHO, "line", [("x", 72.0)])
    watched.now += 60
    watched.monitoring.turn()
    found = watched.detector.handed[-1].labelled
    assert found is not None and sorted(found.truth.tolist()) == [71.0, 72.0], "the newest label stands"


def test_an_error_that_rises_in_late_labels_becomes_a_page_and_so_does_a_broken_promise(watched: Watched) -> None:
    detectors = {"concept": ConceptDrift(), "performance": Performance()}
    leader = Monitoring(watched.plane, watched.plane.registry.records, clock=lambda: watched.now, detectors=detectors)
    watched.plane.monitor_so(WHO, "line", Monitored(bounds={"mae": Bound(most=1.5)}))
    rng = np.random.default_rng(1)
    told: list[dict[str, str]] = []
    for minute in range(12):
        watched.see(START + 60 * minute + 30, rows=100, ids=tuple(f"{minute}-{row}" for row in range(100)))
        if minute:  # the truth comes a minute late
            errors = rng.normal(0.0, 1.0 if minute < 9 else 10.0, 100)  # of the first hours less is not known to be wrong
            watched.plane.labels(WHO, "line", [(f"{minute - 1}-{row}", float(70.5 + error)) for row, error in enumerate(errors)])
        watched.now = START + 60 * (minute + 1) + GRACE_S
        leader.turn()
        told.append({verdict.rule: verdict.outcome for verdict in watched.kept().verdicts})
    assert told[1]["concept:error"] == "unknown" and told[8]["concept:error"] == told[8]["performance:mae"] == "pass"
    assert told[-1]["concept:error"] == told[-1]["performance:mae"] == "fail"
    paged = {alert.rule for alert in watched.plane.alerts().alerts if alert.severity == "page" and alert.state == "firing"}
    assert {"concept:error", "performance:mae"} <= paged
    found = {verdict.rule: verdict for verdict in watched.kept().verdicts}
    assert found["concept:error"].window is not None and abs(found["concept:error"].window[0] - (START + 60 * 8 + 30)) <= 240
    assert found["performance:mae"].numbers["completeness"] == pytest.approx(11 / 12)


def test_an_overview_tells_what_was_judged_and_seen(watched: Watched) -> None:
    watched.see(START + 30, ids=("x", "y", "z"))
    watched.plane.labels(WHO, "line", [("x", 70.0)])
    before = monitoring.overview(watched.plane, "line", now=START + 90)
    assert before.judged_through is None and before.requests == 3 and before.version is None
    watched.detector.say = (Verdict(outcome="fail", rule="told:a", evidence="moved", numbers={"value": 3.0, "threshold": 2.0}),)
    watched.now = START + 60 + GRACE_S
    watched.monitoring.turn()
    found = monitoring.overview(watched.plane, "line", now=START + 90)
    assert found.judged_through == START + 60 and found.version == 1 and found.verdicts[0].rule == "told:a"
    assert found.labels is not None and found.labels.matched == 1
    assert {series.name for series in found.series} == {"requests", "p50", "p99", "errors", "told"}
    assert monitoring.overview(watched.plane, "line", since=START, now=START + 90).since == START
    with pytest.raises(NotFound):
        monitoring.overview(watched.plane, "nobody")


FAILED = Verdict(outcome="fail", rule="told:a", evidence="moved", columns=("a",), harm=0.1)


def firing(watched: Watched) -> list[tuple[str, str, str]]:
    return [(alert.rule, alert.severity, alert.state) for alert in watched.plane.alerts().alerts]


def test_what_fails_becomes_an_alert_and_a_message_in_the_turn_that_found_it(watched: Watched) -> None:
    (watched.plane.settings.home / "alerts.toml").write_text('[routes.ops]\nkind = "webhook"\nurl = "http://127.0.0.1:9/x"\n')
    watched.detector.say = (FAILED,)
    watched.now = START + 60 + GRACE_S
    watched.monitoring.turn()
    assert firing(watched) == [("told:a", "page", "firing")]
    assert [(route.name, route.waiting) for route in watched.plane.alerts().routes] == [("ops", 1)]
    assert watched.kept().paged == (watched.now,)
    watched.now += 60
    watched.again().turn()
    assert watched.kept().paged == (watched.now - 60,) and [route.waiting for route in watched.plane.alerts().routes] == [1], "it is told once"
    found = monitoring.overview(watched.plane, "line", now=watched.now)
    assert found.budget.spent == 1 and found.pages == () and [alert.rule for alert in found.alerts] == ["told:a"]
    assert b'modelyard_monitor_verdict{deployment="line",rule="told:a"} 2' in watched.plane.metrics()
    assert b'modelyard_monitor_budget_left{deployment="line"} 1' in watched.plane.metrics()


def test_while_a_turn_is_written_settings_are_asked_for_once_whatever_is_deployed(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(5):
        deployed(watched.plane, "line:1", name=f"line-{number}")
    records, alarm = watched.plane.registry.records, watched.monitoring._alarm
    stamp, asked, counts = records.stamp, [], []

    def counted(*arguments: Any, **more: Any) -> Any:
        before = asked.count(monitoring.SETTINGS)
        found = alarm(*arguments, **more)
        counts.append(asked.count(monitoring.SETTINGS) - before)
        return found

    monkeypatch.setattr(records, "stamp", lambda kind: asked.append(kind) or stamp(kind))
    monkeypatch.setattr(watched.monitoring, "_alarm", counted)
    watched.now = START + 60 + GRACE_S
    watched.monitoring.turn()
    assert counts == [1] and len(watched.detector.handed) == 6


def test_an_alert_says_why(watched: Watched) -> None:
    watched.see(START + 30, rows=40)
    watched.detector.say = (FAILED,)
    watched.now = START + 60 + GRACE_S
    watched.monitoring.turn()
    found = watched.kept().causes["told:a"]
    (alert,) = watched.plane.alerts().alerts
    assert found.at == watched.now and (alert.cause, alert.why, alert.advice) == (found.kind, found.said, found.advice)


def test_who_was_told_not_to_page_reports(watched: Watched) -> None:
    class Drifted(Told):
        def __init__(self) -> None:
            super().__init__("drift")
            self.say = (msgspec.structs.replace(FAILED, rule="drift:a"),)

    watched.plane.monitor_so(WHO, "line", Monitored(drift=Drift(pages=False)))
    watched.now = START + 60 + GRACE_S
    Monitoring(watched.plane, watched.plane.registry.records, clock=lambda: watched.now, detectors={"drift": Drifted()}).turn()
    assert firing(watched) == [("drift:a", "report", "firing")] and watched.kept().paged == ()
    assert watched.kept().verdicts[0].outcome == "fail"


def test_an_alert_holds_as_long_as_its_settings_say_and_ends_with_its_deployment(watched: Watched) -> None:
    watched.plane.monitor_so(WHO, "line", Monitored(alerts=Policy(for_s=90)))
    watched.detector.say = (FAILED,)
    watched.now = START + 60 + GRACE_S
    watched.monitoring.turn()
    assert firing(watched) == [("told:a", "page", "pending")]
    for _ in range(2):
        watched.now += 60
        watched.monitoring.turn()
    assert firing(watched) == [("told:a", "page", "firing")]
    watched.plane.deployments.remove(watched.plane.deployments.get("line"))
    watched.now += 1
    watched.monitoring.turn()
    assert firing(watched) == [("told:a", "page", "resolved")]


def test_the_end_of_the_last_deployment_s_alert_is_told_though_nothing_is_judged_any_more(watched: Watched) -> None:
    (watched.plane.settings.home / "alerts.toml").write_text('[routes.ops]\nkind = "webhook"\nurl = "http://127.0.0.1:9/x"\n')
    watched.detector.say = (FAILED,)
    watched.now = START + 60 + GRACE_S
    watched.monitoring.turn()
    (first,) = outbox.waiting(watched.plane.registry.records)
    outbox.done(watched.plane.registry.records, first)
    watched.plane.deployments.remove(watched.plane.deployments.get("line"))
    watched.now += 1
    watched.monitoring.turn()
    assert outbox.waiting(watched.plane.registry.records) == (), "news of a group wait for their interval"
    watched.now += 300
    watched.monitoring.turn()
    (told,) = outbox.waiting(watched.plane.registry.records)
    assert told.message.notification.kind == "resolved"


def test_what_cannot_be_gathered_ends_no_alert(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    watched.detector.say = (FAILED,)
    watched.now = START + 60 + GRACE_S
    watched.monitoring.turn()

    def broken(*_: object) -> object:
        raise NotFound("its blobs are away")

    with monkeypatch.context() as patched:
        patched.setattr(ControlPlane, "opened", broken)
        watched.now += 60
        watched.again().turn()
    assert watched.kept().verdicts[0].outcome == "unknown" and firing(watched) == [("told:a", "page", "firing")]


def test_what_a_home_could_not_keep_is_told_as_trouble(watched: Watched) -> None:
    (watched.plane.settings.spool / "0-1-1.segment").write_bytes(b"no segment")
    watched.intake.drain()
    assert monitoring.overview(watched.plane, "line", now=START + 90).trouble[0].startswith("1 segments were damaged and are set aside in the spool")


def test_a_watch_that_is_far_behind_says_so(watched: Watched) -> None:
    watched.see(START + 30)
    watched.now = START + 60 + GRACE_S
    watched.monitoring.turn()
    assert monitoring.overview(watched.plane, "line", now=watched.now + 4 * 60).trouble == ()
    late = monitoring.overview(watched.plane, "line", now=watched.now + 5 * 60).trouble
    assert late == ("5 minutes that are over were not judged yet; the log of the control process says why",)


def test_what_another_release_wrote_begins_anew(watched: Watched) -> None:
    watched.plane.registry.records.put(monitoring.KIND, "line", {"version": "three"}, expected=None)
    watched.now = START + 60 + GRACE_S
    watched.again().turn()
    assert watched.kept().version == 1
    with pytest.raises(ModelyardError):
        watched.plane.overview("nobody")


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A home with a classifier, packaged with evaluation data, that does worse for those above 60; and who draws people of given ages."""
    import pandas as pd
    from sklearn.compose import make_column_transformer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder

    def draw(count: int, seed: int, low: float = 18, high: float = 90) -> tuple[Any, Any]:
        chance = np.random.default_rng(seed)
        frame = pd.DataFrame({
            "age": chance.uniform(low, high, count),
            "income": chance.normal(0, 1, count),
            "city": chance.choice(["Oslo", "Riga", "Turku"], count),
        })  # fmt: skip
        certain = np.where(frame["age"] > 60, 0.4, 4.0)
        return frame, np.where(chance.random(count) < 1 / (1 + np.exp(-certain * frame["income"])), "yes", "no")

    folder = tmp_path_factory.mktemp("people")
    frame, truth = draw(4_000, 0)
    columns = make_column_transformer((OneHotEncoder(handle_unknown="ignore"), ["city"]), remainder="passthrough")
    model = make_pipeline(columns, LogisticRegression()).fit(frame, truth)
    held, true = draw(6_000, 1)
    control.package(
        model, name="people", data=frame, evaluation=held, evaluation_labels=true, home=folder / "home", progress=lambda *_: None,
    )  # fmt: skip
    plane = ControlPlane(config.load({"home": folder / "home", "retention_days": 100_000}))
    yield plane, model, draw
    plane.close()


def test_a_packaged_model_is_estimated_by_what_the_log_has_of_it(people: Any) -> None:
    plane, model, draw = people
    release = deployed(plane, "people:1")
    bundle = plane.opened(release)
    assert bundle.card.evaluation.rows == 6_000 and 0.7 < bundle.card.quality["accuracy"] < 0.9
    intake = Intake(plane.settings)
    watching = Monitoring(plane, plane.registry.records, clock=lambda: now, detectors={"estimated_performance": EstimatedPerformance()})
    said: list[dict[str, Verdict]] = []
    starts = (START, START + 86_400, START + 87_300)  # of hours that were never seen more would be allowed
    for window, ages in enumerate([(18, 90), (62, 90), (62, 90)]):
        for minute in range(15):
            at = starts[window] + 60 * minute + 30
            frame, _ = draw(50, 100 + 15 * window + minute, *ages)
            inputs = {name: frame[name].to_numpy(object if name == "city" else np.float64)[:, None] for name in frame}
            outputs = {"label": model.predict(frame).astype(object), "probability": model.predict_proba(frame)}
            ids = tuple(f"{window}-{minute}-{row}" for row in range(50))
            spooled(plane, segment(plane, release, at, inputs, outputs, ids=ids))
        now = starts[window] + 900 + GRACE_S
        intake.turn(now=now, is_last=True)
        watching.turn()
        said.append({verdict.rule: verdict for verdict in last(plane.registry.records, "people").verdicts})
    intake.close()
    assert all("estimated_performance:accuracy" in each for each in said), said
    verdicts = [each["estimated_performance:accuracy"] for each in said]
    assert [each.outcome for each in verdicts] == ["pass", "warn", "fail"]
    assert verdicts[0].numbers["value"] == pytest.approx(bundle.card.quality["accuracy"], abs=0.06)
    assert verdicts[2].numbers["value"] == pytest.approx(0.58, abs=0.06), "what is true of those above 60"
    assert verdicts[2].columns == ("age",) and verdicts[2].harm is not None and verdicts[2].harm > 0.1
