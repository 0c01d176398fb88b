"""The client's two faces are one: the same calls with the same signatures; its answers are the server's; and it has every operation."""

from __future__ import annotations

import ast
import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from modelyard.client import AsyncClient, Client, answers
from modelyard.client.steps import stream, verb
from modelyard.client.verbs import Verbs
from modelyard.console.routes import OPERATIONS

ROOT = Path(__file__).parents[2]
VERBS = {name: each for name, each in vars(Verbs).items() if isinstance(each, verb | stream)}
FACE_ONLY = {"__enter__", "__exit__", "__aenter__", "__aexit__"}


def calls(kind: type) -> set[str]:
    return {name for name in dir(kind) if not name.startswith("_") or name in FACE_ONLY}


def test_both_faces_have_the_same_calls() -> None:
    assert calls(Client) - FACE_ONLY == calls(AsyncClient) - FACE_ONLY >= set(VERBS) | {"call", "close"}


@pytest.mark.parametrize("name", [*VERBS, "call", "close"])
def test_a_call_has_one_signature_on_both(name: str) -> None:
    with Client("http://h") as now:
        later = AsyncClient("http://h")
        assert inspect.signature(getattr(now, name)) == inspect.signature(getattr(later, name))
        assert getattr(now, name).__doc__ == getattr(later, name).__doc__


def test_no_verb_is_written_on_a_face() -> None:
    """A face carries out; whatever it defines beside that is the same on both, and no verb."""
    tree = ast.parse((ROOT / "src/modelyard/client/faces.py").read_text("utf-8"))
    faces = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name in ("Client", "AsyncClient")]
    made = [
        {each.name.strip("_").removeprefix("a") for each in face.body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)} for face in faces
    ]
    assert made[0] == made[1] and not made[0] & set(VERBS)


def test_there_is_a_verb_for_every_operation() -> None:
    """By the paths that the verbs' source names: an operation that no verb asks for is one that Python users do not have."""
    source = (ROOT / "src/modelyard/client/verbs.py").read_text("utf-8")
    parts = {part for each in OPERATIONS for part in each.path.split("/") if part and "{" not in part}
    assert {part for part in parts if part not in source} == {"openapi.json"}


def server_struct(name: str) -> type[msgspec.Struct]:
    places = {
        "Release": "targets.base", "Pause": "targets.base", "Step": "targets.base", "Strategy": "targets.base", "Rollout": "targets.base",
        "Outcome": "targets.base", "Deployment": "targets.base", "Serving": "control.status", "DeploymentStatus": "control.status",
        "Plane": "control.status", "Status": "control.status", "Event": "rollout.history", "Model": "registry", "Version": "registry",
        "Overview": "monitor.overview", "Series": "monitor.overview", "Budget": "monitor.overview", "Chosen": "control.monitoring",
        "Planned": "control.planned", "Account": "monitor.labels", "Received": "monitor.labels", "Observed": "monitor.receive",
        "Alert": "monitor.alerts.base", "Matcher": "monitor.alerts.base", "Silence": "monitor.alerts.base", "RouteStatus": "control.alerting",
        "Alerts": "control.alerting", "Tested": "control.alerting",
        "Verified": "console.routes.models", "Key": "console.routes.access", "Trusted": "security.seal", "DataPlane": "console.routes.world",
    }  # fmt: skip
    called = {"Key": "NewKey", "Trusted": "TrustedKey"}.get(name, name)
    return getattr(importlib.import_module(f"modelyard.{places[name]}"), called)


@pytest.mark.parametrize("name", [name for name, each in vars(answers).items() if isinstance(each, type) and each.__module__ == answers.__name__])
def test_what_an_answer_is_read_as_is_what_the_server_writes(name: str) -> None:
    mine = {field.encode_name: field for field in msgspec.structs.fields(getattr(answers, name))}
    theirs = {field.encode_name: field for field in msgspec.structs.fields(server_struct(name))}
    assert mine.keys() <= theirs.keys()
    # What the server may leave out, the client must not need.
    assert {each for each, field in mine.items() if field.required} <= {each for each, field in theirs.items() if field.required}


def test_the_client_loads_nothing_of_the_server_and_no_numpy() -> None:
    heavy = ("numpy", "fastapi", "sqlalchemy", "onnxruntime", "modelyard.control", "modelyard.serve", "modelyard.registry", "modelyard.targets")
    code = f"import sys, modelyard; modelyard.Client('http://h', 'k'); print([name for name in sys.modules if name.startswith({heavy!r})])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
