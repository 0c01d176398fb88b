"""The laws of the alert machine, under any row of verdicts, silences, causes and clocks."""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from modelyard.monitor.alerts import Notification, Policy, Rules, Silence, State, step
from modelyard.monitor.alerts.base import Explained, Matcher
from modelyard.types import Verdict

DEPLOYMENTS = ("churn", "fraud")
RULES = ("drift:age", "drift:income", "concept", "slo", "operations:latency", "quality:missing")
PAGES = frozenset({"drift", "concept", "slo", "operations"})
CAUSES = ("", "upstream break", "population shift")


@st.composite
def verdicts(draw: Any) -> dict[str, tuple[Verdict, ...]]:
    """What one turn judged; a deployment may be missing, and rules too, and a whole detector may be blind."""
    judged: dict[str, tuple[Verdict, ...]] = {}
    for name in draw(st.sets(st.sampled_from(DEPLOYMENTS))):
        each = []
        for of in draw(st.lists(st.sampled_from((*RULES, "drift")), unique=True)):
            outcome = "unknown" if of == "drift" else draw(st.sampled_from(("pass", "fail", "fail", "warn", "unknown")))
            columns = draw(st.sampled_from(((), ("age",), ("age", "income"))))
            number = draw(st.sampled_from((1.0, float("nan"), float("inf"))))
            each.append(Verdict(outcome=outcome, rule=of, evidence="e", columns=columns, harm=number, numbers={"value": number}))
        judged[name] = tuple(each)
    return judged


class Alerting(RuleBasedStateMachine):
    @initialize(
        policy=st.builds(
            Policy,
            for_s=st.sampled_from((0.0, 120.0)),
            keep_s=st.sampled_from((0.0, 300.0)),
            group_wait_s=st.sampled_from((0.0, 30.0)),
            group_interval_s=st.sampled_from((0.0, 300.0)),
            repeat_s=st.sampled_from((60.0, 14_400.0)),
        ),
        alive_s=st.sampled_from((0.0, 120.0)),
    )
    def begin(self, policy: Policy, alive_s: float) -> None:
        self.policy, self.alive_s = policy, alive_s
        self.state, self.now, self.silences = State(), 1_000_000.0, ()
        self.believed: dict[tuple[str, str], set[str]] = {}
        self.last_told: dict[tuple[str, str], float] = {}
        self.last_judged: dict[str, tuple[Verdict, ...]] = {}

    @property
    def gone_by(self) -> Rules:
        return Rules(pages=PAGES, policy=self.policy, silences=self.silences, alive_s=self.alive_s)

    def take(self, judged: dict[str, tuple[Verdict, ...]], causes: dict[tuple[str, str], Explained] | None = None) -> tuple[Notification, ...]:
        before = {alert.id: alert for alert in self.state.alerts}
        self.state, told = step(self.state, judged, rules=self.gone_by, now=self.now, causes=causes)
        after = {alert.id: alert for alert in self.state.alerts}
        for each in told:
            key = (each.deployment, each.severity)
            # What is pending, silenced or inhibited is told to nobody; a group tells of its own.
            assert all(alert.state == "firing" and not alert.silenced_by and not alert.inhibited_by for alert in each.firing)
            assert all(alert.state == "resolved" and alert.id in self.believed.get(key, set()) for alert in each.resolved)
            assert all((alert.deployment, alert.severity) == key for alert in each.alerts)
            assert each.alerts, "a message says something"
            if each.kind != "alive":
                if key in self.last_told:
                    assert self.now - self.last_told[key] >= min(self.policy.group_interval_s, self.policy.repeat_s)
                self.last_told[key] = self.now
                self.believed[key] = (self.believed.get(key, set()) | {alert.id for alert in each.firing}) - {alert.id for alert in each.resolved}
        assert len({(each.deployment, each.severity) for each in told}) == len(told), "one message for each group"
        assert all(after[each].state == "resolved" for each in before.keys() & after.keys() if before[each].state == "resolved"), "the dead stay dead"
        return told

    @rule(judged=verdicts(), elapsed_s=st.sampled_from((0.0, 1.0, 60.0, 600.0, 20_000.0)), cause=st.sampled_from(CAUSES))
    def turn(self, judged: dict[str, tuple[Verdict, ...]], elapsed_s: float, cause: str) -> None:
        self.now += elapsed_s
        causes = {(name, each.rule): Explained(cause, "why") for name, all_of in judged.items() for each in all_of if cause}
        self.take(judged, causes)
        self.last_judged = judged
        assert self.take(judged, causes) == (), "a second step at the same time says nothing"

    @rule(span_s=st.sampled_from((60.0, 86_400.0)))
    def clock_put_back(self, span_s: float) -> None:
        self.now -= span_s
        self.last_told = {key: min(at, self.now) for key, at in self.last_told.items()}

    @rule(matcher=st.sampled_from((Matcher(deployment="churn"), Matcher(rule="drift"), Matcher(column="age"), Matcher(severity="page"))))
    def silence(self, matcher: Matcher) -> None:
        self.silences = (*self.silences, Silence(id=f"s{len(self.silences)}", matcher=matcher, since=self.now, until=self.now + 900, by="b", why="w"))

    @rule()
    def unsilence(self) -> None:
        self.silences = ()

    @rule()
    def everything_passes(self) -> None:
        """All passing long enough, everybody knows that nothing is wrong and nothing is left."""
        self.silences = ()
        passing = {name: tuple(Verdict(outcome="pass", rule=each, evidence="e") for each in RULES) for name in DEPLOYMENTS}
        for _ in range(4):
            self.take(passing)
            self.now += 1_000.0
        assert not any(self.believed.values())
        assert all(alert.state == "resolved" for alert in self.state.alerts)
        self.now += 100_000.0
        self.take(passing)
        assert self.state == State()

    @rule()
    def everything_is_gone(self) -> None:
        """A deployment that is served no more has no alert, and whoever was told so is told."""
        self.silences = ()
        for _ in range(3):
            self.take({})
            self.now += 1_000.0
        assert not any(self.believed.values())

    @invariant()
    def holds(self) -> None:
        if not hasattr(self, "state"):
            return
        active = [(alert.deployment, alert.rule) for alert in self.state.alerts if alert.state != "resolved"]
        assert len(active) == len(set(active)), "a rule of a deployment has one alert"
        firing = {alert.id: alert for alert in self.state.alerts if alert.state == "firing"}
        for alert in firing.values():
            if alert.inhibited_by:
                source = firing[alert.inhibited_by]
                assert source.deployment == alert.deployment and not source.inhibited_by
                assert not (source.severity == "report" and alert.severity == "page"), "a report keeps no page back"
        for name in {alert.deployment for alert in firing.values()}:
            pages = [alert for alert in firing.values() if alert.deployment == name and alert.severity == "page"]
            assert not pages or any(not alert.inhibited_by for alert in pages)


Alerting.TestCase.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
TestAlerting = Alerting.TestCase


def test_the_laws_can_fail() -> None:
    """A machine that forgets to tell of the end breaks them."""
    machine = Alerting()
    machine.begin(Policy(keep_s=0.0, group_interval_s=0.0), 0.0)
    machine.take({"churn": (Verdict(outcome="fail", rule="concept", evidence="e"),)})
    assert machine.believed == {("churn", "page"): {machine.state.alerts[0].id}}
    machine.state = State()  # it forgot
    try:
        machine.everything_passes()
    except AssertionError:
        return
    raise AssertionError("nobody noticed")
