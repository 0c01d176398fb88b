"""The document: valid, made from the operations, and telling of every route."""

from __future__ import annotations

import json

import msgspec
import pytest
from api import Api
from openapi_spec_validator import validate

from modelyard import config
from modelyard.console import openapi
from modelyard.console.openapi import describe
from modelyard.console.routes import OPERATIONS, world
from modelyard.control.plane import ControlPlane
from modelyard.security import policy


def test_the_document_is_valid_and_tells_of_every_route() -> None:
    document = json.loads(msgspec.json.encode(describe(OPERATIONS)))
    validate(document)
    told = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    assert told == set(policy.ROUTES)
    names = [operation["operationId"] for methods in document["paths"].values() for operation in methods.values()]
    assert len(names) == len(set(names))


def test_the_validator_would_find_a_hole() -> None:
    document = json.loads(msgspec.json.encode(describe(OPERATIONS)))
    del document["paths"]["/api/v1/deployments/{name}"]["get"]["parameters"]
    with pytest.raises(Exception, match="name"):
        validate(document)


def test_a_list_of_fixed_length_is_told_as_generators_of_clients_read_it() -> None:
    document = describe(OPERATIONS)
    assert '"items": false' not in json.dumps(document), "openapi-python-client cannot read it"
    window = document["components"]["schemas"]["Verdict"]["properties"]["window"]["anyOf"]
    assert {"type": "array", "minItems": 2, "maxItems": 2, "items": {"type": "number"}} in window, window


def test_every_role_may_read_it_and_nobody_without_a_key() -> None:
    api = Api(ControlPlane(config.load()))
    for role in policy.ROLES:
        assert api.told("GET", "/openapi.json", key=api.key(role))["openapi"] == "3.1.0"
    assert api.ask("GET", "/openapi.json", key=None).status_code == 401


def test_it_is_made_once_and_not_for_each_who_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    """5,000 of them, asked for by who may do nothing else, kept everybody out for two minutes."""
    world._written.cache_clear()
    made: list[object] = []
    monkeypatch.setattr(openapi, "describe", lambda every: made.append(every) or describe(every))
    api = Api(ControlPlane(config.load()))
    first, second = (api.ask("GET", "/openapi.json", key=api.key("viewer")).content for _ in range(2))
    assert first == second and len(made) == 1
    world._written.cache_clear()
