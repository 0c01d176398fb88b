"""The categories gate: a closed column without its list lets unknown values in, and the operator is told."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from modelyard.gates.base import Candidate
from modelyard.gates.categories import Categories
from modelyard.types import Digest, Placement
from serving import SHOP


@pytest.mark.parametrize(
    ("changes", "outcome"),
    [({}, "pass"), ({"categories": None, "unknown_allowed": True}, "pass"), ({"categories": None, "tag": "hash"}, "warn")],
)
def test_a_closed_column_without_its_values_warns(changes: dict[str, Any], outcome: str) -> None:
    city, size = SHOP.inputs
    schema = msgspec.structs.replace(SHOP, inputs=(msgspec.structs.replace(city, **changes), size))
    bundle: Any = SimpleNamespace(strict_schema=schema)
    verdict = Categories().judge(Candidate(bundle=bundle, placement=Placement(blobs="", index=Digest("")), keys=Path()))
    assert (verdict.outcome, verdict.rule) == (outcome, "categories")
    assert ("city" in verdict.evidence) == (outcome == "warn")
