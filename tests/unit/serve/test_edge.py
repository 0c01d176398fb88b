from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from modelyard.config import Settings
from modelyard.errors import Conflict, Forbidden, InvalidInput, Misconfigured, ModelyardError, Unauthenticated
from modelyard.security.identity import new
from modelyard.security.keys import FileKeys
from modelyard.serve.access import ANYONE, ANYONE_HERE, Access
from modelyard.serve.admission import HIGH, LOW, NORMAL
from modelyard.serve.dataplane import DataPlane
from modelyard.serve.edge import LOG_LINES_S, Edge
from modelyard.serve.errors import STATUS
from modelyard.serve.exposition import render
from modelyard.serve.http import Head
from modelyard.serve.metrics import Metrics
from modelyard.serve.repository import Change
from modelyard.types import Principal


class Exchange:
    """What the edge sees of a request; keeps the answer."""

    def __init__(self, method: bytes, path: str, body: bytes = b"") -> None:
        self.head = Head(method, path.encode(), "1.1", [(b"host", b"localhost")], keep_alive=True)
        self.body = body
        self.received_s = self.prepared_s = self.deadline_s = 0.0
        self.codec: Any = None
        self.version: Any = None
        self.said: tuple[int, bytes, bytes] | None = None

    def reply(self, status: int, lines: bytes, body: bytes) -> None:
        assert self.said is None, "answered twice"
        self.said = (status, lines, body)


def with_edge(tmp_path: Path, test: Callable[[Edge, DataPlane], None], **more: Any) -> None:
    async def run() -> None:
        metrics = Metrics(tmp_path, 0)
        plane = DataPlane(Settings(), slot=0, meter=metrics.meter)
        test(Edge(plane, Settings(), meter=metrics.server, metrics=lambda: render(metrics.sums([0])), **more), plane)
        plane.close()

    asyncio.run(run())


def ask(edge: Edge, method: bytes, path: str, body: bytes = b"") -> tuple[int, bytes, Any]:
    exchange = Exchange(method, path, body)
    edge.handle(exchange)  # type: ignore[arg-type]
    assert exchange.said is not None
    status, lines, said = exchange.said
    return status, lines, json.loads(said) if said.startswith(b"{") else said


def test_not_ready_is_503_everywhere_but_alive(tmp_path: Path) -> None:
    def test(edge: Edge, plane: DataPlane) -> None:
        for method, path in (
            (b"GET", "/ping"),
            (b"GET", "/v2/health/ready"),
            (b"POST", "/v2/models/m/infer"),
            (b"POST", "/invocations"),
            (b"GET", "/v1/models/m"),
        ):
            assert ask(edge, method, path)[0] == 503, path
        assert ask(edge, b"GET", "/v2/health/live")[0] == 200
        plane.switch({})
        assert ask(edge, b"GET", "/ping")[0] == 200
        assert ask(edge, b"POST", "/v2/models/m/infer")[0] == 404
        edge.is_draining = True
        assert ask(edge, b"GET", "/ping")[0] == 503

    with_edge(tmp_path, test)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        (b"GET", "/nothing", 404),
        (b"GET", "/v2/models/m/versions/one", 404),
        (b"GET", "/v2/models/m/versions", 404),
        (b"GET", "/v2/models/m/infer/more", 404),
        (b"POST", "/v2/models", 405),
        (b"GET", "/v2/models/m/infer", 405),
        (b"DELETE", "/", 405),
        (b"HEAD", "/v2/models", 200),
        (b"GET", "/v2/models/", 200),
        (b"OPTIONS", "*", 404),
    ],
)
def test_routes(tmp_path: Path, method: bytes, path: str, status: int) -> None:
    with_edge(tmp_path, lambda edge, plane: _is(ask(edge, method, path)[0], status))


def _is(found: int, wanted: int) -> None:
    assert found == wanted


