"""The story itself: train, package, serve, deploy, replay the months that followed, and see what became of the model.

Hides the order of steps and how each figure is had. It must not know how a step is drawn (`telling`), nor how the end is shown (`report`).
"""

from __future__ import annotations

import shutil
import statistics
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from modelyard.demo import bikes, releases, traffic, watching
from modelyard.demo.releases import Release
from modelyard.demo.report import Live, Month, Packaged, Report, Speed, Traffic, difference, sent_back, went_live, woken
from modelyard.demo.world import World, private_world
from modelyard.errors import Unavailable

if TYPE_CHECKING:
    from modelyard.bundle import Bundle
    from modelyard.demo.telling import Step, Teller

CONNECTIONS = 4
SINGLE_TRAINED, SINGLE_ENDPOINT = 20, 300
SETTLE_LIMIT_S = 15.0
WATCHED_SINCE = "2012-02-01"


def run(teller: Teller, *, keep: bool = False) -> Report:
    """Tell the whole story in a private home and return what was found; with `keep` the home is left running.

    Raises what a step raises; nothing is left behind then.
    """
    bikes.need_libraries()
    started = time.monotonic()
    teller.say("[bold]modelyard demo[/bold]: from a trained model to a watched endpoint")
    teller.say(f"[dim]Hourly bike rentals in Washington, D.C., 2011-2012 ({bikes.CITATION})[/dim]")
    teller.say()
    with private_world() as world:
        with teller.step("Train") as step:
            hours = bikes.load()
            past, later = bikes.split(hours)
            taught, held = bikes.held_back(past)
            model = bikes.train(taught)
            error = float(np.abs(model[-1].oob_prediction_ - taught[bikes.TARGET]).mean())
            step.done(f"a scikit-learn pipeline, {bikes.TREES} trees, on {len(taught):,} hours of January to June 2011; every fifth day is held back")
        with teller.step("Package") as step:
            bundle, packaged = _package(model, past, held, world, step, error=error)
        with teller.step("Serve") as step:
            world.start()
            step.done(f"control process and data plane in a home of their own, {world.url}")
        with teller.step("Deploy") as step:
            world.verb("deploy", packaged.reference, "--as", bikes.NAME)
            step.done(f"{packaged.reference} answers as {bikes.NAME}; seal, golden replay and lock were checked first")
        with teller.step("Measure") as step:
            speed = _single(model, bundle, past, world, step)
            step.done(f"one row at a time: {speed.endpoint_s * 1000:.2f} ms over HTTP, {speed.trained_s * 1000:.1f} ms in scikit-learn")
        with teller.step("Replay") as step:
            replayed, months, said = _replay(bundle, later, world, step)
            step.done(f"{replayed.requests:,} hours, {len(months)} months, one request each over two protocols; labels joined by prediction id")
        with teller.step("Alarm") as step:
            year = later[later["date"] >= WATCHED_SINCE].reset_index(drop=True)
            watched = watching.watch(bundle, year, said, error=packaged.training_error, progress=step.progress)
            step.done(*woken(watched))
        with teller.step("Watch") as step:
            refusal = _refusal(bundle, later, world)
            live = _status(world, requests=SINGLE_ENDPOINT + replayed.answered, refused=1)
            step.done(f"status has counted {live.requests:,} answers and profiled {live.profiled_rows:,} rows beside training's")
        with teller.step("Canary") as step:
            good = _release(world, bundle, hours, step, guards=releases.CHALLENGER_GUARDS)
            step.done(*went_live(good))
        with teller.step("Guard") as step:
            bad = _release(world, bundle, hours, step, guards=releases.BAD_GUARDS, factor=releases.MISTAKEN)
            step.done(*sent_back(bad))
        curl, answer = _curl(bundle, world)
        world.is_kept = keep
        home = str(world.settings.home) if keep else None
        return Report(
            packaged=packaged,
            speed=speed,
            traffic=replayed,
            months=months,
            watched=watched,
            live=live,
            releases=(good, bad),
            refusal=refusal,
            url=world.url,
            home=home,
            curl=curl,
            answer=answer,
            next=_next(home),
            seconds=time.monotonic() - started,
        )


