"""`inspect`, `verify`, `export`, `import`, `trust` as a person types them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from modelyard.cli import main
from serving import Home


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path / "home")
    home.add("line")
    return home


def said(capsys: pytest.CaptureFixture[str], *arguments: str | Path, code: int = 0) -> tuple[str, str]:
    assert main([str(argument) for argument in arguments]) == code
    out, err = capsys.readouterr()
    return out, err


def test_inspect_shows_schema_proof_and_members(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = said(capsys, "inspect", "line", "--home", home.folder)
    assert "line:1" in out and "model.onnx" in out and "FP64" in out and "0 to 10" in out
    told = json.loads(said(capsys, "inspect", "line", "--home", home.folder, "--json")[0])
    assert told["version"] == 1 and told["digest"].startswith("sha256:") and told["schema"]["inputs"][0]["name"] == "a"


def test_verify_tells_each_check(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = said(capsys, "verify", "line", "--home", home.folder)
    assert all(rule in out for rule in ("seal", "golden-replay", "lock"))
    told = json.loads(said(capsys, "verify", "line:1", "--home", home.folder, "--json")[0])
    assert [verdict["rule"] for verdict in told["verdicts"]] == ["seal", "golden-replay", "lock", "categories"]


def test_a_bundle_travels_by_tar_once_its_signer_is_trusted(home: Home, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tar, other = tmp_path / "line.tar", tmp_path / "other"
    out, _ = said(capsys, "export", "line", tar, "--home", home.folder)
    assert "trust add" in out and tar.exists()
    _, err = said(capsys, "import", tar, "--home", other, code=6)
    assert "modelyard trust add" in err and len(err.splitlines()) == 1
    key = json.loads(said(capsys, "trust", "add", home.folder / "keys" / "signing.pub", "--home", other, "--json")[0])["key_id"]
    assert key in said(capsys, "trust", "list", "--home", other)[0]
    assert "line:1" in said(capsys, "import", tar, "--home", other)[0]
    assert json.loads(said(capsys, "verify", tar, "--home", other, "--json")[0])["digest"]
    said(capsys, "trust", "remove", key[:10], "--home", other)
    assert key not in said(capsys, "trust", "list", "--home", other, "--json")[0]
    said(capsys, "verify", "line", "--home", other, code=6)


def test_trust_wants_a_key(home: Home, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for action in ("add", "remove"):
        _, err = said(capsys, "trust", action, "--home", home.folder, code=2)
        assert "modelyard trust add KEY.pub" in err
    said(capsys, "trust", "add", tmp_path / "nowhere.pub", "--home", home.folder, code=3)


def test_an_export_does_not_overwrite(home: Home, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "line.tar").write_text("mine")
    said(capsys, "export", "line", tmp_path / "line.tar", "--home", home.folder, code=4)
    assert (tmp_path / "line.tar").read_text() == "mine"
