"""Every operation of the control API, by resource: one file each, put together here in one visible place."""

from __future__ import annotations

from modelyard.console.operations import Operation
from modelyard.console.routes import access, alerts, audit, deployments, models, monitor, observations, world

OPERATIONS: tuple[Operation, ...] = (
    *world.OPERATIONS,
    *models.OPERATIONS,
    *access.OPERATIONS,
    *deployments.OPERATIONS,
    *monitor.OPERATIONS,
    *alerts.OPERATIONS,
    *observations.OPERATIONS,
    *audit.OPERATIONS,
)
"""In the order in which the document tells of them; the first whose path fits is asked."""
