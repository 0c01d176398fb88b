"""Labels: late, twice, changed, unsampled, unknown; joined with what is logged and with what waits to be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from modelyard import events
from modelyard.errors import InvalidInput, Tampered
from modelyard.events import Part, Rows, Segment
from modelyard.monitor.labels import BATCH, Ledger, Received, account, answers, labelled, text
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
        return answers(self.ledger, self.log, self.windows, "m", since=since)

    def account(self):
        return account(self.ledger, self.log, self.windows, "m")


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
