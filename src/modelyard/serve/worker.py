"""One worker: an event loop that answers, and follows the plan file.

Hides the order of things: apply the newest plan before accepting, load new versions beside the old, switch each deployment between ticks once its own
are there, free the old, say so in the state file. It ends when its supervisor does. Started as `python -m modelyard.serve.worker` with inherited
sockets.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import signal
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

from modelyard import config
from modelyard.config import Settings
from modelyard.errors import InvalidInput, ModelyardError, NotFound, StorageFull
from modelyard.protocols import messages
from modelyard.runtime.isolated import Isolated, Isolation
from modelyard.security.audit import AuditLog, FileLines
from modelyard.security.uses import EVERY_S
from modelyard.serve import card
from modelyard.serve.access import Access
from modelyard.serve.dataplane import DataPlane, Deployment, Version
from modelyard.serve.edge import Edge
from modelyard.serve.exposition import render
from modelyard.serve.grpc_edge import GrpcEdge
from modelyard.serve.heartbeat import READY, Heartbeat
from modelyard.serve.loading import Loaded, Tide, gather_in_large_pages, give_back_memory, keep_freed_memory, resident_bytes, verdict_of
from modelyard.serve.loading import load as load_bundle
from modelyard.serve.log import Log
from modelyard.serve.metrics import Metrics
from modelyard.serve.observe import Observer
from modelyard.serve.openapi import is_complete, v1_request
from modelyard.serve.router import champion
from modelyard.serve.rpc import GrpcServer
from modelyard.serve.server import Server
from modelyard.serve.suspects import Board
from modelyard.serve.tls import open_tls
from modelyard.serve.usage import Usage
from modelyard.serve.watch import Watch
from modelyard.types import Digest, HostPlan, ModelState, Placement, Principal, TrafficPlan, WorkerState, learn, read_plan, write_worker_state

if TYPE_CHECKING:
    from modelyard.serve.tracing import Tracer

WATCH_S = 0.05
KEYS_S = 0.2
"""How often the files of access keys and certificates are looked at: a revoked key is refused within a second."""

HOUSEKEEPING_S = 1.0
EBB_TURNS = 5
"""How many turns of housekeeping pass between looks at the memory held."""
GRACE_S = 0.4
"""Between readiness failing and the listener closing: time for a balancer to look away."""

MESSAGES_S = 0.3
"""How long after the start the messages of gRPC are made ready for the first call, where none has come before."""

LOADERS = 2
"""Loads at once, so that one that takes long or hangs does not keep the others waiting."""

DECODED = ("modelyard.bundle.", "modelyard.monitor.profile", "modelyard.runtime.", "modelyard.security.", "modelyard.types")
"""Whose structs loads decode."""

Loader = Callable[[Digest, Placement, Path], Loaded]


class Worker:
    """One slot's process. Owns the models that it loaded; everything but loading happens in the event loop."""

    def __init__(self, settings: Settings, *, slot: int, plan: Path, run: Path, spool: Path | None, load: Loader | None = None) -> None:
        self.settings = settings
        self.slot = slot
        self._plan_path = plan
        self._run = run
        self._load = load or partial(load_bundle, isolation=Isolation.of(settings))
        self._loop = asyncio.get_running_loop()
        learn(*DECODED)
        self._loader = ThreadPoolExecutor(LOADERS, thread_name_prefix="load")
        self._loaded: dict[Digest, Loaded] = {}
        self._states: dict[Digest, ModelState] = {}
        self._loading: dict[Digest, asyncio.Task[None]] = {}
        self._plan: HostPlan | None = None
        self._sequence = 0
        self._is_settled = True
        self._is_unsaid = False
        self._owed: set[str] = set()
        self._retiring: list[Version] = []
        self._has_spare = False
        """Whether there may be models that nothing serves any more: the search for them takes longer the more there are."""
        self._plan_stamp: tuple[int, int, int] | None = None
        self._stop = asyncio.Event()
        self._is_orphan = False
        self.log = Log(settings.log_format, slot=slot)
        self._heart: Heartbeat | None = None
        self._tide = Tide()
        self._turns = 0
        self.metrics = Metrics(run, slot)
        self.observer = Observer(settings, slot=slot, spool=spool)
        self.usage = Usage()
        self.access = Access(settings, process=f"worker-{slot}")
        self.tls = open_tls(settings)
        self.plane = DataPlane(
            settings, slot=slot, meter=self.metrics.meter, attach=self._attach, board=Board(run, slot=slot, slots=settings.workers)
        )
        self.edge = Edge(self.plane, settings, meter=self.metrics.server, metrics=self._metrics_text, access=self.access, log=self.log)
        self.edge.health = lambda: self.watch.health
        self.edge.on_long = self._on_long
        self.tracer: Tracer | None = None
        if settings.trace_endpoint:
            from modelyard.serve import tracing

            self.tracer = self.edge.tracer = tracing.open(settings, slot=slot, release=self.edge.release)
        self.server = Server(
            settings, handle=self.edge.handle, on_failed=self.edge.fail, on_refused=self.edge.refused, admit_large=self.edge.admit_large
        )
        self.grpc_edge = GrpcEdge(self.plane, edge=self.edge, meter=self.metrics.server, access=self.access)
        self.grpc = GrpcServer(
            settings,
            admit=self.grpc_edge.admit,
            handle=self.grpc_edge.handle,
            on_failed=self.grpc_edge.fail,
            on_refused=self.edge.refused,
            tick=self.grpc_edge.tick,
        )
        if settings.grpc_port >= 0:
            self.server.adopt = self.grpc.adopt  # where a platform gives one port alone
        self.watch = Watch(run, self._state())

    def _attach(self, version: Version) -> None:
        version.tracer = self.tracer
        version.recorder = self.observer.attach(version.name, version.number, version.loaded.bundle)

    def _on_long(self) -> None:
        if self._heart is not None:
            self._heart.beat()

    def _metrics_text(self) -> bytes:
        self.plane.due.settle()
        self._gauge()
        sums = self.metrics.sums(range(self.settings.workers))
        return render(sums, dialect=self.settings.metrics_dialect, degraded=self.watch.health.counts)

    def _gauge(self) -> None:
        self.metrics.server.gauge(in_progress=self.server.in_flight + self.grpc.in_flight, resident_bytes=resident_bytes())
        http, grpc = ((len(each.connections), each.accepted) for each in (self.server, self.grpc))
        self.metrics.server.connected(http=http, grpc=grpc)
        if self.tracer is not None:
            self.metrics.server.traced(sent=self.tracer.sent, dropped=self.tracer.dropped)
        for deployment in self.plane.deployments.values():
            for version in deployment.versions.values():
                batcher, runtime = version.batcher, version.loaded.runtime
                version.meter.gauge(
                    queue_rows=batcher.queued_rows,
                    queue_requests=batcher.queued_requests,
                    concurrency_limit=batcher.concurrency_limit,
                    resident_bytes=runtime.resident_bytes() if isinstance(runtime, Isolated) else 0,
                )

    async def serve(self, listener: socket.socket, channel: socket.socket, grpc: socket.socket | None = None) -> None:
        """Apply the newest plan, accept, and go on until told to stop; then drain."""
        self._loop.set_exception_handler(self._on_loop_error)
        self._loop.add_signal_handler(signal.SIGTERM, self._on_term)
        self._loop.add_signal_handler(signal.SIGINT, lambda: None)  # the supervisor decides
        channel.setblocking(False)
        self._loop.add_reader(channel, self._on_supervisor, channel)
        self._heart = Heartbeat(channel, lambda: bool(self._loading))
        self._heart.start()
        await self._follow()
        warming: asyncio.TimerHandle | None = None
        if not self._stop.is_set():
            listener.setblocking(False)
            await self.server.listen(listener, self.tls)
            if grpc is not None:
                grpc.setblocking(False)
                await self.grpc.listen(grpc, self.tls)
            self._heart.say(READY)
            if grpc is not None:
                warming = self._loop.call_later(MESSAGES_S, self._loop.run_in_executor, self._loader, messages.kind, "inference.ModelInferRequest")
        tasks = [asyncio.ensure_future(each) for each in (self._watch(), self._watch_keys(), self._keep_house())]
        await self._stop.wait()
        for task in tasks:
            task.cancel()
        if warming is not None:
            warming.cancel()
        await self._drain(*([listener] if grpc is None else [listener, grpc]))
        self._flush(is_last=True)

    def _on_term(self) -> None:
        if self._stop.is_set():
            self._flush(is_last=True)
            os._exit(1)
        self._stop.set()

    def _on_supervisor(self, channel: socket.socket) -> None:
        try:
            gone = not channel.recv(16)
        except BlockingIOError:
            return
        except OSError:
            gone = True
        if gone:
            self._loop.remove_reader(channel)
            self._is_orphan = True
            self._stop.set()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(WATCH_S)
            try:
                self._look()
            except Exception as error:  # noqa: BLE001 - a worker that no longer follows the plan would serve the old one for ever
                self._report("the plan could not be applied", error)

    async def _watch_keys(self) -> None:
        """Access keys and certificates, beside the plan's watch, which waits while a model loads: a revoked key must not."""
        noted_s = time.monotonic()
        while True:
            await asyncio.sleep(KEYS_S)
            try:
                if self.access.is_stale:
                    found = await asyncio.to_thread(self.access.read)
                    self.access.take(found)
                    self.log.info("keys_changed")
                if time.monotonic() - noted_s >= EVERY_S:
                    noted_s = time.monotonic()
                    self.access.forget_decisions()
                    await asyncio.to_thread(self.access.uses.write)
            except Exception as error:  # noqa: BLE001 - a worker that no longer looks would let a revoked key in for ever
                self._report("the access keys could not be read", error)
            tls = self.tls
            if tls is not None and tls.is_stale:
                try:
                    tls.take(await asyncio.to_thread(tls.load))
                    self.log.info("certificates_changed")
                except Exception as error:  # noqa: BLE001 - whatever the new files hold, the old certificate serves on
                    self._report("the new certificate is not used, the one before goes on", error)

    def _on_loop_error(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:  # noqa: ARG002 - the loop's own form
        """What nobody waits for, such as a handshake that failed, as one bounded line and no traceback."""
        error = context.get("exception")
        kind = f" ({type(error).__name__})" if error is not None else ""
        self.edge.report(ModelyardError(f"{str(context.get('message') or 'the event loop reports a failure')[:200]}{kind}"))

    async def _keep_house(self) -> None:
        while True:
            await asyncio.sleep(HOUSEKEEPING_S)
            for chore in (self._look_after, self._say_again, self._gauge, self._flush, self.watch.refresh, self._ebb):
                try:
                    chore()
                except Exception as error:  # noqa: BLE001 - one that fails must not end the others
                    self._report("a chore of the worker failed", error)
            denied = self.edge.denied
            if denied:
                self.edge.denied = Counter()
                try:
                    await asyncio.to_thread(self._audit, denied)
                except Exception as error:  # noqa: BLE001 - as above
                    self._report("denials could not be audited", error)

    def _audit(self, denied: Counter[tuple[str, str]]) -> None:
        """An entry for each who was denied and why, with how often, at most once a second: a flood of denials is no flood of entries."""
        log = AuditLog(FileLines(self.settings.home / "audit.jsonl"))
        for (name, rule), count in denied.items():
            log.record(Principal(name), "request", f"data plane, slot {self.slot}", outcome="denied", detail=f"{rule} ({count})")

    def _ebb(self) -> None:
        """Give back what a burst has left behind."""
        self._turns += 1
        if self._turns % EBB_TURNS == 0 and self._tide.is_due(resident_bytes()):
            self._loop.run_in_executor(self._loader, give_back_memory)

    def _look_after(self) -> None:
        """Take note of how processes of models that are code ended, and say of each such version what is wrong with it now."""
        is_changed = False
        for version in [version for each in self.plane.deployments.values() for version in each.versions.values()]:
            runtime = version.loaded.runtime
            if not isinstance(runtime, Isolated):
                continue
            for ended in runtime.watch():
                version.meter.ended(ended.reason)
                self.log.warning("isolated_ended", model=version.name, version=version.number, reason=ended.reason, message=ended.detail or None)
            found = runtime.verdict or version.loaded.verdict
            known = self._states.get(version.digest)
            if known is not None and known.state == "ready" and known.verdict is not None and known.verdict.rule != found.rule:
                self._states[version.digest] = ModelState(state="ready", verdict=found)
                is_changed = True
        if is_changed:
            self._say()

    def _report(self, what: str, error: Exception) -> None:
        self.edge.report(error if isinstance(error, ModelyardError) else ModelyardError(f"{what} ({type(error).__name__})"))

    def _flush(self, *, is_last: bool = False) -> None:
        versions = [version for each in self.plane.deployments.values() for version in each.versions.values()]
        try:
            self.plane.due.settle()
            self.observer.flush(self.usage.look(versions), is_last=is_last)
        except ModelyardError as error:
            self.edge.report(error)

    # Following the plan.

    async def _follow(self) -> None:
        """Apply the plan file as it is now, to the end of its last load."""
        self._look()
        while self._loading and not self._stop.is_set():
            await asyncio.wait(self._loading.values(), timeout=WATCH_S, return_when=asyncio.FIRST_COMPLETED)
            self._look()

    def _look(self) -> None:
        """Take up the plan file if it changed since the last look; what cannot be read is reported and left."""
        self._free()
        try:
            status = self._plan_path.stat()
        except OSError:
            if self._plan is None and not self.plane.is_ready:
                self.plane.switch({})  # no plan yet is a plan of nothing
                self._say()
            return
        stamp = (status.st_ino, status.st_mtime_ns, status.st_size)
        if stamp == self._plan_stamp:
            return
        self._plan_stamp = stamp
        try:
            plan = read_plan(self._plan_path)
        except NotFound:
            return
        except InvalidInput as error:
            self.edge.report(error)
            return
        if plan.sequence != (self._sequence if self._plan is None else self._plan.sequence):
            self._adopt(plan)

    def _adopt(self, plan: HostPlan) -> None:
        """From now on work towards `plan`: what is not there is loaded, what failed is tried again."""
        before = () if self._plan is None else _digests(self._plan)
        self._plan, self._is_settled = plan, False
        wanted = _digests(plan)
        serving = {digest for each in self.plane.deployments.values() for digest in each.by_digest}
        self._states = {digest: state for digest, state in self._states.items() if digest in wanted or digest in serving}
        named = {digest: (each.name, number) for each in plan.plans for digest, number in each.versions.items()}
        for digest in wanted:
            loaded = self._loaded.get(digest)
            self._states[digest] = ModelState(state="loading") if loaded is None else ModelState(state="ready", verdict=loaded.verdict)
            if loaded is not None and digest not in before and isinstance(loaded.runtime, Isolated):
                loaded.runtime.pardon()  # it was on its way out, and is asked for anew
            if loaded is None and digest not in self._loading:
                name, number = named[digest]
                self._loading[digest] = self._loop.create_task(self._bring(digest, plan.placements[digest], name, number))
        if self._loading:
            self._say()
        self._settle()

    def _served(self) -> list[Deployment]:
        return [deployment for _, deployment in sorted(self.plane.deployments.items())]

    def _log_loaded(self, digest: Digest, state: ModelState, name: str, number: int, *, seconds: float) -> None:
        verdict = (
            None if state.verdict is None else {"outcome": state.verdict.outcome, "rule": state.verdict.rule, "evidence": state.verdict.evidence}
        )
        write = self.log.info if state.state == "ready" else self.log.error
        event = "version_loaded" if state.state == "ready" else "version_failed"
        write(event, model=name, version=number, digest=digest, seconds=round(seconds, 3), verdict=verdict)

    async def _bring(self, digest: Digest, placement: Placement, name: str, number: int) -> None:
        started_s = monotonic()
        state: ModelState
        try:
            loaded = await self._loop.run_in_executor(self._loader, self._load, digest, placement, self.settings.home / "keys")
            self._loaded[digest] = loaded
            state = ModelState(state="ready", verdict=loaded.verdict)
        except ModelyardError as error:
            state = ModelState(state="failed", verdict=verdict_of(error))
        except MemoryError:
            state = ModelState(state="failed", verdict=verdict_of(StorageFull("there is not enough memory for this model")))
        except Exception as error:  # noqa: BLE001 - a library's failure on one model must not end the others
            failure = ModelyardError(f"the model could not be loaded ({type(error).__name__})")
            state = ModelState(state="failed", verdict=verdict_of(failure))
        self._log_loaded(digest, state, name, number, seconds=monotonic() - started_s)
        del self._loading[digest]
        if not self._loading:
            self._loop.run_in_executor(self._loader, gather_in_large_pages)
        if digest in self._states:  # else a later plan no longer wants it
            self._states[digest] = state
        try:
            self._settle()
        except Exception as error:  # noqa: BLE001 - as in `_watch`
            self._report("the plan could not be applied", error)

    def _settle(self) -> None:
        """Switch the deployments whose versions are all there; once nothing is loaded any more the plan is applied."""
        self._has_spare = True
        plan = self._plan
        if plan is None or self._is_settled:
            return
        is_done = not any(digest in self._loading for digest in _digests(plan))
        is_start = not self.plane.is_ready
        if is_start and not is_done:
            return  # nobody is answered before all is there
        before, after = self.plane.deployments, self._deployments(plan)
        if is_done or after != before:
            self.plane.switch(after)
            kept = {id(version) for each in after.values() for version in each.by_digest.values()}
            self._retiring += [version for each in before.values() for version in each.by_digest.values() if id(version) not in kept]
        if is_done:
            self._is_settled = True
            names = {each.name for each in plan.plans}
            # What was never answered here is owed only by a worker that starts with it: a new deployment that fails takes no other along.
            self._owed = (names if is_start else self._owed & names) | set(after)
            self._sequence = plan.sequence
            weights = {
                each.name: {str(each.plan.versions[digest]): weight for digest, weight in each.plan.weights.items()} for each in self._served()
            }
            self.log.info("plan_applied", sequence=plan.sequence, served=weights)
            self._write_card()
            gc.collect()
            gc.freeze()  # models and codecs live long; the collector need not look at them again
        self.plane.absent = {each.name for each in plan.plans} - set(after)
        self._say()

    def _deployments(self, plan: HostPlan) -> dict[str, Deployment]:
        """What the plan asks for, as far as it is there; a deployment whose weighted versions are not all there stays as it was."""
        made: dict[str, Deployment] = {}
        for each in plan.plans:
            deployment = self._deployment(each) or self.plane.deployments.get(each.name)
            if deployment is not None:
                made[each.name] = deployment
        return made

    def _deployment(self, plan: TrafficPlan) -> Deployment | None:
        """The deployment that `plan` asks for, None where a weighted version or the champion is not there. One that cannot be made fails alone."""
        known = self.plane.deployments.get(plan.name)
        if known is not None and known.plan == plan and set(known.by_digest) == {digest for digest in plan.digests if digest in self._loaded}:
            return known
        needed = {*plan.weights, champion(plan)}
        if not all(digest in self._loaded for digest in needed):
            return None
        versions: dict[Digest, Version] = {}
        for digest in plan.digests:
            if digest not in self._loaded:
                continue
            try:
                versions[digest] = self.plane.version(plan.name, plan.versions[digest], self._loaded[digest])
            except Exception as error:  # noqa: BLE001 - a full disk, a profile of another release: of this version alone
                failure = error if isinstance(error, ModelyardError) else ModelyardError(f"the model cannot be served ({type(error).__name__})")
                self._states[digest] = ModelState(state="failed", verdict=verdict_of(failure))
                self.edge.report(failure)
        return Deployment(plan, versions) if needed <= set(versions) else None

    def _free(self) -> None:
        """Let go of the models that nothing serves any more, once the queues of their versions have run empty."""
        if not self._has_spare:
            return
        for version in [version for version in self._retiring if version.is_idle]:
            self._retiring.remove(version)
            version.batcher.close()
            version.meter.gauge()  # nobody says it any more
        in_use = {version.digest for version in self._retiring}
        in_use |= {digest for each in self.plane.deployments.values() for digest in each.by_digest}
        in_use |= set() if self._plan is None else set(_digests(self._plan))
        unused = [digest for digest in self._loaded if digest not in in_use]
        if unused:
            for digest in unused:
                gone = self._loaded.pop(digest)
                gone.runtime.close()
                self.log.info("version_freed", model=gone.bundle.name, digest=digest)
                self._states.pop(digest, None)
            self._say()
            self._loop.run_in_executor(self._loader, give_back_memory)
        self._has_spare = bool(self._retiring)

    def _state(self) -> WorkerState:
        return WorkerState(
            slot=self.slot,
            pid=os.getpid(),
            sequence=self._sequence,
            models=dict(self._states),
            missing=tuple(sorted(self._owed - set(self.plane.deployments))),
            is_ready=self.plane.is_ready,
            adopted=self._sequence if self._plan is None else self._plan.sequence,
        )

    def _say(self) -> None:
        state = self._state()
        try:
            write_worker_state(self._run, state)
            self._is_unsaid = False
            self.watch.tell(state)
        except ModelyardError as error:
            self._is_unsaid = True
            self.edge.report(error)

    def _say_again(self) -> None:
        """What a full disk did not take, others still wait to hear."""
        if self._is_unsaid:
            self._say()

    def _write_card(self) -> None:
        served = []
        for name, deployment in sorted(self.plane.deployments.items()):
            version = deployment.versions[deployment.plan.versions[champion(deployment.plan)]]
            shown = version.loaded.bundle.card
            example = v1_request(version.schema, shown.example) if is_complete(version.schema, shown.example) else None
            served.append(card.Served(name=name, version=version.number, title=shown.title, example=example))
        try:
            card.write(self._run, card.Endpoint(sequence=self._sequence, models=tuple(served)))
        except ModelyardError as error:
            self.edge.report(error)

    # The end.

    async def _drain(self, *listeners: socket.socket) -> None:
        """Readiness fails first; what was asked is answered; then nothing is left."""
        until = monotonic() + self.settings.drain_timeout_s
        self.log.info("draining", in_flight=self.server.in_flight + self.grpc.in_flight, is_orphan=self._is_orphan)
        self.edge.is_draining = self.server.is_draining = True
        if not self._is_orphan and (self.server.connections or self.grpc.connections):
            await asyncio.sleep(min(GRACE_S, self.settings.drain_timeout_s / 4))
        for listener in listeners:
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)  # for every process that holds this socket
        self.server.stop_listening()
        self.grpc.stop_listening()
        while (self.server.is_asked or self.grpc.is_asked) and monotonic() < until:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0)  # let the last answers leave
        if self.tracer is not None:
            self.tracer.close()
        self.log.info("drained", unanswered=self.server.in_flight + self.grpc.in_flight)
        self.server.close()
        self.grpc.close()
        self.edge.close()
        self.plane.close()
        if self.edge.repository is not None:
            self.edge.repository.close()
        self._loader.shutdown(wait=False, cancel_futures=True)
        for loaded in self._loaded.values():
            if isinstance(loaded.runtime, Isolated):  # its processes would end with this one, and leave their scratch folders
                loaded.runtime.close()


