"""The Python clients: how arrays travel, what a refusal becomes, and a real data plane at the other end."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import msgspec
import numpy as np
import pytest
from certificates import Authority
from world import free_ports

from modelyard import errors
from modelyard.client import Client, ControlClient, _array, _tensor, refusal, trusting
from modelyard.errors import (
    DeadlineExceeded,
    InvalidConfig,
    InvalidInput,
    ModelyardError,
    NotFound,
    Overloaded,
    PayloadTooLarge,
    SchemaMismatch,
    Unavailable,
)
from modelyard.retries import RESERVE, SHARE
from modelyard.types import TensorSpec
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


def test_nobody_there_is_unavailable() -> None:
    (port,) = free_ports(1)
    with Client(f"http://127.0.0.1:{port}") as client, pytest.raises(Unavailable, match="nothing answers at"):
        client.inputs("line")
    with ControlClient(f"http://127.0.0.1:{port}", "my_x") as control, pytest.raises(Unavailable):
        control.call("GET", "/status", answer=dict)


def test_an_answer_that_is_no_json_is_unavailable(running: Running) -> None:
    with ControlClient(running.url, "my_x") as control, pytest.raises(ModelyardError):
        control.call("GET", "/../../metrics", answer=dict)


class Flaky:
    """A server that gives the answers that it is told to, one after the other."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []

    def request(self, method: str, path: str, **_: Any) -> httpx.Response:
        self.asked.append(method)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        status, headers = answer
        return httpx.Response(status, headers=headers, json={"error": "why"} if status >= 400 else {"inputs": []})


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    waits: list[float] = []
    monkeypatch.setattr("modelyard.client.sleep", waits.append)
    return waits


def against(client: Client | ControlClient, *answers: Any) -> Flaky:
    client._http._client = flaky = Flaky(*answers)  # type: ignore[assignment]
    return flaky


GONE, BUSY, FINE = httpx.ConnectError("gone"), (429, {"retry-after": "2"}), (200, {})


def test_what_changes_nothing_is_asked_again_not_before_the_time_that_was_named(slept: list[float]) -> None:
    client = Client("http://h")
    flaky = against(client, GONE, BUSY, FINE)
    assert client.inputs("m") == ()
    assert flaky.asked == ["GET"] * 3
    assert len(slept) == 2 and slept[0] < 0.2 and 2.0 <= slept[1] < 2.5


def test_it_gives_up_after_some_tries_and_when_the_time_would_not_do(slept: list[float]) -> None:
    client = Client("http://h")
    flaky = against(client, GONE, GONE, GONE, FINE)
    with pytest.raises(Unavailable):
        client.inputs("m")
    assert len(flaky.asked) == 3
    client = Client("http://h", timeout_s=1.0)
    flaky = against(client, BUSY, FINE)
    with pytest.raises(Overloaded):
        client.inputs("m")
    assert (len(flaky.asked), len(slept)) == (1, 2)


@pytest.mark.parametrize("answer", [(504, {}), (507, {}), (400, {}), (500, {}), httpx.ReadTimeout("slow")])
def test_what_would_end_the_same_way_is_not_asked_again(answer: Any, slept: list[float]) -> None:
    client = Client("http://h")
    flaky = against(client, answer, FINE)
    with pytest.raises(ModelyardError):
        client.inputs("m")
    assert (len(flaky.asked), slept) == (1, [])


def test_what_changes_the_world_is_asked_once_and_a_prediction_is_not_that(slept: list[float]) -> None:
    control = ControlClient("http://h", "my_x")
    flaky = against(control, GONE, FINE)
    with pytest.raises(Unavailable):
        control.call("POST", "/deployments/m", {}, answer=dict)
    assert (flaky.asked, slept) == (["POST"], [])
    client = Client("http://h")
    flaky = against(client, GONE, FINE)
    assert client._http.ask("POST", "/v2/models/m/infer", {}, is_idempotent=True) == {"inputs": []}
    assert flaky.asked == ["POST"] * 2


