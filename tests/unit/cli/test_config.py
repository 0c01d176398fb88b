"""`config` shows where each value came from."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from modelyard.cli import main
from modelyard.config import Settings


def test_each_setting_is_shown_with_its_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "settings.toml").write_text("workers = 3\n")
    monkeypatch.setenv("MODELYARD_PORT", "9999")
    assert main(["config", "--home", str(tmp_path), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert set(told) == {field.name for field in msgspec.structs.fields(Settings)}
    assert told["port"] == {"value": 9999, "source": "environment"} and told["workers"] == {"value": 3, "source": "settings.toml"}
    assert told["home"]["source"] == "flag" and told["host"]["source"] == "default"
    assert main(["config", "--home", str(tmp_path)]) == 0
    assert "MODELYARD_PORT" in capsys.readouterr().out


def test_a_setting_that_does_not_exist_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "settings.toml").write_text("prot = 1\n")
    assert main(["config", "--home", str(tmp_path)]) == 2
    assert "no such setting: prot" in capsys.readouterr().err


def test_a_password_is_not_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "settings.toml").write_text('records_url = "postgresql://ada:s3cr3t@db/records"\n')
    for form in ((), ("--json",)):
        assert main(["config", "--home", str(tmp_path), *form]) == 0
        said = capsys.readouterr()
        assert "s3cr3t" not in said.out + said.err and "ada:***@db" in said.out.replace("\n", "")
