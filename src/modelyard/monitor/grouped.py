"""Outputs counted by bin and by group of callers, where callers keep to a version: what is then drawn are callers, not rows.

Hides the layout of `events.Callers.outputs`, and when a version has too many bins. Each row is counted as a Binner counts it; it must not keep one.

Law, held by `tests/unit/monitor/test_grouped.py`: summed over groups the counts are those of a Binner.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from modelyard.events import OUTPUT_GROUPS
from modelyard.monitor import profile

if TYPE_CHECKING:
    from modelyard.monitor.profile import Profile
    from modelyard.types import Array

MOST_CELLS = 512
"""Of more bins than this, all outputs together, groups are not counted: they leave once a second, and lie in each record of evidence."""


class Grouped:
    """Counts of one version's outputs since the last `take`. One thread owns it."""

    def __init__(self, bins: Profile) -> None:
        """`bins` are those of outputs."""
        sizes = [span.stop - span.start for span in profile.spans(bins)]
        features = bins.features if sum(sizes) <= MOST_CELLS else ()
        self._features = [(feature, np.zeros((OUTPUT_GROUPS, size), dtype=np.int64)) for feature, size in zip(features, sizes, strict=False)]

    @property
    def is_counting(self) -> bool:
        """Whether there is anything that it counts."""
        return bool(self._features)

    def add(self, outputs: Mapping[str, Array], groups: Array) -> None:
        """Count rows, each of whose caller is of one of GROUPS."""
        kept = groups % OUTPUT_GROUPS
        for feature, counts in self._features:
            values = outputs[feature.source].reshape(len(kept), -1)[:, feature.element]
            cells = kept * counts.shape[1] + profile.places(feature, values)
            np.add(counts, np.bincount(cells, minlength=counts.size).reshape(counts.shape), out=counts)

    def take(self) -> dict[str, tuple[int, ...]]:
        """By output, as `events.Callers` has it; begins anew."""
        found = {feature.name: tuple(counts.ravel().tolist()) for feature, counts in self._features if counts.any()}
        for _, counts in self._features:
            counts[:] = 0
        return found
