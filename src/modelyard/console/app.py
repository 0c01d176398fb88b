"""The control API's server: each operation becomes a route, which reads a request, calls one verb, and writes its answer.

Hides FastAPI, and how a request becomes a `Call`: strictly, by the types that the operation names. It decides nothing: the guard in front has
checked who may call what. A change that carries an idempotency key is one effect (`control.once`).
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import parse_qsl

import msgspec
from anyio import CapacityLimiter, to_thread
from fastapi import FastAPI, Request, Response
from starlette.concurrency import run_in_threadpool
from starlette.responses import StreamingResponse
from starlette.routing import Route

from modelyard.console.errors import STATUS, body, headers
from modelyard.console.guard import Denials, Guard
from modelyard.console.operations import BYTES, Call, Download, Operation, World
from modelyard.console.routes import OPERATIONS
from modelyard.console.uploads import Uploads
from modelyard.control.plane import ControlPlane
from modelyard.control.status import Status
from modelyard.errors import Conflict, Denied, InvalidInput, MalformedPayload, ModelyardError, UnsupportedMedia
from modelyard.security import policy
from modelyard.security.base import Identity
from modelyard.targets.base import Deployment
from modelyard.types import Principal

T = TypeVar("T", bound=msgspec.Struct)

CHUNK_BYTES = 256 << 10
PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"
LONG = 4
"""How many operations that open bundles run at once; others wait, and hold up nothing but one another."""

_ETAG = re.compile(r'"([0-9]{1,15})"')

log = logging.getLogger("modelyard.control")


def build(
    plane: ControlPlane,
    *,
    identity: Identity,
    hosts: Iterable[str],
    status: Callable[[], Status],
    changed: Callable[[], None],
    failing: Callable[[], Mapping[str, str]] = dict,
    operations: tuple[Operation, ...] = OPERATIONS,
) -> Guard:
    """The guarded application. `status` gives the world; `changed` is called after each change, so that the driver looks at once; `failing`
    is what the control process cannot do now, and why.

    Raises InvalidConfig when a route has no policy or a policy no route.
    """
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    world = World(plane, status, changed, failing)
    denials = Denials(plane.audit)
    long = CapacityLimiter(LONG)
    uploads = Uploads(plane.settings.uploads)
    app.router.routes += [Answered(each, _endpoint(each, world, uploads, denials, long)) for each in operations]
    policy.require_complete(served(app))
    return Guard(
        routes=app.routes,
        identity=identity,
        denials=denials,
        hosts=hosts,
        limits={(each.method, each.route): None if each.kind == "upload" else each.body_limit_bytes for each in operations},
    )


class Answered(Route):
    """The route of one operation, which answers its method alone: Starlette's own would answer HEAD where it answers GET."""

    def __init__(self, operation: Operation, endpoint: Callable[[Request], Awaitable[Response]]) -> None:
        super().__init__(operation.route, endpoint, methods=[operation.method])
        self.methods = {operation.method}


def served(app: FastAPI) -> set[tuple[str, str]]:
    """Every (method, route) that `app` answers, however it was added."""
    return {(method, getattr(route, "path", "?")) for route in app.routes for method in (getattr(route, "methods", None) or {"?"})}


def _endpoint(
    operation: Operation, world: World, uploads: Uploads, denials: Denials, long: CapacityLimiter
) -> Callable[[Request], Awaitable[Response]]:
    async def carry_out(call: Call, request: Request, digest: str) -> Response:
        return await to_thread.run_sync(_carry_out, operation, call, request, digest, limiter=long if operation.is_long else None)

    async def answer(request: Request) -> Response:
        call = None
        try:
            if operation.kind == "upload":
                async with uploads.receive(request) as (path, digest):
                    call = _parse(operation, world, request, b"", upload=path)
                    return await carry_out(call, request, digest)
            content = await request.body()
            call = _parse(operation, world, request, content)
            return await carry_out(call, request, hashlib.sha256(content).hexdigest())
        except ModelyardError as error:
            if isinstance(error, Denied) and call is None:  # what a verb denies it audits itself
                await run_in_threadpool(denials.add, request.scope["principal"], f"{operation.method} {operation.route}", error)
            return await run_in_threadpool(_refusal, operation, world, call, error)
        except Exception as error:
            log.error("%s failed", operation.name, exc_info=error)
            return _refusal(operation, world, None, ModelyardError("a failure of the control process's own; its log tells more"))

    return answer