def _digests(plan: HostPlan) -> list[Digest]:
    return list(dict.fromkeys(digest for each in plan.plans for digest in each.digests))


def _weights(plan: TrafficPlan) -> dict[str, int]:
    return {str(plan.versions[digest]): weight for digest, weight in plan.weights.items()}


async def _run(arguments: argparse.Namespace, settings: Settings) -> None:
    listener = socket.socket(fileno=arguments.listener)
    channel = socket.socket(fileno=arguments.channel)
    worker = Worker(settings, slot=arguments.slot, plan=arguments.plan, run=arguments.run, spool=arguments.spool)
    if arguments.dynamic is not None:
        from modelyard.serve.repository import Repository

        worker.edge.repository = Repository(arguments.dynamic, settings, plan=arguments.plan, run=arguments.run)
    await worker.serve(listener, channel, None if arguments.grpc is None else socket.socket(fileno=arguments.grpc))


def main(argv: list[str] | None = None) -> int:
    """Run one worker; its sockets are inherited, its settings come from the environment that the supervisor made."""
    parser = argparse.ArgumentParser(prog="python -m modelyard.serve.worker", description="One worker; the supervisor starts it.")
    parser.add_argument("--slot", type=int, required=True)
    parser.add_argument("--listener", type=int, required=True)
    parser.add_argument("--channel", type=int, required=True)
    parser.add_argument("--grpc", type=int)
    parser.add_argument("--plan", type=Path, required=True)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--spool", type=Path)
    parser.add_argument("--dynamic", type=Path)
    arguments = parser.parse_args(argv)
    settings = config.load()
    keep_freed_memory()
    import uvloop

    try:
        uvloop.run(_run(arguments, settings))
    except ModelyardError as error:
        Log(settings.log_format, slot=arguments.slot).error("worker_failed", code=error.code, message=error.message)
        return 1
    # Threads that still compute for nobody must not hold the process back.
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
