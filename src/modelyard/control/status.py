"""The running world in one value: what should serve, what does, and what was seen of its traffic.

Hides from how many places it is gathered. It must not change anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from modelyard.control.plane import ControlPlane
from modelyard.health import Health, judge
from modelyard.monitor.summary import Traffic
from modelyard.targets.base import Deployment, TargetState
from modelyard.types import Digest


class Plane(msgspec.Struct, frozen=True, kw_only=True):
    """The data plane: where it listens, which slots live, how many of them act by the newest plan."""

    url: str
    pid: int
    workers: int
    up_to_date: int
    grpc: str | None = None


class Serving(msgspec.Struct, frozen=True, kw_only=True):
    """One version of a deployment: its share of the traffic and how many workers have it ready."""

    version: int
    digest: Digest
    weight: int
    ready: int


class DeploymentStatus(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One deployment: its desired state, what serves, and what the monitor saw."""

    deployment: Deployment
    serving: tuple[Serving, ...]
    rollback_to: int | None = None
    trouble: str | None = None
    traffic: Traffic | None = None


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """The running world of one home. `data_plane` is None while no supervisor runs; `health` says whether it is ready, and what is degraded."""

    home: str
    data_plane: Plane | None
    deployments: tuple[DeploymentStatus, ...]
    health: Health | None = None


def status(plane: ControlPlane, deployments: Iterable[Deployment], *, trouble: Mapping[str, str], traffic: Mapping[str, Traffic]) -> Status:
    """The world as these records and the reports of now say; `trouble` is the driver's, `traffic` the monitor's, by deployment."""
    state = plane.targets["local"].state()
    return Status(
        home=str(plane.settings.home),
        data_plane=_data_plane(state),
        health=None if state.serve is None else judge(state.serve, state.workers),
        deployments=tuple(
            DeploymentStatus(
                deployment=deployment,
                serving=_serving(deployment, state),
                rollback_to=deployment.previous[-1].version if deployment.previous else None,
                trouble=trouble.get(deployment.name),
                traffic=traffic.get(deployment.name),
            )
            for deployment in deployments
        ),
    )


def _data_plane(state: TargetState) -> Plane | None:
    if state.serve is None:
        return None
    current = sum(worker.sequence >= state.sequence for worker in state.workers)
    return Plane(url=state.serve.url, grpc=state.serve.grpc, pid=state.serve.pid, workers=len(state.serve.slots), up_to_date=current)


def _serving(deployment: Deployment, state: TargetState) -> tuple[Serving, ...]:
    from modelyard.rollout.machine import plan

    now = plan(deployment)
    if now is None:
        return ()
    ready = {
        digest: sum((model := worker.models.get(digest)) is not None and model.state == "ready" for worker in state.workers) for digest in now.digests
    }
    return tuple(
        Serving(version=now.versions[digest], digest=digest, weight=now.weights.get(digest, 0), ready=ready[digest]) for digest in now.digests
    )
