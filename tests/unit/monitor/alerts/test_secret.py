"""Secrets: read when needed, from files that nobody else reads or variables that the data plane does not inherit."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelyard import config
from modelyard.config import Settings
from modelyard.errors import InvalidConfig
from modelyard.monitor.alerts.secret import Secret, of


def test_a_secret_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "s"
    path.write_text("hush\n")
    path.chmod(0o600)
    secret = of("token", file="s", variable="", folder=tmp_path)
    assert secret is not None and secret.read() == "hush" and secret.place == "in s"
    path.write_text("new")
    assert secret.read() == "new"


def test_a_secret_in_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MODELYARD_SECRET_SLACK", "hush")
    secret = of("url", file="", variable="MODELYARD_SECRET_SLACK", folder=tmp_path)
    assert secret is not None and secret.read() == "hush" and secret.place == "in $MODELYARD_SECRET_SLACK"
    assert "MODELYARD_SECRET_SLACK" in config.child_environment(Settings())
    assert "MODELYARD_SECRET_SLACK" not in config.child_environment(Settings(), is_serve=True)


@pytest.mark.parametrize("content", [None, "", "  \n", "two\nlines", b"\xff\xfe"])
def test_what_is_no_secret_is_refused_and_not_shown(tmp_path: Path, content: str | bytes | None) -> None:
    path = tmp_path / "s"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        path.chmod(0o600)
    with pytest.raises(InvalidConfig) as caught:
        Secret("token", path).read()
    assert "two" not in caught.value.message and str(tmp_path) not in caught.value.message


def test_a_file_that_others_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "s"
    path.write_text("hush")
    path.chmod(0o644)
    with pytest.raises(InvalidConfig, match="chmod 600"):
        Secret("token", path).read()
    path.chmod(0o640)
    assert Secret("token", path).read() == "hush"


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("hush")
    (tmp_path / "real").chmod(0o600)
    (tmp_path / "s").symlink_to(tmp_path / "real")
    with pytest.raises(InvalidConfig):
        Secret("token", tmp_path / "s").read()


def test_no_variable_of_another_kind_and_not_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MODELYARD_SECRET_NONE", raising=False)
    assert of("token", file="", variable="", folder=tmp_path) is None
    with pytest.raises(InvalidConfig):
        of("token", file="s", variable="MODELYARD_SECRET_X", folder=tmp_path)
    with pytest.raises(InvalidConfig, match="MODELYARD_SECRET_"):
        of("token", file="", variable="HOME", folder=tmp_path)
    with pytest.raises(InvalidConfig, match="nothing is in"):
        Secret("token", variable="MODELYARD_SECRET_NONE").read()
