"""The verbs against real servers: a data plane, and a whole home."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from api import Api
from world import free_ports

from modelyard import config
from modelyard.client import AsyncClient, Client, Step, Strategy
from modelyard.client.steps import Item, Pause, Reply, Send, Steps
from modelyard.client.verbs import AWAY_S, model_of
from modelyard.control.plane import ControlPlane
from modelyard.errors import Conflict, DeadlineExceeded, InvalidInput, ModelyardError, NotFound, Rejected, SchemaMismatch, Unavailable
from serving import Running, home_with
from serving import running as run_server


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A data plane with one model of each kind of input."""
    with run_server(home_with(tmp_path_factory.mktemp("client"), "line", "shop", "grid", "half")) as running:
        yield running


def test_numbers_text_and_missing_values_travel(running: Running) -> None:
    with Client(running.url) as client:
        assert [(spec.name, spec.datatype) for spec in client.inputs("line")] == [("a", "FP64"), ("b", "INT64"), ("c", "FP32")]
        inputs = {"a": np.array([[1.0], [2.0]]), "b": np.array([[2], [3]]), "c": np.array([[0.5], [np.nan]], np.float32)}
        assert client.predict("line", inputs)["prediction"].tolist() == [71.0, 32.0]
        cities = {"city": np.array([["paris"], ["berlin"]], object), "size": np.array([[2.0], [3.0]])}
        assert client.predict("shop", cities)["prediction"].tolist() == [4.0, 3.0]
        answers = client.predict("grid", {"X": np.full((3, 4), 5.0, np.float32)}, version=1)
        assert answers["label"].dtype == np.int64 and answers["probability"].shape == (3, 2)


def test_half_floats_travel_as_what_holds_them(running: Running) -> None:
    with Client(running.url) as client:
        assert client.predict("half", {"X": np.array([[1.5, 2.5]], np.float16)})["y"].tolist() == [[3.0, 5.0]]


def test_many_rows_go_in_batches_that_the_server_takes(running: Running) -> None:
    rows = np.arange(5000.0).reshape(-1, 1)
    with Client(running.url) as client:
        inputs = {"a": rows, "b": np.zeros((5000, 1), np.int64), "c": np.zeros((5000, 1), np.float32)}
        parts = list(client.batches("line", inputs))
        assert len(parts) > 1
        assert np.concatenate([part["prediction"] for part in parts]).tolist() == rows[:, 0].tolist()


def test_what_the_server_refuses_is_an_error_of_the_tree(running: Running) -> None:
    with Client(running.url) as client:
        with pytest.raises(NotFound):
            client.inputs("nope")
        with pytest.raises(SchemaMismatch, match="city"):
            client.predict("shop", {"size": np.array([[1.0]])})
        with pytest.raises(InvalidInput):
            client.predict("shop", {"city": np.array([["oslo"]], object), "size": np.array([[1.0]])})


def test_the_awaiting_face_gives_the_same(running: Running) -> None:
    async def asked() -> tuple[Any, Any]:
        async with AsyncClient(running.url) as client:
            inputs = {"a": [1.0], "b": [2], "c": [0.5]}
            parts = [part async for part in client.batches("line", inputs)]
            return (await client.predict("line", inputs))["prediction"].tolist(), parts[0]["prediction"].tolist()

    assert asyncio.run(asked()) == ([71.0], [71.0])


def test_nobody_there_is_unavailable() -> None:
    (port,) = free_ports(1)
    with Client(f"http://127.0.0.1:{port}", timeout_s=1) as client:
        with pytest.raises(Unavailable, match="nothing answers at"):
            client.inputs("line")
        with pytest.raises(Unavailable, match="nothing answers at"):
            client.status()


class Scripted(Client):
    """A client whose requests go to an application in this process, and which notes what it sent and how long it would have waited."""

    def __init__(self, api: Api, **options: Any) -> None:
        super().__init__("http://control", api.admin, **options)
        self.api = api
        self.sent: list[Send] = []
        self.pauses: list[float] = []
        self.before: list[Any] = []  # what happens to the next requests instead, or (a function) before they are sent

    def _do(self, effect: Any) -> Any:
        if isinstance(effect, Pause):
            self.pauses.append(effect.seconds)
            return None
        if not isinstance(effect, Send):
            return None
        self.sent.append(effect)
        turn = self.before.pop(0) if self.before else None
        if isinstance(turn, ModelyardError):
            return turn
        path = effect.url.removeprefix("http://control/api/v1")
        content = effect.upload.read_bytes() if effect.upload else effect.content
        answer = self.api.ask(effect.method, path, key=None, headers=effect.headers, content=content)
        if effect.save_to is not None:
            effect.save_to.write_bytes(answer.content)
        if callable(turn):
            return turn(answer)
        return Reply(answer.status_code, dict(answer.headers), answer.content)


@pytest.fixture
def client() -> Scripted:
    api = Api(ControlPlane(config.load()))
    api.home.add("line")
    api.home.add("line", offset=1.0)
    return Scripted(api)


