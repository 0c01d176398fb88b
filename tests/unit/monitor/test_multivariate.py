"""Inputs that no longer go together are told although each keeps its distribution; what goes together as before is not."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import numpy as np
import pytest
from drifting import evidence

from modelyard.monitor import multivariate, profile
from modelyard.monitor.base import Logged, Reference
from modelyard.monitor.estimate import Learnt
from modelyard.monitor.multivariate import Multivariate, Together
from modelyard.types import Digest, Schema, TensorSpec, Verdict

SCHEMA = Schema(
    inputs=(
        *(TensorSpec(name=name, datatype="FP64", shape=(-1, 1), is_nullable=True) for name in ("a", "b", "c")),
        TensorSpec(name="t", datatype="BYTES", shape=(-1, 1), categories=("low", "high")),
        TensorSpec(name="hidden", datatype="BYTES", shape=(-1, 1), tag="mask"),
    ),
    outputs=(),
    layout="frame",
    task="other",
)


def draw(rows: int, *, correlation: float = 0.9, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    a = rng.normal(size=rows)
    b = correlation * a + np.sqrt(1 - correlation**2) * rng.normal(size=rows)
    c = rng.normal(size=rows)
    texts = np.where(a > 0, "high", "low").astype(object)
    return {"a": a[:, None], "b": b[:, None], "c": c[:, None], "t": texts[:, None], "hidden": texts[:, None]}


REFERENCE = draw(4000)
PROFILE = profile.measure(REFERENCE, SCHEMA)
TOGETHER = multivariate.learn(REFERENCE, PROFILE)


def judge(live: Mapping[str, np.ndarray] | None, together: Together | None = TOGETHER) -> Verdict:
    learnt = Learnt(together=together)
    reference = Reference(digest=Digest("sha256:" + "1" * 64), schema=SCHEMA, profile=PROFILE, importance={}, quality={}, learnt=learnt)
    rows = 0 if live is None else len(next(iter(live.values())))
    logged = None if live is None else Logged(times=np.arange(rows, dtype=np.float64), inputs=live, outputs={})
    (found,) = Multivariate().judge(evidence(reference, [], logged=logged), b"").verdicts
    return found


def test_a_correlation_that_breaks_is_told_though_no_feature_moved() -> None:
    live = draw(800, correlation=0.0, seed=1)
    assert all(shift.q > 0.01 for shift in profile.compare(PROFILE, profile.measure(REFERENCE, SCHEMA)))
    told = judge(live)
    assert told.outcome == "warn"
    assert told.numbers["effect"] > 0.05
    assert "fit together worse" in told.evidence
    assert told.window == (0.0, 799.0)


def test_what_goes_together_as_before_is_not_told() -> None:
    ps = [judge(draw(500, seed=seed)) for seed in range(1, 40)]
    assert {told.outcome for told in ps} == {"pass"}
    assert 0.3 < np.mean([told.numbers["p"] for told in ps]) < 0.7  # the test's level is what it says


def test_what_a_bundle_carries_holds_no_row_and_survives_the_way() -> None:
    assert TOGETHER is not None
    assert msgspec.json.decode(msgspec.json.encode(TOGETHER), type=Together) == TOGETHER
    assert len(TOGETHER.errors) <= 1000
    assert "hidden" not in str(multivariate.codes(REFERENCE, PROFILE).shape)
    assert multivariate.codes(REFERENCE, PROFILE).shape == (4000, 5)


def test_missing_and_absent_columns_are_the_mean() -> None:
    live = draw(300, seed=1)
    live["b"][:] = np.nan
    del live["t"]
    live["c"] = np.array([["text"]] * 300, dtype=object)
    coded = multivariate.codes(live, PROFILE)
    assert not coded[:, 1:].any()
    assert judge(live).outcome in ("pass", "warn")


@pytest.mark.parametrize(
    ("live", "together", "said"),
    [
        (None, TOGETHER, "inputs in the log"),
        (draw(20), TOGETHER, "inputs in the log"),
        (draw(500), None, "does not tell"),
        (draw(500), Together(basis=((1.0,),), errors=(1.0, 2.0)), "another profile"),
    ],
)
def test_nothing_to_compare_is_unknown_and_says_why(live: Mapping[str, np.ndarray] | None, together: Together | None, said: str) -> None:
    told = judge(live, together)
    assert told.outcome == "unknown"
    assert said in told.evidence


def test_too_few_rows_or_inputs_teach_nothing() -> None:
    assert multivariate.learn(draw(150), PROFILE) is None
    one = Schema(inputs=SCHEMA.inputs[:1], outputs=(), layout="frame", task="other")
    rows = {"a": REFERENCE["a"]}
    assert multivariate.learn(rows, profile.measure(rows, one)) is None


def test_ties_alone_are_no_difference() -> None:
    assert multivariate.larger(np.ones(5), np.ones(9)) == (0.0, 1.0)
    effect, p = multivariate.larger(np.array([3.0, 4.0, 5.0]), np.array([1.0, 2.0]))
    assert effect == 0.5
    assert 0.05 < p < 0.15
