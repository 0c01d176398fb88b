"""Fault 2: a model that is code and reads address 0."""

from __future__ import annotations

import time

from tests.faults import probes, scene
from tests.faults.judge import Control, Fault
from tests.faults.scene import Scene, Server

POISON, SECONDS = 666.0, 8.0


def run(scene_: Scene) -> None:
    others = scene.rows("sleeper")
    with scene_.server(scene_.code_home("Crasher", "Sleeper"), settings={"max_batch_rows": 1}) as server:
        rate = server.capacity(others, seconds=2) / 2
        server.mark()
        loading = server.load(others, connections=16, seconds=SECONDS / 2 if scene_.is_control else SECONDS, rate=rate)
        same = [_ask(server, [POISON, 0, 0, 0]) for _ in range(4)]
        time.sleep(1.5)  # the worker counts its processes' ends once a second
        ends = server.metric("modelyard_isolated_ends_total", 'model_name="crasher"')
        for turn in range(0 if scene_.is_control else 3):
            _ask(server, [POISON, turn + 1, 0, 0])
        degraded = None if scene_.is_control else probes.wait(lambda: _is_degraded(server), 5, 0.1)
        tally = loading.end()
        scene_.item(
            "callers_not_5xx", sum(not 500 <= status < 600 for status, _ in same[:2]), 0, exact=True, note="the two whose input ended a process"
        )
        scene_.item("told", max(seconds for _, seconds in same) * 1000, 1000, "ms")
        scene_.item("ended", ends, 2, exact=True, note="processes that one input ended, asked four times")
        scene_.item("not_422_then", sum(status != 422 for status, _ in same[2:]), 0, exact=True)
        scene_.item("degraded", degraded, 5, "s", note="after five ends within a minute")
        scene_.item("others_success", tally.success, 100, "%", better="higher", exact=True, note=f"of {tally.sent:,}")


def _ask(server: Server, values: list[float]) -> tuple[int, float]:
    """The status of one question, and the seconds; 0 where there was no answer."""
    began = time.monotonic()
    try:
        (answer,) = server.send(scene.code_request("crasher", values, {"Connection": "close"}), timeout=10)
        return answer.status, time.monotonic() - began
    except (OSError, ValueError, AssertionError):
        return 0, time.monotonic() - began


def _is_degraded(server: Server) -> bool:
    """Whether the version is said to be in trouble, where operators look."""
    return b"isolated-crashes" in (server.home.run / "worker-0.json").read_bytes()


FAULT = Fault(
    number=2,
    name="segfault",
    title="A model that ends its process",
    method=(
        "A model that is code reads address 0 on a poison input: the same input four times, then three others. Another model is asked "
        "at half of its capacity meanwhile. "
        "Degraded: the worker's state names `isolated-crashes`. The automatic rollback counts once rollouts exist."
    ),
    run=run,
    controls=(
        Control(without="suspicion", misses="ended", text="nobody remembers which input ended a process."),
        Control(without="isolation", misses="others_success", text="the model ends the worker that serves it."),
    ),
    headline="others_success",
)
