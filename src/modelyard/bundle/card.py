"""The model card: what a reader must know of a model, as data and as Markdown.

Hides the card's layout. It lies under the Digest, so it holds no time, no name that a user gave, no path, no figure of one machine; those are in the
attestation and shown beside the card. Tagged columns appear by name and tag only.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import msgspec

from modelyard.types import Scalar, Schema, TensorSpec, Tolerance

SHOWN_CATEGORIES = 12
ISOLATED = "run as given, in a process of its own"
"""The method of a model that is code, which nothing converts."""


class Evaluation(msgspec.Struct, frozen=True, kw_only=True):
    """Data held out from training: how many rows, and the digest of its labels and of all columns that have no tag."""

    rows: int
    digest: str


class Card(msgspec.Struct, frozen=True, kw_only=True):
    """The facts on a card. `example` is the public example: medians and commonest values by input, never a row of the data. `method` is the
    conversion that was chosen and why; `rows` those on which parity was proved; `provenance` free facts on where model and data come from;
    `quality` figures against the labels given with the data, or with the `evaluation` data where there is some; `times` the digest of those that the
    rows came with."""

    title: str
    schema: Schema
    method: str
    tolerance: Tolerance
    rows: int
    golden_rows: int
    packages: dict[str, str]
    python: str
    example: dict[str, Any] = {}
    provenance: dict[str, str] = {}
    quality: dict[str, float] = {}
    limits: tuple[str, ...] = ()
    evaluation: Evaluation | msgspec.UnsetType = msgspec.UNSET
    times: str | msgspec.UnsetType = msgspec.UNSET

    @property
    def judged_on(self) -> str:
        """Of which rows `quality` speaks."""
        if isinstance(self.evaluation, Evaluation):
            return f"on {self.evaluation.rows:,} rows held out from training"
        return f"on the {self.rows:,} rows given at packaging, on which the model may have been trained"


def redacted(card: Card) -> Card:
    """`card` with nothing but name, type and tag of each tagged column; its example stands in for them already."""
    schema = msgspec.structs.replace(card.schema, inputs=tuple(map(_redacted, card.schema.inputs)))
    return msgspec.structs.replace(card, schema=schema)


def markdown(card: Card) -> str:
    """The card as Markdown; the same card gives the same text."""
    schema = card.schema
    absolute, relative = card.tolerance.absolute, card.tolerance.relative
    lines = [
        f"# {_text(card.title)}",
        "",
        f"A model for {schema.task}, {_served(card)} on {card.rows:,} rows.",
        "",
        "## Inputs",
        "",
        *_table(("Name", "Type", "Shape", "Missing allowed", "Observed", "Redaction"), map(_input, schema.inputs)),
        "",
        "## Outputs",
        "",
        *_table(("Name", "Type", "Shape"), ((spec.name, spec.datatype, _shape(spec)) for spec in schema.outputs)),
    ]
    if schema.classes is not None:
        lines += ["", f"Classes, in the order of the probabilities: {_list(schema.classes, len(schema.classes))}."]
    if card.example:
        example = json.dumps(card.example, indent=2, ensure_ascii=False, sort_keys=True)
        lines += ["", "## Example", "", "Made of medians and commonest values; not a row of the data.", "", "```json", example, "```"]
    lines += [
        "",
        "## Conversion",
        "",
        f"{_text(card.method)}",
        "",
        f"Each answer lies within {absolute:g} + {relative:g} · |original| of {_compared(card)}; "
        f"{card.golden_rows:,} golden records are replayed before it serves.",
        "",
        "## Made with",
        "",
        *_table(("Distribution", "Version"), [("python", card.python), *sorted(card.packages.items())]),
    ]
    if card.quality:
        figures = [(name, f"{value:g}") for name, value in sorted(card.quality.items())]
        lines += ["", "## Quality", "", f"Against the labels, {card.judged_on}.", ""]
        lines += _table(("Figure", "Value"), figures)
    if card.provenance:
        lines += ["", "## Provenance", "", *_table(("Fact", "Value"), sorted(card.provenance.items()))]
    if card.limits:
        lines += ["", "## Limits", "", *(f"- {_text(limit)}" for limit in card.limits)]
    return "\n".join(lines) + "\n"


def _served(card: Card) -> str:
    if card.method == ISOLATED:
        return "code that runs in a process of its own, of which two gave the same answers"
    return "served as ONNX and proved to give the original's answers"


def _compared(card: Card) -> str:
    return "that of another process of the same code" if card.method == ISOLATED else "the original's"


def _redacted(spec: TensorSpec) -> TensorSpec:
    return msgspec.structs.replace(spec, categories=None, minimum=(), maximum=()) if spec.tag else spec


def _input(spec: TensorSpec) -> tuple[str, ...]:
    observed = ""
    if spec.tag:
        observed = "not shown"
    elif spec.categories is not None:
        observed = _list(spec.categories, SHOWN_CATEGORIES) + ("" if spec.unknown_allowed else "; no others")
    elif spec.minimum:
        observed = f"{min(spec.minimum):g} to {max(spec.maximum):g}"
    return spec.name, spec.datatype, _shape(spec), "yes" if spec.is_nullable else "no", observed, spec.tag or ""


def _shape(spec: TensorSpec) -> str:
    return " x ".join("n" if extent == -1 else str(extent) for extent in spec.shape)


def _list(values: tuple[Scalar, ...], shown: int) -> str:
    text = ", ".join(str(value) for value in values[:shown])
    return text if len(values) <= shown else f"{text} and {len(values) - shown:,} more"


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> list[str]:
    def line(cells: tuple[str, ...]) -> str:
        return "| " + " | ".join(map(_text, cells)) + " |"

    return [line(head), "|" + " --- |" * len(head), *map(line, rows)]


def _text(value: str) -> str:
    """One line of Markdown that cannot break its table or start markup of its own: names and categories come from users' data."""
    for mark in "\\`*_[]<>|#":
        value = value.replace(mark, f"\\{mark}")
    return " ".join(value.split())