def test_a_fault_of_ours_is_an_answer_without_its_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def explode(*_: Any) -> bytes:
        raise RuntimeError("canary4711")

    async def run() -> None:
        metrics = Metrics(tmp_path, 0)
        plane = DataPlane(Settings(), slot=0, meter=metrics.meter)
        edge = Edge(plane, Settings(), meter=metrics.server, metrics=explode)
        status, _, said = ask(edge, b"GET", "/metrics")
        assert (status, said["code"]) == (500, "internal")
        assert "canary" not in json.dumps(said)
        plane.close()

    asyncio.run(run())
    log = capsys.readouterr().err
    assert json.loads(log)["cause"] == "RuntimeError"
    assert "canary" not in log


def test_what_is_wrong_with_the_server_itself_is_logged_with_its_cause(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raised: list[ModelyardError] = [Misconfigured("a folder cannot be written"), InvalidInput("asked wrongly")]

    def refuse() -> bytes:
        raise raised[0] from PermissionError()

    async def run() -> None:
        metrics = Metrics(tmp_path, 0)
        plane = DataPlane(Settings(), slot=0, meter=metrics.meter)
        edge = Edge(plane, Settings(), meter=metrics.server, metrics=refuse)
        assert ask(edge, b"GET", "/metrics")[0] == 500
        del raised[0]
        assert ask(edge, b"GET", "/metrics")[0] == 400
        plane.close()

    asyncio.run(run())
    assert [json.loads(line).get("cause") for line in capsys.readouterr().err.splitlines()] == ["PermissionError", None]


def test_the_log_of_a_flood_is_no_flood(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def test(edge: Edge, plane: DataPlane) -> None:
        for _ in range(500):
            ask(edge, b"GET", "/nothing")

    with_edge(tmp_path, test)
    assert LOG_LINES_S <= len(capsys.readouterr().err.splitlines()) <= 2 * LOG_LINES_S


def test_a_log_that_nobody_reads_stops_no_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone:
        def write(self, text: str) -> int:
            raise BrokenPipeError

    monkeypatch.setattr("sys.stderr", Gone())
    with_edge(tmp_path, lambda edge, plane: _is(ask(edge, b"GET", "/nothing")[0], 404))


def test_every_status_is_an_error() -> None:
    assert all(400 <= status < 600 for status in STATUS.values())
    assert STATUS[ModelyardError] == 500


def test_each_route_takes_a_right_and_the_caller_goes_with_the_request(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, host="0.0.0.0")
    made = {role: new(role, roles=(role,), models=models) for role, models in (("viewer", ()), ("invoker", ("m",)), ("auditor", ()))}
    for _, record in made.values():
        FileKeys(settings.access_keys).put(record)

    def test(edge: Edge, plane: DataPlane) -> None:
        plane.switch({})

        def status(role: str | None, method: bytes, path: str) -> int:
            exchange = Exchange(method, path)
            exchange.head.authorization = b"" if role is None else b"Bearer " + made[role][0].encode()
            edge.handle(exchange)  # type: ignore[arg-type]
            assert exchange.said is not None
            return exchange.said[0]

        for method, path in ((b"GET", "/"), (b"GET", "/ping"), (b"GET", "/v2/health/ready"), (b"GET", "/healthz/live")):
            assert status(None, method, path) == 200, "public"
        wanted = {
            (b"GET", "/v2/models"): (200, 200, 403),
            (b"GET", "/metrics"): (200, 403, 403),
            (b"GET", "/openapi.json"): (200, 200, 403),
            (b"POST", "/v2/models/m/infer"): (403, 404, 403),
            (b"POST", "/v2/models/other/infer"): (403, 403, 403),
            (b"GET", "/v2/models/other"): (404, 403, 403),
            (b"POST", "/invocations"): (403, 404, 403),
            (b"GET", "/nothing"): (404, 404, 403),
            (b"DELETE", "/v2/models"): (405, 405, 403),
        }
        for (method, path), statuses in wanted.items():
            assert status(None, method, path) == 401, path
            assert tuple(status(role, method, path) for role in made) == statuses, path

    with_edge(tmp_path, test, access=Access(settings))


def test_a_change_is_answered_when_it_is_done_and_only_to_who_may(tmp_path: Path) -> None:
    asked: list[Change] = []

    class Changing:
        """Fails for the name `bad`."""

        async def change(self, change: Change, principal: Principal) -> None:
            asked.append(change)
            if change.name == "bad":
                raise Conflict("no")
            if change.name == "worse":
                raise ValueError("canary4711")

    async def run() -> None:
        metrics = Metrics(tmp_path, 0)
        plane = DataPlane(Settings(), slot=0, meter=metrics.meter)
        edge = Edge(plane, Settings(), meter=metrics.server, metrics=lambda: b"")
        told: list[str] = []
        with pytest.raises(Forbidden, match="modelyard deploy"):
            edge.change(Change("load", "m"), ANYONE_HERE, lambda: None, lambda error: None)
        edge.repository = Changing()  # type: ignore[assignment]
        with pytest.raises(Forbidden):
            edge.change(Change("load", "m"), ANYONE, lambda: None, lambda error: None)
        assert not asked
        for name in ("m", "bad", "worse"):
            edge.change(Change("load", name), ANYONE_HERE, lambda: told.append("done"), lambda error: told.append(error.code))
            assert len(told) == len(asked), "the event loop goes on meanwhile"
            await asyncio.sleep(0.01)
        assert told == ["done", "conflict", "internal"] and [change.name for change in asked] == ["m", "bad", "worse"]
        plane.close()

    asyncio.run(run())


def test_a_right_is_asked_again_when_the_keys_change(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, host="0.0.0.0")
    key, record = new("ci", roles=("viewer",))
    FileKeys(settings.access_keys).put(record)
    access = Access(settings)

    def test(edge: Edge, plane: DataPlane) -> None:
        plane.switch({})
        exchange = Exchange(b"GET", "/v2/models")
        exchange.head.authorization = b"Bearer " + key.encode()
        for expected in (200, 200):
            exchange.said = None
            edge.handle(exchange)  # type: ignore[arg-type]
            assert exchange.said is not None and exchange.said[0] == expected
        FileKeys(settings.access_keys).remove(record.id)
        access.take(access.read())
        exchange.said = None
        exchange.connection = SimpleNamespace()  # type: ignore[attr-defined]
        edge.handle(exchange)  # type: ignore[arg-type]
        assert exchange.said is not None and exchange.said[0] == 401  # type: ignore[unreachable]

    with_edge(tmp_path, test, access=access)


@pytest.mark.parametrize(("cap", "asked", "has"), [("low", HIGH, LOW), ("normal", HIGH, NORMAL), ("normal", LOW, LOW), ("high", HIGH, HIGH)])
def test_a_request_has_no_higher_class_than_its_key(tmp_path: Path, cap: Any, asked: int, has: int) -> None:
    settings = Settings(home=tmp_path, host="0.0.0.0")
    key, record = new("ci", roles=("viewer",), priority=cap)
    FileKeys(settings.access_keys).put(record)

    def test(edge: Edge, plane: DataPlane) -> None:
        plane.switch({})
        exchange = Exchange(b"GET", "/v2/models")
        exchange.head.authorization = b"Bearer " + key.encode()
        exchange.priority = exchange.head.priority = asked  # as the server makes an exchange, before anybody is known
        edge.handle(exchange)  # type: ignore[arg-type]
        assert exchange.priority == exchange.head.priority == has

    with_edge(tmp_path, test, access=Access(settings))


def test_a_large_body_is_for_who_may_ask_and_not_where_anybody_may(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, host="0.0.0.0")
    key, record = new("ci", roles=("invoker",), models=("mine",))
    FileKeys(settings.access_keys).put(record)

    def test(edge: Edge, plane: DataPlane) -> None:
        def send(path: str, authorization: bytes) -> bool:
            head = Exchange(b"POST", path).head
            head.authorization = authorization
            return edge.admit_large(head)

        good = b"Bearer " + key.encode()
        assert send("/v2/models/mine/infer", good)
        assert not send("/ping", b"")
        for path, authorization, error in (
            ("/v2/models/mine/infer", b"", Unauthenticated),
            ("/v2/models/other/infer", good, Forbidden),
            ("/v2/repository/models/mine/load", good, Forbidden),
            ("/no/such/route", b"", Unauthenticated),
        ):
            with pytest.raises(error):
                send(path, authorization)

    with_edge(tmp_path, test, access=Access(settings))
