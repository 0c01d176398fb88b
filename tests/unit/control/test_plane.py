"""The verbs on bundles and the registry, on real models: what is packaged, what is refused, and that a refusal leaves nothing."""

from __future__ import annotations

import pickle
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

import modelyard
from modelyard import config
from modelyard.control.plane import ControlPlane, local_principal, package
from modelyard.errors import (
    Conflict,
    DigestMismatch,
    Forbidden,
    InvalidConfig,
    InvalidInput,
    NotFound,
    Rejected,
    SchemaMismatch,
    StorageFull,
    Tampered,
    UnsupportedFormat,
    UntrustedSigner,
)
from modelyard.runtime.validate import check
from modelyard.targets.base import Strategy, Warm
from modelyard.types import Principal, Tolerance

WHO = local_principal()


@pytest.fixture(scope="module")
def model() -> Any:
    """A small pipeline over a frame with a text column, and its data."""
    import pandas as pd
    from sklearn.compose import ColumnTransformer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder

    draw = np.random.default_rng(0)
    frame = pd.DataFrame({"age": draw.integers(18, 90, 100), "city": draw.choice(["Bonn", "Rome"], 100), "secret": draw.random(100)})
    labels = np.where(frame["age"] + 30 * (frame["city"] == "Rome") > 60, "yes", "no")
    columns = ColumnTransformer([("words", OneHotEncoder(handle_unknown="ignore"), ["city"])], remainder="passthrough")
    return make_pipeline(columns, LogisticRegression(max_iter=1000)).fit(frame, labels), frame, labels


