"""Fault 15: the database of the control processes cannot be reached, and a leader that wakes up late."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

from postgres import running as running_postgres
from tests.faults import probes, scene
from tests.faults.control import Control, control
from tests.faults.judge import Control as Taken
from tests.faults.judge import Fault
from tests.faults.proxy import Proxy, Weather
from tests.faults.scene import Scene

from modelyard.bundle import archive
from modelyard.registry.postgres import PostgresRecords
from serving import Home

AWAY_S, LONG_S, TOLD_S, TAKEN_OVER_S = 4.0, 60.0, 5.0, 10.0
WIRED = ("quick gates", "pausing")
OFFSETS = (0.0, 1000.0)
WEATHERS: tuple[Weather, ...] = ("refuse", "blackhole", "loss", "delay")


def run(scene_: Scene) -> None:
    scene.need("initdb", "postgres", "pg_isready", "psql")
    shelf = Home(scene_.folder / "shelf")
    for offset in OFFSETS:
        shelf.add("line", offset=offset)
    with running_postgres() as server:
        url = server.url(is_tcp=True)
        with Proxy(server.port) as proxy:
            away = url.replace(f":{server.port}/", f":{proxy.port}/")
            assert away != url, url
            _play(scene_, shelf, url, away, proxy)


def _play(scene_: Scene, shelf: Home, url: str, away: str, proxy: Proxy) -> None:
    homes = []
    for name in ("home", "second"):
        (scene_.folder / name).mkdir()
        shutil.copytree(shelf.folder / "keys", scene_.folder / name / "keys")
        homes.append(Home.__new__(Home))
        homes[-1].folder, homes[-1].plans = scene_.folder / name, {}
    home, second = homes
    for version in shelf.registry.versions("line"):
        file = scene_.folder / f"{version.version}.tar"
        archive.export(shelf.registry.blobs, version.index, file)
        for each in homes:  # the second time only its blobs are new
            _import(each.folder, file, url)
    traffic = scene.line(offsets=OFFSETS)
    told: list[tuple[str, int, float]] = []
    seconds = LONG_S if scene_.is_long else AWAY_S
    restarted = 0
    back: list[float | None] = []
    with scene_.server(home) as server, control(scene_, home, starts=WIRED, settings={"records_url": away}) as running:
        assert running.deploy("line", "line:1").status == 202 and running.settled("line") is not None
        server.mark()
        loading = server.load(traffic, connections=4, seconds=600, rate=100.0)
        for weather in WEATHERS:
            proxy.turn(weather)
            until = time.monotonic() + seconds
            while time.monotonic() < until:
                began = time.monotonic()
                reply = running.deploy("line", f"line:{1 + len(told) % 2}")
                told.append((weather, reply.status, time.monotonic() - began))
                time.sleep(0.2)
            if weather == "blackhole":
                restarted = _another(scene_, home, traffic)
            proxy.turn("fair")
            began = time.monotonic()
            is_back = probes.wait(lambda: running.deploy("line", "line:1").status in {200, 202}, 10.0, 0.05) is not None
            back.append(time.monotonic() - began if is_back and running.settled("line", 10.0) is not None else None)
            if scene_.is_control:
                break
        tally = loading.end(now=True)
        fenced = {} if scene_.without == "standing plans" else _fence(scene_, running, second, url)
    cut = [(status, took_s) for weather, status, took_s in told if weather in {"refuse", "blackhole"}]
    scene_.item(
        "predicted", tally.success, 100, "%", better="higher", exact=True, note=f"of {tally.sent:,}, {seconds:g} s each of {', '.join(WEATHERS)}"
    )
    scene_.item("restarted_serves", restarted, 1, better="higher", exact=True, note="a data plane that starts while the database is away")
    scene_.item("not_503", sum(status != 503 for status, _ in cut), 0, exact=True, note=f"of {len(cut)} changes asked for while it was cut off")
    scene_.item("told", max(took_s for _, took_s in cut), TOLD_S, "s", note="the slowest answer while it was cut off")
    scene_.item("reconverged", None if None in back else max(filter(None, back)), 10, "s", note="a deploy in force, the slowest of four")
    if "before" in fenced:
        scene_.item("taken_over", fenced["before"].taken_over_s, TAKEN_OVER_S, "s", note="by another control process, when the leader was stopped")
    if "inside" in fenced:
        held_s = fenced["inside"].taken_over_s
        scene_.item(
            "taken_over_held",
            held_s,
            TAKEN_OVER_S,
            "s",
            note="when it was stopped with the database's lock in hand, taken from it after 2 s",
        )
    if fenced:
        ends = ", ".join(f"{where}: {each.outcome}" for where, each in fenced.items())
        scene_.item(
            "double_writers",
            sum(each.outcome != "refused" for each in fenced.values()),
            0,
            exact=True,
            note=f"writes under way when it was stopped ({ends})",
        )


def _import(folder: Path, file: Path, url: str) -> None:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MODELYARD_")} | {"MODELYARD_RECORDS_URL": url}
    line = [sys.executable, "-m", "modelyard.cli", "import", str(file), "--home", str(folder)]
    done = subprocess.run(line, env=environment, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()


def _another(scene_: Scene, home: Home, traffic: Any) -> int:
    """Whether a data plane that starts now answers rightly, from a copy of the home that has nothing but plan, blobs and keys."""
    copy = Home.__new__(Home)
    copy.folder, copy.plans = scene_.folder / "copy", {}
    for name in ("plan.json", "blobs", "keys"):
        source = home.folder / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, copy.folder / name) if copy.folder.exists() or not copy.folder.mkdir() else None
    with scene_.server(copy, mark=False) as server:
        server.mark()
        tally = server.load(traffic, connections=2, seconds=0.5, rate=50.0).end()
    return int(tally.success == 100)


class Woken(NamedTuple):
    """What came of a write that was under way when the leader was stopped: how long another took to lead, and what the write came to (`refused`)."""

    taken_over_s: float | None
    outcome: str


def _fence(scene_: Scene, running: Control, second: Home, url: str) -> dict[str, Woken]:
    """Stop the leader at a write, let another take over, let the first wake up; then the other way round."""
    shutil.copytree(running.home.folder / "blobs", second.folder / "blobs", dirs_exist_ok=True)
    records = PostgresRecords(url)
    try:
        with control(scene_, second, starts=WIRED, settings={"records_url": url}) as other:
            woken = {}
            if not scene_.is_control:
                woken["inside"] = _woken(scene_, records, "inside", leader=running, other=other, settles=running)
            leads, takes = (running, other) if scene_.is_control else (other, running)
            woken["before"] = _woken(scene_, records, "before", leader=leads, other=takes, settles=running)
            assert other.is_alive and running.is_alive
        return woken
    finally:
        records.close()


def _woken(scene_: Scene, records: PostgresRecords, where: str, *, leader: Control, other: Control, settles: Control) -> Woken:
    def term() -> int:
        found = records.get("leader", "leader")
        return 0 if found is None else int(found.body["term"])

    paused, woken = scene_.folder / "paused", scene_.folder / "woken"
    before, now = term(), settles.serving("line")
    (scene_.folder / "pause").write_text(where)
    reply = other.deploy("line", f"line:{3 - (now or 1)}")
    assert reply.status == 202, reply
    assert probes.wait(paused.exists, 10.0, 0.01) is not None, "the leader was not stopped at a write"
    try:
        took_s = probes.wait(lambda: term() > before, TAKEN_OVER_S + 10, 0.05)
    finally:
        os.kill(leader.pid, signal.SIGCONT)
    assert probes.wait(woken.exists, 15.0, 0.01) is not None, "the write that was under way has no end"
    outcome = woken.read_text()
    paused.unlink()
    woken.unlink()
    if not scene_.is_control:
        assert settles.settled("line", 20.0) is not None and settles.serving("line") != now, "the next leader does not go on"
        told = [each["what"] for each in settles.ask("GET", "/deployments/line/history").json()]
        if told[-3:] != ["deploy", "step", "done"]:
            outcome += f", told {told[-6:]}"
    return Woken(took_s, outcome)


FAULT = Fault(
    number=15,
    name="store-away",
    title="The database cannot be reached",
    method=(
        "A control process reaches its PostgreSQL through a network that in turn refuses, is silent, loses half of what is sent (which comes a "
        f"retransmission later) and delays by 25 to 125 ms, {AWAY_S:g} s each ({LONG_S:g} s in the long form); changes are asked for all the "
        "time. Then the leader is stopped (SIGSTOP) in the middle of a write, another control process takes over, and the first wakes up and goes on "
        "with it: once after it has written and before it commits, once after it has decided and before it begins."
    ),
    run=run,
    controls=(
        Taken(without="standing plans", misses="predicted", text="a host that cannot read the records takes its plans away."),
        Taken(
            without="terms",
            misses="double_writers",
            text="a leader's writes look neither for its term nor for the revision that they were decided on.",
        ),
    ),
    headline="predicted",
    may_share=True,
)
