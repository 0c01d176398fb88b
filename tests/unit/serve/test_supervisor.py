from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from modelyard.config import Settings
from modelyard.errors import Conflict, InvalidConfig
from modelyard.serve import supervisor
from modelyard.serve.supervisor import Supervisor


def made(run: Path, **settings: object) -> Supervisor:
    run.mkdir(exist_ok=True)
    return Supervisor(Settings(**{"port": 0, "workers": 3} | settings), plan=run / "plan", run=run, spool=None, as_json=False, needs_models=False)  # type: ignore[arg-type]


def close(made: Supervisor) -> None:
    for slot in made.slots:
        slot.listener.close()
    os.close(made._lock)


def test_each_slot_has_a_socket_on_one_port(tmp_path: Path) -> None:
    world = made(tmp_path)
    assert {slot.listener.getsockname()[1] for slot in world.slots} == {world.port}
    assert len({slot.listener.fileno() for slot in world.slots}) == 3
    with pytest.raises(Conflict):
        made(tmp_path)
    with pytest.raises(InvalidConfig, match="in use"), socket.create_server(("127.0.0.1", 0)) as taken:
        made(tmp_path / "other", port=taken.getsockname()[1])
    close(world)


def test_nobody_connects_before_a_worker_accepts(tmp_path: Path) -> None:
    world = made(tmp_path)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", world.port), timeout=5)
    close(world)


def test_what_an_earlier_one_left_is_cleared_away(tmp_path: Path) -> None:
    for name in ("worker-7.json", "metrics-7.bin", "endpoint.json"):
        (tmp_path / name).write_text("old")
    (tmp_path / "plan.json").write_text("kept")
    close(made(tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["plan.json", "serve.lock"]


def test_urls(tmp_path: Path) -> None:
    world = made(tmp_path, host="0.0.0.0", insecure=True)
    assert world.url == f"http://127.0.0.1:{world.port}"
    close(world)


@pytest.mark.parametrize(("host", "settings"), [("0.0.0.0", {}), ("::", {})])
def test_an_open_address_wants_keys_or_plain_words(tmp_path: Path, host: str, settings: dict[str, object]) -> None:
    with pytest.raises(InvalidConfig, match="insecure"):
        supervisor.run(Settings(home=tmp_path, host=host, port=0), tmp_path / "plan", tmp_path / "run")


def test_an_address_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match="no such address"):
        made(tmp_path, host="no.such.host.invalid")


def test_a_keys_file_that_is_none_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("my_key_in_the_clear")
    with pytest.raises(InvalidConfig, match="SHA-256"):
        supervisor.run(Settings(port=0, keys_file=str(tmp_path / "keys")), tmp_path / "plan", tmp_path / "run")
