"""`models`, `versions`, `alias`, `delete`, `gc` as a person types them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from modelyard.cli import main
from serving import Home


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path)
    for offset in (0.0, 1.0):
        home.add("line", offset=offset)
    return home


def told(home: Home, capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    assert main([*arguments, "--home", str(home.folder), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_models_and_versions_are_listed(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    assert told(home, capsys, "models") == [{"name": "line", "latest": 2, "aliases": {}, "versions": [1, 2]}]
    assert [version["version"] for version in told(home, capsys, "versions", "line")] == [1, 2]
    for verb in (["models"], ["versions", "line"]):
        assert main([*verb, "--home", str(home.folder)]) == 0
        assert "line" in capsys.readouterr().out or verb[0] == "versions"


def test_an_alias_is_set_moved_and_removed(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    told(home, capsys, "alias", "line", "champion", "1")
    assert told(home, capsys, "inspect", "line")["version"] == 1
    told(home, capsys, "alias", "line", "champion", "2")
    assert told(home, capsys, "inspect", "line@champion")["version"] == 2
    told(home, capsys, "alias", "line", "champion", "--remove")
    assert told(home, capsys, "models")[0]["aliases"] == {}


@pytest.mark.parametrize(
    "given", [["alias", "line", "champion"], ["alias", "line", "champion", "1", "--remove"], ["delete", "line"], ["delete", ":1"]]
)
def test_what_is_incomplete_is_told(home: Home, capsys: pytest.CaptureFixture[str], given: list[str]) -> None:
    assert main([*given, "--home", str(home.folder)]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_delete_then_gc_frees_the_space(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    assert told(home, capsys, "gc")["blobs"] == 0
    told(home, capsys, "delete", "line:1")
    assert told(home, capsys, "gc")["blobs"] > 0
    assert told(home, capsys, "verify", "line:2")["digest"]
    assert main(["inspect", "line:1", "--home", str(home.folder)]) == 3


def test_delete_wants_a_plain_number(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["delete", "churn:²"]) == 2
    assert "Traceback" not in capsys.readouterr().err
