"""serve.suspects: who ended a process twice is refused for a while, by every worker; who only stood beside is forgotten."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from modelyard.errors import ModelyardError
from modelyard.serve import suspects
from modelyard.serve.suspects import Board, Suspects

POISON = {"a": np.array([[1.0]]), "t": np.array([["x"]], object)}


def test_two_ends_refuse_an_input_and_an_answer_clears_it() -> None:
    known = Suspects()
    assert not known
    known.blame(POISON)
    assert known and not known.refuses(POISON)
    known.blame({name: array.copy() for name, array in POISON.items()})
    assert known.refuses(POISON)
    known.clear(POISON)
    assert not known and not known.refuses(POISON)


@pytest.mark.parametrize(
    "other",
    [
        {"a": np.array([[2.0]]), "t": POISON["t"]},
        {"a": np.array([[1.0]], np.float32), "t": POISON["t"]},
        {"a": np.array([[1.0]]), "t": np.array([["y"]], object)},
        {"a": np.array([1.0]), "t": POISON["t"]},
        {"b": np.array([[1.0]]), "t": POISON["t"]},
    ],
)
def test_another_input_is_another_suspect(other: dict[str, np.ndarray]) -> None:
    known = Suspects()
    known.blame(POISON)
    known.blame(POISON)
    assert not known.refuses(other)


def test_it_ends_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(suspects, "monotonic", lambda: now[0])
    known = Suspects()
    known.blame(POISON)
    known.blame(POISON)
    now[0] += suspects.REFUSED_S - 1
    assert known.refuses(POISON)
    now[0] += 1
    assert not known.refuses(POISON) and not known


def test_only_so_many_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suspects, "REMEMBERED", 10)
    board = Board()
    known = Suspects(board)
    for number in range(45):
        known.blame({"a": np.array([number])})
    assert len(board.ends(known._owner)) == 10
    for number in (44, 3):  # each new event takes the place of the oldest
        known.blame({"a": np.array([number])})
    assert known.refuses({"a": np.array([44])}) and not known.refuses({"a": np.array([3])})


def test_two_ends_count_whichever_workers_saw_them(tmp_path: Path) -> None:
    one, two = (Suspects(Board(tmp_path, slot=slot, slots=2), owner="m") for slot in range(2))
    assert not one and not two
    one.blame(POISON)
    assert two and not two.refuses(POISON)
    two.blame(POISON)
    assert one.refuses(POISON) and two.refuses(POISON)
    assert Suspects(Board(tmp_path, slot=0, slots=2), owner="m").refuses(POISON)  # whoever takes a slot next knows it too
    one.clear(POISON)
    assert not two and not two.refuses(POISON)


def test_without_a_common_folder_each_counts_alone(tmp_path: Path) -> None:
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        folder.mkdir()
    one, two = (Suspects(Board(folder, slot=slot, slots=2), owner="m") for slot, folder in enumerate(folders))
    one.blame(POISON)
    two.blame(POISON)
    assert not one.refuses(POISON) and not two.refuses(POISON)


def test_an_input_is_a_suspect_of_its_version_alone(tmp_path: Path) -> None:
    board = Board(tmp_path)
    mine, others = Suspects(board, owner="sha256:1"), Suspects(board, owner="sha256:2")
    mine.blame(POISON)
    mine.blame(POISON)
    assert mine.refuses(POISON) and not others and not others.refuses(POISON)


def test_what_was_seen_before_the_machine_started_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [90_000.0]
    monkeypatch.setattr(suspects, "monotonic", lambda: now[0])
    known = Suspects(Board(tmp_path))
    known.blame(POISON)
    known.blame(POISON)
    now[0] = 20.0
    assert not Suspects(Board(tmp_path))


def test_the_file_is_its_owners_and_grows_with_the_slots(tmp_path: Path) -> None:
    known = Suspects(Board(tmp_path, slot=0, slots=1))
    known.blame(POISON)
    size = (tmp_path / suspects.NAME).stat().st_size
    later = Suspects(Board(tmp_path, slot=2, slots=3))
    assert later
    status = (tmp_path / suspects.NAME).stat()
    assert (status.st_mode & 0o777, status.st_size) == (0o600, 3 * size)


def test_a_folder_that_is_not_there_is_an_error_of_ours(tmp_path: Path) -> None:
    with pytest.raises(ModelyardError):
        Board(tmp_path / "none")
