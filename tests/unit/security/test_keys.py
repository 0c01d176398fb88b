"""The file of access keys: its two forms, who may change it, and that changes of many processes all count."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from modelyard.errors import InvalidConfig, NotFound, PayloadTooLarge
from modelyard.security import keys
from modelyard.security.identity import fingerprint, new
from modelyard.security.keys import FileKeys


def test_what_is_put_is_found_and_what_is_removed_is_not(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "access.json"
    store = FileKeys(path)
    assert store.all() == () and store.get("nobody") is None
    key, record = new("ci", roles=("invoker",), models=("churn",))
    store.put(record)
    assert FileKeys(path).get(record.id) == record == keys.read(path)[0]
    assert path.stat().st_mode & 0o777 == 0o600 and key not in path.read_text() and key[3:30] not in path.read_text()
    store.remove(record.id)
    store.remove("never-there")
    assert store.all() == FileKeys(path).all() == ()


def test_the_older_form_is_read_and_rewritten_by_the_first_change(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text(f"# who may ask\n\n{fingerprint('one')} the first\n{fingerprint('two')}\n")
    first, second = FileKeys(path).all()
    assert (first.name, first.sha256, first.models) == ("the first", fingerprint("one"), ()) and second.name == second.id
    _, record = new("ci", roles=("viewer",))
    FileKeys(path).put(record)
    assert path.read_text().startswith("{") and set(keys.read(path)) == {first, second, record}


@pytest.mark.parametrize("text", ["my_key\n", "é\n", "{}", '{"format": 2, "keys": []}', '{"format": 1, "keys": [{"id": 1}]}', "{"])
def test_what_is_no_keys_file_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "keys"
    path.write_text(text)
    with pytest.raises(InvalidConfig):
        keys.read(path)
    with pytest.raises(InvalidConfig):
        FileKeys(path).remove("x")
    assert path.read_text() == text, "a file that cannot be read is not written over"


def test_a_file_that_is_not_there_too_large_or_open_to_others_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "keys"
    with pytest.raises(NotFound):
        keys.read(path)
    path.write_text(f"{fingerprint('one')}\n")
    assert len(keys.read(path)) == 1
    path.chmod(0o666)
    with pytest.raises(InvalidConfig, match="changed by other users"):
        keys.read(path)
    path.chmod(0o600)
    monkeypatch.setattr(keys, "LIMIT_BYTES", 8)
    with pytest.raises(PayloadTooLarge):
        keys.read(path)


def test_a_link_is_followed_and_stays_one(tmp_path: Path) -> None:
    real, link = tmp_path / "real", tmp_path / "link"
    real.write_text(f"{fingerprint('one')}\n")
    link.symlink_to(real)
    assert len(keys.read(link)) == 1
    FileKeys(link).put(new("ci", roles=("viewer",))[1])
    assert link.is_symlink() and len(keys.read(real)) == 2


def test_processes_that_change_it_at_once_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "access.json"
    code = (
        "import sys; from pathlib import Path; from modelyard.security.keys import FileKeys; from modelyard.security.identity import new\n"
        "store = FileKeys(Path(sys.argv[1]))\nfor _ in range(10): store.put(new('x', roles=('viewer',))[1])"
    )
    running = [subprocess.Popen([sys.executable, "-c", code, str(path)]) for _ in range(3)]
    assert [process.wait(60) for process in running] == [0, 0, 0]
    assert len(keys.read(path)) == 30
