"""The Python clients: how arrays travel, what a refusal becomes, and a real data plane at the other end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from world import free_ports

from modelyard import errors
from modelyard.client import Client, ControlClient, _array, _tensor, refusal
from modelyard.errors import DeadlineExceeded, InvalidInput, ModelyardError, NotFound, Overloaded, PayloadTooLarge, SchemaMismatch, Unavailable
from modelyard.types import TensorSpec
from serving import Running, home_with
from serving import running as run_server


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A data plane with one model of each kind of input."""
    with run_server(home_with(tmp_path_factory.mktemp("client"), "line", "shop", "grid")) as running:
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
