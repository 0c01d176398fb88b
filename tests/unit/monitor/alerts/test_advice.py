"""Advice: by cause, by rule, and never with a hole in it."""

from __future__ import annotations

import pytest

from modelyard.monitor.alerts.advice import BY_CAUSE, BY_RULE, ELSE, advise, named


@pytest.mark.parametrize("rule", [*BY_RULE, *(f"{rule}:age" for rule in BY_RULE), "other"])
@pytest.mark.parametrize("cause", ["", *BY_CAUSE, "unheard of"])
@pytest.mark.parametrize("columns", [(), ("age",), tuple("abcdefgh")])
def test_every_rule_has_advice_without_a_hole(rule: str, cause: str, columns: tuple[str, ...]) -> None:
    told = advise(rule, cause, columns)
    assert told and "{" not in told and told.endswith(".")


def test_a_known_cause_counts_before_the_rule() -> None:
    assert advise("drift:age", "upstream break", ("age",)) != advise("drift:age", "", ("age",))
    assert advise("drift:age", "unheard of", ("age",)) == advise("drift:age", "", ("age",))
    assert advise("nothing", "", ()) == ELSE


def test_columns_are_named_and_the_rest_counted() -> None:
    assert named(("a", "b")) == "a, b"
    assert named(tuple("abcdefg")) == "a, b, c, d, e and 2 more"
    assert "age" in advise("quality:missing", "", ("age",))


def test_a_column_cannot_become_advice() -> None:
    assert advise("drift:x", "", ("{columns}",)).count("{columns}") == 1
