"""Routes of platforms that know one model and a path of their own: MLflow and SageMaker.

Hides which paths those are. Predictions go to `Edge.ask`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from modelyard.security.policy import INVOKE
from modelyard.serve.routes.base import Methods, Route

if TYPE_CHECKING:
    from modelyard.serve.edge import Edge


class Scoring:
    """`/invocations`."""

    def __init__(self, edge: Edge) -> None:
        self.edge = edge
        self.fixed: dict[str, Methods] = {
            "/invocations": {b"POST": Route(edge.predict_single, INVOKE, wire="mlflow", has_forms=True, is_strict=True)},
        }

    def find(self, parts: list[str]) -> Methods | None:  # noqa: ARG002 - the port's
        """See `base.Routes`."""
        return None