def _package(model: Any, past: Any, held: Any, world: World, step: Step, *, error: float) -> tuple[Bundle, Packaged]:
    started = time.monotonic()
    bundle = bikes.package(model, past, held, home=world.settings.home, progress=step.progress)
    parity = bundle.attestation["parity"]
    largest = max(output["max_abs"] for output in parity["outputs"].values())
    step.done(
        f"converted, proven on all {parity['rows']:,} rows (largest difference: {difference(largest)}), sealed",
        f"[dim]{bundle.digest}[/dim]",
    )
    packaged = Packaged(
        reference=f"{bikes.NAME}:1",
        digest=bundle.digest,
        title=type(model[-1]).__name__,
        rows=parity["rows"],
        largest_difference=largest,
        training_error=error,
        seconds=time.monotonic() - started,
    )
    return bundle, packaged


def _single(model: Any, bundle: Bundle, past: Any, world: World, step: Step) -> Speed:
    """Medians of one row at a time: the pipeline here, and the endpoint through one connection; neither runs while the other is timed."""
    rows = past[list(bikes.FEATURES)]
    step.progress("scikit-learn, one row at a time", 0.2)
    trained = []
    for index in range(SINGLE_TRAINED):
        row = rows.iloc[[index]]
        started = time.perf_counter()
        model.predict(row)
        trained.append(time.perf_counter() - started)
    step.progress("the endpoint, one row at a time", 0.6)
    asked = [(f"single-{index}", row) for index, row in enumerate(rows.head(SINGLE_ENDPOINT).to_dict("records"))]
    answers = traffic.send(world.settings.host, world.settings.port, bikes.NAME, bundle.schema, asked, connections=1)
    if not answers.latencies_s:
        raise Unavailable(f"the endpoint answered no request: {answers.refused}")
    return Speed(trained_s=statistics.median(trained), endpoint_s=statistics.median(answers.latencies_s))


def _replay(bundle: Bundle, later: Any, world: World, step: Step) -> tuple[Traffic, tuple[Month, ...], dict[str, float]]:
    """Send month after month; when a month is over its labels come in, each joined to its prediction by id. Last, what was answered to each hour."""
    months: list[Month] = []
    said: dict[str, float] = {}
    latencies: list[float] = []
    refused: dict[str, int] = {}
    seconds = 0.0
    for month, hours in later.groupby("month", sort=True):
        step.progress(f"{month}: {len(hours)} requests", len(latencies) / len(later))
        rows = hours[list(bikes.FEATURES)].to_dict("records")
        asked = [(f"{date}T{row['hour']:02}", row) for date, row in zip(hours["date"], rows, strict=True)]
        answers = traffic.send(world.settings.host, world.settings.port, bikes.NAME, bundle.schema, asked, connections=CONNECTIONS)
        if not answers.latencies_s:
            raise Unavailable(f"the endpoint answered no request of {month}: {answers.refused}")
        labels = {key: count for key, count in zip(answers.ids, hours[bikes.TARGET], strict=True) if key}
        months.append(_judge(str(month), hours, answers, labels, bundle))
        said |= {hour: answers.predictions[key] for (hour, _), key in zip(asked, answers.ids, strict=True) if key}
        latencies += answers.latencies_s
        seconds += answers.seconds
        for reason, count in answers.refused.items():
            refused[reason] = refused.get(reason, 0) + count
    p50, p99 = np.quantile(latencies, [0.5, 0.99])
    return (
        Traffic(
            requests=len(later),
            answered=len(latencies),
            refused=refused,
            connections=CONNECTIONS,
            seconds=seconds,
            p50_s=float(p50),
            p99_s=float(p99),
        ),
        tuple(months),
        said,
    )


def _judge(month: str, hours: Any, answers: traffic.Answers, labels: dict[str, int], bundle: Bundle) -> Month:
    """Error by the labels, and the inputs beside the bundle's own profile, counted in its bins."""
    from modelyard.monitor import profile
    from modelyard.runtime import data, schema

    reference = profile.decode(bundle.read("profile"))
    binner = profile.Binner(reference)
    binner.add(schema.conform(bundle.schema, data.read(hours[list(bikes.FEATURES)])[0].columns), {})
    seen = profile.filled(reference, binner.take())
    errors = np.array([answers.predictions[key] - label for key, label in labels.items()])
    return Month(
        month=month,
        rows=len(errors),
        demand=float(hours[bikes.TARGET].mean()),
        error=float(np.abs(errors).mean()),
        bias=float(errors.mean()),
        shifts={shift.feature: shift.effect for shift in profile.compare(reference, seen)},
        unseen=_unseen(bundle, hours),
    )


def _unseen(bundle: Bundle, hours: Any) -> dict[str, int]:
    """How often each word came that training never saw."""
    found: dict[str, int] = {}
    for spec in bundle.schema.inputs:
        if spec.datatype == "BYTES" and spec.categories is not None:
            words = hours[spec.name]
            found |= words[~words.isin(spec.categories)].value_counts().to_dict()
    return found


