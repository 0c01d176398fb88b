"""The control API as a process: what generators of clients and schemathesis make of it, and of one that fails."""

from __future__ import annotations

import contextlib
import json
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import msgspec
import pytest
from world import World, wait_until

from modelyard import config
from modelyard.client import Client
from modelyard.client.answers import Deployment
from modelyard.client.places import read_admin_key
from modelyard.console.openapi import describe
from modelyard.console.routes import OPERATIONS
from modelyard.errors import Unavailable
from modelyard.types import read_control_state

pytestmark = pytest.mark.system

PYTHON_CLIENT = """
import json, sys
from made.client import AuthenticatedClient
from made.api.deployments import deploy, get_deployment, history, plan
from made.models import DeployRequest

client = AuthenticatedClient(base_url=sys.argv[1], token=sys.argv[2])
wanted = DeployRequest.from_dict({"reference": "line:1"})
said = {"plan": plan.sync("line", client=client, body=wanted).goal.version}
began = deploy.sync("line", client=client, body=wanted, idempotency_key="k", if_match='"0"')
again = deploy.sync("line", client=client, body=wanted, idempotency_key="k", if_match='"0"')
said["once"] = began.to_dict() == again.to_dict()
said["name"] = get_deployment.sync("line", client=client).name
said["history"] = [event.what for event in history.sync("line", client=client)][:1]
lost = deploy.sync("line", client=client, body=wanted, if_match='"7"')
said["lost"] = [lost.error.rule, lost.error.current.to_dict()["name"]]
print(json.dumps(said))
"""

GENERATOR_CLI = """
import json, sys
import openapi_client as made

client = made.ApiClient(made.Configuration(host=sys.argv[1], access_token=sys.argv[2]))
api = made.DeploymentsApi(client)
wanted = made.DeployRequest.from_dict({"reference": "line:1"})
said = {"plan": api.plan("line", wanted).goal.version}
began = api.deploy("line", wanted, idempotency_key="k", if_match='"0"').to_dict()
said["once"] = began == api.deploy("line", wanted, idempotency_key="k", if_match='"0"').to_dict()
said["name"] = api.get_deployment("line").name
said["history"] = [event.what for event in api.history("line")][:1]
try:
    api.deploy("line", wanted, if_match='"7"')
except made.ApiException as error:
    lost = json.loads(error.body)["error"]
    said["lost"] = [lost["rule"], lost["current"]["name"]]
print(json.dumps(said))
"""


def schemathesis(url: str, key: str, folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    tool = str(Path(sys.executable).parent / "schemathesis")
    command = [
        tool, "run", f"{url}/api/v1/openapi.json", "--checks", "not_a_server_error,response_schema_conformance", "--seed", "1",
        "--max-examples", "25", "--header", f"Authorization: Bearer {key}", "--no-color", "--workers", "1", *options,
    ]  # fmt: skip
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder, timeout=280)


def test_a_deploy_that_is_asked_for_through_kills_is_one_effect(tmp_path: Path) -> None:
    """The control process is killed at random moments while a client asks, under one key, until it is answered; two versions in turn."""
    world = World(tmp_path / "home")
    for offset in (0.0, 1.0):
        world.home.add("line", offset=offset)
    world.up()
    answers: dict[str, Deployment] = {}
    settings = config.load({"home": world.folder})

    def ask(key: str, version: int) -> None:
        with Client(home=settings) as client:
            while key not in answers:
                with contextlib.suppress(Unavailable):
                    answers[key] = client.deploy(f"line:{version}", key=key)

    chance = random.Random(1)
    try:
        for turn in range(6):
            key = f"turn-{turn}"
            asking = threading.Thread(target=ask, args=(key, 1 + turn % 2))
            asking.start()
            time.sleep(chance.random() * 0.8)
            world.kill("control")
            wait_until(lambda: "control" in world.pids())
            asking.join(120)
            with Client(home=settings) as client:
                assert client.wait("line").version == 1 + turn % 2
                # Asked for again, much later, it is the same answer and no effect.
                assert client.deploy("line:1", key="turn-0") == answers["turn-0"]
                assert client.deployment("line").version == 1 + turn % 2
        with Client(home=settings) as client:
            assert [event.what for event in client.history("line")].count("deploy") == 6
    finally:
        world.end()


def _generate(python: Path, which: str, folder: Path) -> None:
    tools = python.parent
    commands = {
        "openapi-python-client": ["generate", "--path", "openapi.json", "--meta", "none", "--output-path", "made"],
        "openapi-generator-cli": ["generate", "-i", "openapi.json", "-g", "python", "-o", "."],
    }
    environment = {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}"}
    command = [str(tools / which), *commands[which]]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=280, env=environment)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


@pytest.mark.parametrize(("which", "script"), [("openapi-python-client", PYTHON_CLIENT), ("openapi-generator-cli", GENERATOR_CLI)])
def test_clients_that_others_generate_deploy(which: str, script: str, openapi_python: Path, component: Callable[[str], str], tmp_path: Path) -> None:
    if which == "openapi-generator-cli":
        component("java")
    (tmp_path / "openapi.json").write_bytes(msgspec.json.encode(describe(OPERATIONS)))
    _generate(openapi_python, which, tmp_path)
    world = World(tmp_path / "home")
    world.home.add("line")
    world.up()
    try:
        settings = config.load({"home": world.folder})
        command = [str(openapi_python), "-c", script, read_control_state(settings.run).url, read_admin_key(settings)]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 0, done.stderr[-3000:]
        assert json.loads(done.stdout.splitlines()[-1]) == {
            "plan": 1, "once": True, "name": "line", "history": ["deploy"], "lost": ["generation", "line"],
        }  # fmt: skip
    finally:
        world.end()


def test_schemathesis_finds_no_server_error(tmp_path: Path) -> None:
    world = World(tmp_path / "home")
    world.home.add("line")
    world.home.add("line", offset=1.0)
    world.up()
    try:
        settings = config.load({"home": world.folder})
        done = schemathesis(read_control_state(settings.run).url, read_admin_key(settings), tmp_path)
        assert done.returncode == 0, done.stdout[-8000:]
    finally:
        world.end()


class Broken(BaseHTTPRequestHandler):
    """Fails on everything."""

    def do_GET(self) -> None:
        self.send_response(500)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def test_schemathesis_would_find_one(tmp_path: Path) -> None:
    """The negative control: our document over a server that fails."""
    document = msgspec.json.decode(msgspec.json.encode(describe(OPERATIONS)))
    document["paths"] = {"/api/v1/models": document["paths"]["/api/v1/models"]}
    (tmp_path / "openapi.json").write_bytes(msgspec.json.encode(document))
    broken = HTTPServer(("127.0.0.1", 0), Broken)
    thread = threading.Thread(target=broken.serve_forever)
    thread.start()
    try:
        tool = str(Path(sys.executable).parent / "schemathesis")
        command = [tool, "run", "openapi.json", "--url", f"http://127.0.0.1:{broken.server_port}", "--checks", "not_a_server_error", "--no-color"]
        done = subprocess.run([*command, "--max-examples", "1"], capture_output=True, text=True, check=False, cwd=tmp_path, timeout=120)
    finally:
        broken.shutdown()
        thread.join()
        broken.server_close()
    assert done.returncode == 1 and "Server error" in done.stdout
