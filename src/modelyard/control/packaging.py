"""From a trained model and data to what a bundle holds: the schema, the proof, the golden records and the facts around them.

Hides the order of the steps and what of it lies under the Digest (what model, data and package versions determine) and what is attested (what this
machine found). It must not register or seal anything: `ControlPlane.package` does, so that an interrupted packaging leaves nothing.
"""

from __future__ import annotations

import contextlib
import os
import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import FunctionType
from typing import TYPE_CHECKING, Any

import msgspec

from modelyard import bundle, config
from modelyard.bundle import lock
from modelyard.bundle.base import digest_of
from modelyard.bundle.card import Card, Evaluation
from modelyard.config import Settings
from modelyard.types import Tag, Tolerance

if TYPE_CHECKING:
    from modelyard.monitor.estimate import Rows
    from modelyard.monitor.profile import Profile
    from modelyard.runtime.base import Runtime
    from modelyard.runtime.convert import Conversion
    from modelyard.runtime.data import Table
    from modelyard.runtime.originals.base import Original
    from modelyard.types import Array, Schema

Progress = Callable[[str, float], None]

SERVED_BY = ("numpy", "onnxruntime")
"""Distributions that answer for every bundle, whatever trained its model."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """How to package: the name, what to hide, how exact the proof is, whom to tell how far it is, and when the rows were, if anybody knows."""

    name: str
    tags: Mapping[str, Tag]
    tolerance: Tolerance
    progress: Progress
    times: Array | None = None


def original(model: object, code: Sequence[Path | str], files: Mapping[str, object], settings: Settings) -> Original:
    """`model` as an Original. Code and state make it a model that is code, in a process of its own; it is then to be closed.

    Raises Unconvertible, UnsupportedFormat, NotFound, InvalidConfig.
    """
    from modelyard.runtime import originals

    if code or files or isinstance(model, FunctionType | type):
        from modelyard.runtime.isolated import Isolation
        from modelyard.runtime.originals.code import CodeModel
        from modelyard.runtime.originals.sources import gather

        return CodeModel(gather(model, code, files), Isolation.of(settings))
    return originals.load(Path(model)) if isinstance(model, str | Path) else originals.adapt(model)


def held_out(data: object, labels: object, label: str | None, times: object = None) -> tuple[Table, Array] | None:
    """Evaluation data and its labels; None where none was given. A column of `times` may stand in it too, and is passed over.

    Raises as `runtime.data.read`, InvalidConfig for one without the other.
    """
    from modelyard.errors import InvalidConfig
    from modelyard.runtime.data import read, read_file, timed

    if data is None:
        if labels is not None:
            raise InvalidConfig("evaluation_labels are those of evaluation data; give that too", field="evaluation_labels", rule="required")
        return None
    if isinstance(times, str):
        data = read_file(Path(data)) if isinstance(data, str | Path) else data
        with contextlib.suppress(InvalidConfig):  # it has no such column
            data, _ = timed(data, times)
    table, answers = read(data, label=None if labels is not None else label, labels=labels)
    if answers is None:
        raise InvalidConfig("evaluation data needs its labels: evaluation_labels, or the column that label names", field="evaluation", rule="labels")
    return table, answers


def make(
    original: Original, table: Table, labels: Array | None, options: Options, held: tuple[Table, Array] | None = None
) -> tuple[bundle.Contents, bundle.Attested]:
    """What the bundle of `original` holds, after its answers were proved equal on every row of `table`; its quality is that on the `held`-out rows.

    Raises SchemaMismatch when the data does not fit its own schema, or what was held out does not; Unconvertible with the reason of every way tried.
    """
    from modelyard.monitor import cycles, estimate, multivariate, profile
    from modelyard.runtime import golden, schema
    from modelyard.runtime.replay import batch_bits

    tell = options.progress
    is_code = original.kind == "python"
    if hasattr(original, "learn"):  # a model that says what it answers only when it is asked
        tell("asking the model", 0.0)
        original.learn(table)
    tell("learning the schema", 0.0)
    learnt = schema.infer(
        table,
        outputs=original.outputs,
        task=original.task,
        classes=original.classes,
        tags=options.tags,
        accepts=lambda changed: _answers(original, changed),
    )
    values = schema.closed_values(learnt, table)
    conversion, runtime = (_proved if is_code else _converted)(original, table, learnt, options)
    try:
        tell("choosing golden records", 0.80)
        rows = golden.choose(table)
        records = schema.conform(learnt, golden.redact(table, learnt, values).take(rows).columns)
        answers = runtime.predict(records)
        if is_code:
            _check_batches(runtime, records, answers, learnt, options)
        bits = batch_bits(runtime, records, answers)
        tell("profiling inputs and outputs", 0.85)
        columns = schema.conform(learnt, table.columns)
        outputs = conversion.outputs or _in_batches(runtime, columns, table.rows)
        measured = profile.measure(columns, learnt)
        tell("asking how much each input counts", 0.88)
        counts = _importance(runtime, columns, measured, learnt)
        judged = estimate.Rows(columns, outputs, labels) if held is None else _judged(runtime, learnt, *held)
    finally:
        runtime.close()
    tell("learning where it is right", 0.90)
    answered = profile.measure_outputs(outputs, learnt)
    performance = msgspec.structs.replace(
        estimate.learn(learnt, measured + answered, counts, judged, is_held_out=held is not None),
        together=multivariate.learn(columns, measured),
        cycles={} if options.times is None else cycles.told(measured + answered, columns, outputs, options.times),
    )
    locked = lock.take(original.packages if is_code else {*original.packages, *SERVED_BY})
    card = Card(
        title=original.title,
        schema=learnt,
        method=conversion.method,
        tolerance=options.tolerance,
        rows=table.rows,
        golden_rows=len(rows),
        packages=locked.packages,
        python=locked.python,
        example=golden.public_example(learnt, table),
        quality=_quality(learnt, judged.outputs, judged.labels),
        evaluation=msgspec.UNSET if held is None else Evaluation(rows=held[0].rows, digest=_digest(learnt, judged)),
        times=msgspec.UNSET if options.times is None else digest_of(options.times.astype("<f8").tobytes()),
    )
    contents = bundle.Contents(
        model=conversion.model,
        parts=original.parts if is_code else None,  # type: ignore[attr-defined]
        runtime=conversion.binding,
        schema=learnt,
        lock=locked,
        profile=measured,
        golden=records,
        card=card,
        values=values,
    )
    tell("checking the machine", 0.95)
    attested = bundle.Attested(
        name=options.name,
        outputs=answers,
        parity=_parity(conversion, bits),
        platform=here(),
        profile=answered,
        performance=performance,
    )
    return contents, attested


def _importance(runtime: Runtime, columns: Mapping[str, Array], measured: Profile, learnt: Schema) -> dict[str, float]:
    """How much each input counts; unknown where the model fails on values that it has seen, but never side by side."""
    from modelyard.errors import ModelyardError
    from modelyard.monitor import importance

    try:
        return importance.measure(lambda asked: _in_batches(runtime, asked, len(next(iter(asked.values())))), columns, measured, learnt)
    except ModelyardError:
        return {}


def _judged(runtime: Runtime, learnt: Schema, table: Table, labels: Array) -> Rows:
    from modelyard.monitor.estimate import Rows
    from modelyard.runtime import schema
    from modelyard.runtime.validate import Checker

    columns = schema.conform(learnt, {spec.name: table.columns[spec.name] for spec in learnt.inputs if spec.name in table.columns})
    Checker(learnt).check(columns, table.rows)
    return Rows(columns, _in_batches(runtime, columns, table.rows), labels)


def _digest(learnt: Schema, judged: Rows) -> str:
    """Of evaluation data, which quality and estimates stand on: other data makes another bundle. Tagged columns are left out, so that nobody can try
    their values."""
    from modelyard.bundle import tensors
    from modelyard.bundle.base import digest_of

    columns = {spec.name: judged.inputs[spec.name] for spec in learnt.inputs if spec.tag is None}
    return digest_of(tensors.pack(columns) + repr(judged.labels.tolist() if judged.labels is not None else ()).encode())


def _converted(original: Original, table: Table, learnt: Schema, options: Options) -> tuple[Conversion, Runtime]:
    """A model that is data: the graph that gives its answers, opened."""
    from modelyard.runtime import convert
    from modelyard.runtime.onnx import Onnx

    conversion = convert.convert(original, table, learnt, tolerance=options.tolerance, progress=_part(options.progress, 0.05, 0.80))
    return conversion, Onnx(conversion.model, conversion.binding, learnt)


def _proved(original: Original, table: Table, learnt: Schema, options: Options) -> tuple[Conversion, Runtime]:
    """A model that is code: a second process of it, whose answers to all rows are those of the first."""
    from modelyard.bundle.card import ISOLATED
    from modelyard.runtime import schema
    from modelyard.runtime.convert import Attempt, Conversion
    from modelyard.runtime.isolated import Isolated
    from modelyard.runtime.isolated.proof import same_answers

    model: Any = original
    options.progress("asking two processes", 0.1)
    runtime = Isolated(model.code, model.parts, learnt, model.isolation)
    try:
        parity = same_answers(model.ask, runtime, schema.conform(learnt, table.columns), learnt, options.tolerance)
    except BaseException:
        runtime.close()
        raise
    model.find_packages()
    attempts = (Attempt(method=ISOLATED, chosen=True, reason=parity.describe()),)
    return Conversion(model=b"", binding=model.code, method=ISOLATED, parity=parity, attempts=attempts), runtime


def _check_batches(runtime: Runtime, records: Mapping[str, Array], answers: Mapping[str, Array], learnt: Schema, options: Options) -> None:
    from modelyard.runtime.isolated.proof import check_batches

    check_batches(runtime, records, answers, learnt, options.tolerance)


def here() -> dict[str, Any]:
    """What the answers may depend on besides the bundle: the facts of this machine, and when they were taken."""
    from importlib.metadata import version

    return {
        "system": platform.system(),
        "machine": platform.machine(),
        "cpu": _cpu(),
        "cores": config.cores(),
        "threads": 1,
        "python": platform.python_version(),
        "implementation": sys.implementation.name,
        "onnxruntime": version("onnxruntime"),
        "modelyard": version("modelyard"),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _cpu() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            return next((line.partition(":")[2].strip() for line in file if line.startswith("model name")), platform.machine())
    except OSError:
        return platform.processor() or os.uname().machine


def _parity(conversion: Conversion, bits: Mapping[str, Any]) -> dict[str, Any]:
    parity: dict[str, Any] = msgspec.to_builtins(msgspec.structs.replace(conversion.parity, batch_bits=dict(bits)))
    return {**parity, "method": conversion.method, "attempts": msgspec.to_builtins(conversion.attempts)}


def _answers(original: Original, table: Table) -> bool:
    """Whether the original answers these rows at all. What it raises is its own business: any failure is a no."""
    try:
        original.predict(table)
    except Exception:  # noqa: BLE001  # a model's code may raise anything
        return False
    return True


def _part(tell: Progress, start: float, end: float) -> Progress:
    return lambda stage, fraction: tell(stage, start + (end - start) * min(1.0, max(0.0, fraction)))


def _in_batches(runtime: Any, columns: Mapping[str, Array], rows: int, *, size: int = 8192) -> dict[str, Array]:
    import numpy as np

    parts = [runtime.predict({name: array[at : at + size] for name, array in columns.items()}) for at in range(0, rows, size)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _quality(schema: Schema, outputs: Mapping[str, Array], labels: Array | None) -> dict[str, float]:
    """How well the answers fit the labels given with the data, to six digits: what is written under the Digest must not depend on the last bit."""
    if labels is None:
        return {}
    from modelyard.control import quality

    return {name: float(f"{value:.6g}") for name, value in quality.figures(schema, outputs, labels).items()}
