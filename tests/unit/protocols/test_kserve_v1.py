from __future__ import annotations

import json
from typing import Any

import pytest

from modelyard.errors import MalformedPayload
from modelyard.protocols.kserve_v1 import KServeV1
from serving import LINE

CODEC = KServeV1("line", LINE)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "instances"),
        ({"instances": None}, "instances"),
        ({"inputs": [[1, 2, 3]]}, "instances"),
        ({"instances": [[1, 2, 3]], "signature_name": "serving_default"}, "instances"),
        ({"instances": [[1, 2, 3]], "parameters": {"x": 1}}, "parameters"),
        ({"instances": {"a": 1}}, "body"),
    ],
)
def test_forms_of_other_wires_are_refused_by_name(body: Any, field: str) -> None:
    with pytest.raises(MalformedPayload) as caught:
        CODEC.decode(json.dumps(body).encode(), "application/json")
    assert caught.value.field == field


def test_binary_tensors_have_a_route_of_their_own() -> None:
    with pytest.raises(MalformedPayload, match="V2"):
        CODEC.decode(b"{}", "", 2)
