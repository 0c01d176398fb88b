"""Deployments over HTTP: what serves under which name, and every verb that changes it.

A deploy or rollback is answered as soon as it is written down (202); whoever waits for its end asks for the deployment again. Whoever says which
generation they have seen (`expected_generation`, or If-Match with the ETag of the deployment) changes that one or is told the current state (409).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import msgspec

from modelyard.console.operations import LIMIT, Call, Operation
from modelyard.control.once import Effect
from modelyard.control.planned import Planned
from modelyard.errors import InvalidInput
from modelyard.monitor.labels import BATCH, ID_LIMIT, Account, Received
from modelyard.registry import is_file
from modelyard.registry.references import parse
from modelyard.rollout.history import Event
from modelyard.targets.base import Deployment, Strategy
from modelyard.types import Scalar

Generation = Annotated[int, msgspec.Meta(ge=0)] | None


class DeployRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What to deploy, whether its schema may refuse requests in use, and how it shall reach the traffic (directly, if nothing is said)."""

    reference: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
    breaking: bool = False
    strategy: Strategy | None = None
    expected_generation: Generation = None


class ChangeRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which generation the caller has seen; an empty body says nothing of it."""

    expected_generation: Generation = None


class ReasonedRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Why, for the history, and which generation the caller has seen."""

    why: Annotated[str, msgspec.Meta(max_length=500)] = ""
    expected_generation: Generation = None


