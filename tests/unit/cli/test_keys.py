"""`keys` as a person types it: a key is shown once, audited, and gone when revoked."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from modelyard.cli import main
from modelyard.cli.keys import expiry
from modelyard.config import Settings
from modelyard.errors import InvalidConfig, Unauthenticated
from modelyard.serve.access import Access


def told(capsys: pytest.CaptureFixture[str], home: Path, *arguments: str) -> Any:
    assert main(["keys", *arguments, "--home", str(home), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_key_is_made_listed_and_revoked_and_each_change_is_audited(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = told(capsys, tmp_path, "create", "ci", "--role", "viewer", "--role", "invoker", "--model", "churn", "--expires", "30d")
    settings = Settings(home=tmp_path, host="0.0.0.0")
    caller = Access(settings).caller(f"Bearer {made['key']}".encode())
    assert caller.models == {"churn"} and set(caller.principal.roles) == {"viewer", "invoker"}
    (listed,) = told(capsys, tmp_path, "list")
    assert listed == {**{name: value for name, value in made.items() if name != "key"}, "last_used_at": None} and "sha256" not in listed
    assert told(capsys, tmp_path, "revoke", made["id"][:6])["id"] == made["id"]
    assert told(capsys, tmp_path, "list") == []
    with pytest.raises(Unauthenticated):
        Access(settings).caller(f"Bearer {made['key']}".encode())
    assert main(["audit", "list", "--home", str(tmp_path), "--json"]) == 0
    entries = [listed["entry"] for listed in json.loads(capsys.readouterr().out)]
    assert [(entry["action"], entry["subject"], entry["principal"][:6]) for entry in entries] == [
        ("key-create", made["id"], "local:"),
        ("key-revoke", made["id"], "local:"),
    ]
    text = "".join(path.read_text("latin-1") for path in tmp_path.rglob("*") if path.is_file())
    assert made["key"] not in text and made["key"][3:40] not in text


def test_a_key_has_a_highest_priority_and_a_last_use(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = told(capsys, tmp_path, "create", "batch", "--priority", "low")
    access = Access(Settings(home=tmp_path, host="0.0.0.0"))
    assert made["priority"] == "low" and access.caller(f"Bearer {made['key']}".encode()).lowest == 2
    (tmp_path / "run").mkdir()
    access.uses.write()
    (listed,) = told(capsys, tmp_path, "list")
    assert listed["last_used_at"] > "2020" and listed["priority"] == "low"


def test_people_see_the_key_once_and_a_table_after(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["keys", "list", "--home", str(tmp_path)]) == 0
    assert "no keys yet" in capsys.readouterr().out
    assert main(["keys", "create", "ci", "--home", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    key = said.split()[0]
    assert key.startswith("my_") and "invoker; all models; no end" in said
    assert main(["keys", "list", "--home", str(tmp_path)]) == 0
    listed = capsys.readouterr().out
    assert "ci" in listed and key not in listed
    assert main(["keys", "revoke", _id(tmp_path), "--home", str(tmp_path)]) == 0
    assert "revoked" in capsys.readouterr().out


def _id(home: Path) -> str:
    return str(json.loads((home / "keys" / "access.json").read_bytes())["keys"][0]["id"])


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["create"], 2),
        (["revoke"], 2),
        (["revoke", "abc"], 3),
        (["revoke", ""], 3),
        (["create", "Not A Name"], 2),
        (["create", "ci", "--role", "king"], 2),
        (["create", "ci", "--model", "../x"], 2),
        (["create", "ci", "--expires", "soon"], 2),
        (["create", "ci", "--expires", "2001-01-01"], 2),
        (["list", "--role", "viewer"], 2),
    ],
)
def test_what_is_wrong_is_one_line_and_makes_no_key(tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int) -> None:
    assert main(["keys", *arguments, "--home", str(tmp_path)]) == code
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert not (tmp_path / "keys" / "access.json").exists()


def test_ids_that_begin_alike_want_more_digits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(17):
        told(capsys, tmp_path, "create", "ci")
    ids = [record["id"] for record in told(capsys, tmp_path, "list")]
    first = next(one[0] for one in ids if sum(other[0] == one[0] for other in ids) > 1)
    assert main(["keys", "revoke", first, "--home", str(tmp_path)]) == 2
    assert "more digits" in capsys.readouterr().err and len(told(capsys, tmp_path, "list")) == 17


def test_a_key_that_cannot_be_audited_is_not_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "audit.jsonl").mkdir()
    assert main(["keys", "create", "ci", "--home", str(tmp_path)]) == 2
    assert "my_" not in capsys.readouterr().out and not (tmp_path / "keys" / "access.json").exists()


def test_another_file_is_used_when_the_setting_names_it(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELYARD_KEYS_FILE", str(tmp_path / "elsewhere" / "keys.json"))
    made = told(capsys, tmp_path / "home", "create", "ci")
    assert made["id"] in (tmp_path / "elsewhere" / "keys.json").read_text() and not (tmp_path / "home" / "keys" / "access.json").exists()


def test_spans_and_times() -> None:
    now = datetime.now(UTC)
    for text, span in (("30m", timedelta(minutes=30)), ("12h", timedelta(hours=12)), ("30d", timedelta(days=30)), ("4w", timedelta(weeks=4))):
        found = expiry(text)
        assert found is not None and abs(found - now - span) < timedelta(minutes=1)
    assert expiry(None) is None
    assert expiry("2100-01-31T00:00:00+01:00") == datetime(2100, 1, 30, 23, tzinfo=UTC) and expiry("2100-01-31") == datetime(2100, 1, 31, tzinfo=UTC)
    for text in ("0d", "-1d", "", "9999999d", "999999w", "2001-01-01"):
        with pytest.raises(InvalidConfig):
            expiry(text)
