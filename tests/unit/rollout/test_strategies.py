"""What a strategy leaves open is filled in, and what it cannot honour is refused by name, with what to do instead."""

from __future__ import annotations

from typing import Any

import pytest

from modelyard.errors import InvalidConfig
from modelyard.rollout import strategies
from modelyard.rollout.guards import UNASKED
from modelyard.rollout.strategies import UNASKED_SHARE, complete, deciding, require_fit, share_of_alpha, unasked
from modelyard.targets.base import Step, Strategy
from serving import GRID, LINE

AB: dict[str, Any] = {"kind": "ab", "metric": "accuracy", "sticky": "header:x-user"}


@pytest.mark.parametrize(
    ("given", "weights", "mirror"),
    [
        ({}, [100], 0.0),
        ({"kind": "blue-green"}, [100], 0.0),
        ({"kind": "canary"}, [1, 10, 50, 100], 0.0),
        ({"kind": "canary", "guards": ("disagreement<3%",)}, [1, 10, 50, 100], 0.05),
        ({"kind": "canary", "guards": ("disagreement<3%",), "mirror": 0.2}, [1, 10, 50, 100], 0.2),
        ({"kind": "shadow"}, [0, 100], 1.0),
        ({"kind": "shadow", "mirror": 0.1}, [0, 100], 0.1),
        (AB, [50, 100], 0.0),
        ({**AB, "steps": (Step(weight=20),)}, [20, 100], 0.0),
    ],
)
def test_what_is_left_open_is_filled_in(given: dict[str, Any], weights: list[int], mirror: float) -> None:
    filled = complete(Strategy(**given))
    assert [step.weight for step in filled.steps] == weights and filled.mirror == mirror
    assert complete(filled) == filled


def test_steps_have_minimums_unless_the_caller_gave_them() -> None:
    first = complete(Strategy(kind="canary")).steps[0]
    assert (first.minimum_s, first.minimum_requests) == (strategies.STEP_S, strategies.STEP_REQUESTS)
    given = (Step(weight=5), Step(weight=100))
    assert complete(Strategy(kind="canary", steps=given)).steps == given
    steps = strategies.steps((5, 100), minimum_s=9.0, minimum_requests=3, approvals=(100,))
    assert steps == (Step(weight=5, minimum_s=9.0, minimum_requests=3), Step(weight=100, minimum_s=9.0, minimum_requests=3, approval=True))


