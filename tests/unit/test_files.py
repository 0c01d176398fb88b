"""files: replaced whole or not at all."""

from __future__ import annotations

import errno
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from modelyard.errors import InvalidConfig, InvalidInput, NotFound, PayloadTooLarge, StorageFull
from modelyard.files import inside, make_folder, read_believed, read_limited, remove_leftovers, translate, write_atomically


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    write_atomically(path, b"old")
    write_atomically(path, b"new" * 100_000, mode=0o600)
    assert path.read_bytes() == b"new" * 100_000
    assert path.stat().st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path) == ["plan.json"]


def test_a_folder_that_may_not_be_made_says_what_to_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refused)
    with pytest.raises(InvalidConfig, match=r"home cannot be made \(Permission denied\); set MODELYARD_HOME"):
        make_folder(tmp_path / "home")


def test_what_a_killed_writer_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    for name in ("plan.json", ".plan.json.0a1b2c3d.tmp", ".other.json.0a1b2c3d.tmp"):
        (tmp_path / name).write_bytes(b"x")
    remove_leftovers(tmp_path / "plan.json")
    assert sorted(os.listdir(tmp_path)) == [".other.json.0a1b2c3d.tmp", "plan.json"]


def test_a_write_that_fails_leaves_the_old_file_and_nothing_beside(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    write_atomically(path, b"old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(Exception, match=r"plan\.json"):
            write_atomically(path, b"x" * 10_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["plan.json"]


def test_an_interrupted_write_leaves_nothing_beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(descriptor: int) -> None:
        raise KeyboardInterrupt

    write_atomically(tmp_path / "plan.json", b"old")
    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(tmp_path / "plan.json", b"new")
    assert os.listdir(tmp_path) == ["plan.json"] and (tmp_path / "plan.json").read_bytes() == b"old"


def test_a_killed_writer_leaves_the_old_file_or_the_new(tmp_path: Path) -> None:
    path = tmp_path / "state"
    write_atomically(path, b"a" * 200_000)
    code = (
        "import sys; from pathlib import Path; from modelyard.files import write_atomically\n"
        "print('go', flush=True)\n"
        "for i in range(10**6): write_atomically(Path(sys.argv[1]), bytes([97 + i % 2]) * 200_000)"
    )
    for _ in range(3):
        writer = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE)
        assert writer.stdout is not None
        writer.stdout.readline()
        for _ in range(30):
            seen = path.read_bytes()
            assert len(seen) == 200_000
            assert len(set(seen)) == 1
        writer.kill()
        writer.communicate()
        assert path.read_bytes() in (b"a" * 200_000, b"b" * 200_000)


def test_no_space_is_named() -> None:
    error = translate(OSError(28, "No space left on device"), Path("/home/plan.json"))
    assert isinstance(error, StorageFull)
    assert "plan.json" in error.message


def test_reading_is_limited_and_follows_no_link(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"12345")
    assert read_limited(path, 5) == b"12345"
    with pytest.raises(PayloadTooLarge):
        read_limited(path, 4)
    (tmp_path / "link").symlink_to(path)
    with pytest.raises(InvalidConfig):
        read_limited(tmp_path / "link", 5)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InvalidConfig, match="regular"):
        read_limited(tmp_path / "pipe", 5)
    with pytest.raises(NotFound):
        read_limited(tmp_path / "none", 5)


def test_what_lets_people_in_may_be_changed_by_its_owner_alone(tmp_path: Path) -> None:
    path, link = tmp_path / "keys", tmp_path / "link"
    path.write_bytes(b"12345")
    link.symlink_to(path)
    for mode in (0o600, 0o644):
        path.chmod(mode)
        assert read_believed(path, 5, field="f") == read_believed(link, 5, field="f") == b"12345"
    for mode in (0o620, 0o602, 0o666):
        path.chmod(mode)
        for place in (path, link):
            with pytest.raises(InvalidConfig, match="changed by other users") as refused:
                read_believed(place, 5, field="f")
            assert (refused.value.field, refused.value.rule) == ("f", "mode")
    with pytest.raises(PayloadTooLarge):
        read_believed(path, 4, field="f")
    with pytest.raises(NotFound):
        read_believed(tmp_path / "none", 5, field="f")


def test_a_folder_that_cannot_be_made_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidConfig) as caught:
        make_folder(tmp_path / "file" / "home")
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../x", "a/../../x", "/etc/passwd", "a//b", "a/", "a/./b", "a\\b", "a\0b", "x" * 300, "link", "link/b", "a/out"]
)
def test_a_name_that_leaves_its_folder_or_leads_through_a_link_is_refused(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "folder"
    (folder / "a").mkdir(parents=True)
    (folder / "link").symlink_to(folder / "a")
    (folder / "a" / "out").symlink_to(tmp_path)
    with pytest.raises(InvalidInput):
        inside(folder, name)


def test_a_name_inside_is_the_path_there_or_not_yet(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "file").write_text("")
    assert inside(tmp_path, "a") == tmp_path / "a" and inside(tmp_path, "a/b..c/d") == tmp_path / "a" / "b..c" / "d"
    assert inside(tmp_path, "file/below") == tmp_path / "file" / "below"
