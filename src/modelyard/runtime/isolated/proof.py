"""The proof of a model that is code: two fresh processes give the same answers to every row, and to golden rows at any batch size.

Hides how the two are asked. What it catches: answers that hang on a random number, on the order of a set, on a row's neighbours, or on what was
asked before. It must not look into the code.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from modelyard.errors import ModelFailed, Unconvertible
from modelyard.runtime.parity import Parity, prove
from modelyard.runtime.replay import BATCHES, answer_in_batches

if TYPE_CHECKING:
    from modelyard.runtime.base import Runtime
    from modelyard.types import Array, Schema, Tolerance

PROOF_ROWS = 8192
SPEED_ROWS = 64

Ask = Callable[[dict[str, "Array"]], "dict[str, Array]"]


def same_answers(first: Ask, second: Runtime, columns: Mapping[str, Array], schema: Schema, tolerance: Tolerance) -> Parity:
    """The parity of two processes over all rows, the second asked in the opposite order. Raises Unconvertible naming output, row and both values."""
    rows = len(next(iter(columns.values())))
    starts = range(0, rows, PROOF_ROWS)
    ours = _joined([first(_cut(columns, at)) for at in starts])
    try:
        theirs = _joined([second.predict(_cut(columns, at)) for at in reversed(starts)][::-1])
        parity = prove(ours, theirs, schema, tolerance)
    except ModelFailed as error:
        raise Unconvertible(
            f"a second process of the same code does not answer as the first: {error.message}", field="model", rule="parity"
        ) from error
    if not parity.passed:
        raise Unconvertible(
            f"two processes of the same code differ: {parity.describe()}. Seed what is random, and keep nothing from one call to the next",
            field="model",
            rule="parity",
        )
    few = {name: array[:SPEED_ROWS] for name, array in columns.items()}
    _, seconds = answer_in_batches(second, few, 1)
    one = statistics.median(seconds) * 1e6
    return msgspec.structs.replace(parity, native_us_per_row=one, converted_us_per_row=one)


def check_batches(runtime: Runtime, golden: Mapping[str, Array], answers: Mapping[str, Array], schema: Schema, tolerance: Tolerance) -> None:
    """Refuse code whose answer to a row hangs on its neighbours: serving batches as requests come. Raises Unconvertible."""
    for size in BATCHES:
        try:
            again, _ = answer_in_batches(runtime, golden, size)
        except ModelFailed as error:
            cause = error.__cause__ or error
            raise Unconvertible(f"the code does not answer golden rows in batches of {size}: {cause}", field="model", rule="batch") from error
        parity = prove(answers, again, schema, tolerance)
        if not parity.passed:
            raise Unconvertible(
                f"in batches of {size} the code answers otherwise: {parity.describe()}. Where a row's answer may not see its neighbours, set "
                "max_batch_rows = 1 on the class",
                field="model",
                rule="batch",
            )


def _cut(columns: Mapping[str, Array], at: int) -> dict[str, Array]:
    return {name: array[at : at + PROOF_ROWS] for name, array in columns.items()}


def _joined(parts: list[dict[str, Any]]) -> dict[str, Array]:
    try:
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    except (KeyError, ValueError) as error:
        raise Unconvertible(
            "the code answers other outputs, or outputs of another shape, from one batch to the next", field="model", rule="outputs"
        ) from error
