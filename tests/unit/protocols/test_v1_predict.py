from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from modelyard.errors import InvalidInput, SchemaMismatch, UnsupportedMedia
from modelyard.protocols.v1_predict import V1Predict
from modelyard.types import Digest, InferenceResponse
from serving import GRID, LINE

GRID_CODEC, CODEC = V1Predict("grid", GRID), V1Predict("line", LINE)
OUTPUTS = {"label": np.array([0]), "probability": np.array([[0.75, 0.25]])}


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"instances": [[1, 2, 3, 4]]}, {"predictions": [0]}),
        ({"instances": [{"X": [1, 2, 3, 4]}]}, {"predictions": [0]}),
        ({"signature_name": "serving_default", "instances": [[1, 2, 3, 4]]}, {"predictions": [{"label": 0, "probability": [0.75, 0.25]}]}),
        ({"inputs": [[1, 2, 3, 4]]}, {"outputs": {"label": [0], "probability": [[0.75, 0.25]]}}),
        ({"inputs": {"X": [[1, 2, 3, 4]]}}, {"outputs": {"label": [0], "probability": [[0.75, 0.25]]}}),
    ],
)
def test_the_form_of_the_question_chooses_the_form_of_the_answer(body: Any, said: Any) -> None:
    request = GRID_CODEC.decode(json.dumps(body).encode(), "application/json")
    response = InferenceResponse(OUTPUTS, 1, name="grid", version=1, digest=Digest("sha256:0"), id="i")
    assert json.loads(GRID_CODEC.encode(request, response)[1]) == said


def test_tokens_and_base64_are_read_in_kserves_form_too_and_answered_in_it() -> None:
    request = CODEC.decode(b'{"instances": [[1.0, 2, NaN]]}', "")
    assert np.isnan(request.inputs["c"]).all()
    response = InferenceResponse({"prediction": np.array([np.nan])}, 1, name="line", version=1, digest=Digest("sha256:0"), id="i")
    assert CODEC.encode(request, response)[1] == b'{"predictions":[null]}'


def test_refusals_are_those_of_the_form_that_was_meant() -> None:
    with pytest.raises(InvalidInput, match="instances"):
        CODEC.decode(b"{}", "")
    with pytest.raises(SchemaMismatch) as caught:
        CODEC.decode(b'{"inputs": {"a": [1]}}', "")
    assert caught.value.field == "b"
    with pytest.raises(UnsupportedMedia):
        CODEC.decode(b'{"inputs": {"a": [1]}}', "text/xml")
