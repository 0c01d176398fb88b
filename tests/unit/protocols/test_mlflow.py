from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from modelyard.errors import MalformedPayload, ModelFailed, SchemaMismatch, UnsupportedMedia
from modelyard.protocols.mlflow import MLflow
from serving import LINE

CODEC = MLflow("line", LINE)


@pytest.mark.parametrize("body", [{}, {"instances": [[1, 2, 3]], "dataframe_records": []}, {"x": 1}, {"instances": [[1, 2, 3]], "params": {"p": 1}}])
def test_exactly_one_form_and_no_parameters(body: Any) -> None:
    with pytest.raises(MalformedPayload):
        CODEC.decode(json.dumps(body).encode(), "")


def test_a_split_frame_goes_by_its_columns_and_without_them_by_order() -> None:
    for split in ({"columns": ["c", "a", "b"], "data": [[3, 1, 2]], "index": [7]}, {"data": [[1, 2, 3]]}):
        assert CODEC.decode(json.dumps({"dataframe_split": split}).encode(), "").inputs["b"].tolist() == [[2]]


def test_errors_of_the_caller_and_of_the_model() -> None:
    assert json.loads(CODEC.refuse(SchemaMismatch("m", field="a", rule="r"))[1])["error_code"] == "BAD_REQUEST"
    assert json.loads(CODEC.refuse(ModelFailed("m"))[1])["error_code"] == "MODEL_FAILED"


def test_a_media_type_that_is_not_read_is_told_in_plain_text() -> None:
    with pytest.raises(UnsupportedMedia, match="text/csv") as caught:
        CODEC.decode(b"{}", "text/xml")
    assert CODEC.refuse(caught.value) == (b"content-type: text/plain; charset=utf-8\r\n", caught.value.message.encode())


def test_a_bare_nan_is_missing_as_mlflows_own_client_writes_it() -> None:
    for body in (b'{"dataframe_split": {"columns": ["a", "b", "c"], "data": [[1.0, 2, NaN]]}}', b"[[1.0, 2, NaN]]"):
        assert np.isnan(CODEC.decode(body, "").inputs["c"]).all()
