"""runtime.isolated.proof: what two processes and other batch sizes catch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import modelyard
from isolated import rows
from modelyard.bundle import Bundle
from modelyard.errors import Unconvertible

HEAD = "import numpy as np\n"


def packaged(tmp_path: Path, source: str, **more: object) -> Bundle:
    (tmp_path / "m.py").write_text(HEAD + source)
    return modelyard.package(
        "m:predict", name="m", data=rows(200), code=[tmp_path / "m.py"], home=tmp_path / "home", progress=lambda *_: None, **more
    )  # type: ignore[arg-type]


def test_code_that_answers_alike_is_proved(tmp_path: Path) -> None:
    parity = packaged(tmp_path, "def predict(inputs): return inputs['X'].sum(axis=1)").attestation["parity"]
    assert parity["passed"] and parity["rows"] == 200 and parity["attempts"][0]["chosen"]


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("def predict(inputs): return np.random.default_rng().random(len(inputs['X']))", "differ"),
        ("def predict(inputs): return np.array([hash('a')] * len(inputs['X']), float)", "differ"),
        ("n = 0\ndef predict(inputs):\n    global n; n += 1\n    return inputs['X'].sum(axis=1) + n", "differ|otherwise"),
        ("def predict(inputs): return inputs['X'][:, 0] - inputs['X'][:, 0].mean()", "batches of 1"),
        ("def predict(inputs):\n    if len(inputs['X']) == 2: raise ValueError('pairs')\n    return inputs['X'][:, 0]", "batches of 2.*pairs"),
    ],
    ids=["random", "hash", "counter", "neighbours", "pairs"],
)
def test_code_that_does_not_is_refused_with_both_values(tmp_path: Path, source: str, says: str) -> None:
    with pytest.raises(Unconvertible, match=says):
        packaged(tmp_path, source)


def test_rows_kept_apart_may_look_at_their_batch(tmp_path: Path) -> None:
    source = "def predict(inputs): return inputs['X'][:, 0] - inputs['X'][:, 0].mean()\npredict.max_batch_rows = 1"
    bundle = packaged(tmp_path, source)
    assert not np.any(bundle.golden.outputs["prediction"])
