"""Labels: late, twice, changed, unsampled, unknown; joined with what is logged and with what waits to be."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import duckdb
import msgspec
import numpy as np
import pytest

from modelyard import events
from modelyard.errors import InvalidInput, StorageFull, Tampered, Unavailable, UnsupportedFormat
from modelyard.events import Part, Rows, Segment
from modelyard.monitor import labels
from modelyard.monitor.joined import Joined
from modelyard.monitor.labels import AHEAD_S, BATCH, Given, Ledger, Received, account, answers, fitting, join, labelled, text, truths
from modelyard.monitor.log import PredictionLog, day_of
from modelyard.monitor.windows import Windows
from modelyard.types import Digest

OLD, NEW = Digest("sha256:" + "1" * 64), Digest("sha256:" + "2" * 64)


def predictions(ids: list[str], columns: dict[str, np.ndarray], *, at: float, share: float = 1.0) -> Rows:
    named = tuple(events.column(name, values) for name, values in columns.items())
    return Rows(share=share, ids=tuple(ids), times=np.full(len(ids), at).astype("<f8").tobytes(), columns=named)


class Home:
    """A ledger, a log and what waits for it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.windows = Windows(folder / "monitor.sqlite")
        self.log = PredictionLog(folder / "log")
        self.ledger = Ledger(folder / "labels.sqlite")
        self.segments = 0

    def predict(self, digest: Digest, rows: Rows, *, name: str = "m") -> None:
        self.segments += 1
        part = Part(name=name, version=1 if digest == OLD else 2, digest=digest, rows=len(rows.ids), predictions=rows)
        segment = Segment(slot=0, pid=1, started_at=1.0, ended_at=events.times_array(rows)[0], parts=(part,))
        self.windows.take({f"0-1-{self.segments}.segment": segment}, day_of=day_of)

    def write(self) -> None:
        for group in self.windows.staged(limit_bytes=1 << 20):
            self.log.write(group)
            self.windows.written(group)

    def answers(self, since: float = 0.0):
        return answers(self.ledger, self.log, self.windows, "m", since=since, now=1_000.0)

    def account(self, **more):
        return account(self.ledger, self.log, self.windows, "m", now=1_000.0, **more)

    def gathered(self, digest: Digest, classes, since: float = 0.0):
        join(self.ledger, self.log, self.windows, "m", now=1_000.0)
        return Joined("m", digest, classes).look(self.ledger, self.windows, since=since)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


CLASSES = ("no", "yes")


def classified(ids: list[str], labels: list[str], *, at: float, share: float = 1.0) -> Rows:
    scores = np.array([[0.25, 0.75] if label == "yes" else [0.75, 0.25] for label in labels], dtype=np.float32)
    return predictions(ids, {"label": np.array(labels, dtype=object), "probability": scores}, at=at, share=share)


@pytest.mark.parametrize("is_written", [True, False])
def test_labels_find_their_predictions_by_version_in_the_log_and_before_it(home: Home, is_written: bool) -> None:
    home.predict(OLD, classified(["a", "b", "c"], ["yes", "no", "yes"], at=100.0))
    home.predict(NEW, classified(["d", "e"], ["no", "yes"], at=200.0))
    home.predict(NEW, classified(["a"], ["no"], at=200.0), name="other")
    if is_written:
        home.write()
    home.ledger.give("m", [("a", "yes"), ("b", "yes"), ("e", "no"), ("zz", "no")], at=300.0)
    found = home.answers()
    assert found.keys() == {OLD, NEW}
    old = labelled(found[OLD], CLASSES)
    assert (old.truth.tolist(), sorted(old.predicted.tolist()), sorted(old.score.tolist())) == ([1, 1], [0, 1], [0.25, 0.75])
    new = labelled(found[NEW], CLASSES)
    assert (new.truth.tolist(), new.predicted.tolist(), new.score.tolist()) == ([0], [1], [0.75])
    assert home.answers(since=150.0).keys() == {NEW}
    assert labelled(found[OLD], CLASSES, first=101.0).truth.size == 0 == labelled(found[OLD], CLASSES, last=100.0).truth.size
    told = home.account()
    assert (told.labels, told.matched, told.unsampled, told.unknown, told.predictions) == (4, 3, 0, 1, 5)


