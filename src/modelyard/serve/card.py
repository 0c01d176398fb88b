"""The endpoint card: what was started, where, and a curl line that works as printed.

Hides the card's file (`run/endpoint.json`, written by a worker, shown by the supervisor, which holds no model code) and its text. The
example in it is the public one of the model card, never a row of data.
"""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import msgspec

from modelyard.config import Settings
from modelyard.errors import MalformedPayload
from modelyard.files import read_limited, write_atomically
from modelyard.serve.access import wants_key
from modelyard.serve.tls import names

LIMIT_BYTES = 16 << 20
NAME = "endpoint.json"
GRPC_PROTOCOLS = ("Open Inference Protocol V2", "TensorFlow Serving", "health", "reflection")
PROTOCOLS = ("Open Inference Protocol V2", "KServe V1", "TensorFlow Serving", "MLflow and SageMaker /invocations", "Azure ML /score", "Arrow", "CSV")


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


class Reach(NamedTuple):
    """How the data plane is asked: `url`, and what curl needs beside it to be let in."""

    url: str
    flags: str = ""


def reach(url: str, settings: Settings) -> Reach:
    """How curl on this machine asks a data plane at `url` with these settings: with a key, and by a name that its certificate bears."""
    flags = ""
    if settings.tls_cert_file:
        certificate = Path(settings.tls_cert_file)
        flags += f" --cacert {shlex.quote(str(certificate))}"
        place, name = urlsplit(url), names(certificate)
        if name and place.hostname not in name:
            flags += f" --connect-to ::{place.netloc}"
            url = f"https://{name[0]}:{place.port}"
        if settings.tls_client_ca_file:
            flags += ' --cert "$CLIENT_CERTIFICATE" --key "$CLIENT_KEY"'
    if wants_key(settings):
        flags += ' -H "Authorization: Bearer $MODELYARD_KEY"'
    return Reach(url, flags)


def curl(asked: Reach, served: Served) -> str:
    """A curl line for one model, to be pasted as it stands."""
    if served.example is None:
        return f"curl -s{asked.flags} {asked.url}/v2/models/{served.name}"
    body = shlex.quote(json.dumps(served.example, ensure_ascii=False))
    return f"curl -s{asked.flags} {asked.url}/v1/models/{served.name}:predict -H 'Content-Type: application/json' -d {body}"


def as_data(url: str, endpoint: Endpoint, *, workers: int, asked: Reach, grpc: str | None = None) -> dict[str, Any]:
    """The card as JSON data; `grpc` is the address at which gRPC is answered, None where it is not spoken."""
    models = [{"name": each.name, "version": each.version, "title": each.title, "curl": curl(asked, each)} for each in endpoint.models]
    links = {"openapi": f"{url}/openapi.json", "metrics": f"{url}/metrics", "health": f"{url}/v2/health/ready"}
    more = {} if grpc is None else {"grpc": grpc, "grpc_protocols": list(GRPC_PROTOCOLS)}
    return {"event": "ready", "url": url, **more, "workers": workers, "protocols": list(PROTOCOLS), "models": models, **links}


def as_text(url: str, endpoint: Endpoint, *, workers: int, asked: Reach, grpc: str | None = None) -> str:
    """The card for a terminal."""
    lines = [f"modelyard serves at {url} ({workers} worker{'s' if workers != 1 else ''})", f"  protocols  {' · '.join(PROTOCOLS)}"]
    if grpc is not None:
        lines += [f"  gRPC       {grpc}: {' · '.join(GRPC_PROTOCOLS)}"]
    lines += [f"  more       {url}/openapi.json · {url}/metrics · {url}/v2/health/ready"]
    for each in endpoint.models:
        lines += ["", f"  {each.name} version {each.version}: {each.title}", "", f"    {curl(asked, each)}"]
    return "\n".join([*lines, ""])
