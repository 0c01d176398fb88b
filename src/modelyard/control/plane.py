"""ControlPlane: one home's verbs, each under a Principal.

Hides how rooms are put together and in what order they are asked. Verbs on bundles and the registry run wherever they are called, under compare-
and-swap; verbs on the running world run in the home's one control process, whose driver carries out what they write down. Every mutation is audited
in the transaction that makes it, or before it is made. It must not import the data plane.
"""

from __future__ import annotations

import contextlib
import functools
import secrets
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import msgspec

from modelyard import bundle, config, files, registry
from modelyard.bundle import archive
from modelyard.config import Settings
from modelyard.control import alerting, audit, monitoring, planned
from modelyard.control.host import FetchedStock, HomeStock, host_id
from modelyard.control.labelling import Desk, Gift
from modelyard.control.monitoring import Chosen, Monitoring
from modelyard.control.once import Once
from modelyard.control.planned import Planned
from modelyard.control.progress import shown
from modelyard.errors import Conflict, Denied, Forbidden, InvalidConfig, InvalidInput, ModelyardError, NotFound, Unavailable
from modelyard.monitor import receive
from modelyard.monitor.alerts import book as alert_book
from modelyard.monitor.alerts.base import Matcher, Silence
from modelyard.monitor.alerts.deliver import Deliverer
from modelyard.monitor.alerts.written import Routes
from modelyard.monitor.budget import account as account_of
from modelyard.monitor.intake import log_path, windows_path
from modelyard.monitor.labels import Account, Answers, Ledger, Received, Unchecked, account, answers, anything, fitting, labels_path, sheet
from modelyard.monitor.log import PredictionLog
from modelyard.monitor.overview import Overview
from modelyard.monitor.receive import Inbox, Observed
from modelyard.monitor.settings import Monitored, check, require_rule
from modelyard.monitor.sharing import is_shared
from modelyard.monitor.windows import Windows
from modelyard.rollout import machine, strategies
from modelyard.rollout.deployments import Deployments, Stored
from modelyard.rollout.driver import Driver
from modelyard.rollout.election import Election
from modelyard.rollout.history import ITSELF, Change, Event
from modelyard.rollout.host import Host
from modelyard.rollout.hosts import Membership
from modelyard.rollout.truths import Truths
from modelyard.security import identity, policy
from modelyard.security.audit import FIRST, AuditLog, FileLines
from modelyard.security.keys import FileKeys
from modelyard.security.seal import Trust, TrustedKey, local_signer
from modelyard.security.uses import last_uses
from modelyard.targets.base import Deployment, Release, Strategy, Target
from modelyard.targets.local import Local
from modelyard.types import Digest, Placement, Principal, Tag, Tolerance, Verdict, parse_name

if TYPE_CHECKING:
    from modelyard.control.packaging import Progress
    from modelyard.registry import Model, Version
    from modelyard.registry.base import Also, RecordStore, Swept, Transaction
    from modelyard.security.base import KeyRecord

KEY_LIMIT_BYTES = 64 << 10
TRIES = 5  # of a change that meets the driver's own
REASON_CHARACTERS = 500


def package(
    model: object,
    *,
    name: str,
    data: object,
    labels: object = None,
    label: str | None = None,
    evaluation: object = None,
    evaluation_labels: object = None,
    times: object = None,
    tags: Mapping[str, Tag] | None = None,
    tolerance: float | Tolerance | None = None,
    code: Sequence[Path | str] = (),
    files: Mapping[str, object] | None = None,
    home: Path | str | None = None,
    progress: Progress | None = None,
) -> bundle.Bundle:
    """Turn a trained model into a bundle that proves itself, and register it as the next version of `name`.

    `model` is a fitted estimator or the path of a model file; with `code`, a class or function importable from those source files and folders,
    which runs in a process of its own and is handed `files` (paths, arrays, estimators: data alone). `data` is what it predicts on (pandas or
    polars frame, numpy array, dict of arrays, or the path of a Parquet or CSV file), every row of which is asked of both the original and its
    conversion. `labels` (or the column `label` of the data) are the true answers: with them the card tells how well the model does on these rows.
    `evaluation` with `evaluation_labels` (or its column `label`) is data that the model was not trained on: quality is then that on these rows, and
    they teach what its performance is estimated by while labels are still to come.
    `times` (one value a row, or the name of the column that has them, which is then no input) say when the rows were: an ordinary week is learnt from
    them, which drift has to exceed. `tags` maps columns to `drop`, `hash` or `mask`. `tolerance` widens the proof from 1e-5. `progress` is called
    with a stage and a fraction; without it a bar is drawn on a terminal. The same model, data and package versions give the version that is already
    there.

    Raises UnsupportedFormat (pickle), InvalidInput, SchemaMismatch, Unconvertible with the reason of every way tried, InvalidConfig or StorageFull;
    then nothing is registered.
    """
    told = shown(f"Packaging {name}") if progress is None else contextlib.nullcontext(progress)
    with ControlPlane(config.load({"home": home})) as plane, told as tell:
        return plane.package(
            local_principal(),
            model,
            name=name,
            data=data,
            labels=labels,
            label=label,
            evaluation=evaluation,
            evaluation_labels=evaluation_labels,
            times=times,
            tags=tags or {},
            tolerance=tolerance,
            code=code,
            files=files or {},
            progress=tell,
        )


