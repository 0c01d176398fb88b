"""The deployments of a home as records: read, and changed by compare-and-swap.

Hides the records' form. A deployment names what it serves, moves to and may go back to, so that the registry refuses to delete those; each write
looks, in the same transaction, that they are still there. It must not act on a target.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from modelyard.errors import NotFound
from modelyard.rollout import history
from modelyard.rollout.history import Change, Event
from modelyard.targets.base import Deployment, Release

if TYPE_CHECKING:
    from modelyard.registry import Registry
    from modelyard.registry.base import Also, Record, RecordStore, Stamp

KIND = "deployment"


class Stored(NamedTuple):
    """A deployment and the revision at which it was read; a change expects that revision."""

    deployment: Deployment
    revision: int


class Deployments:
    """All deployments of one registry. Safe from several threads and processes: of two changes to one revision, one raises Conflict."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._known: tuple[Stamp, tuple[Stored, ...]] | None = None

    @property
    def records(self) -> RecordStore:
        """The store in which the deployments lie, and the reports of the hosts that carry them out."""
        return self._registry.records

    def find(self, name: str) -> Stored | None:
        """The deployment called `name`, or None."""
        record = self._registry.records.get(KIND, name)
        return None if record is None else _stored(record)

    def get(self, name: str) -> Stored:
        """The deployment called `name`. Raises NotFound."""
        found = self.find(name)
        if found is None:
            raise NotFound(f"no deployment is called {name}; `modelyard status` lists them", field="name")
        return found

    def spent(self, name: str) -> int:
        """The latest generation that `name` ever had, 0 for one that never served.

        One that comes back into service goes on from there: callers and evidence tell the states of its traffic apart by this number.
        """
        latest = history.latest(self._registry.records, name)
        return 0 if latest is None else latest.generation

    def all(self) -> tuple[Stored, ...]:
        """Every deployment, by name. Those of the last call again while none has changed: loops ask every second, and there may be a thousand."""
        stamp, known = self._registry.records.stamp(KIND), self._known
        if known is None or known[0] != stamp:
            # Read after the stamp: what changes in between is then read again.
            found = sorted(map(_stored, self._registry.records.list(KIND)), key=lambda stored: stored.deployment.name)
            known = self._known = (stamp, tuple(found))
        return known[1]

    def put(self, deployment: Deployment, *, expected: int, change: Change | None = None, also: Also | None = None) -> Stored:
        """Keep `deployment`, whose record must have the revision `expected` (0: none), and what the `change` means in its history; `also` is done
        in the same transaction.

        Without a `change` modelyard made it by itself.
        Raises Conflict, or NotFound for a release deleted meanwhile.
        """
        with self._registry.records.transaction() as transaction:
            for release in deployment.releases:
                if not self._registry.versions_in(transaction, release.digest):
                    raise NotFound(f"version {release.version} of {release.model} was deleted meanwhile")
            now = transaction.get(KIND, deployment.name)
            before, last = (None, None) if now is None else (_stored(now).deployment, now.body.get("events"))
            events = history.write(transaction, deployment.name, history.tell(before, deployment, change or history.itself()), last=last)
            record = transaction.put(KIND, deployment.name, {**_body(deployment), "events": events}, expected=expected)
            if also is not None:
                also(transaction)
        return _stored(record)

    def remove(self, stored: Stored, *, change: Change | None = None, also: Also | None = None) -> None:
        """Forget a deployment, but not its history; `also` is done in the same transaction. Raises Conflict when it has changed since it was read."""
        name = stored.deployment.name
        with self._registry.records.transaction() as transaction:
            transaction.delete(KIND, name, expected=stored.revision)
            history.write(transaction, name, history.tell(stored.deployment, None, change or history.itself()), last=None)
            if also is not None:
                also(transaction)

    def history(self, name: str) -> tuple[Event, ...]:
        """What happened to `name`, oldest first, also after it went out of service. Raises NotFound for a name that never was deployed."""
        events = history.read(self._registry.records, name)
        if not events and self.find(name) is None:
            raise NotFound(f"nothing was ever deployed as {name}; `modelyard status` lists what is", field="name")
        return events


def _stored(record: Record) -> Stored:
    return Stored(msgspec.convert(_upgraded(record.body["deployment"]), Deployment), record.revision)


def _upgraded(body: dict[str, Any]) -> dict[str, Any]:
    """A deployment as this release writes it. 0.1.0 knew one strategy, by its name alone, and called the verdicts of the gates `verdicts`."""
    rollout = body.get("rollout")
    if rollout is None or not isinstance(rollout["strategy"], str):
        return body
    kept = {name: value for name, value in rollout.items() if name != "verdicts"}
    return {
        **body,
        "rollout": {
            **kept,
            "strategy": {"kind": rollout["strategy"], "steps": [{"weight": 100}], "mirror": 0.0},
            "gates": rollout.get("verdicts", []),
        },
    }


def _body(deployment: Deployment) -> dict[str, Any]:
    goal = () if deployment.rollout is None else (deployment.rollout.goal,)
    serving = () if deployment.current is None else (deployment.current,)
    return {
        "digests": [release.digest for release in (*serving, *goal)],
        "history": [_brief(release) for release in deployment.previous],
        "deployment": msgspec.to_builtins(deployment),
    }


def _brief(release: Release) -> dict[str, Any]:
    return {"digest": release.digest, "version": release.version, "model": release.model}
