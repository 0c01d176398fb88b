"""Loading and unloading by request, under `modelyard serve --dynamic FOLDER`: one function for every wire.

Hides how a request to one worker reaches all of them: the bundle is verified and copied beside the plan, the plan file is rewritten under a lock
with the next sequence number, and the answer waits until every worker says that it has acted by it. Nothing outside the folder is read, and no link
in it is followed; what a worker cannot serve is taken back. It must not be there without `--dynamic`: the control plane alone writes its plans.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeVar

from modelyard import bundle, files
from modelyard.config import Settings
from modelyard.errors import (
    Conflict,
    DeadlineExceeded,
    Forbidden,
    InvalidInput,
    MalformedPayload,
    ModelyardError,
    NotFound,
    Rejected,
    StorageFull,
    Tampered,
    Unavailable,
)
from modelyard.security.audit import AuditLog, FileLines
from modelyard.security.seal import Trust
from modelyard.serve.memory import free_bytes, resident_bytes_of
from modelyard.types import (
    Digest,
    HostPlan,
    Placement,
    Principal,
    TrafficPlan,
    WorkerState,
    parse_name,
    read_plan,
    read_serve_state,
    read_worker_state,
    write_plan,
)

if TYPE_CHECKING:
    from modelyard.bundle import archive

LOOK_S = 0.05
ENTRIES_LIMIT = 10_000
PLACE_CHARACTERS = 4096
NEEDED_PER_BYTE = 4
"""Memory that each worker is expected to need for a byte of bundle, by which a load is refused before it is tried."""

RESERVE = 0.9
"""The share of the free memory that loads may take."""

T = TypeVar("T")


class Change(NamedTuple):
    """What somebody asks for. `place` is a path in the folder instead of the name; `is_new` refuses a name that is served."""

    verb: Literal["load", "unload"]
    name: str
    place: str | None = None
    is_new: bool = False
    timeout_s: float | None = None


class Found(NamedTuple):
    """A bundle in the folder, verified and copied to where workers read it."""

    digest: Digest
    placement: Placement


def refuse_overrides(names: Iterable[str]) -> None:
    """Return when the parameters of a load or unload request override nothing of the bundle, which is sealed. Raises Forbidden."""
    if any(name != "unload_dependents" for name in names):
        raise Forbidden("a sealed bundle is served as it is: no config and no file overrides", field="parameters", rule="override")


class Repository:
    """The folder, from one worker's side. Lives in the event loop; what blocks runs in one thread of its own, so changes asked of a worker queue."""

    def __init__(self, folder: Path, settings: Settings, *, plan: Path, run: Path) -> None:
        self.folder = Path(os.path.realpath(folder))
        self._settings = settings
        self._plan = plan
        self._run = run
        self._audit = AuditLog(FileLines(settings.home / "audit.jsonl"))
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="repository")

    async def change(self, change: Change, principal: Principal) -> None:
        """Carry out one change; see `load` and `unload`."""
        if change.verb == "load":
            await self.load(change, principal)
        else:
            await self.unload(change, principal)

    async def load(self, change: Change, principal: Principal) -> None:
        """Serve the bundle called `name` in the folder (or at the path `place` in it) under `name`, on every worker; one there already is replaced.

        Raises NotFound; InvalidInput for a place outside; Conflict where `is_new` and the name is served; StorageFull for want of memory; Rejected
        for a bundle that does not verify or that a worker cannot serve, and then all is as before; DeadlineExceeded while it is still under way.
        """
        until, name, is_new = self._until(change), parse_name(change.name), change.is_new
        try:
            found = await self._do(lambda: self._prepare(principal, name, change.place, is_new=is_new))
        except Tampered as error:
            raise Rejected(f"the bundle does not verify: {error.message}") from error
        ticket, before = await self._do(lambda: self._put(name, found, change.place, is_new=is_new))
        await self._wait(ticket, until)
        failed = await self._do(lambda: self._failure(found.digest))
        if failed is not None:
            await self._do(lambda: self._put_back(name, before, instead_of=found.digest))
            await self._do(lambda: self._record(principal, "model-load", name, "failed", failed.code))
            raise failed
        await self._do(self._sweep)

    async def unload(self, change: Change, principal: Principal) -> None:
        """Serve `name` no longer, on any worker; returns when their memory is free again. Raises NotFound, or DeadlineExceeded while under way."""
        until = self._until(change)
        ticket, gone = await self._do(lambda: self._remove(principal, change.name))
        await self._wait(ticket, until, gone)
        await self._do(self._sweep)

    async def names(self) -> tuple[str, ...]:
        """The names of what lies in the folder, sorted."""
        return await self._do(self._names)

    def close(self) -> None:
        """Let go of the thread."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _do(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def _until(self, change: Change) -> float:
        return time.monotonic() + min(change.timeout_s or self._settings.load_timeout_s, self._settings.load_timeout_s)

    # What is in the folder. All of this blocks.

    def _names(self) -> tuple[str, ...]:
        found: set[str] = set()
        if not self.folder.is_dir():  # a platform makes it with the first model
            return ()
        with os.scandir(self.folder) as entries:
            for number, entry in enumerate(entries):
                if number >= ENTRIES_LIMIT:
                    break
                name = entry.name.removesuffix(".tar")
                try:
                    if not entry.is_symlink():
                        parse_name(name)
                        found.add(name)
                except (InvalidInput, OSError):
                    continue
        return tuple(sorted(found))

    def _prepare(self, principal: Principal, name: str, place: str | None, *, is_new: bool) -> Found:
        if is_new and any(plan.name == name for plan in read_plan(self._plan).plans):
            raise Conflict("a model of this name is loaded already", field="model_name", rule="new")
        path = self._locate(name, place)
        self._require_memory(_size_bytes(path))
        from modelyard.bundle import archive  # loads tarfile, and few workers take bundles

        with _told_as(Rejected, "the bundle cannot be read"):
            source = archive.source(path)
            opened = bundle.open(source, source.index, trust=Trust(self._settings.home / "keys"))
        self._record(principal, "model-load", name, "begun", opened.digest)
        kept = self._run / "dynamic" / opened.digest.removeprefix("sha256:")
        with _told_as(Unavailable, "the bundle cannot be copied here"):
            _copy(source, kept)
        return Found(opened.digest, Placement(blobs=str(kept), index=source.index))

    def _locate(self, name: str, place: str | None) -> Path:
        """The bundle that is meant: a .tar, a bundle's folder, or a folder that holds nothing but one of these."""
        if place is not None:
            if len(place) > PLACE_CHARACTERS:  # the plan keeps it as it was given
                raise InvalidInput(f"the url has at most {PLACE_CHARACTERS:,} characters", field="url", rule="length")
            given = Path(place)
            if not given.is_absolute() or not given.is_relative_to(self.folder):
                raise InvalidInput("the url is an absolute path inside the folder that is served", field="url", rule="inside")
            path = files.inside(self.folder, str(given.relative_to(self.folder)))
            if not path.exists():
                raise NotFound("nothing lies at this url", field="url", rule="known")
        else:
            paths = (files.inside(self.folder, name), files.inside(self.folder, f"{name}.tar"))
            path = next((each for each in paths if each.exists()), paths[0])
            if not path.exists():
                raise NotFound("no bundle of this name lies in the folder that is served", field="model", rule="known")
        while path.is_dir() and not (path / "oci-layout").exists():
            held = sorted(path.iterdir())[:2]
            if len(held) != 1:
                raise NotFound("the folder holds no bundle, or more than one thing", field="model", rule="bundle")
            path = files.inside(self.folder, str(held[0].relative_to(self.folder)))
        return path

    def _require_memory(self, size_bytes: int) -> None:
        limit = self._settings.memory_limit_bytes
        serving = self._workers()
        left = limit - sum(resident_bytes_of(worker.pid) for worker in serving) if limit else free_bytes()
        if left is not None and NEEDED_PER_BYTE * size_bytes * max(1, len(serving)) > RESERVE * left:
            raise StorageFull("there is not enough memory for this model; unload another first")

    # The plan, which many workers may change: each under the lock.

    @contextmanager
    def _changing(self) -> Iterator[HostPlan]:
        descriptor = os.open(self._run / "dynamic.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield read_plan(self._plan)
        finally:
            os.close(descriptor)

    def _put(self, name: str, found: Found, url: str | None, *, is_new: bool) -> tuple[int, tuple[TrafficPlan | None, dict[Digest, Placement]]]:
        """Let `found` answer for `name`; the plan's sequence number, and what answered before."""
        with self._changing() as now:
            before = next((plan for plan in now.plans if plan.name == name), None)
            if before is not None and is_new:
                raise Conflict("a model of this name is loaded already", field="model_name", rule="new")
            placed = {digest: now.placements[digest] for digest in before.digests} if before is not None else {}
            if before is not None and before.weights == {found.digest: 100}:
                return now.sequence, (before, placed)
            number = 1 if before is None else before.versions.get(found.digest) or max(before.versions.values()) + 1
            generation = 1 if before is None else before.generation + 1
            plan = TrafficPlan(name=name, generation=generation, weights={found.digest: 100}, versions={found.digest: number}, url=url)
            return self._write(now, name, plan, {found.digest: found.placement}), (before, placed)

    def _put_back(self, name: str, before: tuple[TrafficPlan | None, dict[Digest, Placement]], *, instead_of: Digest) -> None:
        """Undo a `_put`, unless somebody has changed the name since."""
        plan, placed = before
        with self._changing() as now:
            current = next((plan for plan in now.plans if plan.name == name), None)
            if current is not None and current.weights == {instead_of: 100} and current != plan:
                self._write(now, name, plan, placed)

    def _remove(self, principal: Principal, name: str) -> tuple[int, frozenset[Digest]]:
        """Take `name` out of the plan; its sequence number, and the digests that nothing names any more."""
        with self._changing() as now:
            gone = next((plan for plan in now.plans if plan.name == name), None)
            if gone is None:
                raise NotFound("no model of this name is loaded", field="model", rule="known")
            self._record(principal, "model-unload", name, "begun", "")
            others = {digest for plan in now.plans if plan.name != name for digest in plan.digests}
            return self._write(now, name, None, {}), frozenset(gone.digests) - others

    def _write(self, now: HostPlan, name: str, plan: TrafficPlan | None, placements: dict[Digest, Placement]) -> int:
        plans = (*(each for each in now.plans if each.name != name), *(() if plan is None else (plan,)))
        named = {digest for each in plans for digest in each.digests}
        placed = {digest: place for digest, place in {**now.placements, **placements}.items() if digest in named}
        write_plan(self._plan, HostPlan(sequence=now.sequence + 1, plans=tuple(sorted(plans, key=lambda each: each.name)), placements=placed))
        return now.sequence + 1

    def _sweep(self) -> None:
        """Remove the copies of bundles that no plan names and no worker holds."""
        folder = self._run / "dynamic"
        if not folder.is_dir():
            return
        with self._changing() as now:
            held = {
                digest.removeprefix("sha256:") for digest in (*now.placements, *(digest for worker in self._workers() for digest in worker.models))
            }
            for kept in folder.iterdir():
                if kept.name not in held and not kept.name.startswith(".") and time.time() - kept.stat().st_mtime > 2 * self._settings.load_timeout_s:
                    shutil.rmtree(kept, ignore_errors=True)

    def _record(self, principal: Principal, action: str, name: str, outcome: str, detail: str) -> None:
        with _told_as(Unavailable, "the change cannot be written to the audit log, so it is not made"):
            self._audit.record(principal, action, name, outcome=outcome, detail=detail)

    # What the workers say.

    async def _wait(self, ticket: int, until: float, gone: frozenset[Digest] = frozenset()) -> None:
        """Until every worker has acted by the plan `ticket` and holds none of `gone`. Raises DeadlineExceeded."""
        while not await self._do(lambda: self._is_applied(ticket, gone)):
            if time.monotonic() > until:
                raise DeadlineExceeded("the workers have not all followed yet; they go on, and /v2/repository/index says how far they are")
            await asyncio.sleep(LOOK_S)

    def _is_applied(self, ticket: int, gone: frozenset[Digest]) -> bool:
        workers = self._workers()
        if not workers or any(worker.sequence < ticket for worker in workers):
            return False
        held = gone.intersection(digest for worker in workers for digest in worker.models)
        return not held or held <= read_plan(self._plan).placements.keys()  # somebody has loaded it again

    def _failure(self, digest: Digest) -> ModelyardError | None:
        for worker in self._workers():
            state = worker.models.get(digest)
            if state is not None and state.state == "failed":
                verdict = state.verdict
                if verdict is not None and verdict.rule == StorageFull.code:
                    return StorageFull("there is not enough memory for this model; unload another first")
                evidence = "a worker did not load it" if verdict is None else verdict.evidence
                return Rejected(f"the model cannot be served: {evidence}", verdicts=() if verdict is None else (verdict,))
        return None

    def _workers(self) -> tuple[WorkerState, ...]:
        """What the workers of all living slots say; none while one of them has said nothing yet."""
        try:
            return tuple(read_worker_state(self._run, slot) for slot in read_serve_state(self._run).slots)
        except (NotFound, MalformedPayload):
            return ()


@contextmanager
def _told_as(kind: type[ModelyardError], message: str) -> Iterator[None]:
    """What fails for reasons of this machine is told to the caller without its paths; what is wrong with the bundle, or a full disk, as it is."""
    try:
        yield
    except (Tampered, StorageFull):
        raise
    except ModelyardError as error:
        raise kind(message) from error


def _copy(source: archive.Source, kept: Path) -> None:
    """Let the blobs of `source` lie in `kept`, whole or not at all. Raises StorageFull, InvalidConfig, Unavailable."""
    if kept.exists():
        os.utime(kept)  # as if made now: nobody sweeps it before it is in the plan
        return
    from modelyard.bundle import archive

    files.make_folder(kept.parent)
    beside = kept.with_name(f".{kept.name}.{os.getpid()}")
    shutil.rmtree(beside, ignore_errors=True)
    try:
        archive.place(source, beside)
        beside.rename(kept)
    except OSError as error:
        if not kept.exists():  # else another worker was first with the same bytes
            raise files.translate(error, kept) from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _size_bytes(path: Path) -> int:
    if path.is_file():
        return path.stat().st_size
    return sum(each.stat().st_size for each in path.rglob("*") if each.is_file() and not each.is_symlink())
