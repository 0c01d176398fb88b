"""How the control API tells a failure."""

from __future__ import annotations

import json

from modelyard.client import refusal
from modelyard.console.errors import STATUS, body
from modelyard.errors import Conflict, InvalidInput, ModelyardError, Rejected
from modelyard.types import Verdict


def test_no_failure_is_a_success() -> None:
    assert all(400 <= status < 600 for status in STATUS.values()) and STATUS[ModelyardError] == 500


def test_a_client_gets_the_same_error_back() -> None:
    for kind in STATUS:
        if kind is Rejected:
            continue
        told = refusal(STATUS[kind], json.loads(body(kind("what happened"))))
        assert type(told) is kind and told.message == "what happened"


def test_field_rule_and_verdicts_travel() -> None:
    told = refusal(400, json.loads(body(InvalidInput("no", field="name", rule="length"))))
    assert (told.field, told.rule) == ("name", "length")
    verdict = Verdict(outcome="fail", rule="seal", evidence="why", numbers={"n": 1.0})
    rejected = refusal(422, json.loads(body(Rejected("no", verdicts=[verdict]))))
    assert isinstance(rejected, Rejected) and rejected.verdicts == (verdict,)


def test_nothing_but_the_catalogue_is_told() -> None:
    error = Conflict("in use")
    error.__cause__ = OSError("/secret/path")
    assert "/secret/path" not in body(error).decode()