@pytest.fixture(scope="module")
def packaged(model: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A home with one packaged version, and its bundle. Read-only."""
    home = tmp_path_factory.mktemp("packaged") / "home"
    estimator, frame, labels = model
    stages: list[tuple[str, float]] = []
    opened = package(
        estimator, name="churn", data=frame, labels=labels, tags={"secret": "mask"}, home=home, progress=lambda *told: stages.append(told)
    )
    return home, opened, stages


def plane_of(home: Path) -> ControlPlane:
    return ControlPlane(config.load({"home": home}))


def copied(home: Path, to: Path) -> Path:
    """A home like this one, whoever has its databases open: SQLite copies these, as files of theirs come and go at any time."""
    shutil.copytree(home, to, ignore=shutil.ignore_patterns("*.sqlite", "*.sqlite-*"))
    for path in home.glob("*.sqlite"):
        with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(to / path.name)) as target:
            source.backup(target)
    return to


def test_a_home_is_copied_while_it_is_written_to(packaged: Any, tmp_path: Path) -> None:
    home, opened, _ = packaged
    with plane_of(copied(home, tmp_path / "one")) as plane:
        plane.registry.records.put("model", "left", {}, expected=0)
        assert [*(tmp_path / "one").glob("*.sqlite-shm")], "what it holds open lies beside it"
        with plane_of(copied(tmp_path / "one", tmp_path / "two")) as other:
            assert other.registry.resolve("churn").digest == opened.digest and other.registry.records.get("model", "left") is not None


def test_a_package_is_registered_and_opens(packaged: Any) -> None:
    home, opened, _ = packaged
    version = plane_of(home).registry.resolve("churn")
    assert (version.version, version.digest) == (1, opened.digest)
    assert version.summary["title"] == opened.card.title and version.summary["accuracy"] == opened.card.quality["accuracy"]
    assert opened.schema.task == "classification" and opened.schema.classes == ("no", "yes")
    assert {"scikit-learn", "numpy", "onnxruntime"} <= set(opened.lock.packages)


def test_what_this_machine_found_is_attested_not_under_the_digest(packaged: Any) -> None:
    _, opened, _ = packaged
    assert opened.attestation["platform"]["name"] == "churn" and opened.attestation["platform"]["time"].endswith("+00:00")
    parity = opened.attestation["parity"]
    assert parity["passed"] and parity["rows"] == 100 and set(parity["batch_bits"]) == {"1", "2", "7", "64"}
    assert any(attempt["chosen"] for attempt in parity["attempts"]) and parity["method"] == opened.card.method


def test_quality_is_that_of_the_original(packaged: Any, model: Any) -> None:
    estimator, frame, labels = model
    assert packaged[1].card.quality["accuracy"] == pytest.approx(estimator.score(frame, labels), abs=1e-6)


def test_a_tagged_column_appears_nowhere(packaged: Any, model: Any) -> None:
    _, opened, _ = packaged
    golden = opened.golden.inputs["secret"]
    assert len(np.unique(golden)) == 1
    assert opened.card.example["secret"] == golden[0, 0]
    spec = next(spec for spec in opened.card.schema.inputs if spec.name == "secret")
    assert spec.minimum == () and spec.categories is None and spec.tag == "mask"


@pytest.mark.parametrize("tag", ["drop", "hash", "mask"])
def test_a_tagged_column_that_takes_only_known_values_is_closed_and_shown_nowhere(tag: Any, tmp_path: Path) -> None:
    import pandas as pd
    from sklearn.compose import ColumnTransformer
    from sklearn.linear_model import Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder

    draw = np.random.default_rng(0)
    frame = pd.DataFrame({"age": draw.random(80), "city": draw.choice(["Qbonn", "Qrome"], 80), "zone": draw.choice([70031, 70047], 80)})
    columns = ColumnTransformer([("words", OneHotEncoder(), ["city"]), ("codes", OrdinalEncoder(), ["zone"])], remainder="passthrough")
    estimator = make_pipeline(columns, Ridge()).fit(frame, frame["age"] + (frame["city"] == "Qrome"))
    opened = package(estimator, name="closed", data=frame, tags={"city": tag, "zone": tag}, home=tmp_path, progress=lambda *_: None)

    strict = {spec.name: spec for spec in opened.strict_schema.inputs}
    assert strict["city"].categories == ("Qbonn", "Qrome") and strict["zone"].categories == (70031, 70047)
    showing = {member.role for member in opened.members if any(word in opened.read(member.role) for word in (b"Qbonn", b"Qrome", b"70031", b"70047"))}
    assert showing == {"model", "values"} and np.int64(70031).tobytes() not in opened.read("golden")
    assert set(opened.card.example) == {"age"} and np.isfinite(opened.golden.outputs["prediction"]).all()
    check(opened.strict_schema, opened.golden.inputs)
    _, verdicts = plane_of(tmp_path).verify("closed")
    assert {verdict.outcome for verdict in verdicts} == {"pass"}


def test_progress_rises_to_its_end(packaged: Any) -> None:
    stages = packaged[2]
    fractions = [fraction for _, fraction in stages]
    assert fractions == sorted(fractions) and fractions[-1] == 1.0 and stages[-1][0] == "registered churn:1"


def test_the_same_again_gives_the_version_that_is_there(packaged: Any, model: Any, tmp_path: Path) -> None:
    estimator, frame, labels = model
    for _ in range(2):
        opened = modelyard.package(estimator, name="churn", data=frame, labels=labels, tags={"secret": "mask"}, home=tmp_path)
    assert opened.digest == packaged[1].digest
    assert [version.version for version in plane_of(tmp_path).versions("churn")] == [1]


def test_a_tolerance_is_recorded(model: Any, tmp_path: Path) -> None:
    estimator, frame, _ = model
    opened = modelyard.package(estimator, name="churn", data=frame, tolerance=1e-3, home=tmp_path)
    assert opened.tolerance == Tolerance(absolute=1e-3, relative=1e-3) and opened.card.quality == {}
    with pytest.raises(InvalidConfig, match="tolerance"):
        modelyard.package(estimator, name="churn", data=frame, tolerance=-1, home=tmp_path)


def test_verify_asks_every_gate(packaged: Any) -> None:
    opened, verdicts = plane_of(packaged[0]).verify("churn")
    assert [verdict.rule for verdict in verdicts] == ["seal", "golden-replay", "lock", "categories"]
    assert {verdict.outcome for verdict in verdicts} == {"pass"} and opened.digest == packaged[1].digest


@pytest.mark.parametrize("file", ["churn.tar", "churn"])
def test_a_bundle_travels_to_a_home_that_trusts_its_signer(packaged: Any, tmp_path: Path, file: str) -> None:
    there, here = plane_of(packaged[0]), plane_of(tmp_path / "home")
    there.export("churn", tmp_path / file)
    with pytest.raises(UntrustedSigner, match="trust add"):
        here.import_(WHO, tmp_path / file)
    with pytest.raises(NotFound):
        here.versions("churn")
    key = here.trust_add(WHO, there.keys / "signing.pub")
    assert here.import_(WHO, tmp_path / file).digest == packaged[1].digest
    assert here.import_(WHO, tmp_path / file, name="other").name == "other"
    opened, verdicts = here.verify(str(tmp_path / file))
    assert opened.digest == packaged[1].digest and all(verdict.outcome == "pass" for verdict in verdicts)
    assert here.trust_remove(WHO, key[:12]) == key
    with pytest.raises(UntrustedSigner):
        here.open("churn")


def test_a_pickle_is_refused_with_the_safe_way_and_leaves_nothing(model: Any, tmp_path: Path) -> None:
    path = tmp_path / "model.pkl"
    path.write_bytes(pickle.dumps(model[0]))
    with pytest.raises(UnsupportedFormat, match="skops"):
        modelyard.package(path, name="churn", data=model[1], home=tmp_path / "home")
    assert plane_of(tmp_path / "home").models() == ()


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"name": "Not A Name"}, InvalidInput),
        ({"tags": {"nope": "mask"}}, InvalidConfig),
        ({"tags": {"age": "blur"}}, InvalidConfig),
        ({"data": "nowhere.csv"}, NotFound),
        ({"labels": [1, 2, 3]}, InvalidInput),
    ],
)
def test_what_does_not_fit_is_refused_and_leaves_nothing(model: Any, tmp_path: Path, given: dict[str, Any], error: type[Exception]) -> None:
    estimator, frame, _ = model
    with pytest.raises(error):
        modelyard.package(estimator, **{"name": "churn", "data": frame, "home": tmp_path, **given})
    plane = plane_of(tmp_path)
    assert plane.models() == () and not list((tmp_path / "blobs" / "sha256").glob("*"))


def test_infinite_data_is_refused(model: Any, tmp_path: Path) -> None:
    estimator, frame, _ = model
    with pytest.raises((SchemaMismatch, InvalidInput)):
        modelyard.package(estimator, name="churn", data=frame.assign(secret=np.inf), home=tmp_path)


def test_an_interrupt_before_the_last_step_leaves_nothing_registered(model: Any, tmp_path: Path) -> None:
    estimator, frame, _ = model

    def interrupt(stage: str, fraction: float) -> None:
        if stage == "sealing":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        modelyard.package(estimator, name="churn", data=frame, home=tmp_path, progress=interrupt)
    assert plane_of(tmp_path).models() == ()


def test_what_cannot_be_audited_is_not_done(packaged: Any, tmp_path: Path) -> None:
    plane_of(packaged[0]).export("churn", tmp_path / "churn.tar")
    here = plane_of(tmp_path / "home")
    here.trust_add(WHO, packaged[0] / "keys" / "signing.pub")
    with closing(sqlite3.connect(tmp_path / "home" / "registry.sqlite")) as other:
        kept = other.execute("SELECT line FROM audit").fetchone()
        other.execute("UPDATE audit SET line = 'spoilt'")
        other.commit()
        with pytest.raises(DigestMismatch):
            here.import_(WHO, tmp_path / "churn.tar")
        assert here.models() == ()
        other.execute("UPDATE audit SET line = ?", kept)
        other.commit()
    here.import_(WHO, tmp_path / "churn.tar")
    with pytest.raises(Conflict):
        here.set_alias(WHO, "churn", "champion", 1)
        here.delete(WHO, "churn", 1)
    outcomes = [(entry.action, entry.outcome) for entry in here.audit.entries()]
    assert outcomes == [("trust-add", "begun"), ("import", "done"), ("alias", "done"), ("delete", "failed")]
    assert here.audit.verify() == 4


def test_undeploying_goes_on_while_a_rollout_writes_its_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import msgspec

    from modelyard.control import plane as module
    from modelyard.targets.base import Deployment

    plane = plane_of(tmp_path / "home")
    stored = plane.deployments.put(Deployment(name="churn", model="churn", generation=0), expected=0)
    get, steps = plane.deployments.get, iter(range(1, 4))

    def get_then_another_step(name: str) -> Any:
        found = get(name)
        if (step := next(steps, None)) is not None:
            plane.deployments.put(msgspec.structs.replace(stored.deployment, generation=step), expected=found.revision)
        return found

    monkeypatch.setattr(plane.deployments, "get", get_then_another_step)
    assert plane.undeploy(WHO, "churn").generation == 3
    assert plane.deployments.find("churn") is None
    stored = plane.deployments.put(Deployment(name="churn", model="churn", generation=0), expected=0)
    steps = iter(range(1, 1 + module.TRIES))
    with pytest.raises(Conflict, match="goes on changing"):
        plane.undeploy(WHO, "churn")


ANN = Principal("key:ann", ("operator",))
BOB = Principal("key:bob", ("approver",))


def rolling(home: Path) -> ControlPlane:
    """A home where version 1 serves as `line` and a canary of version 2 watches its first step; the second needs an approval."""
    from modelyard.rollout import machine
    from modelyard.targets.base import Deployment, Release, Step, Strategy
    from modelyard.types import Verdict
    from serving import Home

    Home(home).add("line")
    Home(home).add("line", offset=1.0)
    plane = plane_of(home)
    first, second = (
        Release(model="line", version=version.version, digest=version.digest, index=version.index) for version in plane.registry.versions("line")
    )
    before = Deployment(name="line", model="line", generation=1, current=first)
    steps = (Step(weight=10, minimum_s=60.0), Step(weight=50, approval=True), Step(weight=100))
    begun = machine.begin(before, second, kind="deploy", gates=(), at="t", by="key:ann", strategy=Strategy(kind="canary", steps=steps))
    ready = Verdict(outcome="pass", rule="ready", evidence="")
    for _ in range(2):
        begun = machine.advance(begun, machine.Seen(readiness=ready, acknowledged=True, is_over=False, at="t"))
    plane.deployments.put(begun, expected=0)
    return plane


def test_a_deploy_is_not_refused_for_the_time_of_a_warm_release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import msgspec

    plane = rolling(tmp_path)
    plane.abort(ANN, "line")
    gates = plane._gates

    def slow_gates(*given: Any, **more: Any) -> Any:
        """The driver writes meanwhile, and once somebody else."""
        found = plane.deployments.get("line")
        plane.deployments.put(change(found.deployment), expected=found.revision)
        return gates(*given, **more)

    monkeypatch.setattr(plane, "_gates", slow_gates)
    first = plane.deployments.get("line").deployment.current
    assert first is not None
    change = lambda now: msgspec.structs.replace(now, generation=now.generation + 1)  # noqa: E731
    with pytest.raises(Conflict, match="changed since it was read"):
        plane.deploy(ANN, "line:2")
    change = lambda now: msgspec.structs.replace(now, warm=Warm(release=first, keep_s=60.0))  # noqa: E731
    assert plane.deploy(ANN, "line:2").rollout is not None


def test_what_is_out_of_service_is_not_called_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: str) -> int:
        raise StorageFull("no space left for plan.json")

    plane = rolling(tmp_path)
    monkeypatch.setattr(plane.targets["local"], "remove", full)
    assert plane.undeploy(ANN, "line").name == "line" and plane.deployments.find("line") is None
    assert [(entry.action, entry.outcome) for entry in plane.audit.entries()] == [("undeploy", "done")]


def test_a_name_that_comes_back_goes_on_with_its_generations(tmp_path: Path) -> None:
    """Or whoever saw an earlier life of it would change this one, and the evidence of then be taken for that of now."""
    plane = rolling(tmp_path)
    assert plane.undeploy(WHO, "line").in_force == 2
    assert plane.plan_deploy("line:1", expected_generation=0).generation == 2
    assert plane.deploy(WHO, "line:1", expected_generation=0).in_force == 3
    with pytest.raises(Conflict, match="generation 3, not 2"):
        plane.abort(WHO, "line", expected_generation=2)
    plane.abort(WHO, "line")
    plane.undeploy(WHO, "line")
    assert plane.deploy(WHO, "line:1").in_force == 5


def test_verbs_on_a_rollout_are_audited_and_told(tmp_path: Path) -> None:
    plane = rolling(tmp_path / "home")
    plane.pause(ANN, "line", why="lunch", expected_generation=2)
    plane.resume(ANN, "line")
    plane.approve(BOB, "line")
    with pytest.raises(Conflict, match="no step"):
        plane.approve(BOB, "line")
    assert plane.abort(ANN, "line", why="smells").generation == 3
    assert [(event.what, event.by, event.why) for event in plane.history("line")][2:] == [
        ("pause", "key:ann", "lunch"),
        ("resume", "key:ann", ""),
        ("approve", "key:bob", "the step of 50 %"),
        ("abort", "key:ann", "aborted by key:ann: smells"),
    ]
    assert [(entry.action, entry.principal) for entry in plane.audit.entries()] == [
        ("pause", "key:ann"),
        ("resume", "key:ann"),
        ("approve", "key:bob"),
        ("abort", "key:ann"),
    ]
    with pytest.raises(Conflict, match="nothing served as line before"):
        plane.rollback(ANN, "line")
    with pytest.raises(NotFound):
        plane.pause(ANN, "other")


@pytest.mark.parametrize(("who", "why"), [(ANN, "role approver"), (Principal("key:ann", ("approver", "operator")), "somebody else")])
def test_an_approver_has_the_role_and_is_not_the_author(tmp_path: Path, who: Principal, why: str) -> None:
    plane = rolling(tmp_path / "home")
    with pytest.raises(Forbidden, match=why):
        plane.approve(who, "line")
    stored = plane.deployments.get("line").deployment
    assert stored.rollout is not None and stored.rollout.approvals == ()
    assert [(entry.action, entry.outcome, entry.detail) for entry in plane.audit.entries()] == [("approve", "denied", "approver")]


def test_a_stale_generation_changes_nothing(tmp_path: Path) -> None:
    plane = rolling(tmp_path / "home")
    before = plane.deployments.get("line")
    for verb in (plane.promote, plane.pause, plane.abort, plane.rollback):
        with pytest.raises(Conflict, match="generation 2, not 1"):
            verb(ANN, "line", expected_generation=1)
    assert plane.deployments.get("line") == before and list(plane.audit.entries()) == []


def test_a_change_that_cannot_be_audited_is_not_made(tmp_path: Path) -> None:
    plane = rolling(tmp_path / "home")
    before = plane.deployments.get("line")
    (tmp_path / "home" / "audit.jsonl").mkdir()
    with pytest.raises(InvalidConfig):
        plane.abort(ANN, "line")
    assert plane.deployments.get("line") == before


def test_a_change_goes_on_while_the_driver_writes_progress(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import msgspec

    plane = rolling(tmp_path / "home")
    get, times = plane.deployments.get, iter((1.0, 2.0))

    def get_then_progress(name: str) -> Any:
        found = get(name)
        if (seconds := next(times, None)) is not None and found.deployment.rollout is not None:
            rollout = msgspec.structs.replace(found.deployment.rollout, elapsed_s=seconds)
            plane.deployments.put(msgspec.structs.replace(found.deployment, rollout=rollout), expected=found.revision)
        return found

    monkeypatch.setattr(plane.deployments, "get", get_then_progress)
    paused = plane.pause(ANN, "line").rollout
    assert paused is not None and paused.pause is not None and paused.elapsed_s == 2.0


def test_a_reason_is_short(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="500 characters"):
        rolling(tmp_path / "home").pause(ANN, "line", why="x" * 501)


CANARY = Strategy(kind="canary", guards=("error_rate<1%", "disagreement<3%"))


@pytest.fixture
def lines(tmp_path: Path) -> ControlPlane:
    """A home where version 1 of `line` serves; version 2 is good, 3 answers golden rows wrongly, 4 cannot be opened."""
    from modelyard.targets.base import Deployment, Release
    from serving import Home

    home = Home(tmp_path / "home")
    home.add("line")
    home.add("line", offset=1.0)
    home.add("line", offset=2.0, wrong_answers=True)
    spoilt, _ = home.add("line", offset=3.0)
    plane = plane_of(tmp_path / "home")
    first = plane.registry.versions("line")[0]
    release = Release(model="line", version=1, digest=first.digest, index=first.index)
    plane.deployments.put(Deployment(name="line", model="line", generation=5, current=release), expected=0)
    (tmp_path / "home" / "blobs" / "sha256" / plane.registry.versions("line")[3].index.removeprefix("sha256:")).write_bytes(b"{}")
    assert spoilt == plane.registry.versions("line")[3].digest
    return plane


def test_a_plan_tells_what_a_deploy_then_does(lines: ControlPlane) -> None:
    before = lines.deployments.get("line")
    told = lines.plan_deploy("line:2", strategy=CANARY)
    assert [step.weight for step in told.strategy.steps] == [1, 10, 50, 100] and told.strategy.mirror == 0.05
    assert (told.goal.version, told.generation, told.is_there) == (2, 5, False) and {verdict.rule for verdict in told.gates} >= {"seal", "schema"}
    assert lines.deployments.get("line") == before and list(lines.audit.entries()) == [], "nothing is changed"
    assert not told.is_warm
    warm = lines.deployments.put(msgspec.structs.replace(before.deployment, warm=Warm(release=told.goal)), expected=before.revision)
    assert lines.plan_deploy("line:2", strategy=CANARY).is_warm
    lines.deployments.put(before.deployment, expected=warm.revision)
    begun = lines.deploy(ANN, "line:2", strategy=CANARY, expected_generation=5)
    assert begun.rollout is not None and begun.rollout.strategy == told.strategy and begun.rollout.by == "key:ann"
    assert lines.deploy(BOB, "line:2", strategy=CANARY) == begun, "again is nothing new"
    assert lines.plan_deploy("line:2", strategy=CANARY).is_there
    with pytest.raises(Conflict, match="is under way"):
        lines.deploy(ANN, "line:2")
    (event,) = lines.history("line")[-1:]
    assert (event.what, event.by, event.why) == ("deploy", "key:ann", "canary, error_rate<1%, disagreement<3%")


@pytest.mark.parametrize(
    ("reference", "options", "error", "why"),
    [
        ("line:9", {}, NotFound, "modelyard versions"),
        ("other", {}, NotFound, "modelyard models"),
        ("line:3", {}, Rejected, "golden-replay"),
        ("line:4", {}, Tampered, "digest"),
        ("line:2", {"strategy": Strategy(kind="canary", guards=("speed<3",))}, InvalidConfig, "names no metric"),
        ("line:2", {"strategy": Strategy(kind="canary", guards=("auc>0.9",))}, InvalidConfig, "classifiers"),
        ("line:2", {"strategy": Strategy(kind="shadow", guards=("p99<1s",))}, InvalidConfig, "does not gather"),
        ("line:2", {"strategy": Strategy(kind="canary"), "breaking": True}, InvalidConfig, "direct or blue-green"),
        ("line:2", {"strategy": Strategy(kind="canary"), "name": "fresh"}, InvalidConfig, "first version directly"),
        ("line:2", {"expected_generation": 4}, Conflict, "generation 5, not 4"),
        ("line:2", {"name": "fresh", "expected_generation": 1}, Conflict, "nothing is deployed under this name"),
    ],
)
def test_what_cannot_be_honoured_is_refused_and_nothing_is_changed(
    lines: ControlPlane, reference: str, options: dict[str, Any], error: type[Exception], why: str
) -> None:
    before = lines.deployments.all()
    with pytest.raises(error, match=why):
        lines.plan_deploy(reference, **options)
    with pytest.raises(error, match=why):
        lines.deploy(ANN, reference, **options)
    assert lines.deployments.all() == before and lines.history("line") == ()


def test_labels_go_to_the_other_hosts_where_there_are_any(packaged: Any, tmp_path: Path) -> None:
    from modelyard import events
    from modelyard.monitor.intake import labels_outbox
    from modelyard.targets.base import Deployment, Release

    home, _, _ = packaged
    (version,) = plane_of(home).registry.versions("churn")
    release = Release(model="churn", version=version.version, digest=version.digest, index=version.index)
    for place, url, count in (("store", (tmp_path / "shared").as_uri(), 1), ("api", "https://ml.example:8090", 0), ("alone", "", 0)):
        copied(home, tmp_path / place)
        plane = plane_of(tmp_path / place)
        plane.settings = msgspec.structs.replace(plane.settings, export_url=url)
        plane.deployments.put(Deployment(name="churn", model="churn", generation=1, current=release), expected=0)
        plane.labels(WHO, "churn", [("a", "yes"), ("b", 1)])
        sent = [each for path in events.pending(labels_outbox(plane.settings)) for each in events.read(path).labels]
        assert [(each.name, each.ids, each.truths) for each in sent] == [("churn", ("a", "b"), ("yes", "1"))] * count


def test_labels_for_which_there_is_no_room_to_wait_are_refused_before_any_is_kept(packaged: Any, tmp_path: Path) -> None:
    from modelyard.errors import Overloaded
    from modelyard.monitor.labels import Ledger, labels_path
    from modelyard.targets.base import Deployment, Release

    home, _, _ = packaged
    (version,) = plane_of(home).registry.versions("churn")
    release = Release(model="churn", version=version.version, digest=version.digest, index=version.index)
    copied(home, tmp_path / "full")
    settings = {"home": str(tmp_path / "full"), "export_url": (tmp_path / "shared").as_uri(), "spool_limit_bytes": 4096}
    with ControlPlane(config.load(settings)) as plane:
        plane.deployments.put(Deployment(name="churn", model="churn", generation=1, current=release), expected=0)
        plane.labels(WHO, "churn", [("a", "yes")])
        with pytest.raises(Overloaded, match="not taken"):
            plane.labels(WHO, "churn", [("b", "yes")])
        ledger = Ledger(labels_path(plane.settings))
        assert ledger.labels("churn") == {"a": "yes"}
        ledger.close()


def test_labels_reach_the_guards_of_a_rollout(packaged: Any, tmp_path: Path) -> None:
    import time

    from modelyard import events
    from modelyard.events import Part, Rows, Segment
    from modelyard.monitor.intake import windows_path
    from modelyard.monitor.log import day_of
    from modelyard.monitor.windows import Windows
    from modelyard.rollout.history import Event
    from modelyard.targets.base import Deployment, Release, Rollout, Step, Strategy

    home, _, _ = packaged
    copied(home, tmp_path / "home")
    plane = plane_of(tmp_path / "home")
    (version,) = plane.registry.versions("churn")
    release = Release(model="churn", version=version.version, digest=version.digest, index=version.index)
    strategy = Strategy(kind="canary", steps=(Step(weight=10), Step(weight=100)), guards=("accuracy>=90%",))
    rollout = Rollout(
        kind="deploy", strategy=strategy, goal=release, generation=2, phase="watching", started_at="2024-01-01T00:00:00+00:00", generations=(2,)
    )
    deployment = Deployment(name="churn", model="churn", generation=1, current=release, rollout=rollout)
    plane.deployments.put(deployment, expected=0)
    columns = tuple(events.column(name, values) for name, values in (("label", np.array(["yes", "no", "yes"], dtype=object)),))
    rows = Rows(share=1.0, ids=("a", "b", "c"), times=np.full(3, 2e9).astype("<f8").tobytes(), columns=columns)
    part = Part(name="churn", version=1, digest=release.digest, rows=3, predictions=rows)
    with closing(Windows(windows_path(plane.settings))) as windows:
        windows.take({"0-1-1.segment": Segment(slot=0, pid=1, started_at=1.0, ended_at=2e9, parts=(part,))}, day_of=day_of)

    told = plane.labels(WHO, "churn", [("a", "yes"), ("b", "yes"), ("d", "no")])
    assert (told.new, told.same, told.changed) == (3, 0, 0)
    found = plane.labelled("churn")
    assert (found.labels, found.matched, found.unknown, found.predictions) == (3, 2, 1, 3)
    assert [(entry.action, entry.outcome) for entry in plane.audit.entries()][-1] == ("labels", "begun")

    truths = plane.truths()
    step = Event(deployment="churn", sequence=1, at="2024-01-01T00:00:01+00:00", by="modelyard", what="step", generation=2)
    for _ in range(1000):
        truth = truths.look(deployment, lambda: (step,))
        if truth.turn:
            break
        time.sleep(0.005)
    known = truth.by_generation[2][1]
    assert known is not None and sorted(zip(known.truth.tolist(), known.predicted.tolist(), strict=True)) == [(1, 0), (1, 1)]
    with pytest.raises(NotFound):
        plane.labels(WHO, "other", [("a", "yes")])
    with pytest.raises(InvalidInput):
        plane.labels(WHO, "churn", [("", "yes")])
