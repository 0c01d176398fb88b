"""What a monitor.toml may say, and how it is refused."""

from __future__ import annotations

import msgspec
import pytest

from modelyard.errors import InvalidConfig
from modelyard.monitor import settings
from modelyard.monitor.settings import Bound, Monitored, Section, parse, plain, read, require_fit
from modelyard.types import Schema, TensorSpec

WHOLE = """
false_pages_a_month = 0.5
window_s = 3600
ignore = ["session"]
[bounds.accuracy]
least = 0.9
[drift]
smallest_shift = 0.25
[shift]
enabled = false
[slo]
answered = 0.99
latency_s = 0.1
[slices]
fairness = ["city"]
[alerts]
for_s = 120
routes = ["ops"]
"""
SCHEMA = Schema(
    inputs=(TensorSpec(name="city", datatype="BYTES", shape=(-1, 1)), TensorSpec(name="X", datatype="FP64", shape=(-1, 2))),
    outputs=(TensorSpec(name="label", datatype="INT64", shape=(-1,)),),
    layout="frame",
    task="classification",
    classes=(0, 1),
)
FEATURES = ("city", "X[0]", "X[1]", "label")


def test_nothing_said_is_the_defaults() -> None:
    assert parse("") == Monitored() and plain(Monitored()) == {}
    assert Monitored().false_pages_a_month == 1.0 and Monitored().drift.smallest_shift == 0.1
    assert Monitored().section("a detector that came later") == Section()


def test_what_is_said_is_kept_and_told_again() -> None:
    said = parse(WHOLE)
    assert said.bounds == {"accuracy": Bound(least=0.9)} and said.slo.latency_s == 0.1 and said.drift.smallest_shift == 0.25
    assert not said.section("shift").enabled and said.section("drift").enabled
    assert said.alerts.for_s == 120 and said.alerts.routes == ("ops",)
    assert read(plain(said)) == said and read(msgspec.json.decode(msgspec.json.encode(said))) == said


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("drift = 1", "drift"),
        ("[drift]\nsmalest_shift = 1", "smallest_shift"),
        ("alarm = 1", "false_pages_a_month"),
        ("false_pages_a_month = 0", "false_pages_a_month"),
        ("false_pages_a_month = nan", "false_pages_a_month"),
        ("[bounds.accuracy]\nleast = inf", "finite"),
        ("window_s = 1", "window_s"),
        ("[bounds.f1]\nleast = 0.5", "accuracy"),
        ("[bounds.mae]", "least"),
        ("[bounds.mae]\nleast = 2\nmost = 1", "least above"),
        ("[slo]\nanswered = 1.0", "answered"),
        ("ignore = [1]", "ignore"),
        ("ignore = ", "TOML"),
        ("[bounds.mae]\nleats = 2", "there is no setting `leats`; it may say least, most$"),
        ("[drift]\nlearn_days = -1", r"monitor\.toml: drift\.learn_days: expected a number >= 0\.0$"),
        ("[concept]\nlearn_rows = 1.5", "concept.learn_rows: expected a whole number, got a number$"),
        ("[[slices]]", "slices: expected a table, got a list$"),
        ("[alerts]\nhold = {drft = 60}", r"alerts\.hold: no detector is called drft; there are drift, shift, .* watch"),
        ("# " + "x" * settings.LIMIT_BYTES, "KiB"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_name(text: str, says: str) -> None:
    with pytest.raises(InvalidConfig, match=says):
        parse(text)


def test_a_rule_of_a_detector_may_be_held() -> None:
    assert parse('[alerts]\nhold = {drift = 60, "operations:cpu" = 5, watch = 3}').alerts.hold == {"drift": 60, "operations:cpu": 5, "watch": 3}


def test_what_the_model_or_the_home_does_not_have_is_refused_with_what_they_have() -> None:
    def fit(text: str) -> None:
        require_fit(parse(text), SCHEMA, features=FEATURES, routes=("ops",))

    fit('ignore = ["city", "X[1]", "X", "label"]\n[slices]\nfairness = ["city"]\n[bounds.auc]\nleast = 0.5\n[alerts]\nroutes = ["ops"]')
    for text, says in (
        ('ignore = ["town"]', "no column town; it has X, X\\[0\\], X\\[1\\], city, label"),
        ('[slices]\nfairness = ["label"]', "slices.fairness: the model has no column label; it has X, city"),
        ('[slices]\ncolumns = ["X[0]"]', "slices.columns"),
        ("[bounds.mae]\nmost = 3", "mae is no figure of this model; it has accuracy, auc"),
        ('[alerts]\nroutes = ["op"]', "no route op; alerts.toml has ops"),
    ):
        with pytest.raises(InvalidConfig, match=says):
            fit(text)


def test_a_long_list_of_what_there_is_is_cut() -> None:
    with pytest.raises(InvalidConfig, match="and 1 more"):
        wide = Schema(
            inputs=tuple(TensorSpec(name=f"c{place:02}", datatype="FP64", shape=(-1, 1)) for place in range(13)),
            outputs=(),
            layout="frame",
            task="other",
        )
        require_fit(parse('[slices]\ncolumns = ["d"]'), wide, features=(), routes=())
