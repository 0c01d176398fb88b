from __future__ import annotations

from typing import Any

import jsonschema
import pytest
from openapi_spec_validator import validate

from modelyard.serve.openapi import describe, is_complete, v1_request, v2_request
from modelyard.types import Schema
from serving import EXAMPLES, GRID, LINE, SHOP

SCHEMAS = {"line": LINE, "shop": SHOP, "grid": GRID}


@pytest.mark.parametrize("names", [(), ("line",), ("line", "shop", "grid")])
def test_the_description_is_valid(names: tuple[str, ...]) -> None:
    document = describe([(name, SCHEMAS[name], EXAMPLES[name]) for name in names], release="1")
    validate(document)
    assert ("/invocations" in document["paths"]) == (len(names) == 1)


@pytest.mark.parametrize(("name", "schema"), SCHEMAS.items())
def test_examples_fit_their_schemas(name: str, schema: Schema) -> None:
    paths = describe([(name, schema, EXAMPLES[name])], release="1")["paths"]
    for path in (f"/v2/models/{name}/infer", f"/v1/models/{name}:predict", "/invocations"):
        body = paths[path]["post"]["requestBody"]["content"]["application/json"]
        jsonschema.validate(body["example"], body["schema"])


@pytest.mark.parametrize("instance", [{"city": "rome", "size": 1.0}, {"city": "paris"}, {"city": "paris", "size": "1"}, ["paris"]])
def test_misfits_do_not_fit(instance: Any) -> None:
    body = describe([("shop", SHOP, {})], release="1")["paths"]["/v1/models/shop:predict"]["post"]["requestBody"]["content"]["application/json"]
    assert "example" not in body
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"instances": [instance]}, body["schema"])


def test_requests_from_the_public_example() -> None:
    assert v1_request(GRID, EXAMPLES["grid"]) == {"instances": [[1.0, 2.0, 3.0, 4.0]]}
    assert v1_request(SHOP, EXAMPLES["shop"]) == {"instances": [{"city": "paris", "size": 0.5}]}
    assert v2_request(GRID, EXAMPLES["grid"])["inputs"][0]["shape"] == [1, 4]
    assert v2_request(SHOP, EXAMPLES["shop"])["inputs"][0] == {"name": "city", "shape": [1, 1], "datatype": "BYTES", "data": ["paris"]}
    assert not is_complete(SHOP, {"size": 1})
