"""How a watch looks on a terminal, and how it is set from a file."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from modelyard.cli import PARTS, load, main, monitor
from modelyard.client.answers import Account, Alert, Budget, Chosen, Overview, Received, Series
from modelyard.types import Digest, Verdict

FOUND = Overview(
    name="line",
    version=3,
    digest=Digest("sha256:" + "1" * 64),
    since=0.0,
    until=3600.0,
    budget=Budget(false_pages_a_month=1.0, spent=0.0, left=1.0),
    requests=1234,
    rows=1234,
    judged_through=3540.0,
    judged_at=3561.0,
    verdicts=(
        Verdict(outcome="fail", rule="drift:a", evidence="[bold] moved by 0.4 sd", columns=("a", "b", "c", "d", "e"), harm=0.031),
        *(Verdict(outcome="pass", rule=f"quality:{place}", evidence="as ever") for place in range(30)),
    ),
    pages=("drift:a",),
    series=(
        Series(name="requests", unit="/s", values=(1.0, 2.0, None)),
        Series(name="p99", unit="s", values=(0.001, None, 2.5)),
        Series(name="errors", unit="share", values=(0.0, 0.5, 0.25)),
        Series(name="drift", unit="level", values=(0.1, 0.5, 1.5)),
        Series(name="p50", unit="s", values=(None, None, None)),
    ),
    late=7,
    labels=Account(labels=20, matched=10, unsampled=5, unknown=5, predictions=40, received=Received()),
    alerts=(
        Alert(
            id="a1b2",
            deployment="line",
            rule="drift:a",
            severity="page",
            state="firing",
            verdict=Verdict(outcome="fail", rule="drift:a", evidence=""),
            since=60.0,
            advice="look at a",
            cause="upstream break",
            why="unit: a is 1000 times larger",
            fired_at=120.0,
            silenced_by="s1",
        ),
    ),
    trouble=("3 segments or rows could not be kept (lost)",),
)


class Control:
    """A control process that says what it is told to, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[Any] = []

    def monitor(self, name: str, *, since: str | None) -> Overview:
        self.asked.append((name, since))
        return FOUND

    def monitor_settings(self, name: str) -> Chosen:
        return Chosen(settings={}, revision=4)

    def set_monitor_settings(self, name: str, settings: dict[str, Any], *, expected_revision: int | None) -> Chosen:
        self.asked.append((name, settings, expected_revision))
        return Chosen(settings=settings, revision=5, by="key:admin", at="now")


@pytest.fixture
def control(monkeypatch: pytest.MonkeyPatch) -> Control:
    control = Control()
    monkeypatch.setattr(monitor, "connect", lambda *_: contextlib.nullcontext(control))
    return control


def test_what_matters_comes_first_and_is_told_in_words(control: Control, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["monitor", "line", "--since", "24h"]) == 0
    out = capsys.readouterr().out
    for said in (
        "line  version 3  judged through 1970-01-01 00:59 UTC", "minutes ago", "PAGE", "drift:a", "[bold] moved by 0.4 sd", "0.031",
        "page a1b2 fires since 1970-01-01 00:02 UTC: drift:a; upstream break: unit: a is 1000 times larger silenced by s1", "what to do: look at a",
        "a, b, c, d and 1 more", "25 more, each less important than those above", "at most 1 false page a month; 0 in the last 30 days, 1 left",
        "10 of 40 logged predictions have their truth (25%)",
        "7 requests came after", "1,234 requests", "3 segments or rows could not be kept", "2.5 s", "50.00%",
        "1.5 of the threshold",
    ):  # fmt: skip
        assert said in out, said
    assert "p50" not in out, "a course of nothing is not drawn"
    assert control.asked[0][0] == "line" and control.asked[0][1].endswith("+00:00")


def test_what_is_said_of_many_columns_alike_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    said = ": the first week is still learnt"
    learnt = tuple(Verdict(outcome="unknown", rule=f"drift:c{place}", evidence=f"c{place}{said}", columns=(f"c{place}",)) for place in range(25))
    monitor.show(msgspec.structs.replace(FOUND, verdicts=learnt, pages=()), now=3600.0)
    out = " ".join(capsys.readouterr().out.split())
    assert "25 columns: the first week is still learnt" in out and "c0, c1, c2, c3 and 21 more" in out and "less important" not in out


def test_many_reports_are_one_line_and_of_many_pages_the_first_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    page = FOUND.alerts[0]
    reports = tuple(
        msgspec.structs.replace(page, id=f"r{place}", rule=f"shift:c{place}", severity="report", silenced_by="", fired_at=300.0 - 60 * place)
        for place in range(3)
    )
    other = msgspec.structs.replace(page, id="p2", rule="concept:error")
    many = tuple(msgspec.structs.replace(page, id=f"s{place}", rule=f"slo:{place}", advice="", silenced_by="") for place in range(300))
    monitor.show(msgspec.structs.replace(FOUND, alerts=(page, other, *many, *reports)), now=3600.0)
    out = capsys.readouterr().out
    assert "page a1b2 fires" in out and "page p2 fires" in out and "page s2 fires" in out and "page s3 fires" not in out
    assert "and 297 more pages like these: slo:3, slo:4, slo:5, slo:6 and 293 more; all: modelyard alerts line --all" in out
    assert "3 reports fire, the first since 1970-01-01 00:03 UTC: shift:c0, shift:c1, shift:c2" in out and "modelyard alerts line" in out
    assert out.count("what to do: look at a") == 2
    assert out.index("page s0 fires") < out.index("page a1b2 fires") < out.index("3 reports fire"), "what is kept back comes after what is told"
    monitor.show(msgspec.structs.replace(FOUND, alerts=tuple(msgspec.structs.replace(each, silenced_by="s1") for each in many)), now=3600.0)
    assert "300 pages fire, the first since 1970-01-01 00:02 UTC: slo:0, slo:1, slo:2, slo:3 and 296 more silenced by s1" in capsys.readouterr().out


def test_nothing_judged_yet_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    monitor.show(msgspec.structs.replace(FOUND, version=None, judged_through=None, verdicts=(), labels=None, late=0, trouble=()), now=3600.0)
    out = capsys.readouterr().out
    assert "no version serves" in out and "not judged yet" in out


def test_settings_come_from_a_file_and_are_of_what_was_seen(control: Control, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "monitor.toml"
    path.write_text("false_pages_a_month = 0.5\n[drift]\nsmallest_shift = 0.2\n")
    assert main(["monitor", "line", "--settings", str(path)]) == 0
    assert control.asked == [("line", {"false_pages_a_month": 0.5, "drift": {"smallest_shift": 0.2}}, 4)]
    assert "drift, false_pages_a_month" in capsys.readouterr().out
    assert main(["monitor", "line", "--settings", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["revision"] == 5


@pytest.mark.parametrize(("content", "says"), [(None, "no file"), (b"\xff\xfe", "TOML"), (b"alarm = 1", "alarm"), (b"x" * 40_000, "limit")])
def test_a_file_that_is_none_is_refused_in_a_line(
    control: Control, tmp_path: Path, content: bytes | None, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "monitor.toml"
    if content is not None:
        path.write_bytes(content)
    assert main(["monitor", "line", "--settings", str(path)]) != 0
    err = capsys.readouterr().err
    assert says in err and len(err.splitlines()) == 1 and not control.asked


def test_what_the_verb_can_do_beside_is_there() -> None:
    for verb, parts in PARTS.items():
        for place in parts.values():
            assert load(place).__doc__, (verb, place)
