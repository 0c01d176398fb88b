"""An Edge in this process, over a data plane with real models: what tests of routes ask without a socket."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Iterator, Mapping
from time import monotonic
from typing import Any

from modelyard.config import Settings
from modelyard.serve.dataplane import DataPlane, Deployment
from modelyard.serve.edge import Edge
from modelyard.serve.exposition import render
from modelyard.serve.http import Head
from modelyard.serve.loading import load
from modelyard.serve.metrics import Metrics
from modelyard.serve.server import Exchange
from serving import Answer, Home, read_answer


class Connection:
    """What an exchange needs of a connection; keeps the answer's bytes."""

    is_draining = False
    date = b""

    def __init__(self, edge: Edge) -> None:
        self.server = self
        self.transport = self
        self.on_failed = edge.fail
        self.answered: bytes | None = None
        self.exchange: Any = None

    def flush(self) -> None:
        self.answered = self.exchange._answer


class Asking:
    """Asks an edge over the deployed models of a home, each request in turns of one event loop."""

    def __init__(self, home: Home, settings: Settings) -> None:
        self.loop = asyncio.new_event_loop()
        metrics = Metrics(home.folder, 0)

        async def start() -> tuple[DataPlane, Edge]:
            plane = DataPlane(settings, slot=0, meter=metrics.meter)
            deployments = {}
            for plan in home.plans.values():
                loaded = {digest: load(digest, home.placements[digest], home.folder / "keys") for digest in plan.digests}
                versions = {digest: plane.version(plan.name, plan.versions[digest], each) for digest, each in loaded.items()}
                deployments[plan.name] = Deployment(plan, versions)
            plane.switch(deployments)
            return plane, Edge(plane, settings, meter=metrics.server, metrics=lambda: render(metrics.sums([0])))

        self.plane, self.edge = self.loop.run_until_complete(start())

    def ask(self, method: str, target: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Answer:
        """One request; `body` is bytes, or a value to be sent as JSON."""
        data = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        lines = {"host": "localhost", **({} if body is None or isinstance(body, bytes) else {"content-type": "application/json"}), **(headers or {})}
        listed = [(name.lower().encode(), value.encode("latin-1")) for name, value in lines.items()]
        connection = Connection(self.edge)
        head = Head(method.encode(), target.encode(), "1.1", listed, keep_alive=True)
        connection.exchange = Exchange(connection, head, data, monotonic())  # type: ignore[arg-type]

        async def go() -> None:
            self.edge.handle(connection.exchange)
            while connection.answered is None:
                await asyncio.sleep(0.001)
            await asyncio.sleep(0)

        self.loop.run_until_complete(go())
        answer = read_answer(io.BytesIO(connection.answered or b""))
        assert answer is not None
        return answer

    def close(self) -> None:
        """Stop the threads and the loop."""
        self.plane.close()
        self.loop.close()


def asking(home: Home, settings: Settings | None = None) -> Iterator[Asking]:
    """An edge over `home`, for a fixture to yield from."""
    made = Asking(home, settings or Settings())
    try:
        yield made
    finally:
        made.close()
