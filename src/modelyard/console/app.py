"""The control API's routes: each reads a request, calls one verb, and writes its answer.

Hides FastAPI. It decides nothing: the guard in front has checked who may call what. A deploy or rollback is answered as soon as it is written down
(202); whoever waits for its end asks for the deployment again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import msgspec
from fastapi import FastAPI, Request, Response
from starlette.concurrency import run_in_threadpool

from modelyard.console.errors import STATUS, body
from modelyard.console.guard import Guard
from modelyard.control.plane import ControlPlane
from modelyard.control.status import Status
from modelyard.errors import MalformedPayload, ModelyardError
from modelyard.security import policy
from modelyard.security.identity import Keyring

PREFIX = "/api/v1"


class DeployRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What to deploy, and whether its schema may refuse requests in use."""

    reference: str
    breaking: bool = False


def build(plane: ControlPlane, *, keyring: Keyring, hosts: Iterable[str], status: Callable[[], Status], changed: Callable[[], None]) -> Guard:
    """The guarded application. `status` gives the world; `changed` is called after each change, so that the driver looks at once.

    Raises InvalidConfig when a route has no policy or a policy no route.
    """
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    _add_routes(app, plane, status, changed)
    app.add_exception_handler(ModelyardError, _answer_error)
    policy.require_complete(served(app))
    return Guard(app, routes=app.routes, keyring=keyring, audit=plane.audit, hosts=hosts)


def served(app: FastAPI) -> set[tuple[str, str]]:
    """Every (method, route) that `app` answers, however it was added."""
    return {(method, getattr(route, "path", "?")) for route in app.routes for method in (getattr(route, "methods", None) or {"?"})}


def _add_routes(app: FastAPI, plane: ControlPlane, status: Callable[[], Status], changed: Callable[[], None]) -> None:
    async def get_status() -> Response:
        return _answer(await run_in_threadpool(status))

    async def get_deployments() -> Response:
        return _answer(await run_in_threadpool(lambda: [each.deployment for each in plane.deployments.all()]))

    async def get_deployment(name: str) -> Response:
        return _answer((await run_in_threadpool(plane.deployments.get, name)).deployment)

    async def deploy(name: str, request: Request) -> Response:
        asked = await _read(request, DeployRequest)
        who = request.scope["principal"]
        deployment = await run_in_threadpool(lambda: plane.deploy(who, asked.reference, name=name, breaking=asked.breaking))
        changed()
        return _answer(deployment, status=202 if deployment.rollout else 200)

    async def rollback(name: str, request: Request) -> Response:
        deployment = await run_in_threadpool(plane.rollback, request.scope["principal"], name)
        changed()
        return _answer(deployment, status=202)

    async def undeploy(name: str, request: Request) -> Response:
        deployment = await run_in_threadpool(plane.undeploy, request.scope["principal"], name)
        changed()
        return _answer(deployment)

    for method, path, handler in (
        ("GET", "/status", get_status),
        ("GET", "/deployments", get_deployments),
        ("GET", "/deployments/{name}", get_deployment),
        ("POST", "/deployments/{name}", deploy),
        ("POST", "/deployments/{name}/rollback", rollback),
        ("DELETE", "/deployments/{name}", undeploy),
    ):
        app.add_api_route(PREFIX + path, handler, methods=[method], response_class=Response, response_model=None)


def _answer(value: Any, *, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status_code=status, media_type="application/json")


async def _answer_error(_: Request, error: Exception) -> Response:
    if not isinstance(error, ModelyardError):
        raise error
    return Response(body(error), status_code=STATUS[type(error)], media_type="application/json")


async def _read(request: Request, kind: type[DeployRequest]) -> DeployRequest:
    try:
        return msgspec.json.decode(await request.body(), type=kind)
    except msgspec.ValidationError as error:
        raise MalformedPayload(f"the request does not fit: {error}") from error
    except msgspec.MsgspecError as error:
        raise MalformedPayload("the request's body is not JSON") from error
