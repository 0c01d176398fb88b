"""What a person writes is read, and what cannot be read is refused by name."""

from __future__ import annotations

from typing import Any

import pytest

from modelyard.errors import InvalidConfig
from modelyard.rollout.written import Written, read, seconds, share, strategy, weights
from modelyard.targets.base import Step

FILE = """
model = "churn@challenger"
name = "churn"
strategy = "canary"
guards = ["error_rate<0.5%", "p99<1.2x", "disagreement<3%"]
mirror = "10%"
max_time = "6h"
strict = true

[[step]]
weight = 1
time = "10m"
requests = 1000

[[step]]
weights = {champion = 50, candidate = 50}
approval = true

[[step]]
weight = 100
time = 0
requests = 0
"""


def test_a_file_says_all_that_flags_say() -> None:
    written = read(FILE)
    assert (written.model, written.name) == ("churn@challenger", "churn")
    found = strategy(written)
    assert found.steps == (
        Step(weight=1, minimum_s=600.0, minimum_requests=1000),
        Step(weight=50, minimum_s=300.0, minimum_requests=100, approval=True),
        Step(weight=100),
    )
    assert (found.mirror, found.max_time_s, found.strict, found.kind) == (0.1, 21_600.0, True, "canary")


def test_steps_in_short() -> None:
    found = strategy(Written(strategy="canary", steps=(5, 100), step_time="2m", step_requests=7, approve=(100,)))
    assert found.steps == (
        Step(weight=5, minimum_s=120.0, minimum_requests=7),
        Step(weight=100, minimum_s=120.0, minimum_requests=7, approval=True),
    )
    shadow = strategy(Written(strategy="shadow", step_time="2m", approve=(100,)))
    assert shadow.steps == (Step(weight=0, minimum_s=120.0, minimum_requests=100), Step(weight=100, approval=True))
    flip = strategy(Written(strategy="blue-green", keep_warm="1h"))
    assert flip.steps == (Step(weight=100),) and flip.keep_warm_s == 3600.0


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("strateg = 'canary'", "unknown field `strateg`; it may say model, name"),
        ("strategy = 'rolling'", "strategy: there is no 'rolling'; there are direct, blue-green, canary"),
        ("strategy = 'canary'\n[[step]]\nweigth = 3", "^deployment.toml: step.*weigth`; it may say weight, weights, time, requests, approval$"),
        ("strategy = 'canary'\nsteps = '1,2'", "^deployment.toml: steps: expected a list, got a text$"),
        ("step = 3", "step: expected a list, got a whole number"),
        ("max_time = true", "max_time: expected a number or a text, got true or false"),
        ("strategy = ", "TOML"),
        ("strategy = 'canary'\n[[step]]\nweights = {champion = 90, candidate = 5}", "sum to 100, not 95"),
        ("strategy = 'canary'\n[[step]]\nweights = {champion = 100}", "sum to 100"),
        ("strategy = 'canary'\n[[step]]\nweights = {old = 90, new = 10}", "old"),
        ("strategy = 'canary'\n[[step]]\ntime = '3m'", "a step has a weight"),
        ("strategy = 'canary'\nsteps = [100]\n[[step]]\nweight = 100", "give either"),
        ("strategy = 'canary'\nmax_time = 'soon'", "a time such as"),
        ("strategy = 'canary'\nguards = ['speed<3']", "names no metric"),
    ],
)
def test_what_a_file_gets_wrong_is_named(text: str, why: str) -> None:
    with pytest.raises(InvalidConfig, match=why):
        strategy(read(text))


@pytest.mark.parametrize(
    ("text", "wanted"),
    [("90s", 90.0), ("10m", 600.0), ("1h30m", 5400.0), ("1h 30m", 5400.0), ("250ms", 0.25), ("2d", 172_800.0), ("7", 7.0), (7, 7.0)],
)
def test_times(text: Any, wanted: float) -> None:
    assert seconds(text, "t") == pytest.approx(wanted)


@pytest.mark.parametrize("text", ["", "m", "10 minutes", "-5s", "1e3", "10m5", "nan"])
def test_no_times(text: str) -> None:
    with pytest.raises(InvalidConfig, match="a time such as"):
        seconds(text, "t")


@pytest.mark.parametrize(("text", "wanted"), [("5%", 0.05), ("0.05", 0.05), (0.05, 0.05), ("100%", 1.0), (1, 1.0)])
def test_shares(text: Any, wanted: float) -> None:
    assert share(text, "mirror") == pytest.approx(wanted)


@pytest.mark.parametrize("text", ["5", 5, "five", "%", "-1%"])
def test_no_shares(text: Any) -> None:
    with pytest.raises(InvalidConfig, match="mirror is a share"):
        share(text, "mirror")


def test_weights() -> None:
    assert weights("1, 10,50%,100") == (1, 10, 50, 100)
    for text in ("", "1,,2", "a", "1.5,100", "-1,100", "1000"):
        with pytest.raises(InvalidConfig, match="whole percents"):
            weights(text)


def test_what_is_nested_too_deep_is_no_toml() -> None:
    with pytest.raises(InvalidConfig, match="cannot be read as TOML"):
        read("a = " + "[" * 30_000)
