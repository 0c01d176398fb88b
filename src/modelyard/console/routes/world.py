"""The running world over HTTP: status, where predictions are asked, settings, and this document."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import msgspec

from modelyard import config
from modelyard.console.failures import seen
from modelyard.console.operations import Call, Operation
from modelyard.control.status import Status
from modelyard.errors import Unavailable


class DataPlane(msgspec.Struct, frozen=True, kw_only=True):
    """Where predictions are asked."""

    url: str
    grpc: str | None


class Setting(msgspec.Struct, frozen=True, kw_only=True):
    """One setting of the control process; a password in a URL is not told."""

    value: Any
    source: str


def _status(call: Call) -> Status:
    return call.world.status()


def _my_status(found: Status, sees: Callable[[str], bool]) -> Status:
    hosts = (
        msgspec.structs.replace(
            host,
            lagging=tuple(filter(sees, host.lagging)),
            trouble={name: said for name, said in host.trouble.items() if sees(name)},
        )
        for host in found.hosts
    )
    deployments = tuple(each for each in found.deployments if sees(each.deployment.name))
    health = found.health
    if health is not None:
        served = {serving.digest for each in deployments for serving in each.serving}
        mine = (trouble for trouble in health.troubles if trouble.model is None or trouble.model in served or sees(trouble.model))
        health = msgspec.structs.replace(health, troubles=tuple(mine))
    return msgspec.structs.replace(found, deployments=deployments, hosts=tuple(hosts), health=health, failing=seen(found.failing, sees))


def _data_plane(call: Call) -> DataPlane:
    serve = call.plane.targets["local"].state().serve
    if serve is None:
        raise Unavailable("no data plane runs here now; start it: modelyard up")
    return DataPlane(url=serve.url, grpc=serve.grpc)


def _config(call: Call) -> dict[str, Setting]:
    return {name: Setting(value=value, source=source) for name, (value, source) in config.shown(call.plane.settings).items()}


def _document(_: Call) -> msgspec.Raw:
    return _written()


@cache
def _written() -> msgspec.Raw:
    """The document, made once: it takes as long as a hundred other answers, and is always the same."""
    from modelyard.console.openapi import describe
    from modelyard.console.routes import OPERATIONS as EVERY

    return msgspec.Raw(msgspec.json.encode(describe(EVERY)))


OPERATIONS = (
    Operation("GET", "/openapi.json", "get_openapi", "This document.", _document, dict[str, Any]),
    Operation("GET", "/status", "get_status", "Deployments, workers, traffic, latency and shift.", _status, Status, sift=_my_status),
    Operation("GET", "/data-plane", "get_data_plane", "Where predictions are asked.", _data_plane, DataPlane),
    Operation("GET", "/config", "get_config", "Each setting, its value and where it came from.", _config, dict[str, Setting]),
)
