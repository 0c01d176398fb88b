"""Which class runs which kind of model."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
from converting import converted
from sklearn.linear_model import LinearRegression

from modelyard import runtime
from modelyard.errors import UnsupportedFormat


class Bundle:
    """What `open` needs of a bundle: members by role, and the schema."""

    def __init__(self, members: dict[str, bytes], schema: Any) -> None:
        self._members = members
        self.schema = schema

    def read(self, role: str) -> bytes:
        return self._members[role]


def test_a_bundle_opens_to_a_runtime_that_answers(numbers: np.ndarray, target: np.ndarray) -> None:
    found = converted(LinearRegression().fit(numbers, target), numbers)
    members = {"model": found.conversion.model, "runtime": msgspec.json.encode(found.conversion.binding)}
    opened = runtime.open(Bundle(members, found.schema))  # type: ignore[arg-type]
    np.testing.assert_array_equal(opened.predict({"X": numbers})["prediction"], found.runtime.predict({"X": numbers})["prediction"])
    opened.close()


@pytest.mark.parametrize("member", [b'{"kind":"torch"}', b"{}", b"not json", b'{"kind":"onnx"}'])
def test_other_kinds_are_refused_with_those_that_run(member: bytes) -> None:
    with pytest.raises(UnsupportedFormat, match="runs models of kind onnx"):
        runtime.open(Bundle({"runtime": member, "model": b""}, None))  # type: ignore[arg-type]


def test_every_kind_in_the_table_exists() -> None:
    for target in runtime.KINDS.values():
        module, _, name = target.partition(":")
        assert hasattr(__import__(module, fromlist=[name]), name)
