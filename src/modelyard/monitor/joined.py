"""The labelled predictions of one version, as detectors read them, kept at hand from turn to turn.

Hides that a turn reads from the ledger only what has found its label since the last one, unless a label was corrected; what it costs does not depend
on how many there are. It must not judge, nor find predictions: `labels.join` does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from modelyard.monitor.base import Labelled
from modelyard.monitor.labels import known_rows

if TYPE_CHECKING:
    from modelyard.monitor.labels import Ledger
    from modelyard.monitor.windows import Windows
    from modelyard.types import Digest, Scalar

ROWS = 100_000
"""The most rows that are kept at hand, the latest."""


class Joined:
    """Of one version of one deployment. One thread owns it; the ledger may be another instance each time."""

    def __init__(self, name: str, digest: Digest, classes: Sequence[Scalar] | None, *, most: int = ROWS) -> None:
        self._name, self._digest, self._classes, self._most = name, digest, classes, most
        self._number = self._changes = 0
        self._kept: Labelled | None = None

    def look(self, ledger: Ledger, windows: Windows, *, since: float) -> Labelled | None:
        """What was answered from `since` on (seconds since 1970) and has a label, in the order of the answers; None where nothing has.

        A truth or an answer that is no class, or no number of a regression, is left out (`labels.account` counts it). Raises what the stores raise.
        """
        changes = ledger.changes(self._name)
        if changes != self._changes:  # the newest label stands: all is read anew
            self._kept, self._number, self._changes = None, 0, changes
        number, found = ledger.newer(self._name, self._digest, after=self._number, most=self._most)
        self._number = number
        if found is not None:
            truth, predicted, known = known_rows(found, self._classes)
            probability = found.probability[known] if len(found.probability) == len(known) else np.zeros((0, 0))
            new = Labelled(found.times[known], truth[known], predicted[known], probability, found.numbers[known])
            self._kept = new if self._kept is None else _merged(self._kept, new)
        if self._kept is None:
            return None
        if len(self._kept.times) > self._most or (len(self._kept.times) and self._kept.times[0] < since):
            chosen = np.flatnonzero(self._kept.times >= since)[-self._most :]
            self._kept = _of(self._kept, chosen)
        if not len(self._kept.times):
            return None
        return self._kept._replace(answered=windows.hours(self._name, self._digest, since=since))


def _merged(kept: Labelled, new: Labelled) -> Labelled:
    """Both, in the order of the answers. Probabilities are known of all rows or of none."""
    numbers = np.concatenate([_numbers(kept), _numbers(new)])
    times = np.concatenate([kept.times, new.times])
    is_known = kept.probability.shape[1:] == new.probability.shape[1:]
    both = Labelled(
        times,
        np.concatenate([kept.truth, new.truth]),
        np.concatenate([kept.predicted, new.predicted]),
        np.concatenate([kept.probability, new.probability]) if is_known else np.zeros((0, 0)),
        numbers,
    )
    return _of(both, np.lexsort((numbers, times)))


def _of(rows: Labelled, chosen: np.ndarray) -> Labelled:
    probability = rows.probability[chosen] if len(rows.probability) == len(rows.times) else rows.probability
    return Labelled(rows.times[chosen], rows.truth[chosen], rows.predicted[chosen], probability, _numbers(rows)[chosen])


def _numbers(rows: Labelled) -> np.ndarray:
    return np.zeros(len(rows.times), dtype=np.int64) if rows.numbers is None else rows.numbers