@pytest.mark.parametrize("is_written", [True, False])
def test_labels_find_the_groups_of_callers_too(home: Home, is_written: bool) -> None:
    home.predict(OLD, classified(["a", "b"], ["yes", "no"], at=100.0))
    home.predict(OLD, msgspec.structs.replace(classified(["c", "d"], ["no", "yes"], at=101.0), groups=bytes([0, 255])))
    if is_written:
        home.write()
        assert len(home.log.files("predictions", "m")) == 2, "rows with groups are of another form"
        assert set(home.log.rows("predictions", "m").columns) == {"label", "probability"}, "a group is no output"
    home.ledger.give("m", [(key, "yes") for key in "abcd"], at=300.0)
    assert labelled(home.answers()[OLD], CLASSES).groups.tolist() == [-1, -1, 0, 255]


@pytest.mark.parametrize("written", [np.array([7, 8], dtype=np.uint8), np.array([0.5, -1.0]), np.array(["x", None], dtype=object)])
def test_an_output_that_0_1_0_logged_as_caller_group_is_no_group(home: Home, written: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rows of 0.1.0 lie in the folder with those of today, of callers who stayed with a version and of others."""
    outputs = {"caller_group": written, "label": np.array(["yes", "no"], dtype=object)}
    with monkeypatch.context() as before:
        before.setattr("modelyard.monitor.log.column_names", lambda names: {name: name for name in names})
        home.predict(OLD, predictions(["a", "b"], outputs, at=100.0))
        home.write()
    home.predict(OLD, predictions(["c", "d"], outputs, at=101.0))
    home.predict(OLD, msgspec.structs.replace(predictions(["e", "f"], outputs, at=102.0), groups=bytes([3, 255])))
    home.write()
    logged = [duckdb.read_parquet(str(path)).columns[5:] for path in home.log.files("predictions", "m")]
    assert logged == [["caller_group", "label"], ["caller_group_", "label"], ["caller_group", "caller_group_", "label"]], "as each release writes it"
    home.ledger.give("m", [(key, "yes") for key in "abcdef"], at=300.0)
    assert labelled(home.answers()[OLD], CLASSES).groups.tolist() == [-1, -1, -1, -1, 3, 255]
    columns = home.log.rows("predictions", "m").columns
    assert set(columns) == {"label", "caller_group_"}, "and by one name"
    assert columns["caller_group_"].tolist() == [*written.tolist()] * 3


def test_the_newest_label_stands_and_how_they_came_is_counted(home: Home) -> None:
    assert home.ledger.give("m", [("a", "yes"), ("b", 1)], at=1.0) == Received(new=2)
    assert home.ledger.give("m", [("a", "no"), ("b", 1.0), ("c", True), ("c", True)], at=2.0) == Received(new=1, same=2, changed=1)
    assert home.ledger.labels("m") == {"a": "no", "b": "1", "c": "True"}
    assert home.ledger.received("m") == Received(new=3, same=2, changed=1)
    assert Ledger(home.folder / "labels.sqlite").labels("m") == home.ledger.labels("m") and home.ledger.labels("other") == {}
    assert home.ledger.received("other") == Received()
    home.ledger.forget(before=2.0)
    assert home.ledger.labels("m") == {"a": "no", "b": "1", "c": "True"}
    home.ledger.forget(before=3.0)
    assert home.ledger.labels("m") == {}


def test_whatever_number_of_a_row_an_id_claims_it_is_looked_at_alone(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    home.predict(NEW, classified(["a"], ["yes"], at=100.0, share=0.001))
    ids = [f"{number}/{(1 << 24) - 1 - number}" for number in range(2000)] + ["x/99999999999", "y/²", "/", "z/16777216"]
    home.ledger.give("m", [(each, "yes") for each in ids], at=200.0)
    sizes: list[int] = []
    positions = events.positions

    def counted(ids: Any, counts: Any = None) -> Any:
        sizes.append(len(ids) if counts is None else int(counts.sum()))
        return positions(ids, counts)

    monkeypatch.setattr(events, "positions", counted)
    told = home.account()
    assert told.unknown + told.unsampled == 2004 and told.unsampled > 1900
    assert max(sizes) == len(sizes) * 2004, "all ids at once, and no rows that nobody gave"


def test_what_the_log_did_not_keep_is_told_from_what_never_was(home: Home) -> None:
    ids = [f"id-{number}" for number in range(400)]
    kept = [each for each in ids if events.positions([each])[0] < events.threshold(0.25)]
    home.predict(NEW, classified(kept, ["yes"] * len(kept), at=100.0, share=0.25))
    home.ledger.give("m", [(each, "yes") for each in ids], at=200.0)
    told = home.account()
    assert (told.labels, told.matched, told.unsampled, told.unknown) == (400, len(kept), 400 - len(kept), 0)
    home.write()
    assert home.account() == told
    of_a_batch = next(
        f"batch-{number}/3" for number in range(100) if events.positions([f"batch-{number}"], np.array([4]))[3] < events.threshold(0.25)
    )
    home.ledger.give("m", [(of_a_batch, "yes")], at=200.0)
    assert home.account().unknown == 1
    strangers = [f"nobody-{number}" for number in range(400)]
    home.ledger.give("m", [(each, "yes") for each in strangers], at=200.0)
    beyond = sum(events.positions(strangers) >= events.threshold(0.25))
    more = home.account()
    assert (more.unsampled - told.unsampled, more.unknown - 1) == (beyond, 400 - beyond), "beyond the share nobody can tell whose they are"


def test_numbers_are_compared_as_numbers(home: Home) -> None:
    home.predict(NEW, predictions(["a", "b", "c"], {"prediction": np.array([1.5, 2.0, 3.0])}, at=100.0))
    home.write()
    home.predict(NEW, predictions(["d"], {"prediction": np.array([4.0], dtype=np.float32)}, at=100.0))
    home.ledger.give("m", [("a", 2), ("b", 2.5), ("c", "none"), ("d", 4)], at=200.0)
    found = labelled(home.answers()[NEW], None)
    assert sorted(zip(found.truth.tolist(), found.predicted.tolist(), strict=True)) == [(2.0, 1.5), (2.5, 2.0), (4.0, 4.0)]
    assert found.score.size == 0


def test_integer_and_boolean_classes_are_compared_by_what_they_are(home: Home) -> None:
    home.predict(NEW, predictions(["a", "b"], {"label": np.array([0, 1])}, at=100.0))
    home.write()
    home.ledger.give("m", [("a", 1), ("b", 1)], at=200.0)
    found = labelled(home.answers()[NEW], (0, 1))
    assert found.truth.tolist() == [1, 1] and sorted(found.predicted.tolist()) == [0, 1] and found.score.size == 0
    assert (text(True), text(np.bool_(False)), text(3.0), text(np.float32(0.5))) == ("True", "False", "3", "0.5")


def test_of_predictions_with_one_id_the_latest_counts(home: Home) -> None:
    home.predict(OLD, classified(["a"], ["yes"], at=100.0))
    home.predict(NEW, classified(["a"], ["no"], at=200.0))
    home.ledger.give("m", [("a", "no")], at=300.0)
    assert home.answers().keys() == {NEW}


def test_answers_of_several_numbers_and_a_truth_that_is_no_class_are_left_out(home: Home) -> None:
    home.predict(NEW, predictions(["a"], {"prediction": np.array([[1.0, 2.0]])}, at=100.0))
    home.ledger.give("m", [("a", 1)], at=200.0)
    assert home.answers() == {}
    home.write()
    assert home.answers() == {}
    home.predict(OLD, classified(["b", "c"], ["yes", "no"], at=100.0))
    home.ledger.give("m", [("b", "maybe"), ("c", "no")], at=200.0)
    found = labelled(home.answers()[OLD], CLASSES)
    assert (found.truth.tolist(), found.score.tolist()) == ([0], [0.25])


@pytest.mark.parametrize("given", [("", "yes"), ("x" * 1001, "yes"), ("a", float("nan")), ("a", "x" * 1001), ("a", None), ("a", [1])])
def test_what_is_no_label_is_refused_and_nothing_kept(home: Home, given) -> None:
    with pytest.raises(InvalidInput):
        home.ledger.give("m", [("fine", "yes"), given], at=1.0)
    assert home.ledger.labels("m") == {}


def test_too_many_at_once_are_refused(home: Home) -> None:
    with pytest.raises(InvalidInput, match="at once"):
        home.ledger.give("m", [("a", 1)] * (BATCH + 1), at=1.0)


def test_the_file_is_its_owners_and_a_damaged_one_is_told(tmp_path: Path) -> None:
    path = tmp_path / "labels.sqlite"
    Ledger(path).close()
    assert path.stat().st_mode & 0o777 == 0o600
    damaged = tmp_path / "damaged.sqlite"
    damaged.write_bytes(b"x" * 4096)
    with pytest.raises(Tampered):
        Ledger(damaged)


def test_nothing_given_and_nothing_logged_is_an_empty_account(home: Home) -> None:
    told = home.account()
    assert (told.labels, told.matched, told.predictions) == (0, 0, 0) and home.answers() == {}


def test_of_different_labels_the_newest_stands_and_the_others_stay_as_conflicts(home: Home) -> None:
    home.predict(NEW, classified(["a", "b"], ["yes", "no"], at=100.0))
    home.ledger.give("m", [("a", "yes"), ("b", "no")], at=200.0)
    assert home.gathered(NEW, CLASSES).truth.tolist() == [1, 0]
    assert home.ledger.give("m", [("a", "no")], at=300.0) == Received(changed=1)
    assert home.gathered(NEW, CLASSES).truth.tolist() == [0, 0]  # its window is computed again
    assert home.gathered(NEW, CLASSES).numbers.tolist() == [1, 2]
    home.ledger.give("m", [("a", "yes")], at=400.0)
    assert home.ledger.conflicts("m") == {"a": ("yes", "no")}
    told = home.account()
    assert (told.conflicting, told.named["conflicting"], told.received.changed) == (1, ("a",), 2)


def test_the_newest_is_by_when_it_was_known_where_that_is_said(home: Home) -> None:
    assert home.ledger.give("m", [Given("a", "yes", 150.0)], at=200.0) == Received(new=1)
    assert home.ledger.give("m", [Given("a", "no", 120.0)], at=300.0) == Received(outdated=1)
    assert home.ledger.labels("m") == {"a": "yes"} and home.ledger.conflicts("m") == {"a": ("no",)}
    assert home.ledger.give("m", [Given("a", "no", 160.0)], at=300.0) == Received(changed=1)
    for never in (float("inf"), float("nan"), -1.0):  # other hosts believe no labels beside one of before 1970
        with pytest.raises(InvalidInput):
            home.ledger.give("m", [Given("a", "no", never)], at=300.0)


@pytest.mark.parametrize("truth", [10**400, -(10**400), float("inf"), float("nan")])
def test_a_number_beyond_all_is_no_label(home: Home, truth: float) -> None:
    with pytest.raises(InvalidInput, match="finite number"):
        home.ledger.give("m", [Given("a", truth)], at=200.0)
    assert home.ledger.give("m", [Given("a", 10**300)], at=200.0) == Received(new=1)


def test_a_label_from_far_ahead_is_refused_counted_and_named(home: Home) -> None:
    ahead = [Given(f"f{number}", "yes", 300.0 + AHEAD_S + 1) for number in range(5)]
    assert home.ledger.give("m", [*ahead, Given("a", "yes", 300.0 + AHEAD_S)], at=300.0) == Received(new=1, future=5)
    assert home.ledger.labels("m") == {"a": "yes"}
    told = home.account()
    assert told.received.future == 5 and len(told.named["future"]) == 3 and set(told.named["future"]) <= {each.id for each in ahead}


def test_labels_of_the_wrong_type_are_counted_and_named(home: Home) -> None:
    home.predict(NEW, classified(["a", "b"], ["yes", "no"], at=100.0))
    home.predict(OLD, predictions(["c", "d"], {"prediction": np.array([1.0, 2.0])}, at=100.0))
    home.ledger.give("m", [("a", "maybe"), ("b", "no"), ("c", "much"), ("d", 2)], at=200.0)
    fits = {NEW: fitting(CLASSES), OLD: fitting(None)}
    told = home.account(fits=lambda digest, truth: fits[digest](truth))
    assert (told.matched, told.mistyped, set(told.named["mistyped"])) == (4, 2, {"a", "c"})
    assert home.gathered(NEW, CLASSES).truth.tolist() == [0] and home.gathered(OLD, None).truth.tolist() == [2.0]
    assert home.gathered(Digest("sha256:" + "3" * 64), None) is None


def test_labels_that_came_after_the_day_of_their_prediction_are_late(home: Home) -> None:
    home.predict(NEW, classified(["a", "b", "c"], ["yes", "no", "yes"], at=86_000.0))
    home.ledger.give("m", [("a", "yes")], at=86_399.0)
    home.ledger.give("m", [("b", "yes"), ("c", "yes")], at=86_400.0)
    assert (home.account().late, home.account().matched) == (2, 3)


def test_a_label_may_come_before_its_prediction_is_logged(home: Home) -> None:
    home.ledger.give("m", [("a", "yes"), ("b", "no")], at=999.0)
    assert home.account().unknown == 2
    home.predict(NEW, classified(["a"], ["yes"], at=100.0))
    assert (home.account().matched, home.account().unknown) == (1, 1)
    home.predict(NEW, classified(["b"], ["yes"], at=110.0))
    home.write()
    assert home.account().matched == 2


def test_each_label_is_looked_for_in_each_file_once(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    for day in range(4):
        home.predict(NEW, classified([f"{day}-a", f"{day}-b"], ["yes", "no"], at=day * 86_400.0 + 100))
        home.write()
    looked: list[tuple[list[str], list[str]]] = []
    real = PredictionLog.find

    def find(self, name, ids, files=None):
        looked.append((sorted(ids), [file.parent.name for file in files]))
        return real(self, name, ids, files)

    monkeypatch.setattr(PredictionLog, "find", find)
    home.ledger.give("m", [("3-a", "yes"), ("2-a", "no")], at=999.0)
    assert join(home.ledger, home.log, home.windows, "m", now=1_000.0) == 2
    assert [days for _, days in looked] == [["1970-01-04"], ["1970-01-03"]]  # no further back than they lie
    looked.clear()
    home.ledger.give("m", [("nobody", "yes")], at=999.0)
    assert join(home.ledger, home.log, home.windows, "m", now=1_000.0) == 0 and len(looked) == 4
    looked.clear()
    join(home.ledger, home.log, home.windows, "m", now=1_000.0)
    assert looked == []
    home.predict(NEW, classified(["other"], ["yes"], at=4 * 86_400.0))
    home.write()
    join(home.ledger, home.log, home.windows, "m", now=1_000.0)
    assert looked == [(["nobody"], ["1970-01-05"])]
    looked.clear()
    join(home.ledger, home.log, home.windows, "m", now=1_000.0 + 2 * 86_400)
    assert looked == []


def test_of_two_that_look_at_once_neither_calls_a_file_searched_for_what_the_other_alone_has_looked_for(home: Home) -> None:
    """Both begin, `b` comes between them and is looked for by the second, in the files that it sees: there are more by the time the first is done."""
    home.ledger.give("m", [("a", 1)], at=1.0)
    second = Ledger(home.folder / "labels.sqlite")
    assert home.ledger.open("m", now=2.0)[0] == ["a"]
    second.give("m", [("b", 1)], at=1.5)
    assert second.open("m", now=2.0)[0] == ["a", "b"]
    second.match("m", {}, files=[])
    home.predict(OLD, predictions(["b"], {"label": np.array([1])}, at=10.0))
    home.write()
    home.ledger.match("m", {}, files=[file.name for file in home.log.files("predictions", "m")])
    assert home.account().matched == 1
    second.close()


def test_what_comes_while_it_is_looked_for_others_is_not_called_looked_for(home: Home) -> None:
    home.ledger.give("m", [("a", 1)], at=1.0)
    second = Ledger(home.folder / "labels.sqlite")
    assert home.ledger.open("m", now=2.0) == (["a"], [])
    second.give("m", [("b", 1)], at=1.5)
    home.ledger.match("m", {}, files=[])
    assert home.ledger.open("m", now=2.0) == (["b"], ["a"])
    second.close()


def test_labels_that_come_while_others_are_looked_for_have_no_file_searched_again(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that matches nothing is looked for in what is logged anew, though somebody gives a label of the last day whenever a file is read."""
    for day in range(5):
        home.predict(OLD, classified([f"{day}-{number}" for number in range(9)], ["yes"] * 9, at=86_400.0 * day))
        home.write()
    second = Ledger(home.folder / "labels.sqlite")
    second.give("m", [("nobody", "yes")], at=4 * 86_400.0)
    looked: list[int] = []
    find = home.log.find

    def slow(name: str, ids: list[str], files: list[Path]) -> Any:
        looked.append(len(files))
        second.give("m", [(f"4-{len(looked)}", "yes")], at=4 * 86_400.0 + len(looked))
        return find(name, ids, files)

    monkeypatch.setattr(home.log, "find", slow)
    counts = []
    for _ in range(3):
        join(home.ledger, home.log, home.windows, "m", now=4 * 86_400.0 + 100)
        counts.append(sum(looked))
    assert counts == [5, 6, 7], "the whole log once, then the file in which the new labels' predictions are"
    second.close()


@pytest.mark.parametrize("known", [(), (0,), (7,), (39,), tuple(range(0, 40, 3))], ids=str)
def test_many_labels_are_kept_alike_whether_all_are_new_or_some(home: Home, monkeypatch: pytest.MonkeyPatch, known: tuple[int, ...]) -> None:
    """Those that are all new are written without looking for each; where one is not, all is as if they had been looked for."""
    given = [(f"{number:02d}", "yes" if number % 2 else 1.0) for number in range(40)]
    other = Ledger(home.folder / "other.sqlite")
    told = []
    for ledger in (home.ledger, other):
        if ledger is other:
            monkeypatch.setattr(labels, "_PROBES", 1000)
        if known:
            ledger.give("m", [(given[number][0], "before") for number in known], at=1.0)
        told.append(
            (ledger.give("m", given, at=2.0), ledger.received("m"), ledger.labels("m"), ledger.conflicts("m"), sorted(ledger.open("m", now=3.0)[0]))
        )
    assert told[0] == told[1] and told[0][0] == Received(new=40 - len(known), changed=len(known))
    other.close()


@pytest.mark.parametrize("many", [1, 40])
def test_a_full_disk_is_told_as_such_however_many_labels_are_given(home: Home, many: int) -> None:
    def give(number: int) -> Received:
        return home.ledger.give("m", [(f"{number}-{each}", "yes" * 100) for each in range(many)], at=1.0)

    pages = home.ledger._connection.execute("PRAGMA page_count").fetchone()[0]
    home.ledger._connection.execute(f"PRAGMA max_page_count = {pages}")
    kept = 0
    with pytest.raises(StorageFull, match="free some space"):
        for number in range(200):
            kept += give(number).new
    assert len(home.ledger.labels("m")) == home.ledger.received("m").new == kept, "all or none"
    home.ledger._connection.execute("PRAGMA max_page_count = 100000")
    assert give(300) == Received(new=many)


def test_who_gives_one_label_does_not_wait_for_a_million_of_others(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """While what was found of many is written, and while many are forgotten, others write in between."""
    monkeypatch.setattr(labels, "_WRITTEN_AT_ONCE", 10)
    ids = [str(number) for number in range(100)]
    home.predict(NEW, classified(ids, ["yes"] * 100, at=100.0))
    home.ledger.give("m", [(each, "yes") for each in ids], at=200.0)
    second, given = Ledger(home.folder / "labels.sqlite"), []
    real = home.ledger._transaction

    @contextlib.contextmanager
    def watched() -> Any:
        given.append(second.give("m", [(f"other-{len(given)}", 1)], at=900.0).new)
        with real() as connection:
            yield connection

    monkeypatch.setattr(home.ledger, "_transaction", watched)
    assert home.account().matched == 100 and len(given) == 11 and set(given) == {1}
    home.ledger.forget(before=300.0)
    assert len(given) > 20 and sorted(home.ledger.labels("m")) == sorted(f"other-{number}" for number in range(len(given)))
    assert home.ledger.matched("m") == (0, 0)
    second.close()


def test_predictions_that_are_no_longer_kept_take_their_labels_along_and_what_was_given_anew_stays(home: Home) -> None:
    home.predict(NEW, classified(["a", "b"], ["yes", "no"], at=100.0))
    home.ledger.give("m", [("a", "yes"), ("b", "no"), ("c", "no")], at=500.0)
    assert home.account().matched == 2
    home.ledger.forget(before=200.0)
    assert home.ledger.labels("m") == {"c": "no"} and home.ledger.matched("m") == (0, 0)
    home.ledger.give("m", [("a", "no")], at=600.0)
    assert home.ledger.open("m", now=601.0) == (["a"], ["c"]), "one that is forgotten is new when it comes again"


def test_of_one_id_given_twice_at_once_the_last_stands_and_each_is_counted(home: Home) -> None:
    given = [("a", 1), ("a", 1), ("a", 2), Given("a", 3, known_at=0.5), ("b", 1), Given("a", 4, known_at=1.0 + 2 * AHEAD_S)]
    assert home.ledger.give("m", given, at=1.0) == Received(new=2, same=1, changed=1, outdated=1, future=1)
    assert home.ledger.give("m", [("a", 2), ("a", 1)], at=2.0) == Received(same=1, changed=1)
    assert home.ledger.of("m", ["a", "b"]) == {"a": "1", "b": "1"} and home.ledger.conflicts("m") == {"a": ("1", "3", "2")}


def test_files_that_were_put_together_since_they_were_listed_are_listed_again(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    home.predict(NEW, classified(["a"], ["yes"], at=100.0))
    home.write()
    home.ledger.give("m", [("a", "yes")], at=200.0)
    real, listed = PredictionLog.files, []

    def files(self, kind, name):
        found = real(self, kind, name)
        listed.append(found)
        return [path.with_name("gone.parquet") for path in found] if len(listed) == gone else found

    monkeypatch.setattr(PredictionLog, "files", files)
    gone = 1
    assert join(home.ledger, home.log, home.windows, "m", now=1_000.0) == 1 and len(listed) == 2
    monkeypatch.setattr(PredictionLog, "find", lambda *_: (_ for _ in ()).throw(Unavailable("the log cannot be read now")))
    home.ledger.give("m", [("b", "yes")], at=200.0)
    with pytest.raises(Unavailable):
        join(home.ledger, home.log, home.windows, "m", now=1_000.0)


def test_what_is_handed_to_detectors_is_numbered_and_beside_what_was_answered(home: Home) -> None:
    home.predict(NEW, classified(["a", "b"], ["yes", "no"], at=3_700.0))
    home.predict(NEW, classified(["c"], ["no"], at=100.0))
    home.ledger.give("m", [("b", "no")], at=4_000.0)
    assert home.gathered(NEW, CLASSES).times.tolist() == [3_700.0]
    home.ledger.give("m", [("c", "yes"), ("a", "yes")], at=5_000.0)
    found = home.gathered(NEW, CLASSES)
    assert (found.times.tolist(), found.numbers.tolist()) == ([100.0, 3_700.0, 3_700.0], [2, 1, 3])
    assert found.probability.tolist() == [[0.75, 0.25], [0.75, 0.25], [0.25, 0.75]]
    assert found.answered == {0: 1, 3_600: 2}
    assert home.gathered(NEW, CLASSES, since=3_600.0).truth.tolist() == [0, 1]


def test_an_answer_that_is_no_number_has_no_truth_and_stops_nobody(home: Home) -> None:
    home.predict(NEW, predictions(["a", "b"], {"prediction": np.array([np.nan, 2.0])}, at=100.0))
    home.ledger.give("m", [("a", 1), ("b", 1)], at=200.0)
    assert home.gathered(NEW, None).predicted.tolist() == [2.0] and home.account().matched == 2


def test_a_ledger_of_an_older_release_is_carried_on(tmp_path: Path) -> None:
    import sqlite3

    path = tmp_path / "labels.sqlite"
    with sqlite3.connect(path) as old:
        old.executescript(
            """CREATE TABLE labels
              (name TEXT NOT NULL, id TEXT NOT NULL, truth TEXT NOT NULL, at REAL NOT NULL, PRIMARY KEY (name, id)) WITHOUT ROWID;
            CREATE TABLE received (name TEXT PRIMARY KEY, new INTEGER NOT NULL, same INTEGER NOT NULL, changed INTEGER NOT NULL) WITHOUT ROWID;
            INSERT INTO labels VALUES ('m', 'a', 'yes', 50.0), ('m', 'b', 'no', 60.0);
            INSERT INTO received VALUES ('m', 2, 1, 0);"""
        )
    old.close()
    home = Home(tmp_path)
    assert home.ledger.received("m") == Received(new=2, same=1)
    home.predict(NEW, classified(["a", "b"], ["yes", "yes"], at=40.0))
    assert home.gathered(NEW, CLASSES).truth.tolist() == [1, 0]
    assert home.ledger.give("m", [("b", "yes")], at=70.0) == Received(changed=1)
    Ledger(path).close()


def test_a_ledger_of_the_release_before_knows_what_was_looked_for(tmp_path: Path) -> None:
    import sqlite3

    path = tmp_path / "labels.sqlite"
    with contextlib.closing(sqlite3.connect(path)) as old:
        old.executescript("".join(labels._STEPS[:2]))
        old.executescript(
            """INSERT INTO labels (name, id, truth, at, first_at, known_at, looked, found) VALUES
              ('m', 'found', 'yes', 50.0, 50.0, 50.0, 1, 1), ('m', 'looked', 'no', 60.0, 60.0, 60.0, 1, 0),
              ('m', 'new', 'no', 70.0, 70.0, 70.0, 0, 0);
            PRAGMA user_version = 2;"""
        )
    ledger = Ledger(path)
    assert ledger.open("m", now=80.0) == (["new"], ["looked"])
    ledger.match("m", {}, files=())
    assert ledger.open("m", now=80.0)[0] == [] and ledger.give("m", [("newer", 1)], at=80.0).new == 1
    assert ledger.open("m", now=80.0) == (["newer"], ["new", "looked"])


def test_a_ledger_of_a_newer_release_is_refused(tmp_path: Path) -> None:
    import sqlite3

    path = tmp_path / "labels.sqlite"
    Ledger(path).close()
    with sqlite3.connect(path) as newer:
        newer.execute("PRAGMA user_version = 99")
    newer.close()
    with pytest.raises(UnsupportedFormat):
        Ledger(path)


def test_what_is_forgotten_leaves_no_trace(home: Home) -> None:
    home.predict(NEW, classified(["a", "b"], ["yes", "no"], at=100.0))
    home.ledger.give("m", [("a", "no"), ("b", "no")], at=200.0)
    home.ledger.give("m", [("a", "yes")], at=300.0)
    assert home.account().matched == 2
    home.ledger.forget(before=250.0)
    assert home.ledger.labels("m") == {} == home.ledger.conflicts("m") == home.ledger.joined("m", since=0.0)  # answered before 250


def test_truths_are_told_in_the_order_of_the_ids(tmp_path: Path) -> None:
    with contextlib.closing(Ledger(tmp_path / "labels.sqlite")) as ledger:
        assert truths(ledger, "m", ["x"], None) is None
        ids = [str(number) for number in range(1200)]
        ledger.give("m", [(key, int(key) % 3) for key in ids[:1000]], at=1.0)
        ledger.give("m", [("t", "no number")], at=1.0)
        ledger.give("other", [("1199", 1)], at=1.0)
        found = truths(ledger, "m", [*ids, "t"], (0, 1))
        assert found is not None and found[:4].tolist() == [0, 1, -1, 0] and set(found[1000:].tolist()) == {-1}
        found = truths(ledger, "m", ["t", "4", "1100"], None)
        assert found is not None and np.array_equal(found, [np.nan, 1, np.nan], equal_nan=True)