def local_principal() -> Principal:
    """The user of this machine, for verbs that run in the caller."""
    return Principal(f"local:{config.user()}", ("admin",))


class ControlPlane:
    """The verbs of one home. Holds the registry open; use it from one process, from any of its threads."""

    def __init__(self, settings: Settings, *, is_checked: bool = False) -> None:
        files.make_folder(settings.home)
        self.settings = settings
        self.keys = settings.home / "keys"
        self.registry = registry.open(settings.home, records_url=settings.records_url, blobs_url=settings.blobs_url, is_checked=is_checked)
        self.once = self.registry.records = Once(self.registry.records)
        self.trust = Trust(self.keys)
        self.access_keys = FileKeys(settings.access_keys)
        self.audit = AuditLog(self.registry.records, begin=self._chain_before)
        self.deployments = Deployments(self.registry)
        self.alert_routes = Routes(settings.alert_routes)
        self._inbox = Inbox(settings)
        self._desk = Desk(settings, self.registry.records, self.audit)
        self.targets: dict[str, Target] = {"local": Local(plan=settings.plan, run=settings.run)}

    def __enter__(self) -> ControlPlane:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the registry."""
        self.registry.close()

    # Bundles

    def package(
        self,
        principal: Principal,
        model: object,
        *,
        name: str,
        data: object,
        labels: object,
        label: str | None,
        tags: Mapping[str, Tag],
        tolerance: float | Tolerance | None,
        progress: Progress,
        evaluation: object = None,
        evaluation_labels: object = None,
        times: object = None,
        code: Sequence[Path | str] = (),
        files: Mapping[str, object] | None = None,
    ) -> bundle.Bundle:
        """See the function `package`."""
        from modelyard.control import packaging
        from modelyard.runtime.data import read, timed

        parse_name(name)
        exact = _tolerance(tolerance)
        signer = local_signer(self.keys)
        progress("reading the model", 0.0)
        with contextlib.ExitStack() as opened_original:
            original = packaging.original(model, code, files or {}, self.settings)
            if hasattr(original, "close"):
                opened_original.callback(original.close)
            data, at = timed(data, times)
            table, answers = read(data, label=label, labels=labels)
            if at is not None and len(at) != table.rows:
                raise InvalidInput(f"the data has {table.rows:,} rows and {len(at):,} times", field="times", rule="rows")
            held_out = packaging.held_out(evaluation, evaluation_labels, label, times)
            options = packaging.Options(name=name, tags=tags, tolerance=exact, progress=progress, times=at)
            contents, attested = packaging.make(original, table, answers, options, held_out)
        progress("sealing", 0.96)
        built = bundle.build(contents, attested, signer=signer)
        card = contents.card
        summary = {"title": card.title, "task": card.schema.task, "rows": card.rows, **card.quality}
        with self._audited(principal, "package", f"{name}@{built.digest}") as told:
            version = self.registry.add(name, built, summary=summary, also=told)
        progress("opening it again", 0.98)
        opened = self._open(version)
        progress(f"registered {name}:{version.version}", 1.0)
        return opened

    def open(self, reference: str) -> tuple[bundle.Bundle, Version | None]:
        """The verified bundle of a reference, and its version; a path of a folder or .tar has none. Raises NotFound or Tampered."""
        if registry.is_file(reference):
            return open_file(Path(reference), self.trust), None
        version = self.registry.resolve(reference)
        return self._open(version), version

    def verify(self, reference: str) -> tuple[bundle.Bundle, tuple[Verdict, ...]]:
        """Open a bundle and run every gate on it here. Raises NotFound, or Tampered when it does not open."""
        from modelyard import gates
        from modelyard.gates.base import Candidate

        opened, version = self.open(reference)
        if version is not None:
            return opened, gates.run(Candidate(bundle=opened, placement=self._place(version), keys=self.keys))
        with unpacked(Path(reference)) as placement:
            return opened, gates.run(Candidate(bundle=opened, placement=placement, keys=self.keys))

    def export(self, reference: str, target: Path) -> bundle.Bundle:
        """Write the bundle of `reference` to `target`, a .tar or a new folder. Raises Conflict when it is there."""
        version = self.registry.resolve(reference)
        opened = self._open(version)
        archive.export(self.registry.blobs, version.index, target)
        return opened

    def import_(self, principal: Principal, path: Path, *, name: str | None = None) -> Version:
        """Register the bundle in `path` under its own or another name. Raises Tampered; UntrustedSigner when its signer is unknown here."""
        source = archive.source(path)
        opened = bundle.open(source, source.index, trust=self.trust)
        card = opened.card
        called = parse_name(name or opened.name)
        with self._audited(principal, "import", f"{called}@{opened.digest}") as told:
            summary = {"title": card.title, "task": card.schema.task, "rows": card.rows, **card.quality}
            return self.registry.add(called, bundle.collect(source, source.index), summary=summary, also=told)

    def trust_add(self, principal: Principal, path: Path) -> str:
        """Trust the signer whose public key (or authority whose certificate) is in `path`; the id. Raises NotFound or InvalidInput."""
        return self.trust_add_pem(principal, files.read_limited(path, KEY_LIMIT_BYTES), called=path.name)

    def trust_add_pem(self, principal: Principal, pem: bytes, *, called: str) -> str:
        """As `trust_add`, of the key itself; `called` is what the audit log calls it."""
        with self._announced(principal, "trust-add", called):
            return self.trust.add(pem)

    def trust_remove(self, principal: Principal, id: str) -> str:
        """Trust a signer no longer, by the first digits of the id; the whole id. Raises NotFound or InvalidInput."""
        with self._announced(principal, "trust-remove", id):
            return self.trust.remove(id)

    def trusted(self) -> tuple[TrustedKey, ...]:
        """Every signer that this home trusts, its own key first."""
        local_signer(self.keys)
        return self.trust.list()

    # Access keys

    def key_create(
        self,
        principal: Principal,
        name: str,
        *,
        roles: tuple[str, ...],
        models: tuple[str, ...] = (),
        expires_at: datetime | None = None,
        priority: Literal["high", "normal", "low"] = "high",
    ) -> tuple[str, KeyRecord]:
        """A new key, which can be seen this once, and what is kept of it. Raises InvalidInput for a role or name that is none."""
        unknown = sorted(set(roles) - set(policy.ROLES))
        if unknown or not roles:
            raise InvalidInput(f"a role is one of {', '.join(policy.ROLES)}", field="role", rule="known")
        key, record = identity.new(parse_name(name), roles=roles, models=tuple(map(parse_name, models)), expires_at=expires_at, priority=priority)
        detail = f"{name}: {', '.join(roles)}; {', '.join(models) or 'all models'}; until {record.expires_at or 'revoked'}"
        with self._announced(principal, "key-create", record.id, detail=detail):
            self.access_keys.put(record)
        return key, record

    def key_revoke(self, principal: Principal, id: str) -> KeyRecord:
        """Forget a key, by the first digits of its id. Raises NotFound, or InvalidInput when several begin so."""
        found = [record for record in self.access_keys.all() if id and record.id.startswith(id)]
        if not found:
            raise NotFound("no key has an id that begins so; see: modelyard keys list", field="id")
        if len(found) > 1:
            raise InvalidInput("several keys have an id that begins so; give more digits", field="id", rule="unique")
        with self._announced(principal, "key-revoke", found[0].id, detail=found[0].name):
            self.access_keys.remove(found[0].id)
        return found[0]

    def key_uses(self) -> dict[str, str]:
        """When each key was last used, by its id, as this home's processes have written down: about a minute behind."""
        return last_uses(self.settings.run)

    def key_list(self) -> tuple[KeyRecord, ...]:
        """What is kept of every key."""
        return self.access_keys.all()

    # Registry

    def models(self) -> tuple[Model, ...]:
        """Every model of the registry."""
        return self.registry.models()

    def versions(self, name: str) -> tuple[Version, ...]:
        """Every version of a model. Raises NotFound."""
        return self.registry.versions(name)

    def set_alias(self, principal: Principal, name: str, alias: str, version: int | None) -> None:
        """Point `alias` at a version, or remove it (None). Raises NotFound or InvalidInput."""
        with self._audited(principal, "alias", f"{name}@{alias}", detail=f"version {version}" if version is not None else "removed") as told:
            self.registry.set_alias(name, alias, version, also=told)

    def delete(self, principal: Principal, name: str, version: int) -> None:
        """Remove a version from the registry. Raises NotFound, or Conflict while it is deployed, aliased or a rollback target."""
        with self._audited(principal, "delete", f"{name}:{version}") as told:
            self.registry.delete(name, version, also=told)

    def gc(self, principal: Principal) -> Swept:
        """Free the blobs that no version needs."""
        with self._announced(principal, "gc", "blobs"):
            return self.registry.gc()

    # The audit chains

    def audit_verify(self) -> audit.Report:
        """What is found of the audit chains of this home, each entry checked against the one before."""
        return audit.verify(self.registry.records, self._audit_file())

    def audit_list(self, *, since: datetime | None = None) -> Iterator[audit.Listed]:
        """The entries of both chains from `since` on, by time, unchecked."""
        return audit.entries(self.registry.records, self._audit_file(), since=since)

    def _audit_file(self) -> FileLines:
        return FileLines(self.settings.home / "audit.jsonl")

    def _chain_before(self) -> str:
        """What the first entry of the records' chain follows: in a home of one machine the last that 0.1.0, or the data plane, wrote to the file."""
        return FIRST if self.settings.records_url else self._audit_file().head()

    # Alerts

    def alerts(self) -> alerting.Alerts:
        """What fires and what is over, silences, and how routes fare."""
        return alerting.alerts(self.registry.records, self.alert_routes)

    def silence(self, principal: Principal, matcher: Matcher, *, until: float, why: str) -> Silence:
        """Let nobody be told of what `matcher` means until then (seconds since 1970). Raises InvalidInput, or NotFound for a deployment."""
        if matcher.deployment:
            self.deployments.get(matcher.deployment)
        if matcher.rule:
            require_rule(matcher.rule, field="rule")
        meant = " ".join(f"{name}={value}" for name, value in msgspec.structs.asdict(matcher).items() if value)
        with self._audited(principal, "silence", meant, detail=why) as told, self.registry.records.transaction() as records:
            made = alert_book.silence(records, matcher, until=until, by=principal.name, why=why, now=time.time())
            told(records)
        return made

    def unsilence(self, principal: Principal, id: str) -> Silence:
        """End a silence now, by the first digits of its id. Raises NotFound, InvalidInput, or Forbidden for one of another's deployment."""
        found = alert_book.find_silence(self.registry.records, id)
        if principal.models and found.matcher.deployment not in principal.models:
            self.audit.record(principal, "unsilence", found.id, outcome="denied", detail="grant")
            raise Forbidden("you are held to some models, and this silence is not of one of them alone", field="id", rule="grant")
        with self._audited(principal, "unsilence", found.id) as told, self.registry.records.transaction() as records:
            ended = alert_book.unsilence(records, found, now=time.time())
            told(records)
        return ended

    def test_route(self, principal: Principal, name: str) -> alerting.Tested:
        """Send a test message by the route called `name` of this home, and say what came back. Raises NotFound."""
        with self._announced(principal, "alerts-test", name[:80]):
            return alerting.test(self.alert_routes, name)

    def metrics(self) -> bytes:
        """What the monitor found and how alerts fare, in Prometheus' text form."""
        from modelyard.control import exposition

        found = monitoring.latest(self.registry.records)
        verdicts = {name: kept.verdicts for name, (kept, _) in found.items()}
        left = {name: account_of(kept.paged, allowed=said.settings.false_pages_a_month, now=time.time()).left for name, (kept, said) in found.items()}
        return exposition.render(self.alerts(), verdicts, left)

    def deliverer(self, records: RecordStore) -> Deliverer:
        """What hands alerts over; the control process that leads runs one, on the store as its term may write it."""
        return Deliverer(records, self.alert_routes)

    # The running world: called in the control process

    def deploy(
        self,
        principal: Principal,
        reference: str,
        *,
        name: str | None = None,
        breaking: bool = False,
        strategy: Strategy | None = None,
        expected_generation: int | None = None,
    ) -> Deployment:
        """Let a version serve under `name` (default: its model's) by `strategy` (default: direct), once every gate has let it pass.

        The rollout is then under way; what serves already, or is on its way so, is returned as it is. Raises NotFound, Tampered, InvalidConfig for a
        strategy that cannot be honoured, Conflict while another rollout is under way, for another generation than the expected one, or when
        the name serves another model, or Rejected: by a gate, or because its schema would refuse requests in use and `breaking` is False.
        """
        wanted = self._wanted(reference, name, strategy, expected_generation)
        if wanted.is_there:
            return wanted.before
        what = f"{wanted.goal.model}:{wanted.goal.version} {wanted.goal.digest} by {wanted.strategy.kind}"
        with self._audited(principal, "deploy", wanted.before.name, detail=what) as told:
            gates = self._gates(wanted, breaking=breaking)
            for _ in range(TRIES):
                after = machine.begin(wanted.before, wanted.goal, kind="deploy", gates=gates, at=_now(), by=principal.name, strategy=wanted.strategy)
                try:
                    return self.deployments.put(after, expected=wanted.revision, change=Change(principal.name, _now()), also=told).deployment
                except Conflict as error:
                    found = self.deployments.find(after.name)
                    if error.rule != "revision" or found is None or not _is_but_cooler(wanted.before, found.deployment):
                        raise
                wanted = wanted._replace(before=found.deployment, revision=found.revision)
        raise _restless(wanted.before.name)

    def plan_deploy(
        self,
        reference: str,
        *,
        name: str | None = None,
        breaking: bool = False,
        strategy: Strategy | None = None,
        expected_generation: int | None = None,
    ) -> Planned:
        """What `deploy` would do now, its gates included; nothing is changed. Raises whatever `deploy` would."""
        wanted = self._wanted(reference, name, strategy, expected_generation)
        return Planned(
            name=wanted.before.name,
            goal=wanted.goal,
            current=wanted.before.current,
            generation=wanted.before.in_force,
            strategy=wanted.strategy,
            guards=planned.guards(wanted.strategy),
            gates=() if wanted.is_there else self._gates(wanted, breaking=breaking),
            is_there=wanted.is_there,
            is_warm=wanted.before.warm is not None and wanted.before.warm.release.digest == wanted.goal.digest,
            notes=planned.notes(wanted.strategy, name=wanted.before.name),
        )

    def _wanted(self, reference: str, name: str | None, strategy: Strategy | None, expected: int | None) -> Wanted:
        """What a deploy is about, as far as it can be refused without opening the bundle."""
        completed = strategies.complete(strategy or Strategy())
        strategies.require_reach(completed, self.settings.prometheus_urls)
        version = self.registry.resolve(reference)
        called = parse_name(name or version.name)
        found = self.deployments.find(called)
        before = Deployment(name=called, model=version.name, generation=self.deployments.spent(called)) if found is None else found.deployment
        goal = Release(model=version.name, version=version.version, digest=version.digest, index=version.index)
        wanted = Wanted(before, 0 if found is None else found.revision, goal, completed)
        machine.require_generation(None if found is None else before, expected)
        if not wanted.is_there:
            if before.model != version.name:
                raise Conflict(f"{called} serves the model {before.model}; deploy {version.name} under a name of its own (--as NAME)", field="name")
            machine.require_idle(before)
        return wanted

    def _gates(self, wanted: Wanted, *, breaking: bool) -> tuple[Verdict, ...]:
        from modelyard import gates
        from modelyard.gates.base import Candidate
        from modelyard.gates.schema import compatible

        goal, current = wanted.goal, wanted.before.current
        opened = self._open(goal)
        strategies.require_fit(wanted.strategy, has_champion=current is not None, schema=opened.strict_schema, breaking=breaking)
        verdicts = gates.run(Candidate(bundle=opened, placement=self._place(goal), keys=self.keys))
        if current is not None and not breaking:
            serving = bundle.open(self.registry.blobs, current.index, trust=self.trust)
            verdicts = (*verdicts, compatible(serving.strict_schema, opened.strict_schema))
        gates.require(verdicts, what=f"{goal.model}:{goal.version}")
        return verdicts

    def rollback(self, principal: Principal, name: str, *, expected_generation: int | None = None) -> Deployment:
        """Go back to what served before, as a new generation; the rollout is then under way, and a flip where that is still warm.

        Raises NotFound, or Conflict: nothing is left, a rollout is under way, or the generation is not the expected one.
        """
        return self._change(
            principal, "rollback", name, lambda before: machine.begin_back(before, at=_now(), by=principal.name), expected=expected_generation
        )

    def promote(self, principal: Principal, name: str, *, expected_generation: int | None = None) -> Deployment:
        """Skip to the last step of the rollout, whatever its guards say. Raises NotFound, or Conflict: none under way, or an approval is wanted."""
        return self._change(
            principal, "promote", name, lambda before: machine.promote(before, by=principal.name, at=_now()), expected=expected_generation
        )

    def pause(self, principal: Principal, name: str, *, why: str = "", expected_generation: int | None = None) -> Deployment:
        """Keep the rollout at its step; its guards go on judging. Raises NotFound, or Conflict when there is none to pause."""
        return self._change(
            principal,
            "pause",
            name,
            lambda before: machine.pause(before, by=principal.name, why=_reason(why), at=_now()),
            expected=expected_generation,
        )

    def resume(self, principal: Principal, name: str, *, expected_generation: int | None = None) -> Deployment:
        """Let a paused rollout go on. Raises NotFound, or Conflict when none is paused."""
        return self._change(principal, "resume", name, machine.resume, expected=expected_generation)

    def abort(self, principal: Principal, name: str, *, why: str = "", expected_generation: int | None = None) -> Deployment:
        """End the rollout: what served before has all traffic again, at once. Raises NotFound, or Conflict when none is under way."""
        return self._change(
            principal,
            "abort",
            name,
            lambda before: machine.abort(before, by=principal.name, why=_reason(why), at=_now()),
            expected=expected_generation,
        )

    def approve(self, principal: Principal, name: str, *, expected_generation: int | None = None) -> Deployment:
        """Let the next step that needs an approval be entered.

        Raises NotFound, Conflict when no step needs one, or Forbidden: for who is no approver, and for who began the rollout.
        """

        def approved(before: Deployment) -> Deployment:
            policy.require_approver(principal)
            return machine.approve(before, by=principal.name, at=_now())

        return self._change(principal, "approve", name, approved, expected=expected_generation)

    def history(self, name: str) -> tuple[Event, ...]:
        """What happened to a deployment, oldest first: who did what and why, with the verdicts. Raises NotFound."""
        return self.deployments.history(name)

    def labels(self, principal: Principal, name: str, labels: Sequence[Unchecked]) -> Received:
        """Keep true answers of a deployment's predictions, by prediction id; the newest of an id stands.

        Raises NotFound, InvalidInput, or Overloaded while too many wait to be sent to the other hosts: none is kept then.
        """
        self.deployments.get(name)
        return self._desk.give(Gift(principal, name, sheet(labels, at=time.time()), is_shared(self.settings.shared_url)))

    def labelled(self, name: str) -> Account:
        """What became of all labels of a deployment, and how they came. Raises NotFound."""
        deployment = self.deployments.get(name).deployment
        releases = {each.digest: each for each in deployment.releases}

        @functools.cache
        def fits(digest: Digest) -> Callable[[str], bool]:
            try:
                schema = self._open(releases[digest]).schema
            except (KeyError, ModelyardError):  # a version of before: nobody knows any more what it could answer
                return anything
            return fitting(schema.classes) if schema.task in ("classification", "regression") else anything

        with self._observed() as (ledger, log, windows):
            return account(ledger, log, windows, name, now=time.time(), fits=lambda digest, truth: fits(digest)(truth))

    def observe(self, principal: Principal, name: str, data: bytes) -> Observed:
        """Keep what a data plane elsewhere has counted: one segment under a name of its sender's, which counts once however often it is given.

        Raises InvalidInput, MalformedPayload or PayloadTooLarge for what is no segment, Forbidden where it tells of a model that the key is not for,
        Overloaded while too much waits here, StorageFull.
        """
        segment = receive.read(name, data)
        try:
            for part in segment.parts:
                policy.require_model(principal, part.name)
        except Denied as error:
            self.audit.record(principal, "observe", "observations", outcome="denied", detail=error.rule or error.code)
            raise
        return self._inbox.put(principal.name, name, data, segment)

    def answers(self, name: str, since: float) -> dict[Digest, Answers]:
        """The labelled predictions of a deployment that were answered from `since` on (seconds since 1970), by version."""
        with self._observed() as (ledger, log, windows):
            return answers(ledger, log, windows, name, since=since, now=time.time())

    def monitored(self, name: str) -> Chosen:
        """How a deployment is watched. Raises NotFound."""
        self.deployments.get(name)
        return monitoring.chosen(self.registry.records, name)

    def monitor_so(self, principal: Principal, name: str, settings: Monitored, *, expected_revision: int | None = None) -> Chosen:
        """Let a deployment be watched so, from the next minute on.

        Raises NotFound, InvalidConfig for what its model or this home cannot honour, or Conflict when somebody has said otherwise since the
        expected revision (0: nobody had said anything).
        """
        deployment = self.deployments.get(name).deployment
        check(settings)
        if deployment.current is not None:
            monitoring.require_fit(self._open(deployment.current), settings, routes=self.alert_routes())
        with self._audited(principal, "monitor", name, detail=monitoring.brief(settings)) as told, self.registry.records.transaction() as records:
            told(records)
            return monitoring.choose(records, name, settings, by=principal.name, at=_now(), expected=expected_revision)

    def overview(self, name: str, *, since: datetime | None = None) -> Overview:
        """What there is to tell of a deployment's watch, from `since` on. Raises NotFound."""
        return monitoring.overview(self, name, since=None if since is None else since.timestamp())

    def monitoring(self, records: RecordStore) -> Monitoring:
        """What judges deployments once a minute; the control process that leads runs one, on the store as its term may write it."""
        return Monitoring(self, records)

    @contextlib.contextmanager
    def _observed(self) -> Iterator[tuple[Ledger, PredictionLog, Windows]]:
        """This home's labels, its prediction log, and what waits for that."""
        with (
            contextlib.closing(Ledger(labels_path(self.settings))) as ledger,
            contextlib.closing(Windows(windows_path(self.settings))) as windows,
        ):
            yield ledger, PredictionLog(log_path(self.settings)), windows

    def undeploy(self, principal: Principal, name: str, *, expected_generation: int | None = None) -> Deployment:
        """Serve `name` no longer and forget its deployment, which is returned. Raises NotFound, or Conflict when the generation is another."""
        with self._audited(principal, "undeploy", name) as told:
            found = self._remove(name, Change(principal.name, _now()), told, expected=expected_generation)
        with contextlib.suppress(ModelyardError):  # it is out of service; what could not be done at once here each host's loop does
            self.targets[found.deployment.target].remove(name)
        return found.deployment

    def _change(self, principal: Principal, verb: str, name: str, change: Callable[[Deployment], Deployment], *, expected: int | None) -> Deployment:
        """Make a change of the deployment `name`: what is refused is refused before anything is written, and a denial is audited."""
        found = self.deployments.get(name)
        try:
            machine.require_generation(found.deployment, expected)
            change(found.deployment)
        except Denied as error:
            self.audit.record(principal, verb, name, outcome="denied", detail=error.rule or error.code)
            raise
        with self._audited(principal, verb, name) as told:
            for _ in range(TRIES):
                try:
                    after = change(found.deployment)
                    made = Change(principal.name, _now())
                    return self.deployments.put(after, expected=found.revision, change=made, also=told).deployment
                except Conflict as error:
                    if error.rule != "revision":
                        raise
                # The driver writes a rollout's progress meanwhile, which is no reason to refuse: read again, a few times.
                found = self.deployments.get(name)
                machine.require_generation(found.deployment, expected)
        raise _restless(name)

    def _remove(self, name: str, change: Change, told: Also, *, expected: int | None) -> Stored:
        for _ in range(TRIES):
            found = self.deployments.get(name)
            machine.require_generation(found.deployment, expected)
            try:
                self.deployments.remove(found, change=change, also=told)
            except Conflict:
                continue
            return found
        raise _restless(name)

    def driver(self, records: RecordStore | None = None) -> Driver:
        """What takes rollouts from step to step; the control process that leads runs one, on the store as its term may write it."""
        deployments = Deployments(registry.Registry(self.registry.blobs, records or self.registry.records))
        return Driver(deployments, truths=self.truths(), audited=self._by_itself)

    def truths(self) -> Truths:
        """What finds this home's labels for a driver."""
        return Truths(self.answers, functools.cache(lambda release: self._open(release).schema.classes))

    def election(self, membership: Membership) -> Election:
        """This control process's part in who leads."""
        return Election(self.registry.records, host=membership.id, instance=membership.instance)

    def membership(self) -> Membership:
        """This home's own record among the hosts of its store; the control process has one."""
        return Membership(self.registry.records, id=host_id(self.settings), instance=secrets.token_hex(8))

    def host(self, membership: Membership, *, control: str | None = None) -> Host:
        """What carries out the deployments on this home's data plane; the control process, whose API is at `control`, runs one."""
        return Host(
            self.deployments,
            self.targets["local"],
            stock=FetchedStock(self.registry) if self.settings.blobs_url else HomeStock(self.settings.home / "blobs"),
            membership=membership,
            control=control,
        )

    def opened(self, release: Release) -> bundle.Bundle:
        """The verified bundle of what serves. Raises NotFound or Tampered."""
        return self._open(release)

    def _open(self, version: Version | Release) -> bundle.Bundle:
        return bundle.open(self.registry.blobs, version.index, trust=self.trust)

    def _place(self, version: Version | Release) -> Placement:
        name = version.model if isinstance(version, Release) else version.name
        return Placement(blobs=str(self.registry.fetch(name, version.version)), index=version.index)

    @contextlib.contextmanager
    def _audited(self, principal: Principal, action: str, subject: str, *, detail: str = "") -> Iterator[Also]:
        """What the block is to do in the transaction of its mutation: tell the audit chain of it, so that both come to be or neither.

        A failure is told after it. Raises what the audit raises, and then nothing was changed.
        """

        def tell(transaction: Transaction) -> None:
            self.audit.within(transaction).record(principal, action, subject, outcome="done", detail=detail)

        with self._failure_audited(principal, action, subject):
            yield tell

    def _by_itself(self, action: str, subject: str, why: str) -> Also:
        """What tells the audit chain of a change that modelyard makes by itself, in its transaction."""

        def tell(transaction: Transaction) -> None:
            self.audit.within(transaction).record(Principal(ITSELF, ()), action, subject, outcome="done", detail=why)

        return tell

    @contextlib.contextmanager
    def _announced(self, principal: Principal, action: str, subject: str, *, detail: str = "") -> Iterator[None]:
        """Record a mutation outside the records before the block makes it. Raises what the audit raises, and then the block does not run."""
        self.audit.record(principal, action, subject, outcome="begun", detail=detail)
        with self._failure_audited(principal, action, subject):
            yield

    @contextlib.contextmanager
    def _failure_audited(self, principal: Principal, action: str, subject: str) -> Iterator[None]:
        try:
            yield
        except BaseException as error:
            code = error.code if isinstance(error, ModelyardError) else type(error).__name__
            if not isinstance(error, Unavailable):  # the chain is where what is away is: the caller would wait for it a second time
                with contextlib.suppress(ModelyardError):
                    self.audit.record(principal, action, subject, outcome="failed", detail=code)
            raise


