"""Fault 4: a model that takes memory without end."""

from __future__ import annotations

from tests.faults import probes, scene
from tests.faults.judge import Control, Fault
from tests.faults.scene import Scene, Server

POISON, SECONDS = 666.0, 6.0
LIMIT_BYTES = 768 << 20


def run(scene_: Scene) -> None:
    others = scene.rows("sleeper")
    limit, timeout = (64 << 30, "0.5") if scene_.without == "memory limit" else (LIMIT_BYTES, "4")
    with scene_.server(scene_.code_home("Eater", "Sleeper"), settings={"max_batch_rows": 1, "isolated_memory_bytes": limit}) as server:
        rate = server.capacity(others, seconds=2) / 2
        server.mark()
        worker, sleepers = server.worker(), _isolated(server)
        loading = server.load(others, connections=16, seconds=SECONDS, rate=rate)
        with probes.Peak(worker) as peak, probes.Peak(server.process.pid) as supervisor:
            (answer,) = server.send(scene.code_request("eater", [POISON, 0, 0, 0], {"Connection": "close", "X-Request-Timeout": timeout}), timeout=10)
        probes.wait(lambda: server.metric("modelyard_isolated_ends_total"), 4, 0.2)
        ooms = server.metric("modelyard_isolated_ends_total", 'reason="oom"')
        left = _isolated(server)
        tally = loading.end()
        scene_.item("caller_not_5xx", not 500 <= answer.status < 600, 0, exact=True, note=f"{answer.status}")
        scene_.item("reason_oom", ooms, 1, better="higher", exact=True, note="modelyard_isolated_ends_total{reason}")
        scene_.item("gateway_grown", peak.growth_mb + supervisor.growth_mb, 20, "MB", note="supervisor and worker")
        scene_.item("others_ended", (server.worker() != worker) + (len(sleepers & left) < len(sleepers) - 1), 0, exact=True, note="other processes")
        scene_.item("others_success", tally.success, 100, "%", better="higher", exact=True, note=f"of {tally.sent:,}")


def _isolated(server: Server) -> set[int]:
    """The processes of models that are code."""
    return set(probes.tree(server.process.pid)) - {server.process.pid, server.worker()}


FAULT = Fault(
    number=4,
    name="memory",
    title="A model that takes memory without end",
    method=(
        "Address space of 768 MB for a model that is code; a poison input makes it take 32 MB after 32 MB. "
        "Another model is asked at half of its capacity."
    ),
    run=run,
    controls=(Control(without="memory limit", misses="reason_oom", text="64 GB of address space: the deadline ends it instead."),),
    headline="gateway_grown",
)
