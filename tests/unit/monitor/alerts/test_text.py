"""What people read: everything that is to be known of an alert, and nothing that data could smuggle in."""

from __future__ import annotations

import pytest
from receivers import NOW, alert, notification, over, verdict

from modelyard.monitor.alerts import text


def test_a_message_says_value_threshold_window_columns_harm_cause_and_what_to_do() -> None:
    said = text.plain(notification())
    html = text.markup(notification())
    for part in ("[page] churn: drift:age", "value: 41.5 (evidence, powers of ten)", "threshold: 20 (evidence",
                 "window: 2027-01-15 07:00 to 2027-01-15 08:00 UTC", "columns: age",
                 "estimated harm: 3 % (points of accuracy", "cause: population shift: more of the young", "what to do: Look at how age moved.",
                 "is over since", "it passes again"):  # fmt: skip
        assert part in said and part.rpartition(": ")[2] in html, part


@pytest.mark.parametrize(
    ("numbers", "value", "threshold"),
    [
        ({"value": 1.0, "threshold": 2.0, "evidence": 9.0}, "1", "2"),
        ({"evidence": 9.0, "threshold": 2.0}, "9", "2"),
        ({"value": 0.7, "bound": 0.8, "rows": 5.0}, "0.7", "0.8"),
    ],
)
def test_the_value_and_its_threshold_are_told_whatever_the_detector_calls_them(numbers: dict[str, float], value: str, threshold: str) -> None:
    facts = dict(text.facts(alert(rule="multivariate", verdict=verdict(numbers=numbers))))
    assert (facts["value"], facts["threshold"]) == (value, threshold)


def test_of_operations_the_larger_value_is_the_rarer_one() -> None:
    assert dict(text.facts(alert(rule="operations:memory")))["value"].endswith("(how rare, powers of ten)")


def test_a_share_has_no_unit_of_evidence() -> None:
    facts = dict(text.facts(alert(rule="quality:age", verdict=verdict(numbers={"share": 0.25, "was": 0.01}))))
    assert facts["value"] == "0.25"
    facts = dict(text.facts(alert(rule="quality:age", verdict=verdict(numbers={"value": 9.0, "threshold": 8.0, "blocks": 9.0}))))
    assert (facts["value"], facts["threshold"]) == ("9 (evidence, powers of ten)", "8 (evidence, powers of ten)")


def test_of_an_alarm_that_is_held_the_value_that_raised_it_is_told_too() -> None:
    held = {"value": 2.662, "threshold": 3.642, "peak": 4.1}
    facts = dict(text.facts(alert(rule="concept:error", verdict=verdict(numbers=held))))
    assert facts["value"] == "4.1 at its highest, 2.662 now (evidence, powers of ten)" and "numbers" not in facts
    facts = dict(text.facts(alert(rule="concept:error", verdict=verdict(numbers=held | {"value": 3.9}))))
    assert facts["value"] == "3.9 (evidence, powers of ten)" and "numbers" not in facts


def test_what_is_not_known_is_said_to_be_so() -> None:
    bare = alert(verdict=verdict(numbers={}, window=None, columns=(), harm=None), cause="", why="")
    facts = dict(text.facts(bare))
    assert facts["estimated harm"] == facts["cause"] == "not known"
    assert facts.keys() == {"found", "estimated harm", "cause", "failing since", "what to do"}


@pytest.mark.parametrize(
    ("given", "subject"),
    [
        ({}, "[page] churn: drift:age"),
        ({"firing": (alert(), alert(id="c", rule="slo"))}, "[page] churn: drift:age and 1 more"),
        ({"kind": "repeat"}, "[page] churn: drift:age (still)"),
        ({"firing": (), "kind": "resolved"}, "[resolved] churn: concept"),
        ({"firing": (), "resolved": (), "kind": "test"}, "[test] modelyard can reach you here"),
    ],
)
def test_the_subject_says_how_grave_what_and_where(given: dict[str, object], subject: str) -> None:
    assert text.subject(notification(**given)) == subject


def test_nothing_of_the_data_becomes_markup_or_a_line_of_its_own() -> None:
    evil = "<script>alert(1)</script>\r\nBcc: everybody\x1b[31m\u202e" + "x" * 2000
    said = notification(firing=(alert(rule=f"drift:{evil}", verdict=verdict(evidence=evil, columns=(evil,)), why=evil, cause=evil),))
    assert "<script>" not in text.markup(said)
    for shown in (text.subject(said), *dict(text.facts(said.firing[0])).values()):
        assert not set(shown) & set("\r\n\x1b\u202e") and len(shown) <= 1010


def test_a_long_message_counts_what_it_leaves_out_and_names_what_shares_the_reason() -> None:
    many = notification(firing=tuple(alert(id=str(at)) for at in range(30)), resolved=(over(),), also=("drift:income",))
    said = text.plain(many)
    assert said.count("what to do") == text.MOST and "and 10 more: modelyard alerts churn" in said
    assert "failing for the same reason: drift:income" in said
    assert "modelyard alerts silence --deployment churn" in said


@pytest.mark.parametrize(("value", "written"), [(0.0, "0"), (41.5, "41.5"), (1234567.0, "1,234,567"), (0.000012345, "1.234e-05"), (-3.0, "-3")])
def test_numbers_are_written_for_people(value: float, written: str) -> None:
    assert text.number(value) == written


def test_times() -> None:
    assert text.time(NOW) == "2027-01-15 08:00" and text.instant(NOW) == "2027-01-15T08:00:00.000Z"