@contextlib.contextmanager
def unpacked(path: Path) -> Iterator[Placement]:
    """The bundle in a folder or .tar as blobs in a temporary folder, for processes that read placements; every blob was hashed."""
    with tempfile.TemporaryDirectory(prefix="modelyard-") as folder:
        yield unpack(path, Path(folder))


def open_file(path: Path, trust: Trust) -> bundle.Bundle:
    """The verified bundle in a folder or .tar. Raises NotFound or Tampered."""
    source = archive.source(path)
    return bundle.open(source, source.index, trust=trust)


def unpack(path: Path, folder: Path) -> Placement:
    """Write the blobs of the bundle in `path` into `folder`."""
    source = archive.source(path)
    archive.place(source, folder)
    return Placement(blobs=str(folder), index=source.index)


class Wanted(NamedTuple):
    """A deployment as it is, at the revision of its record (0: none yet), and what shall serve there by which completed strategy."""

    before: Deployment
    revision: int
    goal: Release
    strategy: Strategy

    @property
    def is_there(self) -> bool:
        """Whether it serves already, or is on its way by the same strategy."""
        rollout, current = self.before.rollout, self.before.current
        if rollout is not None:
            return rollout.goal.digest == self.goal.digest and rollout.strategy == self.strategy
        return current is not None and current.digest == self.goal.digest


def _tolerance(given: float | Tolerance | None) -> Tolerance:
    if given is None:
        return Tolerance()
    tolerance = given if isinstance(given, Tolerance) else Tolerance(absolute=float(given), relative=float(given))
    if not (0 <= tolerance.absolute < 1 and 0 <= tolerance.relative < 1):
        raise InvalidConfig("a tolerance is a number from 0 to below 1", field="tolerance", rule="range")
    return tolerance


def _reason(why: str) -> str:
    if len(why) > REASON_CHARACTERS:
        raise InvalidInput(f"a reason has at most {REASON_CHARACTERS} characters", field="why", rule="length")
    return why


def _is_but_cooler(before: Deployment, after: Deployment) -> bool:
    """Whether nothing has happened but that a warm release's time went on, or ended: the driver writes it while gates run, and none judged by it."""
    return msgspec.structs.replace(before, warm=None) == msgspec.structs.replace(after, warm=None)


def _restless(name: str) -> Conflict:
    return Conflict(f"{name} goes on changing; try again when its rollout has ended", field="name")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