def settle(api: Api) -> None:
    import msgspec

    found = api.plane.deployments.get("line")
    rollout = found.deployment.rollout
    assert rollout is not None
    now = found.deployment.current
    after = msgspec.structs.replace(
        found.deployment,
        current=rollout.goal,
        generation=rollout.generation,
        rollout=None,
        previous=(*found.deployment.previous, *((now,) if now else ())),
    )
    api.plane.deployments.put(after, expected=found.revision)


def test_a_deployment_from_its_beginning_to_its_end(client: Scripted) -> None:
    begun = client.deploy("line:1")
    assert begun.rollout is not None and begun.rollout.goal.version == 1 and begun.version is None
    client.before = [None, lambda answer: (settle(client.api), Reply(answer.status_code, {}, answer.content))[1]]
    seen = list(client.watch("line"))
    assert [each.version for each in seen] == [None, 1] and client.wait("line").version == 1
    assert client.deployments() == (client.deployment("line"),)
    client.deploy("line:2")
    assert client.pause("line", why="lunch").rollout.pause.why == "lunch"  # type: ignore[union-attr]
    assert client.resume("line").rollout.pause is None  # type: ignore[union-attr]
    assert client.abort("line", why="enough").rollout is None
    with pytest.raises(Rejected, match="did not take version 2"):
        client.wait("line")
    assert [event.what for event in client.history("line")][-1] == "abort"
    for change in (client.promote, client.approve, client.rollback):
        with pytest.raises(Conflict):
            change("line")
    assert client.undeploy("line").name == "line"
    with pytest.raises(NotFound):
        list(client.watch("line"))


def test_a_strategy_is_said_by_its_name_or_in_full(client: Scripted) -> None:
    client.deploy("line:1", strategy="direct")
    settle(client.api)
    wanted = Strategy(kind="canary", steps=(Step(weight=10, minimum_s=60.0), Step(weight=100)), guards=("error_rate<1%",))
    planned = client.plan("line:2", strategy=wanted)
    assert [step.weight for step in planned.strategy.steps] == [10, 100] and planned.goal.version == 2
    assert client.deployment("line").rollout is None
    begun = client.deploy("line:2", strategy=wanted)
    assert begun.rollout is not None and begun.rollout.strategy.guards == ("error_rate<1%",)
    with pytest.raises(InvalidInput):
        client.plan("line:2", strategy="big-bang")


def test_who_lost_a_race_is_told_what_there_is(client: Scripted) -> None:
    client.deploy("line:1")
    settle(client.api)
    with pytest.raises(Conflict) as lost:
        client.deploy("line:2", expected_generation=0)
    assert lost.value.current["current"]["version"] == 1  # type: ignore[index]


def test_a_change_whose_answer_was_lost_is_tried_again_and_is_one_effect(client: Scripted) -> None:
    client.before = [lambda _: Unavailable("the connection broke")]
    begun = client.deploy("line:1")
    assert len(client.sent) == 2 and len({send.headers["idempotency-key"] for send in client.sent}) == 1
    assert begun.rollout is not None
    assert [event["what"] for event in client.api.told("GET", "/deployments/line/history")].count("deploy") == 1
    client.deploy("line:1")
    assert client.sent[-1].headers["idempotency-key"] != client.sent[0].headers["idempotency-key"]
    settle(client.api)
    mine = client.deploy("line:2", key="mine")
    settle(client.api)
    assert client.deploy("line:2", key="mine") == mine


