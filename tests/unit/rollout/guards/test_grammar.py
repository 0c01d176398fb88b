"""How guards are written, and what is refused by name."""

from __future__ import annotations

import pytest

from modelyard.errors import InvalidConfig
from modelyard.rollout.guards.grammar import METRICS, Guard, parse


@pytest.mark.parametrize(
    ("text", "form", "limit", "needs"),
    [
        ("error_rate<0.5%", "absolute", 0.005, "live"),
        ("error_rate < .005", "absolute", 0.005, "live"),
        ("p99<1.2x", "ratio", 1.2, "live"),
        ("p50<30ms", "absolute", 0.03, "live"),
        ("p95<=champion+5ms", "difference", 0.005, "live"),
        ("p90<250us", "absolute", 0.00025, "live"),
        ("disagreement<3%", "absolute", 0.03, "mirror"),
        ("auc>=champion-0.01", "difference", -0.01, "labels"),
        ("accuracy>=champion-1%", "difference", -0.01, "labels"),
        ("accuracy>=champion", "difference", 0.0, "labels"),
        ("mae<1.05x", "ratio", 1.05, "labels"),
        ("rmse<12.5", "absolute", 12.5, "labels"),
        ("prediction_shift<0.1", "absolute", 0.1, "live"),
        ('prometheus(rate(x{v="{version}"}[1m]))<1.1x', "ratio", 1.1, "prometheus"),
        ("prometheus(up) >= 1", "absolute", 1.0, "prometheus"),
        ("prometheus(temperature) > -5", "absolute", -5.0, "prometheus"),
        ("golden", "stands", 0.0, "golden"),
    ],
)
def test_each_form_is_read_and_written_back(text: str, form: str, limit: float, needs: str) -> None:
    guard = parse(text)
    assert (guard.form, guard.needs) == (form, {needs})
    assert guard.limit == pytest.approx(limit)
    assert parse(str(guard)) == guard


@pytest.mark.parametrize(
    ("text", "rule", "named"),
    [
        ("latency<5ms", "metric", "error_rate, p50"),
        ("p99", "form", "metric<bound"),
        ("", "form", "metric<bound"),
        ("p99=5ms", "form", "metric<bound"),
        ("p99<30", "unit", "s, ms, us"),
        ("p99<30%", "unit", "s, ms, us"),
        ("error_rate<5ms", "unit", "error_rate"),
        ("mae<5%", "unit", "mae"),
        ("error_rate>1%", "direction", "lower"),
        ("auc<0.9", "direction", "higher"),
        ("error_rate<0%", "bound", "between"),
        ("error_rate<150%", "bound", "between"),
        ("error_rate<5", "bound", "between"),
        ("auc>=1", "bound", "between"),
        ("p50<0ms", "bound", "above 0"),
        ("p50<0x", "bound", "ratio"),
        ("p50<-1x", "bound", "ratio"),
        ("error_rate<champion+100%", "bound", "differ"),
        ("error_rate<", "form", "metric<bound"),
        ("error_rate<champion 5%", "bound", "champion+number"),
        ("error_rate<champion+", "bound", "number"),
        ("error_rate<champion+-5%", "bound", "champion"),
        ("error_rate<champion%", "bound", "number"),
        ("error_rate<champion+1.5x", "unit", "error_rate"),
        ("error_rate<nan", "bound", "number"),
        ("disagreement<1.5x", "form", "disagreement<3%"),
        ("prediction_shift<champion+1%", "form", "prediction_shift<3%"),
        ("prometheus()<5", "query", "prometheus(QUERY)"),
        ("prometheus(up)<1.2x", "query", "{version}"),
        ("prometheus(" + "x" * 5000 + ")<5", "length", "4000"),
    ],
)
def test_what_cannot_be_honoured_is_refused_and_told(text: str, rule: str, named: str) -> None:
    with pytest.raises(InvalidConfig) as raised:
        parse(text)
    assert (raised.value.field, raised.value.rule) == ("guard", rule)
    assert named in raised.value.message


def test_a_bound_follows_the_champion() -> None:
    assert parse("p99<1.5x").bound(2.0) == 3.0
    assert parse("auc>=champion-0.01").bound(0.9) == pytest.approx(0.89)
    assert parse("p99<30ms").bound(2.0) == pytest.approx(0.03)


def test_a_value_keeps_to_its_bound_or_not() -> None:
    ratio = parse("error_rate<1.5x")
    assert ratio.keeps(0.0, 0.0) and ratio.keeps(0.02, 0.015) and not ratio.keeps(0.001, 0.0) and not ratio.keeps(0.015, 0.01)
    assert not parse("error_rate<champion").keeps(0.0, 0.0), "a version that shall be better is not while both are at nothing"
    assert parse("auc>=champion-0.01").keeps(0.9, 0.9) and not parse("auc>=0.8").keeps(0.79, 0.9)


def test_every_metric_can_be_written() -> None:
    for name, metric in METRICS.items():
        sign = "<" if metric.better != "higher" else ">"
        query = "(up)" if name == "prometheus" else ""
        unit = {"share": "5%", "latency": "5ms", "plain": "5"}[metric.units]
        assert parse(f"{name}{query}{sign}{unit}") == Guard(metric=name, form="absolute", sign=sign, number=5, unit=unit[1:], query=query[1:-1])
