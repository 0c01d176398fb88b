from __future__ import annotations

from minutes import evidence, minutes, reference

from modelyard.monitor.cause import Happened
from modelyard.monitor.explained import MOST, STANDS_S, explained
from modelyard.types import Verdict

KNOWN = reference()
EVIDENCE = evidence(KNOWN, minutes(KNOWN, 20, lambda place, rows: {**rows, "age": rows["age"] * 10} if place > 10 else rows))


def failing(count: int = 1) -> list[Verdict]:
    return [Verdict(outcome="fail", rule=f"drift:{place}", evidence="", columns=("age",)) for place in range(count)]


def test_a_failure_is_explained_and_the_explanation_stands_for_a_while() -> None:
    first = explained({}, failing(), EVIDENCE)
    assert first["drift:0"].kind == "upstream break" and "unit" in first["drift:0"].said
    healed = EVIDENCE._replace(recent=(), fresh=(), now=EVIDENCE.now + 60)
    assert explained(first, failing(), healed) == first
    later = explained(first, failing(), healed._replace(now=EVIDENCE.now + STANDS_S))
    assert later["drift:0"].kind == "unknown"


def test_what_fails_no_longer_has_no_cause() -> None:
    assert explained(explained({}, failing(), EVIDENCE), [], EVIDENCE) == {}


def test_only_so_many_are_explained_in_one_turn_and_the_others_in_the_next() -> None:
    first = explained({}, failing(MOST + 2), EVIDENCE)
    assert list(first) == [f"drift:{place}" for place in range(MOST)]
    assert len(explained(first, failing(MOST + 2), EVIDENCE)) == MOST + 2


def test_what_happened_beside_it_is_told() -> None:
    near = Happened(EVIDENCE.recent[10].start + 30.0, "step to 100 %", 7)
    found = explained({}, failing(), EVIDENCE, (near,))["drift:0"]
    assert "beside step to 100 % of version 7" in found.said and "rollback" in found.advice