def _release(world: World, bundle: Bundle, hours: Any, step: Step, *, guards: Sequence[str], factor: float = 1.0) -> Release:
    """Train and package a challenger a year later, and bring it out among requests for hours that it has not seen either."""
    until, unseen = bikes.split_again(hours)
    step.progress(f"training and packaging on {len(until):,} hours", 0.0)
    made = releases.package(world, until, factor=factor)
    version = max(each["version"] for each in world.verb("versions", bikes.NAME) if each["digest"] == made.digest)
    asking = releases.Asking(world, bundle.schema, unseen)
    return releases.release(world, f"{bikes.NAME}:{version}", asking, guards=guards, tell=step.progress)


def _refusal(bundle: Bundle, later: Any, world: World) -> str:
    """What the endpoint says to a question that no hour could ask."""
    row = later[list(bikes.FEATURES)].iloc[0].to_dict() | {"hour": "nine"}
    with closing(traffic.Caller(world.settings.host, world.settings.port, bikes.NAME, bundle.schema)) as caller:
        try:
            caller.ask_v1(row)
        except traffic.Refused as refused:
            told = msgspec.json.decode(refused.text).get("error")
            return f"HTTP {refused.status}, {told}"
    raise Unavailable("the endpoint accepted an hour written as a word")


def _status(world: World, *, requests: int, refused: int) -> Live:
    """What `modelyard status` says of the deployment, once it has taken in so many answers and refusals (workers hand them over each second)."""
    deadline = time.monotonic() + SETTLE_LIMIT_S
    while True:
        found = next(each for each in world.verb("status")["deployments"] if each["deployment"]["name"] == bikes.NAME)
        seen = found.get("traffic") or {}
        is_all = seen.get("requests", 0) >= requests and sum(seen.get("failures", {}).values()) >= refused
        if is_all or time.monotonic() > deadline:
            break
        time.sleep(0.3)
    return Live(
        requests=seen.get("requests", 0),
        p50_s=seen.get("p50_s"),
        p99_s=seen.get("p99_s"),
        failures=seen.get("failures", {}),
        profiled_rows=seen.get("profiled_rows", 0),
        shifts={shift["feature"]: shift["effect"] for shift in seen.get("shifts", ()) if shift["role"] == "input"},
    )


def _curl(bundle: Bundle, world: World) -> tuple[str, str]:
    """A question of medians and commonest values, as a line that works as printed, and its answer."""
    from modelyard.serve import card

    served = card.Served(name=bikes.NAME, version=1, title=bundle.card.title, example={"instances": [bundle.card.example]})
    with closing(traffic.Caller(world.settings.host, world.settings.port, bikes.NAME, bundle.schema)) as caller:
        answer, _ = caller.post(f"/v1/models/{bikes.NAME}:predict", served.example)
    return card.curl(card.Reach(world.url), served), msgspec.json.encode(answer).decode()


def _next(home: str | None) -> tuple[str, ...]:
    program = _program()
    steps: tuple[tuple[str, str], ...]
    if home is None:
        steps = (
            ("KEEP=1 make demo", "the same, and the endpoint stays up for you to ask"),
            (f"{program} package MODEL --name churn --data DATA", "your own: .onnx, skops, XGBoost, LightGBM, CatBoost"),
            (f"{program} serve churn", "its endpoint, with a curl line that works as printed"),
        )
    else:
        steps = (
            (f"export MODELYARD_HOME={home}", "the home that is still up"),
            (f"{program} status", "traffic, latency, and each input's shift against training"),
            (f"{program} monitor {bikes.NAME}", "what its detectors say, and the alarm budget"),
            (f"{program} history {bikes.NAME}", "who brought out what, and why one version went back"),
            (f"{program} inspect {bikes.NAME}", "schema, proof, lock and members of the bundle"),
            (f"{program} verify {bikes.NAME}", "seal, every byte and the golden records, here and now"),
            (f"{program} down", "stop it"),
        )
    width = max(len(command) for command, _ in steps)
    return tuple(f"{command:<{width}}  # {what}" for command, what in steps)


def _program() -> str:
    """How to call the command line from here: by name where the PATH has it, else by its place beside this Python."""
    if shutil.which("modelyard"):
        return "modelyard"
    script = Path(sys.executable).with_name("modelyard")
    here = Path.cwd()
    return str(script.relative_to(here) if script.is_relative_to(here) else script)
