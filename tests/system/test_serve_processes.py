"""The life of supervisor and workers: killed, drained, orphaned, refused at the start; and the switch from one plan to the next."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from modelyard.types import read_serve_state, read_worker_state
from serving import Home, Running, children, command, home_with, line_row, read_answer, running, tensor

pytestmark = pytest.mark.system
REQUEST = json.dumps({"inputs": line_row()}).encode()


def until(true: Callable[[], Any], timeout: float = 20) -> None:
    end = time.monotonic() + timeout
    while not true():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    try:
        return b"Z" not in Path(f"/proc/{pid}/stat").read_bytes().rsplit(b")", 1)[1].split()[0]
    except FileNotFoundError:
        return False


class Client:
    """A caller who keeps one connection, never tries twice, and checks every answer."""

    def __init__(self, server: Running, accepted: tuple[float, ...] = (321.0,)) -> None:
        self.server = server
        self.accepted = accepted
        self.good = 0
        self.lost = 0
        self.wrong: list[Any] = []
        self.values: list[float] = []
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=20)
        while not self.stop.is_set():
            try:
                connection.request("POST", "/v2/models/line/infer", REQUEST)
                answer = connection.getresponse()
                body = answer.read()
            except (OSError, http.client.HTTPException):
                self.lost += 1
                connection.close()
                continue
            value = json.loads(body)["outputs"][0]["data"][0] if answer.status == 200 else None
            if value in self.accepted:
                self.good += 1
                self.values.append(value)
            else:
                self.wrong.append((answer.status, body))
        connection.close()

    def end(self) -> None:
        self.stop.set()
        self.thread.join()


def test_a_killed_worker_loses_no_more_than_the_requests_it_held(tmp_path: Path) -> None:
    with running(home_with(tmp_path / "h", "line"), workers=2) as server:
        clients = [Client(server) for _ in range(8)]
        until(lambda: all(client.good > 20 for client in clients))
        for _ in range(3):
            before = server.workers()
            os.kill(before[0], signal.SIGKILL)
            until(lambda before=before: len(server.workers()) == 2 and before[0] not in server.workers(), 5)
            goods = [client.good for client in clients]
            until(lambda goods=goods: all(client.good > good + 20 for client, good in zip(clients, goods, strict=True)))
        for client in clients:
            client.end()
        assert server.process.poll() is None
        closed = server.log.read_text().count("slot_closed")
    assert [client.wrong for client in clients] == [[]] * 8
    # A closed loop holds one request each: at a kill at most one per connection of that worker is lost. On a machine so busy that a successor
    # takes several times as long to start as the first did, its slot is closed meanwhile, and who waits there is told so by a reset.
    assert sum(client.lost for client in clients) <= (3 + closed) * 8
    assert all(client.lost <= 3 + closed for client in clients)


@pytest.mark.skipif(sys.platform != "linux", reason="forks are for Linux")
def test_a_first_worker_is_a_fork_and_its_successor_a_fresh_interpreter(tmp_path: Path) -> None:
    def words(pid: int) -> bytes:
        return Path(f"/proc/{pid}/cmdline").read_bytes()

    with running(home_with(tmp_path / "h", "line")) as server:
        (first,) = server.workers()
        assert words(first) == words(server.process.pid)
        held = {os.readlink(path) for path in Path(f"/proc/{first}/fd").iterdir() if path.is_symlink()}
        assert not any(each.endswith("serve.lock") for each in held)
        os.kill(first, signal.SIGKILL)
        until(lambda: server.workers() not in ([first], []))
        (second,) = server.workers()
        assert b"modelyard.serve.worker" in words(second)
        until(server.is_well)


def test_what_waits_at_a_dead_worker_is_answered_by_its_successor(tmp_path: Path) -> None:
    with running(home_with(tmp_path / "h", "line")) as server:
        (pid,) = server.workers()
        os.kill(pid, signal.SIGKILL)
        assert server.infer("line", line_row()).status == 200  # connected while nobody was there
        assert server.workers() != [pid]


def test_a_slot_that_stays_empty_is_closed_and_opens_again(tmp_path: Path) -> None:
    """Otherwise the system would go on handing it connections that nobody takes."""
    with running(home_with(tmp_path / "h", "line"), workers=2) as server:
        state = read_worker_state(server.home.run, 0)
        os.kill(state.pid, signal.SIGKILL)
        until(lambda: state.pid not in server.workers() and len(server.workers()) == 2)
        successor = next(pid for pid in server.workers() if pid != read_worker_state(server.home.run, 1).pid)
        os.kill(successor, signal.SIGSTOP)  # alive, and not accepting
        until(lambda: "slot_closed" in server.log.read_text())
        assert [server.infer("line", line_row()).status for _ in range(20)] == [200] * 20
        os.kill(successor, signal.SIGCONT)
        until(lambda: read_worker_state(server.home.run, 0).pid == successor)
        assert [server.infer("line", line_row()).status for _ in range(20)] == [200] * 20


def test_a_worker_that_hangs_is_replaced_while_the_others_answer_and_health_says_why(tmp_path: Path) -> None:
    with running(home_with(tmp_path / "h", "line"), workers=2) as server:
        hung = read_worker_state(server.home.run, 0).pid
        other = read_worker_state(server.home.run, 1).pid
        os.kill(hung, signal.SIGSTOP)
        until(lambda: hung not in server.workers() and len(server.workers()) == 2, 10)
        assert "worker_hung" in server.log.read_text()
        until(lambda: read_worker_state(server.home.run, 0).pid != hung)
        assert other in server.workers()
        assert server.is_well()


def test_a_plane_with_one_worker_less_is_ready_and_degraded_until_it_has_another(tmp_path: Path) -> None:
    with running(home_with(tmp_path / "h", "line"), workers=2) as server:
        assert server.ask("GET", "/v2/health/ready").json() == {"ready": True}
        state = read_worker_state(server.home.run, 0)
        os.kill(state.pid, signal.SIGKILL)
        until(lambda: state.pid not in server.workers() and len(server.workers()) == 2)
        successor = next(pid for pid in server.workers() if pid != read_worker_state(server.home.run, 1).pid)
        os.kill(successor, signal.SIGSTOP)
        until(lambda: "slot_closed" in server.log.read_text())
        until(lambda: server.ask("GET", "/v2/health/ready").json() == {"ready": True, "degraded": {"starting": 1}})
        assert b'modelyard_degraded{reason="starting"} 1' in server.ask("GET", "/metrics").body
        os.kill(successor, signal.SIGCONT)
        until(lambda: server.ask("GET", "/v2/health/ready").json() == {"ready": True})
        until(lambda: b'modelyard_degraded{reason="starting"} 0' in server.ask("GET", "/metrics").body)


def test_at_the_start_it_is_ready_only_when_every_worker_is(tmp_path: Path) -> None:
    home = home_with(tmp_path / "h", "line")
    with (home.folder / "log").open("wb") as log:
        process = subprocess.Popen(command(home, "--workers", "2"), stdout=subprocess.PIPE, stderr=log)
    try:
        until(lambda: len(children(process.pid)) == 2)
        held = children(process.pid)[1]
        os.kill(held, signal.SIGSTOP)
        until(lambda: any(home.run.glob("worker-*.json")))
        assert process.stdout is not None
        server = Running(process, {"url": f"http://127.0.0.1:{read_serve_state(home.run).port}"}, home, home.folder / "log")
        answers: list[int] = []

        def ask() -> bool:
            try:  # the other slot's socket does not accept yet
                answers.append(server.ask("GET", "/v2/health/ready", timeout=0.5).status)
            except OSError:
                return False
            return len(answers) >= 3

        until(ask)
        assert set(answers) == {503}
        os.kill(held, signal.SIGCONT)
        assert process.stdout.readline()
        assert server.is_well()
    finally:
        left = children(process.pid)
        for pid in left:
            os.kill(pid, signal.SIGCONT)
        process.terminate()
        process.wait(20)
        if process.stdout is not None:
            process.stdout.close()


def test_a_drain_waits_for_the_body_of_a_request_that_has_begun(tmp_path: Path) -> None:
    with running(home_with(tmp_path / "h", "line")) as server, server.connect() as caller, caller.makefile("rb") as stream:
        caller.sendall(b"POST /v2/models/line/infer HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(REQUEST) + REQUEST[:20])
        time.sleep(0.2)
        server.process.send_signal(signal.SIGTERM)
        time.sleep(1.0)
        caller.sendall(REQUEST[20:])
        answer = read_answer(stream)
        assert answer is not None
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert server.process.wait(15) == 0


@pytest.mark.parametrize("ends_by", ["drain", "close"])
def test_a_slow_reader_gets_the_whole_of_its_last_answer(tmp_path: Path, ends_by: str) -> None:
    """More than the system takes from the worker at once, read through a small buffer for longer than a connection lingers."""
    rows = 8000
    inputs = [tensor("X", [1.0] * 4 * rows, "FP32", [rows, 4])]
    body = json.dumps({"inputs": inputs}).encode()
    last = b"Connection: close\r\n" if ends_by == "close" else b""
    with running(home_with(tmp_path / "h", "grid")) as server, socket.socket() as caller:
        caller.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        caller.settimeout(20)
        caller.connect(("127.0.0.1", server.port))
        caller.sendall(b"POST /v2/models/grid/infer HTTP/1.1\r\nHost: localhost\r\n%bContent-Length: %d\r\n\r\n%b" % (last, len(body), body))
        got = bytearray(caller.recv(100))
        if ends_by == "drain":
            server.process.send_signal(signal.SIGTERM)
        time.sleep(4)
        with caller.makefile("rb") as rest:
            head, _, begun = bytes(got + rest.read(200)).partition(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length: ")[2].split()[0])
            assert length > 300_000
            assert len(begun + rest.read(length - len(begun))) == length
        if ends_by == "drain":
            assert server.process.wait(20) == 0


def test_while_it_drains_a_new_caller_is_told_to_go_elsewhere_or_refused_and_never_kept(tmp_path: Path) -> None:
    with running(home_with(tmp_path / "h", "slow"), workers=2) as server:
        asking = threading.Thread(target=lambda: server.infer("slow", [tensor("turns", [8000.0])]))
        asking.start()
        until(lambda: b"modelyard_in_flight_requests 2" in server.ask("GET", "/metrics").body)
        server.process.send_signal(signal.SIGTERM)
        refused = 0
        while server.process.poll() is None and refused < 20:
            try:
                answer = server.ask("GET", "/v2/health/ready", timeout=5)
            except (ConnectionError, ValueError):  # refused, or reset before an answer
                refused += 1
                time.sleep(0.05)
            else:
                assert answer.headers["connection"] == "close"
        assert refused
        asking.join()
        assert server.process.wait(15) == 0


def test_a_drain_ends_in_its_time_with_code_0_though_a_request_does_not(tmp_path: Path) -> None:
    with running(home_with(tmp_path / "h", "slow"), settings={"drain_timeout_s": 1}) as server, server.connect() as caller:
        body = json.dumps({"inputs": [tensor("turns", [200_000.0])]}).encode()
        caller.sendall(b"POST /v2/models/slow/infer HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        until(lambda: b"modelyard_in_flight_requests 2" in server.ask("GET", "/metrics").body)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(15) == 0


def test_workers_end_with_their_supervisor_and_a_new_one_takes_the_port(tmp_path: Path) -> None:
    home = home_with(tmp_path / "h", "line")
    with running(home, workers=2) as server:
        workers, port = server.workers(), server.port
        server.process.kill()
        server.process.wait()
        with running(home, "--port", str(port)) as successor:
            assert successor.port == port
            assert successor.infer("line", line_row()).status == 200
        until(lambda: not any(map(is_alive, workers)))


def test_the_supervisor_outlives_its_parent(tmp_path: Path) -> None:
    home = home_with(tmp_path / "h", "line")
    parent = subprocess.Popen(["sh", "-c", '"$@" & echo $!; wait', "sh", *command(home, "--workers", "1")], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    try:
        card = json.loads(parent.stdout.readline())
        parent.kill()
        parent.wait()
        parent.stdout.close()
        server = Running(parent, card, home, home.folder)
        for _ in range(3):
            assert server.infer("line", line_row(a="x")).status == 400  # nobody reads its log any more either
            assert server.infer("line", line_row()).status == 200
    finally:
        workers = children(pid)
        os.kill(pid, signal.SIGTERM)
        until(lambda: not is_alive(pid) and not any(map(is_alive, workers)))


def test_a_drain_fails_readiness_first_and_answers_what_was_asked(tmp_path: Path) -> None:
    home = home_with(tmp_path / "h", "slow")
    with running(home) as server:
        answers: list[Any] = []
        asking = [threading.Thread(target=lambda: answers.append(server.infer("slow", [tensor("turns", [2500.0])]))) for _ in range(3)]
        with server.connect() as probe, probe.makefile("rb") as stream:
            for thread in asking:
                thread.start()
            until(lambda: b"modelyard_in_flight_requests 4" in server.ask("GET", "/metrics").body)
            server.process.send_signal(signal.SIGTERM)
            time.sleep(0.15)
            probe.sendall(b"GET /v2/health/ready HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert b" 503 " in stream.readline()
        for thread in asking:
            thread.join()
        assert [answer.status for answer in answers] == [200] * 3
        assert server.process.wait(15) == 0
        with pytest.raises(ConnectionRefusedError):
            server.connect()


def test_a_second_signal_ends_at_once(tmp_path: Path) -> None:
    home = home_with(tmp_path / "h", "slow")
    with running(home, settings={"drain_timeout_s": 60}) as server:
        workers = server.workers()
        lost: list[Any] = []

        def ask() -> None:
            try:
                lost.append(server.infer("slow", [tensor("turns", [200_000.0])]))
            except (OSError, ValueError):
                lost.append(None)

        thread = threading.Thread(target=ask)
        thread.start()
        until(lambda: b"modelyard_in_flight_requests 2" in server.ask("GET", "/metrics").body)
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        assert server.process.poll() is None
        server.process.send_signal(signal.SIGTERM)
        server.process.wait(5)
        thread.join()
        assert lost == [None]
        assert not any(map(is_alive, workers))


def test_the_state_file_says_where_it_listens(tmp_path: Path) -> None:
    with running(home_with(tmp_path / "h", "line"), workers=2) as server:
        state = read_serve_state(server.home.run)
        assert (state.pid, state.port, state.slots) == (server.process.pid, server.port, (0, 1))
        worker = read_worker_state(server.home.run, 1)
        assert (worker.sequence, [model.state for model in worker.models.values()]) == (1, ["ready"])
    assert not (server.home.run / "serve.json").exists()


def start(home: Home, *flags: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*command(home), "--workers", "1", *flags], capture_output=True, text=True, timeout=60, check=False)


def test_a_port_in_use_is_one_clear_line(tmp_path: Path) -> None:
    home = Home(tmp_path / "h")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = start(home, "--port", str(port))
    assert done.returncode == 2
    assert done.stderr.strip().splitlines() == [f"modelyard: port {port} on 127.0.0.1 is in use; choose another with --port, or end what holds it"]


def test_two_data_planes_do_not_share_a_folder(tmp_path: Path) -> None:
    home = home_with(tmp_path / "h", "line")
    with running(home) as server:
        done = start(home)
        assert done.returncode == 2
        assert "already runs" in done.stderr
        assert server.is_well()


def test_an_open_address_without_keys_is_refused(tmp_path: Path) -> None:
    done = start(Home(tmp_path / "h"), "--host", "0.0.0.0")
    assert done.returncode == 2
    assert "--insecure" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_with_insecure_it_is_open_as_asked(tmp_path: Path) -> None:
    with running(home_with(tmp_path / "h", "line"), "--host", "0.0.0.0", "--insecure") as server:
        assert server.infer("line", line_row()).status == 200


def test_keys_are_asked_for_and_a_revoked_one_is_refused_within_moments(tmp_path: Path) -> None:
    import hashlib

    home = home_with(tmp_path / "h", "line")
    keys = tmp_path / "keys"
    keys.write_text(f"{hashlib.sha256(b'my_first').hexdigest()} first\n{hashlib.sha256(b'my_second').hexdigest()} second\n")
    with running(home, "--keys-file", str(keys)) as server:

        def ask(key: str | None) -> int:
            headers = {} if key is None else {"Authorization": f"Bearer {key}"}
            answer = server.ask("POST", "/v2/models/line/infer", REQUEST, headers=headers)
            assert answer.status == 200 or answer.headers["www-authenticate"] == "Bearer"
            return answer.status

        assert [ask(key) for key in ("my_first", "my_second", "my_third", None, "")] == [200, 200, 401, 401, 401]
        assert server.ask("GET", "/v2/health/ready").status == 200
        assert server.ask("GET", "/metrics").status == 401
        begun = b"POST /v2/models/line/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n{"
        assert [answer.status for answer in server.send(begun)] == [401]  # before its body has come
        keys.write_text(f"{hashlib.sha256(b'my_second').hexdigest()} second\n")
        until(lambda: ask("my_first") == 401, 5)
        assert ask("my_second") == 200
        keys.unlink()
        until(lambda: ask("my_second") == 401, 5)


def test_a_folder_that_is_not_writable_is_one_clear_line(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    done = start(Home(tmp_path / "h"), "--run", str(blocked / "run"))
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1


# Plans.


def test_hot_swaps_under_load_lose_nothing_and_mix_nothing(tmp_path: Path) -> None:
    home = Home(tmp_path / "h")
    versions = [home.add("line", offset=float(offset)) for offset in (0, 1000, 2000)]
    home.deploy("line", {versions[0]: 100})
    with running(home, workers=2) as server:
        clients = [Client(server, accepted=(321.0, 1321.0, 2321.0)) for _ in range(4)]
        until(lambda: all(client.good > 10 for client in clients))
        for turn in range(1, 7):
            after = versions[turn % 3]
            server.wait(sequence=home.deploy("line", {versions[(turn - 1) % 3]: 100}, hold=(after,)))
            server.wait(sequence=home.deploy("line", {after: 100}))
            marks = [len(client.values) for client in clients]
            until(lambda marks=marks: all(client.good > mark + 5 for client, mark in zip(clients, marks, strict=True)))
            for client, mark in zip(clients, marks, strict=True):
                # The one that was on its way may still be the old; none that was started later.
                assert set(client.values[mark + 1 :]) == {321.0 + 1000 * (turn % 3)}
        for client in clients:
            client.end()
        assert [(client.lost, client.wrong) for client in clients] == [(0, [])] * 4
        until(lambda: len(read_worker_state(home.run, 0).models) == 1)  # what served before was let go


def test_weights_and_held_versions(tmp_path: Path) -> None:
    home = Home(tmp_path / "h")
    old, new, held = (home.add("line", offset=offset) for offset in (0.0, 1000.0, 2000.0))
    home.deploy("line", {old: 50, new: 50}, hold=(held,))
    with running(home) as server:
        answers = {tuple(server.infer("line", line_row()).json()["outputs"][0]["data"]) for _ in range(60)}
        assert answers == {(321.0,), (1321.0,)}
        held_path = f"/v2/models/line/versions/{held[1]}/infer"
        assert server.ask("POST", held_path, REQUEST).json()["outputs"][0]["data"] == [2321.0]
        server.wait(sequence=home.deploy("line", {old: 100}))
        assert server.ask("POST", held_path, REQUEST).status == 404


@pytest.mark.parametrize("fault", ["wrong answers", "a changed byte", "a missing blob", "another signer"])
def test_a_new_version_that_fails_leaves_the_old_serving_and_says_why(tmp_path: Path, fault: str) -> None:
    home = Home(tmp_path / "h")
    old = home.add("line")
    home.deploy("line", {old: 100})
    with running(home) as server:
        new = home.add("line", offset=1.0, wrong_answers=fault == "wrong answers")
        if fault in {"a changed byte", "a missing blob"}:
            before = {path for path in home.registry.blobs.folder.rglob("*") if path.is_file()}
            new = home.add("line", offset=2.0)
            added = max(
                (path for path in home.registry.blobs.folder.rglob("*") if path.is_file() and path not in before), key=lambda p: p.stat().st_size
            )
            data = bytearray(added.read_bytes())
            data[len(data) // 2] ^= 1
            added.chmod(0o600)
            added.unlink()
            if fault == "a changed byte":
                added.write_bytes(data)
        elif fault == "another signer":
            elsewhere = Home(tmp_path / "elsewhere")
            new = elsewhere.add("line", offset=3.0)
            home.placements |= elsewhere.placements
        server.wait(sequence=home.deploy("line", {new: 100}))
        model = read_worker_state(home.run, 0).models[new[0]]
        assert model.state == "failed"
        assert model.verdict is not None
        assert model.verdict.outcome == "fail"
        assert model.verdict.evidence
        assert server.infer("line", line_row()).json()["outputs"][0]["data"] == [321.0]
        better = home.add("line", offset=4.0)
        server.wait(sequence=home.deploy("line", {better: 100}))
        assert server.infer("line", line_row()).json()["outputs"][0]["data"] == [325.0]


def test_a_removed_deployment_is_gone_and_a_broken_plan_changes_nothing(tmp_path: Path) -> None:
    home = home_with(tmp_path / "h", "line", "shop")
    with running(home) as server:
        (home.folder / "plan.json").write_text("{")
        time.sleep(0.3)
        assert server.infer("line", line_row()).status == 200
        del home.plans["shop"]
        server.wait(sequence=home.write())
        assert server.ask("GET", "/v2/models/shop").status == 404
        assert server.infer("line", line_row()).status == 200


def test_a_worker_that_starts_applies_the_newest_plan_before_it_accepts(tmp_path: Path) -> None:
    home = Home(tmp_path / "h")
    old, new = home.add("line"), home.add("line", offset=1000.0)
    home.deploy("line", {old: 100})
    with running(home) as server:
        (pid,) = server.workers()
        os.kill(pid, signal.SIGSTOP)
        home.deploy("line", {new: 100})
        os.kill(pid, signal.SIGKILL)
        assert server.infer("line", line_row()).json()["outputs"][0]["data"] == [1321.0]


def test_without_a_plan_it_is_ready_and_waits_for_one(tmp_path: Path) -> None:
    home = Home(tmp_path / "h")
    with running(home) as server:
        assert server.is_well()
        assert server.infer("line", line_row()).status == 404
        server.wait(sequence=home.deploy("line", {home.add("line"): 100}))
        assert server.infer("line", line_row()).status == 200


def test_needed_models_that_fail_end_it_with_their_verdict(tmp_path: Path) -> None:
    home = Home(tmp_path / "h")
    home.deploy("line", {home.add("line", wrong_answers=True): 100})
    script = "import sys; from pathlib import Path; from modelyard import config; from modelyard.serve import supervisor\n"
    script += "settings = config.load({'home': sys.argv[1], 'port': 0, 'workers': 1})\n"
    script += "sys.exit(supervisor.run(settings, settings.plan, settings.run, needs_models=True))"
    done = subprocess.run([sys.executable, "-P", "-c", script, str(home.folder)], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "line is not served" in done.stderr


# Overload.


def test_a_slow_model_delays_neither_a_fast_one_nor_health(tmp_path: Path) -> None:
    with running(home_with(tmp_path / "h", "slow", "line")) as server:
        answers: list[Any] = []
        thread = threading.Thread(target=lambda: answers.append(server.infer("slow", [tensor("turns", [3000.0])])))
        thread.start()
        until(lambda: b"modelyard_in_flight_requests 2" in server.ask("GET", "/metrics").body)
        assert server.infer("line", line_row()).status == 200
        assert server.is_well()
        assert thread.is_alive()  # so both were answered while it ran
        thread.join()
        assert answers[0].status == 200


def test_a_full_queue_and_a_deadline_that_cannot_be_met_are_refused_with_an_honest_wait(tmp_path: Path) -> None:
    with running(home_with(tmp_path / "h", "slow"), settings={"max_queue_rows": 4}) as server:
        statuses: list[Any] = []

        def ask(turns: float, **headers: str) -> None:
            body = json.dumps({"inputs": [tensor("turns", [turns])]}).encode()
            statuses.append(server.ask("POST", "/v2/models/slow/infer", body, headers=headers))

        first = threading.Thread(target=ask, args=(3000.0,))
        first.start()
        until(lambda: b"modelyard_in_flight_requests 2" in server.ask("GET", "/metrics").body)
        others = [threading.Thread(target=ask, args=(5.0,)) for _ in range(12)]
        for thread in others:
            thread.start()
        for thread in (first, *others):
            thread.join()
        refused = [answer for answer in statuses if answer.status == 429]
        assert len(refused) == 8
        assert all(int(answer.headers["retry-after"]) >= 1 for answer in refused)
        assert sorted(answer.status for answer in statuses)[:5] == [200] * 5
        assert b'modelyard_shed_total{model_name="slow",model_version="1"} 8' in server.ask("GET", "/metrics").body


def test_a_deadline_that_passes_is_answered_when_it_passes(tmp_path: Path) -> None:
    with running(home_with(tmp_path / "h", "slow")) as server:
        body = json.dumps({"inputs": [tensor("turns", [5000.0])]}).encode()
        answer = server.ask("POST", "/v2/models/slow/infer", body, headers={"X-Request-Timeout": "0.2"})
        assert answer.status == 504
        assert b"modelyard_requests_total" in server.ask("GET", "/metrics").body


def test_who_leaves_the_queue_is_not_run_and_counts_as_cancelled(tmp_path: Path) -> None:
    with running(home_with(tmp_path / "h", "slow")) as server:
        first = threading.Thread(target=lambda: server.infer("slow", [tensor("turns", [3000.0])]))
        first.start()
        until(lambda: b"modelyard_in_flight_requests 2" in server.ask("GET", "/metrics").body)
        body = json.dumps({"inputs": [tensor("turns", [5.0])]}).encode()
        leaving = [server.connect() for _ in range(100)]
        for caller in leaving:
            caller.sendall(b"POST /v2/models/slow/infer HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        until(lambda: b"modelyard_in_flight_requests 102" in server.ask("GET", "/metrics").body)
        for caller in leaving:
            caller.close()
        first.join()
        cancelled = b'modelyard_errors_total{model_name="slow",model_version="1",code="cancelled"} 100'
        until(lambda: cancelled in server.ask("GET", "/metrics").body)
        assert b'modelyard_predictions_total{model_name="slow",model_version="1"} 1\n' in server.ask("GET", "/metrics").body


def test_under_a_low_flood_the_high_class_is_answered(tmp_path: Path) -> None:
    with running(home_with(tmp_path / "h", "slow"), settings={"max_concurrency": 4}) as server:
        stop, low, high = threading.Event(), list[int](), list[int]()
        body = json.dumps({"inputs": [tensor("turns", [60.0])]}).encode()

        def flood() -> None:
            while not stop.is_set():
                low.append(server.ask("POST", "/v2/models/slow/infer", body, headers={"X-Priority": "low"}).status)

        threads = [threading.Thread(target=flood) for _ in range(12)]
        for thread in threads:
            thread.start()
        until(lambda: 429 in low)
        for _ in range(20):
            high.append(server.ask("POST", "/v2/models/slow/infer", body, headers={"X-Priority": "high"}).status)
        stop.set()
        for thread in threads:
            thread.join()
        assert high == [200] * 20
        assert set(low) == {200, 429}


def test_a_model_that_is_flooded_costs_another_no_answer(tmp_path: Path) -> None:
    with running(home_with(tmp_path / "h", "slow", "line"), settings={"max_concurrency": 4}) as server:
        stop, flooded = threading.Event(), list[int]()
        body = json.dumps({"inputs": [tensor("turns", [60.0])]}).encode()

        def flood() -> None:
            while not stop.is_set():
                flooded.append(server.ask("POST", "/v2/models/slow/infer", body).status)

        threads = [threading.Thread(target=flood) for _ in range(12)]
        for thread in threads:
            thread.start()
        until(lambda: 429 in flooded)
        other = [server.infer("line", line_row()).status for _ in range(50)]
        stop.set()
        for thread in threads:
            thread.join()
        assert other == [200] * 50
        assert set(flooded) == {200, 429}


def test_connections_are_capped(tmp_path: Path) -> None:
    with running(home_with(tmp_path / "h", "line"), settings={"max_connections": 5}) as server:
        held = [server.connect() for _ in range(5)]
        time.sleep(0.2)
        (answer,) = server.send(b"")
        assert answer.status == 503
        assert answer.headers["retry-after"] == "1"
        for connection in held:
            connection.close()
        until(server.is_well)


SERVE_ONE = """
import asyncio, json, sys
from pathlib import Path
from modelyard import config
from modelyard.serve.worker import Worker

async def main():
    settings = config.load({"home": sys.argv[1], "workers": 1})
    worker = Worker(settings, slot=0, plan=settings.plan, run=settings.run, spool=settings.spool)
    await worker._follow()
    assert set(worker.plane.deployments) == {"line"}
    worker.observer.flush()

asyncio.run(main())
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""
HEAVY = {"sqlalchemy", "fastapi", "sklearn", "scipy", "pandas", "polars", "river", "skl2onnx", "onnx", "treelite", "typer", "rich", "duckdb", "httpx"}


def test_a_worker_that_serves_has_loaded_no_heavy_library(tmp_path: Path) -> None:
    home = home_with(tmp_path / "h", "line")
    home.run.mkdir()
    (home.folder / "spool").mkdir()
    done = subprocess.run([sys.executable, "-P", "-c", SERVE_ONE, str(home.folder)], capture_output=True, text=True, timeout=60, check=True)
    loaded = set(json.loads(done.stdout))
    assert {"numpy", "onnxruntime"} <= loaded
    assert not loaded & HEAVY
