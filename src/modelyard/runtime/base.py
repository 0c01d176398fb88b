"""The port of everything that answers questions from an opened bundle.

Hides nothing; it is the shape that serving, gates and verification rely on. It must stay importable by the data plane:
numpy alone, no converter, no training library.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from modelyard.errors import ModelyardError
    from modelyard.types import Array

Done = Callable[["dict[str, Array] | None", "ModelyardError | None", float], None]
"""Takes the outputs or the failure of one question, and the seconds that the model took."""


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


class Submits(Runtime, Protocol):
    """A runtime whose model runs elsewhere: an event loop sends questions and takes answers, and no thread waits."""

    @property
    def processes(self) -> int:
        """How many questions run at once."""
        ...

    def attach(self) -> None:
        """Belong to the running event loop from now on, before the first `submit`; `predict` then asks through it, from other threads alone."""
        ...

    def submit(self, inputs: Mapping[str, Array], done: Done, *, deadline_s: float, rows_at_once: int | None = None) -> None:
        """Ask from the event loop, and call `done` in it, later, once. What has not begun at `deadline_s` (monotonic) fails with DeadlineExceeded;
        what has may still be answered, unless it takes much longer than runs of this model do.

        The failure of a question that ended its process is chained from `runtime.isolated.process.Ended`. Raises ModelyardError when it cannot
        even be asked; `done` is then not called.
        """
        ...