def _parse(operation: Operation, world: World, request: Request, content: bytes, *, upload: Path | None = None) -> Call:
    """The request as a Call, of models that the caller is granted. Raises InvalidInput or Forbidden."""
    who: Principal = request.scope["principal"]
    call = Call(
        world=world,
        who=who,
        path={name: str(value) for name, value in request.path_params.items()},
        query=_query(request.url.query, operation.query),
        body=_body(operation, content, request.headers.get("content-type", "")),
        if_match=_generation(request.headers.get("if-match")) if operation.has_generation else None,
        upload=upload,
    )
    for name in operation.models(call):
        policy.require_model(who, name)
    return call


def _query(text: str, kind: type[msgspec.Struct] | None) -> Any:
    pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=32) if text.count("&") < 32 else [("", ""), ("", "")]
    given = dict(pairs)
    if len(given) != len(pairs):
        raise InvalidInput("a parameter is given twice, or there are too many", field="query", rule="unique")
    if kind is None:
        if given:
            raise InvalidInput(f"this route takes no parameter {next(iter(given))[:40]!r}", field="query", rule="known")
        return None
    try:
        return msgspec.convert(given, kind, strict=False)
    except msgspec.ValidationError as error:
        raise InvalidInput(f"the parameters do not fit: {error}", field="query", rule="form") from error


def _body(operation: Operation, content: bytes, media: str) -> Any:
    if operation.kind == "bytes":
        if media.partition(";")[0].strip().lower() != BYTES:
            raise UnsupportedMedia(f"the body is bytes: content-type is {BYTES}", field="content-type")
        return content
    if operation.body is None:
        if content and operation.kind == "json" and content.strip() not in (b"", b"{}"):
            raise MalformedPayload("this route takes no body")
        return None
    if content and media and media.partition(";")[0].strip().lower() != "application/json":
        raise UnsupportedMedia("the body is JSON: content-type is application/json", field="content-type")
    try:
        return msgspec.json.decode(content or b"{}", type=operation.body)
    except msgspec.ValidationError as error:
        raise MalformedPayload(f"the request does not fit: {error}") from error
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedPayload("the request's body is not JSON") from error


def _generation(etag: str | None) -> int | None:
    if etag is None:
        return None
    match = _ETAG.fullmatch(etag.strip())
    if match is None:
        raise InvalidInput('If-Match is the generation in quotes, such as "3"', field="If-Match", rule="form")
    return int(match[1])


def _carry_out(operation: Operation, call: Call, request: Request, digest: str) -> Response:
    """In a thread: run the verb, once per idempotency key, and write its answer."""
    key = request.headers.get("idempotency-key")
    if key is None or not operation.is_change:
        answer = operation.run(call)
    else:
        asked = f"{operation.method} {request.url.path}?{request.url.query} {request.headers.get('if-match', '')} {digest}"
        recall = operation.recall
        answer = call.plane.once.perform(
            call.who,
            key,
            hashlib.sha256(asked.encode()).hexdigest(),
            lambda: operation.run(call),
            recall=None if recall is None else lambda effect: recall(call, effect),
            answer=operation.answer,
            is_secret=operation.is_secret,
        )
    if isinstance(answer, Download):
        return _download(answer)
    if operation.kind == "metrics":
        return Response(answer, media_type=PROMETHEUS)
    if operation.sift is not None:
        answer = operation.sift(answer, lambda name: policy.sees(call.who, name))
    told = {"ETag": f'"{answer.in_force}"'} if isinstance(answer, Deployment) else {}
    if operation.is_secret:
        told["Cache-Control"] = "no-store"
    return Response(msgspec.json.encode(answer), status_code=operation.status(answer), headers=told, media_type="application/json")


def _download(answer: Download) -> Response:
    file = answer.path.open("rb")
    answer.path.unlink()
    size = file.seek(0, 2)
    file.seek(0)

    def parts() -> Iterator[bytes]:
        with file:
            while part := file.read(CHUNK_BYTES):
                yield part

    told = {"Content-Length": str(size), "Content-Disposition": f'attachment; filename="{answer.called}"'}
    return StreamingResponse(parts(), headers=told, media_type="application/x-tar")


def _refusal(operation: Operation, world: World, call: Call | None, error: ModelyardError) -> Response:
    current = None
    if isinstance(error, Conflict) and call is not None and operation.current is not None:
        try:
            current = operation.current(call)
        except ModelyardError as other:  # what was refused is told all the same
            log.info("the current state is not known: %s", other.message)
    told = body(error, current=current, home=world.plane.settings.home)
    return Response(told, status_code=STATUS[type(error)], headers=headers(error), media_type="application/json")
