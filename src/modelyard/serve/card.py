"""The endpoint card: what was started, where, and a curl line that works as printed.

Hides the card's file (`run/endpoint.json`, written by a worker, shown by the supervisor, which holds no model code) and its text. The
example in it is the public one of the model card, never a row of data.
"""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import msgspec

from modelyard.errors import MalformedPayload
from modelyard.files import read_limited, write_atomically

LIMIT_BYTES = 16 << 20
NAME = "endpoint.json"
PROTOCOLS = ("Open Inference Protocol V2", "KServe V1", "MLflow and SageMaker /invocations")


class Served(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One deployment on the card. `example` is a whole KServe V1 request, None where the public example is not complete."""

    name: str
    version: int
    title: str
    example: dict[str, Any] | None = None


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker says for the card: the plan's sequence number and what it serves."""

    sequence: int
    models: tuple[Served, ...]


def write(run: Path, endpoint: Endpoint) -> None:
    """Replace the card's file."""
    write_atomically(run / NAME, msgspec.json.encode(endpoint))


def read(run: Path) -> Endpoint:
    """What the workers last said. Raises NotFound or MalformedPayload."""
    try:
        return msgspec.json.decode(read_limited(run / NAME, LIMIT_BYTES), type=Endpoint)
    except msgspec.MsgspecError as error:
        raise MalformedPayload(f"{NAME} is not of this release") from error


def curl(url: str, served: Served, *, needs_key: bool = False) -> str:
    """A curl line for one model, to be pasted as it stands."""
    if served.example is None:
        return f"curl -s {url}/v2/models/{served.name}"
    key = ' -H "Authorization: Bearer $MODELYARD_KEY"' if needs_key else ""
    body = shlex.quote(json.dumps(served.example, ensure_ascii=False))
    return f"curl -s {url}/v1/models/{served.name}:predict -H 'Content-Type: application/json'{key} -d {body}"


def as_data(url: str, endpoint: Endpoint, *, workers: int, needs_key: bool = False) -> dict[str, Any]:
    """The card as JSON data."""
    models = [
        {"name": each.name, "version": each.version, "title": each.title, "curl": curl(url, each, needs_key=needs_key)} for each in endpoint.models
    ]
    links = {"openapi": f"{url}/openapi.json", "metrics": f"{url}/metrics", "health": f"{url}/v2/health/ready"}
    return {"event": "ready", "url": url, "workers": workers, "protocols": list(PROTOCOLS), "models": models, **links}


def as_text(url: str, endpoint: Endpoint, *, workers: int, needs_key: bool = False) -> str:
    """The card for a terminal."""
    lines = [f"modelyard serves at {url} ({workers} worker{'s' if workers != 1 else ''})", f"  protocols  {' · '.join(PROTOCOLS)}"]
    lines += [f"  more       {url}/openapi.json · {url}/metrics · {url}/v2/health/ready"]
    for each in endpoint.models:
        lines += ["", f"  {each.name} version {each.version}: {each.title}", "", f"    {curl(url, each, needs_key=needs_key)}"]
    return "\n".join([*lines, ""])
