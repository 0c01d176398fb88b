from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
from certificates import Authority

from modelyard.config import Settings
from modelyard.errors import MalformedPayload, NotFound
from modelyard.serve import card
from modelyard.serve.card import Endpoint, Reach, Served

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
    words = shlex.split(card.curl(Reach("http://h:1"), ENDPOINT.models[0]))
    assert words[:3] == ["curl", "-s", "http://h:1/v1/models/m:predict"]
    assert json.loads(words[-1]) == {"instances": [["it's"]]}


def test_without_a_public_example_the_line_asks_for_the_metadata() -> None:
    assert card.curl(Reach("http://h:1"), ENDPOINT.models[1]) == "curl -s http://h:1/v2/models/n"


def test_both_forms_say_the_same() -> None:
    data = card.as_data("http://h:1", ENDPOINT, workers=2, asked=Reach("http://h:1"))
    text = card.as_text("http://h:1", ENDPOINT, workers=2, asked=Reach("http://h:1"))
    assert data["event"] == "ready"
    for said in (data["url"], data["openapi"], data["metrics"], *(each["curl"] for each in data["models"]), *data["protocols"]):
        assert said in text


def test_the_line_brings_what_the_server_wants(tmp_path: Path) -> None:
    assert card.reach("http://127.0.0.1:1", Settings()) == Reach("http://127.0.0.1:1")
    assert "Authorization: Bearer $MODELYARD_KEY" in card.reach("http://h:1", Settings(host="0.0.0.0")).flags
    certificate, key = Authority(tmp_path).server("here", names=("localhost", "127.0.0.1"))
    settings = Settings(tls_cert_file=str(certificate), tls_key_file=str(key))
    assert card.reach("https://127.0.0.1:1", settings) == Reach("https://127.0.0.1:1", f" --cacert {certificate}")
    certificate, key = Authority(tmp_path).server("there", names=("*.churn.example", "churn.example"))
    asked = card.reach("https://127.0.0.1:1", Settings(tls_cert_file=str(certificate), tls_key_file=str(key), tls_client_ca_file="ca"))
    assert asked.url == "https://churn.example:1" and "--connect-to ::127.0.0.1:1" in asked.flags and '--cert "$CLIENT_CERTIFICATE"' in asked.flags
    assert shlex.split(card.curl(asked, ENDPOINT.models[1]))[-1] == "https://churn.example:1/v2/models/n"
