from __future__ import annotations

import json
from typing import Any

import pytest

from modelyard.errors import InvalidInput, ModelFailed, ModelyardError, Overloaded, SchemaMismatch
from modelyard.protocols.azureml import AzureML, AzureQuery
from serving import GRID, LINE, SHOP

CODEC = AzureML("line", LINE)


@pytest.mark.parametrize(
    "body",
    [
        {"data": [[1, 2, 3]]},
        {"data": [{"a": 1, "b": 2, "c": 3}]},
        {"input_data": [[1, 2, 3]]},
        {"input_data": [{"c": 3, "b": 2, "a": 1}], "params": {}},
        {"input_data": {"columns": ["c", "a", "b"], "index": [0], "data": [[3, 1, 2]]}},
    ],
)
def test_both_envelopes(body: Any) -> None:
    request = CODEC.decode(json.dumps(body).encode(), "application/json")
    assert [request.inputs[name].tolist() for name in "abc"] == [[[1.0]], [[2]], [[3.0]]]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"data": [[1, 2, 3]], "input_data": [[1, 2, 3]]},
        {"data": []},
        {"data": 1},
        {"data": [[1, 2, 3]], "params": {"p": 1}},
        {"input_data": {"columns": ["a", "a"], "data": [[1, 2]]}},
        {"input_data": {"data": []}},
    ],
)
def test_what_does_not_fit(body: Any) -> None:
    with pytest.raises(InvalidInput) as caught:
        CODEC.decode(json.dumps(body).encode(), "application/json")
    assert caught.value.field
    assert caught.value.rule


def test_a_query_is_a_row() -> None:
    request = AzureQuery("line", LINE).decode(b"a=1.5&b=2&c=", "")
    assert (request.inputs["a"].tolist(), request.inputs["b"].tolist()) == ([[1.5]], [[2]])
    assert AzureQuery("shop", SHOP).decode(b"city=p%C3%A4+ris&size=1", "").inputs["city"].tolist() == [["pä ris"]]
    assert AzureQuery("grid", GRID).decode(b"X=1,2,3,4", "").inputs["X"].tolist() == [[1, 2, 3, 4]]


@pytest.mark.parametrize("query", [b"", b"a=1&b=2", b"a=1&b=2&c=3&d=4", b"a=1&a=1&b=2&c=3", b"a=x&b=2&c=3", b"a=%FF&b=2&c=3", b"&" * 20_000])
def test_a_query_that_does_not_fit(query: bytes) -> None:
    with pytest.raises(InvalidInput) as caught:
        AzureQuery("line", LINE).decode(query, "")
    assert caught.value.rule


def test_a_failed_run_is_told_in_a_header() -> None:
    for error, is_told in ((ModelFailed("m"), True), (ModelyardError("m"), True), (SchemaMismatch("m", field="a"), False), (Overloaded("m"), False)):
        lines, body = CODEC.refuse(error)
        assert (b"x-ms-run-function-failed: True" in lines) == is_told
        assert json.loads(body)["message"] == "m"
