"""The alert machine, case by case; its laws are in tests/property/test_alert_laws.py."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from receivers import NOW, verdict

from modelyard.errors import InvalidInput
from modelyard.monitor.alerts import Explained, Notification, Policy, Rules, Silence, State, step
from modelyard.monitor.alerts.base import Matcher
from modelyard.types import Verdict

PAGES = frozenset({"drift", "concept", "slo", "operations"})


class Machine:
    """A machine whose clock is turned by hand."""

    def __init__(self, policy: Policy | None = None, **rules: Any) -> None:
        self.state, self.now = State(), NOW
        self.rules = Rules(pages=PAGES, policy=policy or Policy(), **rules)

    def turn(self, *verdicts: Verdict, after_s: float = 60.0, gone: bool = False, causes: Any = None) -> tuple[Notification, ...]:
        self.now += after_s
        judged = {} if gone else {"churn": verdicts}
        self.state, told = step(self.state, judged, rules=self.rules, now=self.now, causes=causes)
        return told

    @property
    def states(self) -> dict[str, str]:
        return {alert.rule: alert.state for alert in self.state.alerts}


def test_a_failing_rule_that_pages_is_told_at_once_with_all_that_is_to_be_known() -> None:
    machine = Machine()
    (told,) = machine.turn(verdict(), causes={("churn", "drift:age"): Explained("population shift", "the young")})
    (alert,) = told.firing
    assert (told.kind, told.severity, told.deployment, told.at) == ("new", "page", "churn", machine.now)
    assert (alert.verdict, alert.cause, alert.why, alert.since, alert.fired_at) == (
        verdict(),
        "population shift",
        "the young",
        machine.now,
        machine.now,
    )
    assert "age" in alert.advice
    assert machine.turn(verdict()) == ()


@pytest.mark.parametrize(("outcome", "rule"), [("warn", "drift:age"), ("fail", "multivariate"), ("warn", "multivariate")])
def test_a_warning_and_what_does_not_page_is_a_report(outcome: str, rule: str) -> None:
    (told,) = Machine().turn(verdict(outcome, rule))
    assert told.severity == told.firing[0].severity == "report"


def test_what_passes_or_is_unknown_is_no_alert() -> None:
    machine = Machine()
    assert machine.turn(verdict("pass"), verdict("unknown", "concept")) == () and machine.state == State()


def test_for_waits_and_one_rule_or_detector_may_have_its_own() -> None:
    machine = Machine(Policy(for_s=120, hold={"concept": 0.0, "drift:income": 600.0}))
    (told,) = machine.turn(verdict(), verdict(rule="concept"), verdict(rule="drift:income"))
    assert [alert.rule for alert in told.firing] == ["concept"]
    assert machine.states == {"concept": "firing", "drift:age": "pending", "drift:income": "pending"}
    machine.turn(verdict(), verdict(rule="concept"), verdict(rule="drift:income"), after_s=120)
    assert machine.states == {"concept": "firing", "drift:age": "firing", "drift:income": "pending"}


def test_what_passes_before_its_time_is_forgotten() -> None:
    machine = Machine(Policy(for_s=120))
    machine.turn(verdict())
    assert machine.turn(verdict("pass")) == () and machine.state == State()
    machine.turn(verdict())
    assert machine.turn(verdict(), after_s=119) == ()


def test_it_is_over_once_it_has_passed_for_a_while_and_that_is_told() -> None:
    machine = Machine()
    machine.turn(verdict())
    assert machine.turn(verdict("pass"), after_s=600) == ()
    assert machine.turn(verdict(), after_s=299) == (), "failed again: nothing new"
    machine.turn(verdict("pass"))
    (told,) = machine.turn(verdict("pass"), after_s=300)
    assert told.kind == "resolved" and not told.firing and told.resolved[0].ended == "it passes again"
    assert machine.turn(verdict("pass")) == ()


@pytest.mark.parametrize("blind", [verdict("unknown"), verdict("unknown", "drift"), verdict("unknown", evidence="no rows")])
def test_unknown_neither_ends_an_alert_nor_begins_one(blind: Verdict) -> None:
    machine = Machine()
    machine.turn(verdict())
    for _ in range(20):
        assert machine.turn(blind, after_s=600) == ()
    assert machine.states == {"drift:age": "firing"}


@pytest.mark.parametrize("rule", ["drift:age", "slo:answered"])
@pytest.mark.parametrize("took_over_s", [-60.0, 60.0, None])
def test_an_alert_on_a_release_that_serves_no_more_does_not_ring_for_the_week_that_the_next_one_learns(rule: str, took_over_s: float | None) -> None:
    machine = Machine()
    machine.turn(verdict(rule=rule))
    machine.rules = machine.rules._replace(begun={} if took_over_s is None else {"churn": machine.now + took_over_s})
    assert machine.turn(verdict("unknown", rule), after_s=3_500) == () and machine.states == {rule: "firing"}
    told = machine.turn(verdict("unknown", rule), after_s=400)
    is_over = took_over_s == 60.0 and rule == "drift:age"
    assert machine.states == {rule: "resolved" if is_over else "firing"}
    assert [each.resolved[0].ended for each in told] == (["the release that had it serves no more, and of this one it is not known yet"] * is_over)


def test_an_alert_that_the_next_release_has_too_stays_where_a_turn_cannot_judge() -> None:
    machine = Machine()
    machine.turn(verdict())
    machine.rules = machine.rules._replace(begun={"churn": machine.now + 60})
    machine.turn(verdict(), after_s=8_000)
    assert machine.turn(verdict("unknown", "drift")) == () and machine.states == {"drift:age": "firing"}


@pytest.mark.parametrize(("gone", "ended"), [(True, "the deployment is served no more"), (False, "it is judged no more")])
def test_what_is_judged_no_more_is_over(gone: bool, ended: str) -> None:
    machine = Machine()
    machine.turn(verdict())
    (told,) = machine.turn(verdict("pass", "concept"), after_s=600, gone=gone)
    assert told.kind == "resolved" and told.resolved[0].ended == ended


def test_what_a_detector_finds_no_more_passes_for_a_while_before_it_is_over() -> None:
    """`shift` names what has moved and nothing else: what moves back and forth at its bound must not ring each time."""
    machine = Machine()
    machine.turn(verdict("warn", "shift:a"))
    assert machine.turn(verdict("warn", "shift:b"), after_s=300) != () and machine.states == {"shift:a": "firing", "shift:b": "firing"}
    machine.turn(verdict("warn", "shift:a"), verdict("warn", "shift:b"))
    machine.turn(verdict("pass", "shift"))
    assert machine.states == {"shift:a": "firing", "shift:b": "firing"}
    (told,) = machine.turn(verdict("pass", "shift"), after_s=300)
    assert {alert.ended for alert in told.resolved} == {"it is found no more"}


def test_what_stays_is_said_again_after_a_while_and_news_wait_for_their_interval() -> None:
    machine = Machine()
    machine.turn(verdict())
    assert machine.turn(verdict(), verdict(rule="concept"), after_s=10) == ()
    (told,) = machine.turn(verdict(), verdict(rule="concept"), after_s=290)
    assert told.kind == "changed" and [alert.rule for alert in told.firing] == ["concept", "drift:age"]
    assert told.news == (told.firing[0].id,), "the other was told before"
    assert machine.turn(verdict(), verdict(rule="concept"), after_s=14_399) == ()
    (told,) = machine.turn(verdict(), verdict(rule="concept"), after_s=1)
    assert told.kind == "repeat" and told.news == ()


def test_the_first_news_of_a_group_may_wait_for_more() -> None:
    machine = Machine(Policy(group_wait_s=30))
    assert machine.turn(verdict()) == ()
    (told,) = machine.turn(verdict(), verdict(rule="concept"), after_s=30)
    assert len(told.firing) == 2


def test_a_report_never_repeats_a_page() -> None:
    machine = Machine()
    machine.turn(verdict())
    (told,) = machine.turn(verdict(), verdict("warn", "multivariate"), after_s=600)
    assert told.severity == "report" and [alert.rule for alert in told.firing] == ["multivariate"]


def test_a_report_that_becomes_a_page_is_a_new_alert() -> None:
    machine = Machine()
    (report,) = machine.turn(verdict("warn"))
    told = machine.turn(verdict(), after_s=600)
    assert [(each.severity, each.kind) for each in told] == [("page", "new"), ("report", "resolved")]
    assert told[0].firing[0].id != report.firing[0].id
    assert machine.turn(verdict("warn"), after_s=600) == (), "a page that only warns by now stays one"
    assert machine.states == {"drift:age": "firing"} or set(machine.states.values()) == {"firing", "resolved"}


def test_several_verdicts_of_a_rule_are_one_alert() -> None:
    (told,) = Machine().turn(
        verdict("warn", columns=("a",), harm=None),
        verdict(columns=("b",), harm=0.1),
        verdict(columns=("c",), harm=0.2),
        verdict("pass", columns=("d",)),
    )
    (alert,) = told.firing
    assert alert.columns == ("c", "b") and alert.verdict.harm == 0.2


def test_numbers_that_are_none_are_left_out() -> None:
    (told,) = Machine().turn(verdict(numbers={"value": float("nan"), "threshold": 2.0, "far": float("inf")}, harm=float("nan")))
    assert told.firing[0].verdict.numbers == {"threshold": 2.0} and told.firing[0].verdict.harm is None


def silence(**matcher: str) -> Silence:
    return Silence(id="s1", matcher=Matcher(**matcher), since=NOW, until=NOW + 1000, by="ann", why="known")


@pytest.mark.parametrize("matcher", [{"deployment": "churn"}, {"rule": "drift"}, {"rule": "drift:age"}, {"column": "age"}, {"severity": "page"}])
def test_what_is_silenced_is_shown_and_told_when_the_silence_ends(matcher: dict[str, str]) -> None:
    machine = Machine(silences=(silence(**matcher),))
    assert machine.turn(verdict()) == ()
    assert machine.state.alerts[0].silenced_by == "s1"
    assert machine.turn(verdict(), after_s=900) == ()
    (told,) = machine.turn(verdict(), after_s=100)
    assert told.kind == "new" and not told.firing[0].silenced_by


@pytest.mark.parametrize("matcher", [{"deployment": "other"}, {"rule": "drift:income"}, {"column": "income"}, {"severity": "report"}])
def test_a_silence_of_something_else_silences_nothing(matcher: dict[str, str]) -> None:
    assert Machine(silences=(silence(**matcher),)).turn(verdict())


def test_who_was_told_is_told_of_the_end_though_it_was_silenced_meanwhile() -> None:
    machine = Machine()
    machine.turn(verdict())
    machine.rules = machine.rules._replace(silences=(silence(deployment="churn"),))
    assert machine.turn(verdict(), after_s=300) == ()
    (told,) = machine.turn(gone=True, after_s=300)
    assert told.kind == "resolved" and told.resolved


def test_a_silence_of_everything_is_refused() -> None:
    with pytest.raises(InvalidInput):
        Matcher()
    with pytest.raises(InvalidInput):
        Matcher(severity="loud")


def test_one_cause_pages_once_and_its_other_alerts_are_named() -> None:
    machine = Machine()
    causes = {("churn", rule): Explained("upstream break", "unit") for rule in ("drift:age", "drift:income", "concept")}
    (told,) = machine.turn(verdict(), verdict(rule="drift:income", columns=("income",)), verdict(rule="concept"), causes=causes)
    assert [alert.rule for alert in told.firing] == ["concept"]
    assert told.also == ("drift:age", "drift:income")
    assert machine.turn(verdict(), verdict(rule="drift:income"), verdict(rule="concept"), causes=causes, after_s=600) == ()


def test_the_same_kind_of_cause_long_after_on_other_columns_is_another() -> None:
    machine = Machine()
    causes = {("churn", rule): Explained("population shift", "…") for rule in ("drift:age", "drift:income")}
    machine.turn(verdict(), causes=causes)
    (told,) = machine.turn(verdict(), verdict(rule="drift:income", columns=("income",)), causes=causes, after_s=7200)
    assert len(told.firing) == 2


def test_consequences_are_told_once_their_source_is_over() -> None:
    machine = Machine()
    (told,) = machine.turn(verdict(rule="slo"), verdict(rule="operations:latency"))
    assert [alert.rule for alert in told.firing] == ["slo"] and told.also == ("operations:latency",)
    machine.turn(verdict("pass", "slo"), verdict(rule="operations:latency"))
    (told,) = machine.turn(verdict("pass", "slo"), verdict(rule="operations:latency"), after_s=300)
    assert [alert.rule for alert in told.firing] == ["operations:latency"] and [alert.rule for alert in told.resolved] == ["slo"]


def test_a_report_keeps_no_page_back() -> None:
    machine = Machine()
    told = machine.turn(verdict(rule="quality:missing"), verdict())
    assert [(each.severity, each.firing[0].rule) for each in told] == [("page", "drift:age"), ("report", "quality:missing")]
    (told_,) = Machine().turn(verdict("warn"), verdict(rule="quality:missing"))
    assert [alert.rule for alert in told_.firing] == ["quality:missing"], "but a report of its consequence"


def test_receivers_that_forget_are_told_that_it_lives() -> None:
    machine = Machine(alive_s=120.0)
    machine.turn(verdict())
    assert machine.turn(verdict(), after_s=119) == ()
    (told,) = machine.turn(verdict(), after_s=1)
    assert told.kind == "alive" and told.firing
    assert machine.turn(verdict(), after_s=119) == ()


def test_receivers_that_forget_are_told_so_while_news_waits_too_and_not_of_the_news() -> None:
    machine = Machine(Policy(group_interval_s=3600), alive_s=120.0)
    machine.turn(verdict())
    (told,) = machine.turn(verdict(), verdict(rule="concept"), after_s=120)
    assert told.kind == "alive" and [alert.rule for alert in told.firing] == ["drift:age"]
    (told,) = machine.turn(verdict(), verdict(rule="concept"), after_s=3480)
    assert told.kind == "changed" and len(told.firing) == 2


def test_a_clock_that_was_a_day_ahead_holds_nothing_up() -> None:
    machine = Machine()
    machine.now += 86_400
    machine.turn(verdict())
    machine.now -= 86_400
    machine.turn(verdict())
    (told,) = machine.turn(verdict(), after_s=14_400)
    assert told.kind == "repeat"


def test_what_ends_and_begins_again_at_one_time_is_another_alert() -> None:
    machine = Machine(Policy(keep_s=0.0))
    machine.turn(verdict())
    machine.turn(verdict("pass"), after_s=0.0)
    machine.turn(verdict(), after_s=0.0)
    assert [alert.state for alert in machine.state.alerts] == ["resolved", "firing"]
    assert len({alert.id for alert in machine.state.alerts}) == 2


def test_what_is_over_is_shown_for_a_day() -> None:
    machine = Machine(Policy(keep_s=0.0))
    machine.turn(verdict())
    machine.turn(verdict("pass"), after_s=600)
    assert machine.states == {"drift:age": "resolved"}
    machine.turn(verdict("pass"), after_s=86_399)
    assert machine.states == {"drift:age": "resolved"}
    machine.turn(verdict("pass"), after_s=2)
    assert machine.state == State()


def test_a_deployment_may_have_its_own_policy_and_routes() -> None:
    machine = Machine(policies={"churn": Policy(for_s=600, routes=("team",))})
    assert machine.turn(verdict()) == ()
    (told,) = machine.turn(verdict(), after_s=600)
    assert told.routes == ("team",)


def test_a_deployment_may_have_its_own_pages() -> None:
    (told,) = Machine(paging={"churn": frozenset({"concept"})}).turn(verdict())
    assert told.severity == "report"
    (told,) = Machine(paging={"fraud": frozenset()}).turn(verdict())
    assert told.severity == "page"


def test_an_unknown_cause_is_no_common_one_and_a_cause_may_say_what_to_do() -> None:
    causes = {("churn", rule): Explained("unknown", "nobody can tell", "Ask.") for rule in ("drift:age", "concept")}
    (told,) = Machine().turn(verdict(), verdict(rule="concept"), causes=causes)
    assert len(told.firing) == 2 and {alert.advice for alert in told.firing} == {"Ask."}


def test_state_is_a_record() -> None:
    machine = Machine()
    machine.turn(verdict(), verdict("warn", "multivariate"))
    assert msgspec.convert(msgspec.to_builtins(machine.state), State) == machine.state


@pytest.mark.parametrize("wrong", [{"for_s": -1.0}, {"keep_s": float("nan")}, {"repeat_s": 5.0}, {"hold": {"drift": float("inf")}}])
def test_a_policy_that_is_none_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        Policy(**wrong)
