"""`backup` and `restore` as a person types them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from modelyard.cli import main

OLD = Path(__file__).parents[2] / "golden" / "homes" / "0.1.0"


def test_a_copy_and_the_way_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home, copy = str(shutil.copytree(OLD, tmp_path / "home")), str(tmp_path / "copy.sqlite")
    assert main(["backup", copy, "--home", home, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["size_bytes"] == Path(copy).stat().st_size
    assert main(["backup", copy, "--home", home]) == 4
    assert "another name" in capsys.readouterr().err
    (tmp_path / "home" / "registry.sqlite").write_bytes(b"x" * 8192)
    assert main(["models", "--home", home]) == 6
    assert "modelyard restore FILE" in capsys.readouterr().err
    assert main(["restore", copy, "--home", home]) == 0
    said = capsys.readouterr().out
    assert "modelyard up" in said and "registry.sqlite-replaced-" in said
    assert main(["models", "--home", home, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["name"] == "diabetes"
    assert main(["backup", str(tmp_path / "second"), "--home", home]) == 0
    assert "keys/" in capsys.readouterr().out
    assert main(["restore", str(tmp_path / "second"), "--home", home, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["kept"]
