"""The port of everything that answers questions from an opened bundle.

Hides nothing; it is the shape that serving, gates and verification rely on. It must stay importable by the data plane:
numpy alone, no converter, no training library.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from modelyard.types import Array


class Runtime(Protocol):
    """An opened model. Its owner closes it; `predict` may be called from several threads at once."""

    def predict(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """The schema's outputs, in its order, for schema-named arrays in the form of `InferenceRequest`, batch first.

        The caller has checked the arrays against the schema. Raises ModelFailed when the model fails on them all the same.
        """
        ...

    def close(self) -> None:
        """Free what the model holds; the runtime answers no more."""
        ...
