"""The port of everything that explains an answer, and what it is asked.

Hides nothing; it is the shape that serving relies on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from modelyard.types import Array, Explanation, Scalar

MayGoOn = Callable[[], bool]


class Wanted(NamedTuple):
    """What is to be explained: the probability of `label` (None: of the class that is predicted), or `element` of `output` (None: the main one)."""

    label: Scalar | None = None
    output: str | None = None
    element: int = 0


class Explainer(Protocol):
    """Explains the answers of one opened model. Holds no state of a request: several threads may ask at once."""

    def explain(self, inputs: Mapping[str, Array], wanted: Wanted, *, evaluations: int, may_go_on: MayGoOn) -> list[Explanation]:
        """One explanation per row of `inputs` (which fit the schema), asking the model for about `evaluations` rows in all at most.

        `may_go_on` is asked between runs of the model. Raises InvalidInput for what cannot be explained, DeadlineExceeded when neither the
        evaluations nor the time suffice for a result with its error, ModelFailed.
        """
        ...
