from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest
from s3 import S3

from modelyard.config import Settings
from modelyard.errors import InvalidConfig, Unauthenticated, Unavailable
from modelyard.monitor import destinations
from modelyard.monitor.destinations import ToControl, ToStore, days, fetched, listed, minute_folder, prune
from modelyard.registry.stores import Store

AT = 1_800_000_030.0  # 2027-01-15 08:00:30
FOLDER = "v1/2027-01-15/0800"


@pytest.fixture(params=["file", "memory", "s3"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "s3":
        server: S3 = request.getfixturevalue("s3")
        return server.url()
    return (tmp_path / "store").as_uri() if request.param == "file" else f"memory://{tmp_path.name}"


def test_what_is_put_is_found_under_its_minute_and_once_however_often_it_is_put(url: str) -> None:
    store, place = Store(url, setting="export_url"), ToStore(url)
    assert listed(store, FOLDER) == {} and days(store) == []
    for data in (b"1", b"2"):
        place.put("here.a-1", data, at=AT)
    place.put("here.a-2", b"3", at=AT + 60)
    assert minute_folder(AT) == FOLDER
    assert set(listed(store, FOLDER)) == {"here.a-1"}
    found = listed(store, "v1/2027-01-15")
    assert set(found) == {"here.a-1", "here.a-2"} and days(store) == [date(2027, 1, 15)]
    assert {data for _, data in fetched(store, [*found.values()])} == {b"2", b"3"}
    assert dict(fetched(store, [found["here.a-1"], f"{found['here.a-1']}-gone"])).keys() == {found["here.a-1"]}


def test_days_that_are_not_kept_go(url: str) -> None:
    store, place = Store(url, setting="export_url"), ToStore(url)
    assert prune(store, now=AT, kept_days=7) == 0
    for day in range(-9, 2):
        place.put("here.a-1", b"1", at=AT + day * 86400)
    assert prune(store, now=AT, kept_days=7) == 2
    assert len(days(store)) == 9 and days(store)[0] == date(2027, 1, 8)
    assert prune(store, now=AT, kept_days=7) == 0


def test_what_is_too_large_or_no_segment_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(destinations, "SENT_LIMIT_BYTES", 10)
    store, place = Store(tmp_path.as_uri(), setting="export_url"), ToStore(tmp_path.as_uri())
    place.put("here.a-1", b"x" * 11, at=AT)
    place.put("here.a-2", b"x" * 10, at=AT)
    (tmp_path / FOLDER / "notes.txt").write_text("x")
    (tmp_path / "v1" / "other").mkdir()
    assert set(listed(store, FOLDER)) == {"here.a-2"} and len(days(store)) == 1


def test_a_store_that_is_away_says_so(tmp_path: Path, s3: S3) -> None:
    url = s3.url()
    place = ToStore(url)
    place.put("here.a-1", b"1", at=AT)
    s3.stop()
    try:
        with pytest.raises(Unavailable, match="export_url"):
            place.put("here.a-2", b"1", at=AT)
    finally:
        s3.start()


def test_where_it_goes_is_told_by_the_url(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    assert isinstance(destinations.open(settings, "http://h:1"), ToControl)
    assert isinstance(destinations.open(settings, "https://h:1"), ToControl)
    assert isinstance(destinations.open(settings, "s3://b/p"), ToStore)


class Refusing:
    """A client that is told that its key is none."""

    made: list[str | None] = []

    def __init__(self, url: str, key: str | None, **more: object) -> None:
        self.made.append(key)

    def observe(self, name: str, data: bytes) -> None:
        raise Unauthenticated("no")

    def close(self) -> None:
        return


def test_a_key_that_is_refused_is_read_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modelyard.client.Client", Refusing)
    path = tmp_path / "key"
    link = tmp_path / "mounted"
    link.symlink_to(path)
    place = ToControl(Settings(home=tmp_path, export_key_file=str(link)), "http://h:1")
    for key in ("my_one", "my_two\n"):
        path.write_text(key)
        path.chmod(0o640)
        with pytest.raises(Unauthenticated):
            place.put("a-1", b"", at=AT)
    assert Refusing.made == ["my_one", "my_two"]
    path.chmod(0o644)
    with pytest.raises(InvalidConfig, match="other users"):
        place.put("a-1", b"", at=AT)
    path.unlink()
    with pytest.raises(InvalidConfig, match="no file"):
        place.put("a-1", b"", at=AT)


def test_without_a_file_the_key_is_that_of_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modelyard.client.Client", Refusing)
    monkeypatch.setattr(Refusing, "made", [])
    monkeypatch.setenv("MODELYARD_KEY", "my_key")
    with pytest.raises(Unauthenticated):
        ToControl(Settings(home=tmp_path), "http://h:1").put("a-1", b"", at=AT)
    assert Refusing.made == ["my_key"]
