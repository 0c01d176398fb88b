from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from modelyard.errors import MalformedPayload, NotFound
from modelyard.serve import card
from modelyard.serve.card import Endpoint, Served

ENDPOINT = Endpoint(
    sequence=3,
    models=(Served(name="m", version=2, title="A model", example={"instances": [["it's"]]}), Served(name="n", version=1, title="Tagged")),
)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        card.read(tmp_path)
    card.write(tmp_path, ENDPOINT)
    assert card.read(tmp_path) == ENDPOINT
    (tmp_path / card.NAME).write_text("{")
    with pytest.raises(MalformedPayload):
        card.read(tmp_path)


def test_the_curl_line_survives_a_shell() -> None:
    words = shlex.split(card.curl("http://h:1", ENDPOINT.models[0]))
    assert words[:3] == ["curl", "-s", "http://h:1/v1/models/m:predict"]
    assert json.loads(words[-1]) == {"instances": [["it's"]]}
    assert "Authorization: Bearer $MODELYARD_KEY" in card.curl("http://h:1", ENDPOINT.models[0], needs_key=True)


def test_without_a_public_example_the_line_asks_for_the_metadata() -> None:
    assert card.curl("http://h:1", ENDPOINT.models[1]) == "curl -s http://h:1/v2/models/n"


def test_both_forms_say_the_same() -> None:
    data = card.as_data("http://h:1", ENDPOINT, workers=2)
    text = card.as_text("http://h:1", ENDPOINT, workers=2)
    assert data["event"] == "ready"
    for said in (data["url"], data["openapi"], data["metrics"], *(each["curl"] for each in data["models"]), *data["protocols"]):
        assert said in text
