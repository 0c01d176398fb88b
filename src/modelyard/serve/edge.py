"""The data plane's edge: which codec and which model a request is for, and how answers and refusals look over HTTP.

Hides that a route is resolved once per head, who may ask, and how errors are counted and logged. The paths are in `serve.routes`. It must not
compute, batch or parse HTTP. A request's straight way: `server` → here → `protocols.X.decode` → `DataPlane.infer` → `router` → `batching` →
`runtime.predict` → `protocols.X.encode` → `server`.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine
from functools import cache
from math import ceil
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeVar

from modelyard.config import Settings
from modelyard.errors import Denied, Forbidden, InvalidInput, ModelyardError, NotFound, Overloaded, Unauthenticated, Unavailable
from modelyard.health import Health
from modelyard.protocols.base import JSON_LINES, encode_json, refusal
from modelyard.security.policy import LOAD, PUBLIC, SEE
from modelyard.serve.access import Access, Caller
from modelyard.serve.admission import HIGH
from modelyard.serve.dataplane import DataPlane, Deployment, Version
from modelyard.serve.errors import STATUS
from modelyard.serve.http import Head
from modelyard.serve.log import Level, Log
from modelyard.serve.metrics import Meter
from modelyard.serve.routes import ROUTES
from modelyard.serve.routes.base import Methods, Route, Routes
from modelyard.serve.rpc import Call
from modelyard.serve.server import Exchange

if TYPE_CHECKING:
    from modelyard.serve.explaining import Explaining
    from modelyard.serve.repository import Change, Repository
    from modelyard.serve.tracing import Tracer

T = TypeVar("T")

LOG_LINES_S = 20
DENIED_KINDS = 16
"""How many of those denied are told apart in one second."""

ANONYMOUS = "anonymous"
LONG_BODY = 256 << 10
"""Bytes whose reading may take a noticeable time."""


class Edge:
    """The routes over one DataPlane. Lives in the event loop; `handle` is what the server calls."""

    def __init__(
        self,
        plane: DataPlane,
        settings: Settings,
        *,
        meter: Meter,
        metrics: Callable[[], bytes],
        access: Access | None = None,
        log: Log | None = None,
    ) -> None:
        self.plane = plane
        self.settings = settings
        self.metrics = metrics
        self.repository: Repository | None = None
        """What loads and unloads by request; None but under `serve --dynamic`."""
        self.denied: Counter[tuple[str, str]] = Counter()
        """Denials since the worker last wrote them to the audit log, by who was denied and by which rule."""
        self.is_draining = False
        self.health: Callable[[], Health] = lambda: Health(is_ready=plane.is_ready)
        """How the whole data plane stands, as far as this worker knows."""
        self.on_long: Callable[[], None] = lambda: None
        """Called before work that may take long."""
        self._timeout_s = settings.request_timeout_s
        self._meter = meter
        self._access = access or Access(settings)
        self.log = log or Log(settings.log_format)
        self.tracer: Tracer | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._explaining: Explaining | None = None
        self._log_until_s = 0.0
        self._logged = 0
        self._families: list[Routes] = [family(self) for family in ROUTES]
        self._fixed: dict[str, Methods] = {}
        for family in self._families:
            for path, methods in family.fixed.items():
                self._fixed[path] = {**self._fixed.get(path, {}), **methods}

    def handle(self, exchange: Exchange) -> None:
        """Answer `exchange` now or with a later batch; whatever goes wrong becomes an answer."""
        head = exchange.head
        try:
            if head.admitted != self._access.epoch:
                self._admit(head)
                exchange.priority = head.priority
            head.route.handler(exchange, head.route)
        except ModelyardError as error:
            self.fail(exchange, error)
        except Exception as error:  # noqa: BLE001 - the last line of defence: one request must not end the others
            failure = ModelyardError("the server failed on this request")
            failure.__cause__ = error
            self.fail(exchange, failure)

    def admit_large(self, head: Head) -> bool:
        """Whether a large body may come behind `head`: never where anybody may ask. Raises Denied or UnsupportedMedia."""
        self._admit(head)
        may: bool = head.route.right != PUBLIC
        return may

    def _admit(self, head: Head) -> None:
        """Find the route of `head`, and whether its caller may ask. Raises Denied, or UnsupportedMedia."""
        route = head.route
        if route is None:
            route = head.route = self._route(head)
        access = self._access
        if head.admitted != access.epoch and route.right != PUBLIC:
            caller = access.caller(head.authorization, host=head.host, origin=head.origin)
            head.caller = caller
            caller.require(route.right, route.model)
            head.admitted = access.epoch
            head.priority = max(head.priority, caller.lowest)  # once per head

    def _route(self, head: Head) -> Route:
        path = head.path if len(head.path) == 1 else head.path.rstrip("/")
        methods = self._fixed.get(path) or self._find(path.split("/"))
        if methods is None:
            return Route(self._unknown, SEE)
        route = methods.get(b"GET" if head.method == b"HEAD" else head.method)
        if route is None:
            return Route(self._wrong_method, SEE, allow=", ".join(sorted(method.decode() for method in methods)))
        return route.settled(head.media, head.accept) if route.has_forms else route

    def _find(self, parts: list[str]) -> Methods | None:
        for family in self._families:
            methods = family.find(parts)
            if methods is not None:
                return methods
        return None

    # Predictions.

    def predict(self, exchange: Exchange, route: Route) -> None:
        """Ask the model that the path names."""
        self.ask(exchange, self.plane.find(route.model, route.number), route.wire)

    def predict_single(self, exchange: Exchange, route: Route) -> None:
        """Ask the one model that is served, on a path that names none."""
        self.ask(exchange, self.single(), route.wire)

    def single(self) -> Deployment:
        """The one deployment. Raises NotFound where there is another number of them, Unavailable before the first plan is applied."""
        deployments = self.plane.deployments
        if len(deployments) != 1:
            if not self.plane.is_ready:
                raise Unavailable("the server is not ready yet")
            raise NotFound("this route answers where one model is served; ask for a model by name at /v2/models", field="model", rule="single")
        return next(iter(deployments.values()))

    def ask(self, exchange: Exchange | Call, target: Deployment | Version, wire: str, *, again: Callable[[Any], None] | None = None) -> None:
        """Decode the body by `wire` and let `target` answer, or call `again` in a later turn. Raises Forbidden when the key is for other models."""
        turns, name = self.plane.turns, target.name
        if (turns.is_shared or name != turns.recent) and exchange.priority != HIGH and not turns.take(name, exchange.received_s):
            turns.park(name, again or self.handle, exchange)
            return
        self.plane.infer(self.read(exchange, target, wire), exchange)

    def explain(self, exchange: Exchange, target: Deployment | Version, wire: str) -> None:
        """Decode the body by `wire` and explain what `target` answers. Raises Forbidden when the caller's key is for other models."""
        if self._explaining is None:
            from modelyard.serve.explaining import Explaining  # few are asked to explain, and none before its first answer

            self._explaining = Explaining(on_failed=self.fail, tracer=self.tracer)
        self._explaining.ask(exchange, self.read(exchange, target, wire))

    def read(self, exchange: Exchange | Call, target: Deployment | Version, wire: str) -> Version:
        """Decode the body by `wire` and choose the version that answers. Raises Forbidden when the caller's key is for other models."""
        head = exchange.head
        caller = head.caller
        if caller.models is not None:  # asked at the resource too: not every route names its model
            caller.require_model(target.name)
        field = ""
        if isinstance(target, Deployment):
            # The champion's schema is the deployment's: a candidate accepts whatever it accepts.
            reader, field = target.champion, target.field
            version = target.only or ((reader if field else target.pick(head)) if target.is_sticky else next(target.draws))
        else:
            version = reader = target
        exchange.version = version
        exchange.codec = codec = reader.codecs[wire]
        exchange.deadline_s = exchange.received_s + (head.timeout_s or self._timeout_s)
        if version.batcher.is_busy and not field:
            version.batcher.admit(exchange.priority, exchange.deadline_s)  # before the body is read: a refusal should cost little
        if len(exchange.body) > LONG_BODY:
            self.on_long()
        exchange.request = request = codec.decode(exchange.body, head.media, head.json_bytes)
        request.principal = caller.principal
        exchange.body = b""
        if field and isinstance(target, Deployment):
            version = exchange.version = target.pick_by_field(request)
            if version.batcher.is_busy:
                version.batcher.admit(exchange.priority, exchange.deadline_s)
        if version is not reader and isinstance(target, Deployment):
            request.inputs = target.fit(version, request.inputs)
        exchange.prepared_s = monotonic()
        return version

    # Loading and unloading.

    def index(self, caller: Caller, names: tuple[str, ...]) -> list[dict[str, str]]:
        """What is served, and what of `names` is not, as far as the caller may see it: the repository's index on every wire."""
        deployments = self.plane.deployments
        served = [each for name, deployment in deployments.items() if caller.sees(name) for each in deployment.versions.values()]
        told = [{"name": each.name, "version": str(each.number), "state": "READY", "reason": ""} for each in served]
        absent = [name for name in names if name not in deployments and caller.sees(name)]
        told += [{"name": name, "version": "", "state": "UNAVAILABLE", "reason": "not loaded"} for name in absent]
        return sorted(told, key=lambda each: each["name"])

    def change(self, change: Change, caller: Caller, done: Callable[[], None], failed: Callable[[ModelyardError], None]) -> None:
        """Carry out `change` on every worker, then call `done` or `failed`: for every wire. Raises Forbidden for a caller or server that may not."""
        caller.require(LOAD, change.name)
        repository = self.repository
        if repository is None:
            raise Forbidden(
                "models are loaded and unloaded here under `modelyard serve --dynamic FOLDER` alone; where `modelyard up` runs, "
                "use `modelyard deploy` and `modelyard undeploy`",
                rule="dynamic",
            )
        self.later(repository.change(change, caller.principal), lambda _: done(), failed)

    def later(self, work: Coroutine[Any, Any, T], done: Callable[[T], None], failed: Callable[[ModelyardError], None]) -> None:
        """Do `work` beside the requests, then call `done` with what it gave, or `failed`."""

        async def run() -> None:
            try:
                found = await work
            except ModelyardError as error:
                failed(error)
            except Exception as error:  # noqa: BLE001 - somebody waits for an answer
                failure = ModelyardError("the server failed on this request")
                failure.__cause__ = error
                failed(failure)
            else:
                done(found)

        task = asyncio.get_running_loop().create_task(run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def fail(self, exchange: Exchange, error: ModelyardError) -> None:
        """Answer with `error` in the wire's own form, count it, and log one line."""
        status = STATUS.get(type(error), 500)
        lines, body = exchange.codec.refuse(error) if exchange.codec is not None else refusal(error)
        if isinstance(error, Overloaded):
            lines += b"retry-after: %d\r\n" % max(1, ceil(error.retry_after_s))
        elif isinstance(error, Unavailable) and status == 503:
            lines += b"retry-after: 1\r\n"
        elif isinstance(error, Unauthenticated):
            lines += b"www-authenticate: Bearer\r\n"
        if exchange.version is not None:
            exchange.version.failed(error.code, monotonic() - exchange.received_s, exchange)
        else:
            self._meter.failed(error.code)
        if self.tracer is not None:
            outcome = {"http.response.status_code": status}
            self.tracer.failed(exchange, code=error.code, is_fault=status >= 500, status=outcome, ended_s=monotonic())
        self.log_failure(exchange, error, status)
        if isinstance(error, Unauthenticated) and exchange.head.authorization:
            hold_back_s = self._access.hold_back_s()
            if hold_back_s:
                exchange.connection.server.loop.call_later(hold_back_s, exchange.reply, status, lines, body)
                return
        exchange.reply(status, lines, body)

    def refused(self, status: int, rule: str) -> None:
        """Count a message that was no request."""
        self._meter.failed("malformed_message")
        self._say("warning", "refused", {"status": status, "rule": rule})

    def log_failure(self, exchange: Exchange | Call, error: ModelyardError, status: int) -> None:
        """Log the refusal of a request, and count a denial for the audit log."""
        if isinstance(error, Denied):
            caller = exchange.head.caller
            self.denied[ANONYMOUS if caller is None or len(self.denied) >= DENIED_KINDS else caller.principal.name, error.rule or error.code] += 1
        line: dict[str, Any] = {"status": status, "code": error.code, "field": error.field, "rule": error.rule}
        if exchange.version is not None:
            line |= {"model": exchange.version.name, "version": exchange.version.number}
        if exchange.head.request_id:
            line["request_id"] = exchange.head.request_id.decode("latin-1")
        if exchange.head.traceparent:
            line["traceparent"] = exchange.head.traceparent.decode("latin-1")
        if error.__cause__ is not None and (status >= 500 or not isinstance(error, InvalidInput)):
            # The kind of what was raised, never its text: a library's message may hold the caller's data.
            line["cause"] = type(error.__cause__).__name__
        self._say("error" if status >= 500 else "warning", "error", line)

    def report(self, error: ModelyardError) -> None:
        """Log a failure that belongs to no request."""
        self._say("error", "error", {"code": error.code, "message": error.message})

    def _say(self, level: Level, event: str, line: dict[str, Any]) -> None:
        """One line of the log; at most LOG_LINES_S a second, so that a flood of errors is not a flood of writes."""
        now = monotonic()
        if now > self._log_until_s:
            if self._logged > LOG_LINES_S:
                line["unlogged_before"] = self._logged - LOG_LINES_S
            self._log_until_s, self._logged = now + 1.0, 0
        self._logged += 1
        if self._logged <= LOG_LINES_S:
            self.log.write(level, event, line)

    def close(self) -> None:
        """Stop what runs beside the predictions."""
        if self._explaining is not None:
            self._explaining.close()

    # What the families share.

    @property
    def release(self) -> str:
        """This package's version."""
        return _release()

    @property
    def is_ready(self) -> bool:
        """Whether traffic should come here."""
        return not self.is_draining and self.health().is_ready

    def count(self, code: str) -> None:
        """Count a refusal that is not an error of the tree."""
        self._meter.failed(code)

    def ready(self, exchange: Exchange, route: Route) -> None:  # noqa: ARG002
        """Whether traffic should come here: 200 or 503; and how much is less than whole, by reason."""
        is_ready = self.is_ready
        degraded = {reason: count for reason, count in self.health().counts.items() if count}
        self.json(exchange, {"ready": is_ready} | ({"degraded": degraded} if degraded else {}), 200 if is_ready else 503)

    def json(self, exchange: Exchange, value: Any, status: int = 200) -> None:
        """Answer with `value` as JSON."""
        exchange.reply(status, JSON_LINES, encode_json(value))

    def models(self, exchange: Exchange, route: Route) -> None:  # noqa: ARG002
        """The names of what is served and the caller may see: KServe's list, on both of its versions."""
        self.json(exchange, {"models": sorted(filter(exchange.head.caller.sees, self.plane.deployments))})

    def _unknown(self, exchange: Exchange, route: Route) -> None:  # noqa: ARG002
        raise NotFound("no such route; /openapi.json lists them", field="path", rule="route")

    def _wrong_method(self, exchange: Exchange, route: Route) -> None:
        lines = JSON_LINES + b"allow: %b\r\n" % route.allow.encode()
        self._meter.failed("invalid_input")
        told = {"error": f"this route takes {route.allow}", "code": "invalid_input", "field": "method", "rule": "method"}
        exchange.reply(405, lines, encode_json(told))


@cache
def _release() -> str:
    from importlib.metadata import PackageNotFoundError, version  # 20 ms, and nobody asks before the first answer

    try:
        return version("modelyard")
    except PackageNotFoundError:
        return "unknown"
