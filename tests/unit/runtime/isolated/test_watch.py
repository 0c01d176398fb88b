"""runtime.isolated.watch: growth that does not come back is said, and no other."""

from __future__ import annotations

import pytest

from modelyard.runtime.isolated.watch import GROWTH_BYTES, LOOKS, Watch

MB = 1 << 20


def looked(sizes: list[float]) -> Watch:
    watch = Watch()
    for size in sizes:
        watch.look(int(size * MB))
    return watch


def test_steady_growth_is_said_with_both_sizes() -> None:
    verdict = looked([100 + 5 * second for second in range(40)]).verdict
    assert verdict is not None and verdict.outcome == "warn" and verdict.rule == "isolated-memory"
    assert verdict.numbers["bytes"] - verdict.numbers["base_bytes"] > GROWTH_BYTES


@pytest.mark.parametrize(
    "sizes",
    [
        [100.0] * 60,
        [100 + second % 5 for second in range(60)],
        [100.0] * 12 + [400.0] * 48,
        [100 + 0.5 * second for second in range(60)],
        [100 + 10 * (second % 12) for second in range(60)],
        [100 + 20 * second for second in range(LOOKS + 5)],
        [0.0] * 60,
    ],
    ids=["flat", "noise", "one step", "little", "saw", "too early", "unknown"],
)
def test_other_courses_are_not(sizes: list[float]) -> None:
    assert looked(sizes).verdict is None


def test_a_replaced_process_begins_anew() -> None:
    watch = looked([100 + 5 * second for second in range(40)])
    watch.forget()
    assert watch.verdict is None