class Label(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The true answer to one prediction, by the id that came with it; since when it is known, in seconds since 1970 (unless said, now)."""

    id: Annotated[str, msgspec.Meta(min_length=1, max_length=ID_LIMIT)]
    truth: str | int | float | bool
    known_at: Annotated[float, msgspec.Meta(ge=0)] | None = None


LABELS_LIMIT_BYTES = 1 << 20


class LabelsRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Labels, as many as one body holds."""

    labels: Annotated[tuple[Label, ...], msgspec.Meta(max_length=BATCH)]


class HistoryQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The latest of how many events, at most; they come oldest first."""

    limit: Annotated[int, msgspec.Meta(ge=1, le=LIMIT)] = LIMIT


def _all(call: Call) -> tuple[Deployment, ...]:
    return tuple(each.deployment for each in call.plane.deployments.all())


def _mine(found: tuple[Deployment, ...], sees: Callable[[str], bool]) -> tuple[Deployment, ...]:
    return tuple(each for each in found if sees(each.name))


def _one(call: Call) -> Deployment:
    return call.plane.deployments.get(call.name).deployment


def _current(call: Call) -> Deployment | None:
    found = call.plane.deployments.find(call.name)
    return None if found is None else found.deployment


def _deploy(call: Call) -> Deployment:
    asked: DeployRequest = call.body
    deployment = call.plane.deploy(
        call.who,
        asked.reference,
        name=call.name,
        breaking=asked.breaking,
        strategy=asked.strategy,
        expected_generation=call.expected_generation,
    )
    call.world.changed()
    return deployment


def _plan(call: Call) -> Planned:
    asked: DeployRequest = call.body
    return call.plane.plan_deploy(
        asked.reference, name=call.name, breaking=asked.breaking, strategy=asked.strategy, expected_generation=call.expected_generation
    )


def _deployed_models(call: Call) -> tuple[str, ...]:
    """The model whose version is deployed; a path of this machine's is nothing that a caller may name."""
    asked: DeployRequest = call.body
    if is_file(asked.reference):
        raise InvalidInput("a reference is NAME, NAME:3, NAME@champion or NAME@sha256:…; import a bundle first", field="reference", rule="form")
    return (parse(asked.reference).name,)


def _verb(verb: Callable[[Call], Callable[..., Deployment]]) -> Callable[[Call], Deployment]:
    """A verb on a rollout: of the name that the path says, at the generation and with the reason that the request says, if any."""

    def run(call: Call) -> Deployment:
        why = {"why": call.body.why} if isinstance(call.body, ReasonedRequest) else {}
        deployment = verb(call)(call.who, call.name, expected_generation=call.expected_generation, **why)
        call.world.changed()
        return deployment

    return run


def _history(call: Call) -> tuple[Event, ...]:
    asked: HistoryQuery = call.query
    return call.plane.history(call.name)[-asked.limit :]


def given(asked: LabelsRequest) -> list[tuple[str, Scalar, float | None]]:
    """The labels of a request, as a ledger takes them."""
    return [(each.id, each.truth, each.known_at) for each in asked.labels]


def _labels(call: Call) -> Received:
    asked: LabelsRequest = call.body
    return call.plane.labels(call.who, call.name, given(asked))


def _labelled(call: Call) -> Account:
    return call.plane.labelled(call.name)


def _undeploy(call: Call) -> Deployment:
    deployment = call.plane.undeploy(call.who, call.name, expected_generation=call.expected_generation)
    call.world.changed()
    return deployment


def recalled(_: Call, effect: Effect) -> Deployment:
    """The deployment that a verb wrote."""
    return msgspec.convert(effect.body["deployment"], Deployment)


def moving(answer: Any) -> int:
    """202 while a rollout is under way."""
    return 202 if getattr(answer, "rollout", None) is not None else 200


ONE = "/deployments/{name}"


def _change(
    name: str, line: str, verb: Callable[[Call], Callable[..., Deployment]], body: type[ChangeRequest | ReasonedRequest] = ChangeRequest
) -> Operation:
    return Operation(
        "POST", f"{ONE}/{name}", name, line, _verb(verb), Deployment, body,
        status=moving, statuses=(200, 202), current=_current, recall=recalled, has_generation=True,
    )  # fmt: skip


OPERATIONS = (
    Operation("GET", "/deployments", "list_deployments", "Every deployment.", _all, tuple[Deployment, ...], sift=_mine),
    Operation("GET", ONE, "get_deployment", "One deployment; its generation is the ETag.", _one, Deployment),
    Operation(
        "POST", ONE, "deploy", "Put a version behind a name, after its gates.",
        _deploy, Deployment, DeployRequest, status=moving, statuses=(200, 202), models=_deployed_models, current=_current, recall=recalled,
        has_generation=True, is_long=True,
    ),
    Operation(
        "POST", ONE + "/plan", "plan", "What a deploy would do, step by step, or why it would be refused; nothing is changed.",
        _plan, Planned, DeployRequest, models=_deployed_models, current=_current, has_generation=True, is_long=True, is_reading=True,
    ),
    _change("rollback", "Go back to what served before; a flip where that is still warm.", lambda call: call.plane.rollback),
    _change("promote", "Skip to the rollout's last step, whatever its guards say; it is written down as forced.", lambda call: call.plane.promote),
    _change("pause", "Keep the rollout at its step; its guards go on judging.", lambda call: call.plane.pause, ReasonedRequest),
    _change("resume", "Let a paused rollout go on.", lambda call: call.plane.resume),
    _change("abort", "End the rollout: what served before has all traffic again.", lambda call: call.plane.abort, ReasonedRequest),
    _change("approve", "Let the next step that needs it be entered; not by who began the rollout.", lambda call: call.plane.approve),
    Operation(
        "GET", ONE + "/history", "history", "Who did what, when and why, with the verdicts; also after an undeploy.",
        _history, tuple[Event, ...], query=HistoryQuery,
    ),
    Operation(
        "POST", ONE + "/labels", "give_labels", "Keep true answers of predictions, by prediction id; the newest of an id stands.",
        _labels, Received, LabelsRequest, body_limit_bytes=LABELS_LIMIT_BYTES,
    ),
    Operation("GET", ONE + "/labels", "labels", "What became of all labels: matched, unsampled, unknown, mistyped …", _labelled, Account),
    Operation(
        "DELETE", ONE, "undeploy", "Take a name out of service.",
        _undeploy, Deployment, ChangeRequest, current=_current, recall=recalled, has_generation=True,
    ),
)  # fmt: skip