def test_against_a_server_that_fails_the_budget_ends_the_tries(slept: list[float]) -> None:
    client = Client("http://h")
    flaky = against(client, *[GONE] * 1000)
    for _ in range(100):
        with pytest.raises(Unavailable):
            client.inputs("m")
    assert len(flaky.asked) <= 100 + RESERVE + SHARE * 100


def test_questions_about_a_model_do_not_pay_for_tries_of_its_predictions(slept: list[float]) -> None:
    client = Client("http://h")
    flaky = against(client, *[FINE, GONE] * 1000)
    predictions = 0
    for _ in range(200):
        flaky.asked.clear()
        with suppress(Unavailable):
            client.inputs("m")
        flaky.asked.clear()
        with suppress(Unavailable):
            client._http.ask("POST", "/v2/models/m/infer", {}, is_idempotent=True)
        predictions += len(flaky.asked)
    assert predictions <= 200 + RESERVE + SHARE * 200


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, InvalidInput),
        (404, NotFound),
        (413, PayloadTooLarge),
        (429, Overloaded),
        (503, Unavailable),
        (504, DeadlineExceeded),
        (500, ModelyardError),
    ],
)
def test_a_plain_refusal_is_told_by_its_status(status: int, kind: type[ModelyardError]) -> None:
    assert type(refusal(status, {"error": "why"})) is kind and refusal(status, {"error": "why"}).message == "why"
    assert type(refusal(status, None)) is kind


def test_a_code_of_another_release_is_still_an_error() -> None:
    assert type(refusal(400, {"error": {"code": "from_the_future", "message": "m"}})) is errors.ModelyardError


@pytest.mark.parametrize(
    ("spec", "array", "data"),
    [
        (TensorSpec(name="x", datatype="FP64", shape=(-1, 1)), np.array([[1.5], [np.nan]]), [1.5, None]),
        (TensorSpec(name="x", datatype="BYTES", shape=(-1, 1)), np.array([["a"], [None]], object), ["a", None]),
        (TensorSpec(name="x", datatype="BOOL", shape=(-1, 1)), np.array([[1.0], [np.nan]]), [True, None]),
        (TensorSpec(name="x", datatype="INT64", shape=(-1, 2)), np.array([[1, 2], [3, 4]]), [1, 2, 3, 4]),
    ],
)
def test_a_tensor_is_written_flat_with_null_for_missing(spec: TensorSpec, array: Any, data: list[Any]) -> None:
    written = msgspec.json.decode(msgspec.json.encode(_tensor(spec, array)))
    assert written["data"] == data and written["shape"] == list(array.shape)


def test_an_answer_is_read_in_its_type() -> None:
    assert np.isnan(_array({"datatype": "FP32", "shape": [2], "data": [None, 1.0]})[0])
    assert _array({"datatype": "BYTES", "shape": [2], "data": ["a", "b"]}).dtype == object
    assert _array({"datatype": "BOOL", "shape": [1, 1], "data": [True]}).shape == (1, 1)


def test_a_folder_is_no_server(tmp_path: Path) -> None:
    with Client(f"http://{tmp_path.name}.invalid") as client, pytest.raises(Unavailable):
        client.inputs("line")


def test_which_servers_are_believed(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    certificate, key = authority.client("me")
    assert trusting(None) is None
    assert trusting(authority.path).check_hostname  # type: ignore[union-attr]
    pinned = trusting(None, pinned=certificate)
    assert pinned is not None and not pinned.check_hostname and pinned.verify_mode == ssl.CERT_REQUIRED
    assert trusting(authority.path, certificate=certificate, key=key) is not None
    text = tmp_path / "text"
    text.write_text("no PEM")
    for bad in (
        {"authority": text},
        {"authority": tmp_path / "nowhere"},
        {"authority": None, "certificate": text},
        {"authority": authority.path, "certificate": certificate},
    ):
        with pytest.raises(InvalidConfig):
            trusting(**bad)
