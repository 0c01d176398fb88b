"""When keys were last used: noted by threads, written beside what others wrote, and no more than a note."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelyard.errors import StorageFull
from modelyard.security import uses
from modelyard.security.uses import Uses, last_uses


def test_the_latest_of_all_processes_counts(tmp_path: Path) -> None:
    one, other = Uses(tmp_path, "control"), Uses(tmp_path, "worker-0")
    one.note("a")
    one.write()
    (tmp_path / "used-worker-1.json").write_text('{"a": "2000-01-01T00:00:00+00:00", "b": "2999-01-01T00:00:00+00:00"}')
    other.note("b")
    other.write()
    found = last_uses(tmp_path)
    assert found["a"] > "2020" and found["b"].startswith("2999") and set(found) == {"a", "b"}


def test_what_an_earlier_process_wrote_stays(tmp_path: Path) -> None:
    Uses(tmp_path, "control").write()
    assert list(tmp_path.iterdir()) == []
    for known in ("a", "b"):
        again = Uses(tmp_path, "control")
        again.note(known)
        again.write()
    assert set(last_uses(tmp_path)) == {"a", "b"}


def test_damage_says_nothing_and_a_full_disk_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "used-control.json").write_text("{")
    assert last_uses(tmp_path) == {}

    def full(*_: object, **__: object) -> None:
        raise StorageFull("full")

    kept = Uses(tmp_path, "control")
    kept.note("a")
    with monkeypatch.context() as patched:
        patched.setattr(uses, "write_atomically", full)
        with pytest.raises(StorageFull):
            kept.write()
    kept.write()
    assert set(last_uses(tmp_path)) == {"a"}
