"""The running world in one value: what should serve, what does, and what was seen of its traffic.

Hides from how many places it is gathered. It must not change anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from modelyard.control.host import host_id
from modelyard.control.plane import ControlPlane
from modelyard.health import Health, judge, unstarted
from modelyard.monitor.summary import Traffic
from modelyard.rollout.election import Leader
from modelyard.rollout.hosts import Seen
from modelyard.security.issuer import IssuerState
from modelyard.targets.base import Deployment, TargetState
from modelyard.types import Digest, read_unstarted


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


class HostStatus(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One host of the store: where it is reached, whether its lease is live, whether steps wait for it, and what is not in force there.

    `is_here` says that it is the one asked; `leads`, that its control process decides.
    """

    id: str
    is_live: bool
    counts: bool
    workers: int
    is_here: bool = False
    leads: bool = False
    data: str | None = None
    control: str | None = None
    lagging: tuple[str, ...] = ()
    trouble: dict[str, str] = {}


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """The running world as one home sees it. `data_plane` is None while no supervisor runs; `health` says whether it is ready, and what is degraded,
    or why no supervisor can be started. `failing` is what this control process cannot do now, and why; `unkept` says what was observed in the last
    hour and could not be kept.

    `hosts` are all of the store, this one among them; `term` is the leader's. `issuer` is where the home accepts tokens.
    """

    home: str
    data_plane: Plane | None
    deployments: tuple[DeploymentStatus, ...]
    health: Health | None = None
    hosts: tuple[HostStatus, ...] = ()
    term: int = 0
    issuer: IssuerState | None = None
    failing: dict[str, str] = {}
    unkept: tuple[str, ...] = ()


def status(
    plane: ControlPlane,
    deployments: Iterable[Deployment],
    *,
    trouble: Mapping[str, str],
    traffic: Mapping[str, Traffic],
    hosts: Iterable[Seen] = (),
    leader: Leader | None = None,
) -> Status:
    """The world as these records and the reports of now say; `trouble` is driver's and host's, `traffic` the monitor's, by deployment."""
    state = plane.targets["local"].state()
    return Status(
        home=str(plane.settings.home),
        data_plane=_data_plane(state),
        health=_health(plane, state),
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
        hosts=tuple(_host(seen, leader, here=host_id(plane.settings)) for seen in hosts),
        term=0 if leader is None else leader.term,
    )


def _health(plane: ControlPlane, state: TargetState) -> Health | None:
    if state.serve is not None:
        return judge(state.serve, state.workers)
    why = read_unstarted(plane.settings.run, "serve")
    return unstarted(why) if why else None


def _host(seen: Seen, leader: Leader | None, *, here: str) -> HostStatus:
    report = seen.report
    return HostStatus(
        id=report.id,
        is_live=seen.is_live,
        counts=report.counts,
        workers=report.workers,
        is_here=report.id == here,
        leads=leader is not None and leader.host == report.id,
        data=report.data,
        control=report.control,
        lagging=report.lagging,
        trouble=report.trouble,
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
