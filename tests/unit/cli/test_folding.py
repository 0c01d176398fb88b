"""What says alike is told as one line, and what matters never drowns in it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from modelyard.cli import folding
from modelyard.client.answers import Alert
from modelyard.types import Verdict


def drift(name: str, said: str = ": the first week is still learnt", **more: Any) -> Verdict:
    given = {"outcome": "unknown", "rule": f"drift:{name}", "evidence": f"{name}{said}", "columns": (name,)}
    return Verdict(**(given | more))


def test_columns_of_which_the_same_is_said_are_one() -> None:
    learnt = [drift(f"c{place}") for place in range(25)]
    others = [
        drift("p"),  # it pages
        drift("f", outcome="fail"),
        drift("h", harm=0.1),
        drift("o", ": otherwise"),
        drift("x", rule="quality:x"),
        drift("y", evidence="of y the first week is still learnt"),
    ]
    groups = folding.folded([others[0], *learnt[:10], *others[1:], *learnt[10:]], ("drift:p",))
    assert [len(group) for group in groups] == [1, 25, 1, 1, 1, 1, 1] and groups[1] == learnt
    told = folding.told(groups[1])
    assert (told.rule, told.evidence, len(told.columns)) == ("drift", "25 columns: the first week is still learnt", 25)
    assert folding.told(groups[0]) is others[0]


def test_figures_that_are_not_known_for_one_reason_are_one() -> None:
    def unknown(about: str, said: str, outcome: Any = "unknown") -> Verdict:
        return Verdict(outcome=outcome, rule=f"operations:{about}", evidence=said)

    known_soon = "what is usual is known after 99 more minutes with enough requests"
    given = [
        unknown("latency_p50", f"the median latency is 0.5 ms; {known_soon}"),
        unknown("memory", f"memory is 161 MiB a worker; {known_soon}"),
        unknown("queue", "the queue is not known yet: too few requests"),
        unknown("cpu", "processor time is 1 ms a request", "pass"),
        Verdict(outcome="unknown", rule="slices", evidence="no label has come yet"),
    ]
    groups = folding.folded(given)
    assert [len(group) for group in groups] == [2, 1, 1, 1]
    assert folding.told(groups[0]).evidence == f"latency_p50, memory: {known_soon}" and folding.told(groups[0]).rule == "operations"
    note = "a new release serves; what is usual was learnt of the one before"
    groups = folding.folded([msgspec.structs.replace(each, evidence=f"{each.evidence}; {note}") for each in given[:3]])
    assert [folding.told(group).evidence for group in groups] == [f"latency_p50, memory: {known_soon}; {note}", f"{given[2].evidence}; {note}"]


@pytest.mark.parametrize("outcome", ["fail", "warn", "unknown"])
def test_one_detector_hides_no_other(outcome: Any) -> None:
    """300 columns that page leave room for the promise that is broken beside them."""
    moved = [drift(f"c{place}", f" lies higher by {place / 100:.2f}", outcome=outcome, harm=0.1) for place in range(300)]
    broken = Verdict(outcome="fail", rule="slo:answered", evidence="one request in ten fails")
    pages = {"slo:answered", *(verdict.rule for verdict in moved if outcome == "fail")}
    groups = folding.folded([*moved, broken], pages)
    assert [len(group) for group in groups] == [1] * folding.ALIKE + [300 - folding.ALIKE, 1] and groups[-1] == [broken]
    assert groups[0] == [moved[0]], "the most important stays first"
    assert folding.told(groups[folding.ALIKE]).evidence == "295 more, each less important than those above"
    assert [each for group in groups for each in group] == [*moved, broken], "and nothing is lost"


def test_columns_that_pass_are_one_beside_the_word_on_all() -> None:
    passing = [drift(f"c{place}", f" lies {place / 100:.2f} from the reference", outcome="pass") for place in range(9, 0, -1)]
    word = Verdict(outcome="pass", rule="drift", evidence="of 9 inputs and outputs none lies beyond its margin")
    groups = folding.folded([passing[0], word, *passing[1:]])
    assert groups == [passing, [word]]
    told = folding.told(passing)
    assert told.evidence == "c9 lies 0.09 from the reference; 8 more pass" and told.rule == "drift" and len(told.columns) == 9


def test_what_a_column_says_in_a_sentence_of_its_own_stays_its_own() -> None:
    """`3 columns lies 0.00 from the reference` would be no English, and alike by chance."""
    given = [drift(name, " lies 0.00 from the reference", outcome="warn") for name in "abc"]
    assert [len(group) for group in folding.folded(given)] == [1, 1, 1]


def alert(number: int, *, harm: float | None = None, **more: Any) -> Alert:
    given = {"id": f"a{number}", "rule": f"shift:c{number}", "severity": "report", "state": "firing"}
    return Alert(deployment="line", verdict=Verdict(outcome="warn", rule="", evidence="", harm=harm), since=0.0, **(given | more))


def test_alerts_that_are_alike_are_together() -> None:
    reports = [alert(place) for place in range(6)]
    others = [alert(7, severity="page"), alert(9, silenced_by="s"), alert(10, rule="quality:c"), alert(11, state="pending")]
    groups = folding.alarms([*others, *reports])
    assert [[each.id for each in group] for group in groups] == [["a7"], ["a10"], [f"a{place}" for place in range(6)], ["a9"], ["a11"]]
    assert folding.names(reports) == "shift:c0, shift:c1, shift:c2, shift:c3 and 2 more" and folding.names(reports[:1]) == "shift:c0"
    assert folding.rest(reports, 3) == "3 more reports like these: shift:c3, shift:c4, shift:c5"
    assert folding.rest(reports[:2], 1) == "1 more report like this: shift:c1"


def test_of_many_alerts_those_that_cost_most_and_are_explained_come_first() -> None:
    pages = [alert(1), alert(2, harm=0.01), alert(3, cause="upstream break"), alert(4, harm=0.2)]
    (group,) = folding.alarms(pages)
    assert [each.id for each in group] == ["a4", "a2", "a3", "a1"]
