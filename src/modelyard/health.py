"""How the data plane of one host stands, as its processes report: whether traffic should come, and what is less than whole.

Hides the rule. Pure: reports in, judgement out; the workers and the control process judge alike by it. It must not read a file or know a wire.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Final

import msgspec

from modelyard.types import ServeState, WorkerState

REASONS: Final = ("starting", "no_worker", "not_answered", "failed", "unsteady")
"""Why a data plane is not whole: it or a worker starts, a slot has none, a worker cannot answer a model, a version failed in a worker, or answers but
its processes keep ending or growing."""


class Trouble(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing that is less than whole: where (`slot`), with which `model` or digest, and what was found."""

    reason: str
    evidence: str
    slot: int | None = None
    model: str | None = None


class Health(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The judgement. `is_ready`: traffic may come; with `troubles` it is degraded."""

    is_ready: bool
    troubles: tuple[Trouble, ...] = ()

    @property
    def counts(self) -> dict[str, int]:
        """How many troubles there are, for every reason."""
        found = Counter(trouble.reason for trouble in self.troubles)
        return {reason: found[reason] for reason in REASONS}


def judge(serve: ServeState, workers: Iterable[WorkerState]) -> Health:
    """Judge by the supervisor's report and those of the workers that live.

    Ready from the moment when every slot's worker has passed its golden replay; after that while one worker can answer every model deployed.
    """
    troubles: list[Trouble] = []
    known = {worker.slot: worker for worker in workers}
    for slot in range(serve.size):
        worker = known.get(slot)
        if slot not in serve.slots:
            next_ = "another is being started" if not serve.trouble else f"another cannot be started ({serve.trouble}), which is tried again"
            troubles.append(Trouble(reason="no_worker", slot=slot, evidence=f"slot {slot} has no worker; {next_}"))
        elif worker is None or not worker.is_ready:
            troubles.append(Trouble(reason="starting", slot=slot, evidence=f"the worker of slot {slot} has not loaded its models yet"))
        else:
            troubles += _of_worker(worker)
    whole = [worker for worker in known.values() if worker.is_ready and not worker.missing]
    return Health(is_ready=serve.is_up and bool(whole), troubles=tuple(troubles))


def unstarted(why: str) -> Health:
    """Judge a data plane that is not there and cannot be started now."""
    evidence = f"the data plane cannot be started ({why}), which is tried again"
    return Health(is_ready=False, troubles=(Trouble(reason="no_worker", evidence=evidence),))


def alone(worker: WorkerState) -> Health:
    """Judge one worker that no supervisor watches."""
    return Health(is_ready=worker.is_ready and not worker.missing, troubles=tuple(_of_worker(worker)))


def _of_worker(worker: WorkerState) -> list[Trouble]:
    slot = worker.slot
    found = [Trouble(reason="not_answered", slot=slot, model=name, evidence=f"slot {slot} cannot answer {name}") for name in worker.missing]
    for digest, model in worker.models.items():
        if model.state == "failed":
            why = f"{model.verdict.rule}: {model.verdict.evidence}" if model.verdict is not None else "it did not load"
            found.append(Trouble(reason="failed", slot=slot, model=digest, evidence=f"{digest[:19]} failed in slot {slot}: {why}"))
        elif model.state == "ready" and model.verdict is not None and model.verdict.outcome != "pass":
            evidence = f"{digest[:19]} is unsteady in slot {slot}: {model.verdict.evidence}"
            found.append(Trouble(reason="unsteady", slot=slot, model=digest, evidence=evidence))
    return found