def test_a_watch_goes_on_while_the_control_process_is_away_but_not_for_ever(client: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    client.deploy("line:1")
    client.before = [*[Unavailable("away")] * 9, lambda answer: (settle(client.api), Reply(answer.status_code, {}, answer.content))[1]]
    assert [each.version for each in client.watch("line")] == [None, 1]
    client.deploy("line:2")
    with pytest.raises(DeadlineExceeded):
        list(client.watch("line", timeout_s=0.0))
    now = iter(range(0, 10**6, int(AWAY_S)))
    monkeypatch.setattr("modelyard.client.verbs.monotonic", lambda: float(next(now)))
    client.before = [Unavailable("away")] * 99
    with pytest.raises(Unavailable, match="away"):
        list(client.watch("line"))


def test_the_registry(client: Scripted, tmp_path: Path) -> None:
    assert [model.versions for model in client.models()] == [(1, 2)]
    client.alias("line", "champion", 2)
    assert client.versions("line")[1].aliases == ("champion",)
    assert client.inspect("line@champion")["version"] == 2 and client.verify("line:1").is_fit
    client.alias("line", "champion", None)
    target = client.export("line:1", tmp_path / "line.tar")
    with pytest.raises(Conflict):
        client.export("line:1", target)
    client.delete("line", 1)
    assert client.import_(target).version == 3 and client.import_(target, name="other").name == "other"
    assert client.gc() >= 0
    for bad in ("line", "line:0", "line:x", "line@", ""):
        with pytest.raises(InvalidInput):
            client.inspect(bad)


def test_trust_keys_settings_and_the_log(client: Scripted) -> None:
    from modelyard.security.seal import local_signer

    other = local_signer(client.api.plane.settings.home / "elsewhere")
    known = client.trust(other.public_pem.decode())
    assert known in {signer.key_id for signer in client.trusted()}
    client.distrust(known[:16])
    made = client.create_key("eve", roles=["auditor"])
    known = client.keys()
    assert made.key is not None and made.id in [each.id for each in known]
    assert client.config()["port"]["value"] == 8080 and client.status().home == "h"
    with pytest.raises(ModelyardError):
        client.audit()
    auditor = Scripted(client.api)
    auditor._key = made.key
    assert auditor.audit(limit=1)[0]["entry"]["sequence"] == 1 and auditor.audit(since="2999-01-01T00:00:00Z") == ()
    assert auditor.audit_verify()["is_whole"] is True
    assert client.revoke_key(made.id).name == "eve"
    assert client.call("GET", "/models", answer=list[dict[str, Any]])[0]["name"] == "line"


def test_where_predictions_are_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the control process's word, anew when nobody answers there; the URL of a data plane alone will do."""
    client = Client("http://ml.example:8090", "my_key")
    line = {"inputs": [{"name": "a", "datatype": "FP64", "shape": [-1, 1]}]}

    def play(*told: Any) -> list[str]:
        replies, asked = list(told), []

        def run(steps: Steps[Any]) -> None:
            reply: Any = None
            while True:
                effect = steps.send(reply)
                reply = None
                if isinstance(effect, Send):
                    asked.append(effect.url)
                    reply = replies.pop(0)

        with pytest.raises((StopIteration, ModelyardError)):
            run(client._inputs("m", None))
        return asked

    def json_of(value: Any, status: int = 200) -> Reply:
        return Reply(status, {}, json.dumps(value).encode())

    found = json_of({"url": "http://127.0.0.1:8080", "grpc": None})
    assert play(found, json_of(line)) == ["http://ml.example:8090/api/v1/data-plane", "http://ml.example:8080/v2/models/m"]
    assert play(*[Unavailable("gone")] * 3)[-1] == "http://ml.example:8080/v2/models/m"
    assert play(found, json_of(line))[0] == "http://ml.example:8090/api/v1/data-plane"
    client = Client("http://127.0.0.1:8080")
    assert play(json_of({"error": "no such route"}, 404), json_of(line))[1] == "http://127.0.0.1:8080/v2/models/m"
    client = Client("https://ml.example", "my_key")
    assert play(json_of({"url": "https://0.0.0.0:8080", "grpc": None}), json_of(line))[1] == "https://ml.example:8080/v2/models/m"
    for scheme in ("https", "HTTPS"):
        client = Client(f"{scheme}://ml.example", "my_key")
        asked = play(found, json_of(line))
        assert asked == [f"{scheme}://ml.example/api/v1/data-plane"], "the key is not sent in the clear to where it was not given for"
    client = Client("https://ml.example", "my_key", data_url="http://ml.example:8080")
    assert play(json_of(line)) == ["http://ml.example:8080/v2/models/m"]
    client = Client(data_url="http://d/", key="k")
    assert play(json_of(line)) == ["http://d/v2/models/m"]
    monkeypatch.setenv("MODELYARD_KEY", "my_own")
    assert Client("http://h")._control().key == "my_own" and Client("http://h", "my_other")._control().key == "my_other"
    with pytest.raises(InvalidInput, match="control API"):
        client.status()
    with pytest.raises(InvalidInput):
        Client("http://h", home=config.load())
    with pytest.raises(Unavailable, match="modelyard up"):
        Client().status()


@pytest.mark.parametrize(("reference", "name"), [("churn", "churn"), ("churn:3", "churn"), ("churn@champion", "churn"), ("churn@sha256:0a", "churn")])
def test_a_reference_names_its_model(reference: str, name: str) -> None:
    assert model_of(reference) == name and Item(name).value == name


def test_labels_go_in_parts_that_a_body_holds(client: Scripted) -> None:
    client.deploy("line:1")
    settle(client.api)
    given: dict[str, Any] = {f"prediction-{number:060}": number / 2 for number in range(15_000)}
    told = client.give_labels("line", given)
    assert (told.new, told.same, told.changed) == (15_000, 0, 0)
    assert len([each for each in client.sent if each.url.endswith("/labels")]) > 1
    assert client.give_labels("line", {**given, "prediction-x": "yes"}).same == 15_000
    found = client.labels("line")
    assert (found.labels, found.matched, found.unknown, found.received.same) == (15_001, 0, 15_001, 15_000)
    twice = client.give_labels("line", [("prediction-z", 1, 1.0), ("prediction-z", 2, None), ("prediction-z", 2, None)])
    assert (twice.new, twice.changed, twice.same) == (1, 1, 1), "what one call says more than once of an id is all kept account of"
    dated = client.give_labels("line", {"prediction-x": "no", "prediction-y": 1}, known_at={"prediction-x": 1.0, "prediction-y": 9e12})
    assert (dated.outdated, dated.future, dated.new) == (1, 1, 0)
    assert client.labels("line").named["future"] == ("prediction-y",)
    with pytest.raises(NotFound):
        client.give_labels("other", {"a": 1})
    with pytest.raises(InvalidInput):
        client.give_labels("line", {"": 1})
