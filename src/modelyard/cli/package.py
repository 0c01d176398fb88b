"""`package`: a model file and a data file become a registered bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, get_args

import typer

from modelyard import config
from modelyard.bundle.card import ISOLATED, Evaluation
from modelyard.cli.show import Home, Json, emit_json, escape, line, short
from modelyard.control.plane import ControlPlane, local_principal
from modelyard.control.progress import shown
from modelyard.errors import InvalidConfig
from modelyard.types import Tag


def package(
    model: Annotated[
        str, typer.Argument(help="The model: .onnx, skops, XGBoost .json or .ubj, LightGBM .txt, CatBoost .cbm; with --code, module:name.")
    ],
    *,
    name: Annotated[str, typer.Option(help="The name to register it under.")],
    data: Annotated[Path, typer.Option(help="What it predicts on: .parquet or .csv. Every row is asked of original and conversion.")],
    label: Annotated[str | None, typer.Option(help="The column of true answers: left out of the inputs, used for a quality figure.")] = None,
    evaluation: Annotated[
        Path | None, typer.Option(help="Data held out from training, with the column --label: quality is judged, and later estimated, by it.")
    ] = None,
    times: Annotated[
        str | None, typer.Option(help="The column of the rows' times: left out of the inputs; teaches the week that drift has to exceed.")
    ] = None,
    tag: Annotated[list[str] | None, typer.Option(help="COLUMN=drop, hash or mask: keep the column's values out of all that is kept.")] = None,
    tolerance: Annotated[float | None, typer.Option(help="Widen the proof from 1e-5 (absolute and relative); it is recorded.")] = None,
    code: Annotated[
        list[Path] | None, typer.Option(help="A source file or folder that module:name is importable from; it runs in a process of its own.")
    ] = None,
    file: Annotated[list[str] | None, typer.Option(help="NAME=PATH: data for the code's load: npz, safetensors, skops, ONNX or JSON.")] = None,
    isolation: Annotated[
        str | None, typer.Option(help="`weak` runs models that are code even where they cannot be shut off from network and files.")
    ] = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Turn a trained model into a proven, sealed, registered bundle.

    The model is converted to ONNX, asked every row of the data beside the original, and refused when an answer differs. Code is not converted: two
    processes of it are asked every row.
    """
    tags = dict(map(_tag, tag or ()))
    with ControlPlane(config.load({"home": home, "isolation": isolation})) as plane:
        with shown(f"Packaging {name}", lines=True) as progress:
            built = plane.package(
                local_principal(),
                model,
                name=name,
                data=data,
                labels=None,
                label=label,
                evaluation=evaluation,
                times=times,
                tags=tags,
                tolerance=tolerance,
                code=code or (),
                files=dict(map(_file, file or ())),
                progress=progress,
            )
        version = plane.registry.resolve(f"{name}@{built.digest}")
    parity: dict[str, Any] = built.attestation["parity"]
    told = {
        "reference": f"{name}:{version.version}",
        "name": name,
        "version": version.version,
        "digest": built.digest,
        "method": built.card.method,
        "rows": built.card.rows,
        "parity": {key: parity[key] for key in ("outputs", "labels_differing", "native_us_per_row", "converted_us_per_row")},
        "quality": built.card.quality,
        "evaluated_rows": built.card.evaluation.rows if isinstance(built.card.evaluation, Evaluation) else None,
    }
    if json:
        emit_json(told)
        return
    line(f"[bold]{name}:{version.version}[/bold]  {escape(built.card.title)}  {short(built.digest)}")
    line(f"  proof    {_proof(parity, built.card.rows)}")
    line(f"  way      {escape(built.card.method)}")
    if built.card.quality:
        figures = ", ".join(f"{key} {value:g}" for key, value in built.card.quality.items())
        line(f"  quality  {figures} {built.card.judged_on}")
    line(f"  next     modelyard serve {name}   or   modelyard up --detach && modelyard deploy {name}")


def _proof(parity: dict[str, Any], rows: int) -> str:
    largest = max((output["max_abs"] for output in parity["outputs"].values()), default=0.0)
    if parity["method"] == ISOLATED:
        return f"two processes of the code give the same answers to {rows:,} rows (largest difference {largest:.2g})"
    text = f"{rows:,} rows give the original's answers (largest difference {largest:.2g})"
    native, converted = parity["native_us_per_row"], parity["converted_us_per_row"]
    return f"{text}, {native / converted:,.0f} times faster row by row" if native > converted > 0 else text


def _file(text: str) -> tuple[str, Path]:
    name, _, path = text.partition("=")
    if not name or not path:
        raise InvalidConfig(f"--file is NAME=PATH, not {text!r}", field="file")
    return name, Path(path)


def _tag(text: str) -> tuple[str, Tag]:
    column, _, tag = text.rpartition("=")
    for known in get_args(Tag):
        if column and tag == known:
            return column, known
    raise InvalidConfig(f"--tag is COLUMN=drop, COLUMN=hash or COLUMN=mask, not {text!r}", field="tag")
