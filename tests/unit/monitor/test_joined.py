"""What is kept at hand of labelled predictions is what the ledger would give, and only what is new is read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from modelyard.monitor.joined import Joined
from modelyard.monitor.labels import Ledger, Match
from modelyard.monitor.windows import Windows
from modelyard.types import Digest

NEW, OLD = Digest("sha256:" + "1" * 64), Digest("sha256:" + "2" * 64)


class Home:
    def __init__(self, folder: Path) -> None:
        self.ledger, self.windows = Ledger(folder / "labels.sqlite"), Windows(folder / "monitor.sqlite")

    def label(self, rows: dict[str, tuple[float, int, int]], *, digest: Digest = NEW, probability: bool = True) -> None:
        """By id: when answered, what is true, what was said."""
        self.ledger.give("m", [(key, truth) for key, (_, truth, _) in rows.items()], at=1e6)
        found = {key: Match(at, digest, said, [1.0 - said, float(said)] if probability else None) for key, (at, _, said) in rows.items()}
        self.ledger.match("m", found, files=())


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def test_turn_by_turn_it_is_what_one_look_gives(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Joined("m", NEW, (0, 1))
    assert kept.look(home.ledger, home.windows, since=0.0) is None
    rng = np.random.default_rng(1)
    asked: list[int] = []
    real = Ledger.newer

    def newer(self, name, digest, *, after, most):
        asked.append(after)
        return real(self, name, digest, after=after, most=most)

    monkeypatch.setattr(Ledger, "newer", newer)
    for turn in range(5):
        home.label({f"{turn}-{row}": (float(rng.integers(1000)), int(rng.integers(2)), int(rng.integers(2))) for row in range(20)})
        found = kept.look(home.ledger, home.windows, since=100.0)
        whole = Joined("m", NEW, (0, 1)).look(home.ledger, home.windows, since=100.0)
        assert found is not None and whole is not None
        for ours, theirs in zip(found[:5], whole[:5], strict=True):
            assert np.array_equal(ours, theirs)
        assert (np.diff(found.times) >= 0).all() and found.times[0] >= 100.0
    assert asked[::2] == [0, 20, 40, 60, 80] and set(asked[1::2]) == {0}


def test_a_corrected_label_is_seen_and_keeps_its_number(home: Home) -> None:
    kept = Joined("m", NEW, (0, 1))
    home.label({"a": (1.0, 0, 0), "b": (2.0, 1, 1)})
    first = kept.look(home.ledger, home.windows, since=0.0)
    home.ledger.give("m", [("a", 1)], at=2e6)
    second = kept.look(home.ledger, home.windows, since=0.0)
    assert first is not None and second is not None
    assert (first.truth.tolist(), second.truth.tolist(), second.numbers.tolist()) == ([0, 1], [1, 1], [1, 2])


def test_other_versions_and_what_is_no_class_are_left_out(home: Home) -> None:
    home.label({"a": (1.0, 0, 0)}, digest=OLD)
    home.label({"b": (2.0, 7, 1), "c": (3.0, 1, 1)})
    found = Joined("m", NEW, (0, 1)).look(home.ledger, home.windows, since=0.0)
    assert found is not None and found.times.tolist() == [3.0]
    assert Joined("other", NEW, (0, 1)).look(home.ledger, home.windows, since=0.0) is None


def test_only_the_latest_are_kept_and_what_is_too_old_goes(home: Home) -> None:
    kept = Joined("m", NEW, None, most=10)
    for turn in range(3):
        home.label({f"{turn}-{row}": (turn * 10.0 + row, 1, 1) for row in range(8)})
        found = kept.look(home.ledger, home.windows, since=0.0)
    assert found is not None and found.times.tolist() == [16.0, 17.0, *(20.0 + row for row in range(8))]
    assert kept.look(home.ledger, home.windows, since=1e9) is None


def test_probabilities_are_known_of_all_rows_or_of_none(home: Home) -> None:
    kept = Joined("m", NEW, (0, 1))
    home.label({"a": (1.0, 0, 0)})
    first = kept.look(home.ledger, home.windows, since=0.0)
    home.label({"b": (2.0, 1, 1)}, probability=False)
    second = kept.look(home.ledger, home.windows, since=0.0)
    assert first is not None and first.probability.tolist() == [[1.0, 0.0]]
    assert second is not None and second.probability.size == 0 and len(second.times) == 2
