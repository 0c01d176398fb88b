"""The alarm, end to end: traffic that drifts in a real home becomes one page at a real receiver, though the control process is killed in between."""

from __future__ import annotations

import http.server
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.faults.shim import Shim
from watching import segment, spooled
from world import World, wait_until

from modelyard import config
from modelyard.control.plane import ControlPlane
from modelyard.targets.base import Release

pytestmark = pytest.mark.system

MINUTES, DRIFTED, ROWS = 180, 120, 40
HOUR_S, DAY_S = 3600, 86_400


class Receiver:
    """An HTTP receiver that refuses everything until it is `open`, and keeps what it then took."""

    def __init__(self) -> None:
        self.is_open = False
        self.refused = 0
        self.took: list[dict[str, Any]] = []
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if receiver.is_open:
                    receiver.took.append(json.loads(body))
                else:
                    receiver.refused += 1
                self.send_response(204 if receiver.is_open else 503)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/alarm"
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.close()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path / "home")
    yield world
    world.end()


def told(world: World, name: str = "line") -> Any:
    return world.verb("monitor", name, "--json").json()


def drawn(draw: np.random.Generator, rows: int, *, shift: float = 0.0) -> dict[str, np.ndarray]:
    """Inputs of `line`."""
    c = draw.random((rows, 1)).astype(np.float32)
    c[draw.random(rows) < 1 / 7] = np.nan
    return {"a": draw.random((rows, 1)) + shift, "b": draw.integers(0, 10, (rows, 1)), "c": c}


def see(plane: ControlPlane, release: Release, draw: np.random.Generator, *, start: float, minutes: range, drifted: int) -> dict[str, float]:
    """Three hours of a past, spooled as workers write it; from minute `drifted` on one column lies higher. Gives the true answers by id."""
    truths: dict[str, float] = {}
    for minute in minutes:
        inputs = drawn(draw, ROWS, shift=0.5 if minute >= drifted else 0.0)
        answers = (inputs["a"] + 10.0 * inputs["b"] + 100.0 * np.nan_to_num(inputs["c"])).ravel()
        ids = tuple(f"{minute}-{row}" for row in range(ROWS))
        seen = segment(plane, release, start + 60 * minute + 30, inputs, {"prediction": answers}, ids=ids)
        spooled(plane, seen)
        truths |= {key: float(answer + draw.normal()) for key, answer in zip(ids, answers, strict=True)}
    return truths


def test_drift_is_paged_once_though_the_control_process_is_killed_in_between(world: World, receiver: Receiver) -> None:
    world.home.add("line", reference=drawn(np.random.default_rng(1), 5000))
    (world.folder / "alerts.toml").write_text(f'[routes.ops]\nkind = "webhook"\nurl = "{receiver.url}"\n')
    world.up()
    start = float(int(time.time() // 60) * 60 - (MINUTES + 2) * 60)
    with ControlPlane(config.load({"home": world.folder})) as plane:
        version = plane.registry.resolve("line:1")
        release = Release(model="line", version=1, digest=version.digest, index=version.index)
        truths = see(plane, release, np.random.default_rng(0), start=start, minutes=range(MINUTES), drifted=DRIFTED)
    wait_until(lambda: not list(plane.settings.spool.glob("*.segment")))
    # Deployed when all this has been seen: its first turn judges the last six hours.
    assert world.verb("deploy", "line:1").code == 0
    path = world.folder / "labels.csv"
    path.write_text("prediction_id,label\n" + "".join(f"{key},{truth}\n" for key, truth in list(truths.items())[:500]))
    assert world.verb("labels", "line", "--file", str(path)).code == 0
    wait_until(lambda: receiver.refused > 0, timeout_s=180)
    assert receiver.took == []
    found = told(world)
    assert "drift:a" in found["pages"], found["verdicts"]
    world.kill("control")
    receiver.is_open = True
    wait_until(lambda: receiver.took != [], timeout_s=120)
    (page,) = receiver.took
    assert page["deployment"] == "line" and page["severity"] == "page" and page["status"] == "firing"
    assert any(alert["rule"] == "drift:a" and alert["columns"] == ["a"] for alert in page["alerts"])
    wait_until(lambda: "control" in world.pids() and told(world)["judged_through"] > found["judged_through"], timeout_s=180)
    assert len(receiver.took) == 1, "whoever was told is not told the same again"
    after = told(world)
    assert after["labels"]["matched"] == 500 and after["version"] == 1
    assert world.verb("monitor", "line").out.count("PAGE") >= 1
    page_of_it = world.folder / "report.html"
    assert world.verb("monitor", "report", "line", "--html", str(page_of_it)).code == 0
    assert all(said in page_of_it.read_text() for said in ("drift:a", "firing", "500 of", "<svg"))


def test_a_clock_that_jumps_is_named_and_the_watch_goes_on_by_it(
    world: World, receiver: Receiver, tmp_path: Path, component: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control process reads a clock that is put an hour ahead and a day back; durations are its own."""
    component("cc")
    world.home.add("line", reference=drawn(np.random.default_rng(1), 5000))
    (world.folder / "alerts.toml").write_text(f'[routes.ops]\nkind = "webhook"\nurl = "{receiver.url}"\n')
    receiver.is_open = True
    shim = Shim(tmp_path, world.folder)
    for name, value in shim.environment.items():
        monkeypatch.setenv(name, value)
    world.up()
    for name in shim.environment:
        monkeypatch.delenv(name)
    assert world.verb("deploy", "line:1").code == 0
    wait_until(lambda: told(world).get("judged_through") is not None, timeout_s=180)

    def of_clock() -> list[dict[str, Any]]:
        return [each for each in told(world)["verdicts"] if each["rule"] == "watch:clock"]

    def is_named(minutes: int, times: int) -> bool:
        return any(round(each["numbers"]["minutes"]) == minutes and each["numbers"]["times"] == times for each in of_clock())

    assert of_clock() == []
    shim.clock(HOUR_S)
    wait_until(lambda: is_named(60, 1), timeout_s=180)
    shim.clock(HOUR_S - DAY_S)
    minutes_passed(shim, HOUR_S - DAY_S, 2)
    wait_until(lambda: is_named(-1440, 2), timeout_s=180)
    assert all(each["outcome"] == "unknown" for each in of_clock())
    through = told(world)["judged_through"]
    # What is seen a day ago by the clock of yesterday is judged, and pages.
    world.kill("control")
    ahead_s = HOUR_S - DAY_S + 2 * 50
    with ControlPlane(config.load({"home": world.folder})) as plane:
        version = plane.registry.resolve("line:1")
        release = Release(model="line", version=1, digest=version.digest, index=version.index)
        inputs = drawn(np.random.default_rng(0), 2000, shift=0.5)
        spooled(plane, segment(plane, release, time.time() + ahead_s, inputs, {"prediction": inputs["a"].ravel()}))
    minutes_passed(shim, ahead_s, 3)
    wait_until(lambda: receiver.took != [], timeout_s=180)
    assert any(alert["rule"] == "drift:a" for page in receiver.took for alert in page["alerts"])
    assert told(world)["judged_through"] > through and is_named(-1440, 2), "it is still told after a restart"


def minutes_passed(shim: Shim, ahead_s: int, count: int) -> None:
    """Let the clock go on, in steps that are too small to be a jump."""
    for step in range(1, count + 1):
        time.sleep(3)
        shim.clock(ahead_s + 50 * step)
