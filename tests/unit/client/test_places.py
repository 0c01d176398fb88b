"""Where the planes are."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from modelyard import config
from modelyard.client.places import Place, beside, of_home, read_admin_key
from modelyard.errors import InvalidConfig, Unavailable
from modelyard.types import ControlState, write_control_state, write_unstarted


@pytest.mark.parametrize(
    ("control", "data", "found"),
    [
        ("http://127.0.0.1:8090", "http://127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("http://localhost:8090", "http://[::1]:8080", "http://[::1]:8080"),
        ("http://ml.example:8090", "http://127.0.0.1:8080", "http://ml.example:8080"),
        ("http://ml.example:8090", "https://0.0.0.0:8443", "https://ml.example:8443"),
        ("http://[fd00::1]:8090", "http://[::]:8080", "http://[fd00::1]:8080"),
        ("http://ml.example:8090", "http://data.example:8080", "http://data.example:8080"),
    ],
)
def test_a_data_plane_that_names_no_machine_is_on_the_control_processs(control: str, data: str, found: str) -> None:
    assert beside(control, data) == found


def test_a_home_says_where_its_control_process_is_while_it_runs(tmp_path: Path) -> None:
    settings = config.load({"home": tmp_path})
    with pytest.raises(Unavailable, match="modelyard up"):
        of_home(settings)
    (tmp_path / "run").mkdir()
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys/admin.key").write_text("my_key\n")
    (tmp_path / "keys/admin.key").chmod(0o600)
    write_control_state(settings.run, ControlState(pid=os.getpid(), url="http://127.0.0.1:1", started_at=""))
    assert of_home(settings) == Place("http://127.0.0.1:1", "my_key")
    assert of_home(settings, key="my_own") == Place("http://127.0.0.1:1", "my_own")
    assert of_home(settings).headers == {"authorization": "Bearer my_key"} and Place("u", None).headers == {}
    write_control_state(settings.run, ControlState(pid=2**22 - 3, url="http://127.0.0.1:1", started_at=""))
    with pytest.raises(Unavailable, match="not running"):
        of_home(settings)
    write_unstarted(settings.run, "control", "no room")
    with pytest.raises(Unavailable, match=r"cannot be started now \(no room\)"):
        of_home(settings)
    write_unstarted(settings.run, "control", "")
    with pytest.raises(Unavailable, match="not running"):
        of_home(settings)
    (tmp_path / "keys/admin.key").chmod(0o644)
    with pytest.raises(InvalidConfig, match="other users"):
        read_admin_key(settings)
    write_control_state(settings.run, ControlState(pid=os.getpid(), url="http://127.0.0.1:1", started_at=""))
    assert of_home(settings, key="my_own").key == "my_own", "who has a key of their own reads no admin's"
