"""Loading and unloading by request, with real workers: every worker follows, memory is freed, nothing outside the folder is read, and who may."""

from __future__ import annotations

import io
import json
import os
import subprocess
import tarfile
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from modelyard.bundle import archive
from modelyard.security.audit import AuditLog, FileLines
from modelyard.security.identity import new
from modelyard.security.keys import FileKeys
from serving import Answer, Home, Running, home_with, line_row, running

WORKERS = 2


def put(
    home: Home, folder: Path, name: str, *, kind: str = "line", offset: float = 0.0, wrong_answers: bool = False, as_folder: bool = False
) -> Path:
    """A bundle of `kind` in `folder`, sealed by the home's key, under `name`."""
    home.add(kind, name=kind, offset=offset, wrong_answers=wrong_answers)
    target = folder / (name if as_folder else f"{name}.tar")
    version = home.registry.versions(kind)[-1]
    beside = folder.parent / f"made-{time.monotonic_ns()}{'' if as_folder else '.tar'}"
    archive.export(home.registry.blobs, version.index, beside)
    if target.is_file():
        os.replace(beside, target)
    else:
        beside.rename(target)
    return target


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "models"
    made.mkdir()
    return made


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return home_with(tmp_path / "h")


@pytest.fixture
def server(home: Home, folder: Path) -> Iterator[Running]:
    home.write()
    with running(home, "--dynamic", str(folder), workers=WORKERS) as server:
        yield server


def change(server: Running, name: str, verb: str, body: Any = None, **more: Any) -> Answer:
    return server.ask("POST", f"/v2/repository/models/{name}/{verb}", body, timeout=60, **more)


def states(server: Running) -> list[dict[str, Any]]:
    return [{"models": {}} | json.loads((server.home.run / f"worker-{slot}.json").read_bytes()) for slot in range(WORKERS)]


def value(server: Running, name: str) -> set[float]:
    """What the workers answer; asked often enough that both are."""
    return {server.infer(name, line_row()).json()["outputs"][0]["data"][0] for _ in range(8)}


def test_a_model_is_loaded_replaced_and_unloaded_on_every_worker(server: Running, home: Home, folder: Path) -> None:
    put(home, folder, "first")
    put(home, folder, "second", as_folder=True, offset=5.0)
    (folder / "Not a name").mkdir()
    index = server.ask("POST", "/v2/repository/index").json()
    assert [(each["name"], each["state"]) for each in index] == [("first", "UNAVAILABLE"), ("second", "UNAVAILABLE")]
    assert server.infer("first", line_row()).status == 404
    for name in ("first", "second"):
        answer = change(server, name, "load")
        assert (answer.status, answer.json()) == (200, {"name": name, "load": True})
        assert all(len(state["models"]) == (1 if name == "first" else 2) for state in states(server)), "it answers when every worker has it"
    assert value(server, "first") == {321.0} and value(server, "second") == {326.0}
    index = server.ask("POST", "/v2/repository/index").json()
    assert [(each["name"], each["state"]) for each in index] == [("first", "READY"), ("second", "READY")]
    sequence = states(server)[0]["sequence"]
    assert change(server, "first", "load").status == 200 and states(server)[0]["sequence"] == sequence, "what serves already changes nothing"
    put(home, folder, "first", offset=1000.0)
    assert change(server, "first", "load", {"parameters": {"unload_dependents": True}}).status == 200
    assert value(server, "first") == {1321.0}
    answer = change(server, "first", "unload")
    assert (answer.status, answer.json()) == (200, {"name": "first", "unload": True})
    assert all(len(state["models"]) == 1 for state in states(server)), "it answers when the memory is free"
    assert server.infer("first", line_row()).status == 404 and value(server, "second") == {326.0}
    assert change(server, "first", "unload").status == 404
    entries = [(entry.action, entry.subject, entry.outcome) for entry in AuditLog(FileLines(home.folder / "audit.jsonl")).entries()]
    assert entries[0] == ("model-load", "first", "begun") and ("model-unload", "first", "begun") in entries