def test_guards_are_kept_as_they_are_read() -> None:
    assert complete(Strategy(kind="canary", guards=(" error_rate < 0.50% ",))).guards == ("error_rate<0.5%",)


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"guards": ("error_rate<1%",)}, "judges nothing"),
        ({"steps": (Step(weight=50), Step(weight=100))}, "one step, of 100 %"),
        ({"steps": (Step(weight=100, minimum_s=9.0),)}, "settles as soon"),
        ({"strict": True}, "strict is nothing that direct"),
        ({"mirror": 0.5}, "mirror is nothing that direct"),
        ({"kind": "canary", "steps": (Step(weight=1), Step(weight=50))}, "end with 100"),
        ({"kind": "canary", "steps": (Step(weight=50), Step(weight=10), Step(weight=100))}, "rise"),
        ({"kind": "canary", "steps": (Step(weight=0), Step(weight=100))}, "from above 0"),
        ({"kind": "canary", "steps": (Step(weight=50), Step(weight=150))}, "sum to 100"),
        ({"kind": "canary", "guards": ("speed<1%",)}, "names no metric"),
        ({"kind": "canary", "guards": ("error_rate<1%", "error_rate < 1 %")}, "given once"),
        ({"kind": "canary", "guards": tuple(f"p99<{n + 1}ms" for n in range(21))}, "at most 20"),
        ({"kind": "canary", "guards": ("disagreement<3%",), "mirror": 0.0}, "mirror above 0"),
        ({"kind": "canary", "mirror": 1.5}, "from 0 to 100 %"),
        ({"kind": "canary", "metric": "auc"}, "goes with ab"),
        ({"kind": "canary", "strict": True}, "give --guard"),
        ({"kind": "canary", "sticky": "cookie:x"}, "header:NAME"),
        ({"kind": "canary", "promote": True}, "goes with shadow"),
        ({"kind": "canary", "max_time_s": 60.0}, "takes at least 5m would be paused after 1m"),
        ({"kind": "canary", "max_time_s": 0.0}, "max_time"),
        ({"kind": "canary", "alpha": 0.0}, "alpha"),
        ({"kind": "canary", "keep_warm_s": -1.0}, "keep_warm"),
        ({"kind": "canary", "steps": (Step(weight=100, minimum_s=-1.0),)}, "0 or more"),
        ({"kind": "canary", "guards": ("prometheus(up)<5",)}, "give its URL"),
        ({"kind": "canary", "guards": ("prometheus(up)<5",), "prometheus": "ftp://x"}, "http or https"),
        *(
            ({"kind": "canary", "guards": ("prometheus(up)<5",), "prometheus": url}, "without a password")
            for url in (
                "http://me:secret@h/",
                "http://h/admin?x=",
                "http://h/admin#",
                "http://",
                "http://@h",
                "http://h:a",
                "http:///x",
                "http://h/ x",
            )
        ),
        ({"kind": "canary", "prometheus": "http://x"}, "leave its URL out"),
        ({"kind": "blue-green", "guards": ("p99<1.2x",)}, "compares both versions"),
        ({"kind": "blue-green", "guards": ("prediction_shift<0.1",)}, "compares both versions"),
        ({"kind": "canary", "steps": (Step(weight=100),), "guards": ("p99<1.2x",)}, "compares both versions"),
        ({"kind": "canary", "steps": (Step(weight=100),), "guards": ("disagreement<3%",)}, "compares both versions"),
        ({"kind": "blue-green", "guards": ("disagreement<3%",)}, "goes with canary, shadow or ab"),
        ({"kind": "shadow", "guards": ("p99<20ms",)}, "live requests, which shadow does not gather"),
        ({"kind": "shadow", "guards": ("auc>=champion-0.01",)}, "labelled answers, which shadow"),
        ({"kind": "shadow", "mirror": 0.0}, "a share above 0"),
        ({"kind": "shadow", "steps": (Step(weight=5), Step(weight=100))}, "0 %"),
        ({"kind": "ab", "sticky": "header:x"}, "--metric"),
        ({"kind": "ab", "metric": "auc"}, "--sticky"),
        ({**AB, "metric": "beauty"}, "decides by error_rate"),
        ({**AB, "metric": "beauty>champion"}, "names no metric"),
        ({**AB, "metric": "disagreement"}, "decides by error_rate"),
        ({**AB, "metric": "accuracy>champion+1%"}, "decides by error_rate"),
        ({**AB, "steps": (Step(weight=100),)}, "from 1 to 99 %"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(given: dict[str, Any], why: str) -> None:
    with pytest.raises(InvalidConfig, match=why) as refused:
        complete(Strategy(**given))
    assert refused.value.field and refused.value.rule


@pytest.mark.parametrize("kind", ["blue-green", "canary", "shadow", "ab"])
def test_what_each_strategy_gathers_is_accepted(kind: Any) -> None:
    guards = {
        "blue-green": ("error_rate<1%", "p99<30ms", "golden", "accuracy>90%"),
        "canary": ("error_rate<1%", "p99<1.2x", "disagreement<3%", "prediction_shift<0.1", "golden", "accuracy>=champion-1%"),
        "shadow": ("error_rate<1%", "disagreement<3%", "prediction_shift<0.1", "golden"),
        "ab": ("error_rate<1%", "p99<1.2x", "disagreement<3%"),
    }[kind]
    options = AB if kind == "ab" else {"kind": kind}
    filled = complete(Strategy(**options, guards=guards, strict=True))
    assert filled.guards == guards and filled.prometheus is None
    assert complete(Strategy(**options, guards=("prometheus(up)<5",), prometheus="http://localhost:9090"))


@pytest.mark.parametrize(("metric", "guard"), [("accuracy", "accuracy>champion"), ("p99", "p99<champion"), ("mae", "mae<champion")])
def test_an_experiment_decides_for_the_better(metric: str, guard: str) -> None:
    decider = deciding(Strategy(**{**AB, "metric": metric}))
    assert decider is not None and decider.compares and decider.number == 0 and decider.metric == metric
    assert decider.wants_lower == ("<" in guard)
    assert deciding(Strategy()) is None
    text = "prometheus(clicks{version='{version}'})>champion"
    asked = deciding(Strategy(**{**AB, "metric": text, "prometheus": "http://x"}))
    assert asked is not None and asked.metric == "prometheus"


def test_alpha_is_shared_by_all_that_can_raise_a_false_alarm() -> None:
    spent = UNASKED_SHARE * 0.05
    assert share_of_alpha(Strategy(kind="canary", guards=("error_rate<1%", "golden", "p99<1s"))) == pytest.approx((0.05 - spent) / 2)
    assert share_of_alpha(Strategy(**AB, guards=("error_rate<1%",))) == pytest.approx((0.05 - spent) / 2)
    assert share_of_alpha(Strategy(kind="canary", guards=("missing<2%", "p99<1s"))) == pytest.approx(0.025)
    assert share_of_alpha(Strategy(kind="blue-green", guards=("p99<1s",))) == share_of_alpha(Strategy()) == pytest.approx(0.05)


def test_what_answers_beside_a_champion_is_judged_by_answers_without_a_value_unless_a_guard_says_how() -> None:
    assert str(unasked(Strategy(kind="canary"))) == UNASKED
    assert str(unasked(Strategy(kind="shadow", guards=("golden",)))) == str(unasked(Strategy(**AB))) == UNASKED
    assert unasked(Strategy(kind="canary", guards=("missing<2%",))) is None
    assert unasked(Strategy()) is unasked(Strategy(kind="blue-green")) is None


@pytest.mark.parametrize(
    ("given", "options", "why"),
    [
        ({"kind": "canary"}, {"has_champion": False}, "deploy the first version directly"),
        ({"kind": "canary"}, {"breaking": True}, "direct or blue-green"),
        ({"kind": "canary", "guards": ("auc>0.8",)}, {}, "auc is of classifiers"),
        ({"kind": "canary", "guards": ("mae<1.1x",)}, {"schema": GRID}, "mae is of regressors"),
        ({"kind": "canary", "sticky": "field:user"}, {}, "no input user"),
        ({**AB}, {}, "accuracy is of classifiers"),
    ],
)
def test_what_does_not_fit_the_deployment_is_refused(given: dict[str, Any], options: dict[str, Any], why: str) -> None:
    with pytest.raises(InvalidConfig, match=why):
        require_fit(complete(Strategy(**given)), **{"has_champion": True, "schema": LINE, "breaking": False, **options})


def test_what_fits_is_let_pass() -> None:
    require_fit(complete(Strategy()), has_champion=False, schema=LINE, breaking=True)
    require_fit(complete(Strategy(kind="canary", sticky="field:a", guards=("mae<1.1x",))), has_champion=True, schema=LINE, breaking=False)
    require_fit(complete(Strategy(kind="canary", guards=("auc>=champion-0.01",))), has_champion=True, schema=GRID, breaking=False)


def test_an_approval_is_of_a_step_that_there_is() -> None:
    with pytest.raises(InvalidConfig, match="no step of 7 %"):
        strategies.steps((1, 100), approvals=(7,))


def test_guards_ask_only_what_the_settings_name() -> None:
    strategy = complete(Strategy(kind="canary", guards=("prometheus(up)<1",), prometheus="http://prometheus:9090/"))
    strategies.require_reach(strategy, "http://127.0.0.1:9090, http://prometheus:9090")
    for allowed in ("", "http://127.0.0.1:9090", "http://prometheus:9090/other", "http://prometheus"):
        with pytest.raises(InvalidConfig, match="prometheus_urls"):
            strategies.require_reach(strategy, allowed)
    strategies.require_reach(complete(Strategy(kind="canary")), "")


@pytest.mark.parametrize(("seconds", "told"), [(86_400.0, "1d"), (129_600.0, "36h"), (600.0, "10m"), (90.0, "90s"), (0.5, "0.5s"), (0.0, "0s")])
def test_a_time_is_told_as_it_is_written(seconds: float, told: str) -> None:
    assert strategies.written_time(seconds) == told