def test_sagemakers_multi_model_calls(server: Running, home: Home, folder: Path) -> None:
    (folder / "abc").mkdir()
    put(home, folder / "abc", "model", as_folder=True)
    load = {"model_name": "abc", "url": str(folder / "abc" / "model")}
    assert server.ask("GET", "/models/abc").status == 404
    assert server.ask("POST", "/models", load).status == 200
    assert server.ask("POST", "/models", load).status == 409
    assert [each["modelName"] for each in server.ask("GET", "/models").json()["models"]] == ["abc"]
    assert server.ask("GET", "/models/abc").json() == {"modelName": "abc", "modelUrl": load["url"]}
    assert server.ask("POST", "/models/abc/invoke", {"instances": [{"a": 1, "b": 2, "c": 3}]}).json() == {"predictions": [321.0]}
    assert server.ask("DELETE", "/models/abc").status == 200
    assert server.ask("DELETE", "/models/abc").status == 404
    assert server.ask("POST", "/models/abc/invoke", {"instances": [{"a": 1, "b": 2, "c": 3}]}).status == 404
    for body in (b"{", b"{}", b'{"model_name": 1, "url": "x"}', b'{"model_name": "UP", "url": "/x"}'):
        assert server.ask("POST", "/models", body).status == 400


def test_nothing_outside_the_folder_is_read(server: Running, home: Home, folder: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    bundle = put(home, outside, "secret")
    (folder / "link.tar").symlink_to(bundle)
    (folder / "linked").symlink_to(outside)
    (folder / "within").mkdir()
    (folder / "within" / "inner.tar").symlink_to(bundle)
    for name in ("link", "linked", "within", "..%2Foutside%2Fsecret", "%2e%2e", ".", "a%2Fb", "x" * 300, "%00"):
        assert change(server, name, "load").status in (400, 404), name
    for url in (
        str(bundle),
        f"{folder}/../outside/secret.tar",
        f"{folder}/link.tar",
        f"{folder}/linked/secret.tar",
        "secret.tar",
        "file:///etc/passwd",
        str(folder),
        "/",
    ):
        answer = server.ask("POST", "/models", {"model_name": "stolen", "url": url})
        assert answer.status in (400, 404), url
        assert "outside" not in answer.json()["error"] or "inside the folder" in answer.json()["error"]
    assert all(not state["models"] for state in states(server))
    put(home, folder, "secret")
    assert change(server, "secret", "load").status == 200, "the same bundle inside is served"


def test_what_does_not_verify_or_serve_leaves_all_as_it_was(server: Running, home: Home, folder: Path, tmp_path: Path) -> None:
    put(home, folder, "good")
    assert change(server, "good", "load").status == 200
    put(home, folder, "good", offset=7.0, wrong_answers=True)
    answer = change(server, "good", "load")
    assert (answer.status == 422 and "golden" in answer.json()["error"]) or "row" in answer.json()["error"], answer
    assert value(server, "good") == {321.0}
    put(home, folder, "wrong", kind="grid", wrong_answers=True)
    assert change(server, "wrong", "load").status == 422
    plan = json.loads((home.folder / "plan.json").read_bytes())
    assert [each["name"] for each in plan["plans"]] == ["good"]
    whole = put(home, folder, "changed").read_bytes()
    (folder / "changed.tar").write_bytes(whole[:-4000] + bytes(100) + whole[-3900:])
    (folder / "short.tar").write_bytes(whole[: len(whole) // 2])
    (folder / "text.tar").write_text("no bundle")
    (folder / "empty").mkdir()
    stranger = Home(tmp_path / "stranger")
    put(stranger, folder, "foreign")
    with tarfile.open(folder / "escape.tar", "w") as file:
        entry = tarfile.TarInfo("../escaped")
        entry.size = 1
        file.addfile(entry, io.BytesIO(b"x"))
    for name in ("changed", "short", "text", "empty", "foreign", "escape", "nothing"):
        answer = change(server, name, "load")
        assert answer.status in (404, 422), (name, answer)
        assert str(folder) not in answer.json()["error"], "no path of the server's"
    assert not (folder.parent / "escaped").exists()
    assert value(server, "good") == {321.0} and server.is_well()


def test_overrides_are_refused(server: Running, home: Home, folder: Path) -> None:
    put(home, folder, "m")
    for parameters in ({"config": "{}"}, {"file:1/model.onnx": "AAAA"}, {"other": 1}):
        answer = change(server, "m", "load", {"parameters": parameters})
        assert answer.status == 403 and "override" in answer.json()["error"], answer
    for body in (b"[]", b"{", b'{"parameters": 3}'):
        assert change(server, "m", "load", body).status == 400
    assert all(not state["models"] for state in states(server))


def test_many_at_once_lose_nothing(server: Running, home: Home, folder: Path) -> None:
    names = [f"m{number}" for number in range(6)]
    for number, name in enumerate(names):
        put(home, folder, name, offset=float(number))
    statuses: list[int] = []
    threads = [threading.Thread(target=lambda name=name: statuses.append(change(server, name, "load").status)) for name in names]  # type: ignore[misc]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == [200] * 6
    for number, name in enumerate(names):
        assert value(server, name) == {321.0 + number}


def test_without_the_flag_it_is_refused_and_names_deploy(home: Home) -> None:
    home.write()
    with running(home) as server:
        for answer in (
            change(server, "m", "load"),
            change(server, "m", "unload"),
            server.ask("POST", "/models", {"model_name": "m", "url": "/opt/ml/models/m/model"}),
            server.ask("DELETE", "/models/m"),
        ):
            assert answer.status == 403 and "modelyard deploy" in answer.json()["error"] and "--dynamic" in answer.json()["error"], answer


def test_on_an_open_address_a_key_with_the_role_is_wanted_insecure_or_not(home: Home, folder: Path) -> None:
    put(home, folder, "m")
    home.write()
    made = {role: new(role, roles=(role,), models=models) for role, models in (("operator", ()), ("invoker", ()), ("admin", ("other",)))}
    for _, record in made.values():
        FileKeys(home.folder / "keys" / "access.json").put(record)
    with running(home, "--dynamic", str(folder), "--host", "0.0.0.0", "--insecure", workers=WORKERS) as server:

        def load(role: str | None) -> int:
            return change(server, "m", "load", headers={} if role is None else {"Authorization": f"Bearer {made[role][0]}"}).status

        assert [load(role) for role in (None, "invoker", "admin", "operator")] == [403, 403, 403, 200]
        assert server.infer("m", line_row()).status == 200


def test_want_of_memory_is_507_and_a_short_wait_says_so(home: Home, folder: Path) -> None:
    put(home, folder, "m")
    home.write()
    with running(home, "--dynamic", str(folder), workers=WORKERS, settings={"memory_limit_bytes": 1}) as server:
        assert change(server, "m", "load").status == 507
        assert server.ask("POST", "/models", {"model_name": "m", "url": str(folder / "m.tar")}).status == 507
    with running(home, "--dynamic", str(folder), workers=WORKERS) as server:
        answer = change(server, "m", "load", headers={"X-Request-Timeout": "0.000001"})
        assert answer.status == 504 and "go on" in answer.json()["error"]
        until = time.monotonic() + 20
        while server.infer("m", line_row()).status != 200 and time.monotonic() < until:
            time.sleep(0.05)
        assert server.infer("m", line_row()).status == 200


def test_a_worker_that_is_killed_comes_back_with_what_was_loaded(server: Running, home: Home, folder: Path) -> None:
    put(home, folder, "m")
    assert change(server, "m", "load").status == 200
    (folder / "m.tar").unlink()
    victim = server.workers()[0]
    os.kill(victim, 9)
    until = time.monotonic() + 60
    is_whole = False
    while not is_whole and time.monotonic() < until:
        time.sleep(0.1)
        with suppress(ConnectionError):  # a slot that has had no worker for 2 s is closed, and what waits there is cut off
            is_whole = victim not in server.workers() and server.ask("GET", "/v2/health/ready").json() == {"ready": True}
    assert value(server, "m") == {321.0}


def test_over_grpc_it_is_the_same(home: Home, folder: Path) -> None:
    import grpc

    from modelyard.protocols.messages import kind

    put(home, folder, "m")
    home.write()
    with (
        running(home, "--dynamic", str(folder), "--grpc-port", "0", workers=WORKERS) as server,
        grpc.insecure_channel(server.card["grpc"]) as channel,
    ):

        def ask(method: str, **values: Any) -> Any:
            short = method.removeprefix("Repository")
            call = channel.unary_unary(
                f"/inference.GRPCInferenceService/{method}",
                request_serializer=lambda message: message.SerializeToString(),
                response_deserializer=kind(f"inference.Repository{short}Response").FromString,
            )
            return call(kind(f"inference.Repository{short}Request")(**values), timeout=60)

        assert [(each.name, each.state) for each in ask("RepositoryIndex").models] == [("m", "UNAVAILABLE")]
        assert ask("RepositoryModelLoad", model_name="m").isLoaded
        assert value(server, "m") == {321.0}
        assert [(each.name, each.state) for each in ask("RepositoryIndex", ready=True).models] == [("m", "READY")]
        with pytest.raises(grpc.RpcError) as refused:
            message = kind("inference.RepositoryModelLoadRequest")(model_name="m")
            message.parameters["config"].string_param = "{}"
            channel.unary_unary("/inference.GRPCInferenceService/RepositoryModelLoad")(message.SerializeToString(), timeout=60)
        assert "override" in refused.value.details()
        ask("RepositoryModelUnload", model_name="m")
        assert server.infer("m", line_row()).status == 404
        with pytest.raises(grpc.RpcError) as refused:
            ask("RepositoryModelUnload", model_name="m")
        assert refused.value.code() == grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize("field", ["model_name", "repository_name"], ids=["triton", "kserve"])
def test_models_are_loaded_and_unloaded_by_grpc(home: Home, folder: Path, server: Running, field: str) -> None:
    import grpc

    from modelyard.protocols.messages import kind

    put(home, folder, "mine")
    with grpc.insecure_channel(str(server.grpc)) as channel:

        def ask(method: str, **values: Any) -> Any:
            path = f"/inference.GRPCInferenceService/{method}"
            call = channel.unary_unary(
                path,
                request_serializer=lambda message: message.SerializeToString(),
                response_deserializer=kind(f"inference.{method}Response").FromString,
            )
            return call(kind(f"inference.{method}Request")(**values), timeout=60)

        assert [(each.name, each.state) for each in ask("RepositoryIndex").models] == [("mine", "UNAVAILABLE")]
        loaded = ask("RepositoryModelLoad", **{field: "mine"})
        assert (loaded.model_name, loaded.isLoaded) == ("mine", True)
        assert server.infer("mine", line_row()).status == 200
        assert [(each.name, each.state) for each in ask("RepositoryIndex").models] == [("mine", "READY")]
        with pytest.raises(grpc.RpcError) as caught:
            ask("RepositoryModelLoad", **{field: "mine"}, parameters={"config": {"string_param": "{}"}})
        assert caught.value.code() == grpc.StatusCode.PERMISSION_DENIED
        assert ask("RepositoryModelUnload", **{field: "mine"}).isUnloaded
        assert server.infer("mine", line_row()).status == 404


TRITON = """
import json, sys
import numpy as np
import tritonclient.grpc as overgrpc
import tritonclient.http as overhttp
from tritonclient.utils import InferenceServerException

said = {}
for kind, module, url in (("http", overhttp, sys.argv[1].removeprefix("http://")), ("grpc", overgrpc, sys.argv[2])):
    client = module.InferenceServerClient(url)
    told = said[kind] = {}
    client.load_model("m")
    told["ready"] = client.is_model_ready("m")
    client.unload_model("m")
    told["gone"] = not client.is_model_ready("m")
    for name, more in (("m", {"config": "{}"}), ("m", {"config": "{}", "files": {"file:1/model.onnx": b"x"}}), ("nothing", {})):
        try:
            client.load_model(name, **more)
        except InferenceServerException as error:
            told.setdefault("refused", []).append(error.message())
    client.close()
print(json.dumps(said))
"""


def test_tritonclient_loads_and_unloads(home: Home, folder: Path, clients_python: Path) -> None:
    put(home, folder, "m")
    home.write()
    with running(home, "--dynamic", str(folder), "--grpc-port", "0", workers=WORKERS) as server:
        command = [str(clients_python), "-c", TRITON, server.url, server.card["grpc"]]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    for told in json.loads(done.stdout.strip().splitlines()[-1]).values():
        assert told["ready"] and told["gone"]
        assert "override" in told["refused"][0] and "override" in told["refused"][1] and "no bundle" in told["refused"][2]
