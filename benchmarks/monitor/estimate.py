"""Performance without labels beside the truth that came later: employment in Massachusetts, in file order and sorted by age.

The estimator is the product's, learnt from the reference file alone, with the settings that it ships with; the same one judges both orders. Plain
CBPE (an isotonic curve over the reference's scores, by scikit-learn) and a dummy that always says the reference's figure stand beside it. Nothing of
the analysis file but inputs and answers is seen before its truth is compared.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.items import Item

FILES = "acs_employment_ma_{}.parquet"
SCORE, SAID, SORTED_BY = "predicted_probability", "prediction", "AGEP"
ORDERS = {"file": (5_000, {"accuracy": 0.0051, "auc": 0.0040}), "sorted": (2_000, {"accuracy": 0.0113, "auc": 0.0172})}
NO_WORSE = 0.0005
COVERED = 0.9
"""Of 95 % intervals, years after the reference."""


class Data(NamedTuple):
    """Rows as they went in and came out, and their truth."""

    inputs: dict[str, Any]
    outputs: dict[str, Any]
    truth: Any

    def take(self, rows: Any) -> Data:
        """Some of the rows."""
        return Data({n: a[rows] for n, a in self.inputs.items()}, {n: a[rows] for n, a in self.outputs.items()}, self.truth[rows])


def run(data: Path) -> list[Item]:
    """Mean absolute errors of accuracy and AUC in both orders, how much worse than plain CBPE at most, and what it takes."""
    from sklearn.isotonic import IsotonicRegression

    from modelyard.monitor import estimate

    reference, analysis, schema, bins = read(data)
    started = time.process_time()
    learnt = estimate.learn(schema, bins, {}, estimate.Rows(*reference), is_held_out=True)
    learning_s = time.process_time() - started
    curve = IsotonicRegression(out_of_bounds="clip").fit(reference.outputs["probability"][:, 1], reference.truth)
    items = []
    slowest = 0.0
    for order, (size, bars) in ORDERS.items():
        rows = np.arange(len(analysis.truth)) if order == "file" else np.argsort(analysis.inputs[SORTED_BY].ravel(), kind="stable")
        errors: dict[tuple[str, str], list[float]] = {}
        held: dict[str, list[bool]] = {name: [] for name in bars}
        refused = 0
        for at in range(0, len(rows), size):
            chunk = analysis.take(rows[at : at + size])
            started = time.process_time()
            found = estimate.estimate(learnt.estimator, schema, chunk.inputs, chunk.outputs)
            slowest = max(slowest, time.process_time() - started)
            refused += bool(found.why)
            true = figures(chunk, chunk.truth.astype(np.float64))
            plain = figures(chunk, curve.predict(chunk.outputs["probability"][:, 1]))
            for name in bars:
                if name in true:
                    ours = found.figures[name].value if name in found.figures else learnt.quality[name]
                    for who, value in (("ours", ours), ("plain", plain.get(name, learnt.quality[name])), ("dummy", learnt.quality[name])):
                        errors.setdefault((name, who), []).append(abs(value - true[name]))
                    if (figure := found.figures.get(name)) is not None:
                        held[name].append(figure.low <= true[name] <= figure.high)
        for name, bar in bars.items():
            mine, theirs, none = (float(np.mean(errors[name, who])) for who in ("ours", "plain", "dummy"))
            note = f"{len(errors[name, 'ours'])} chunks of {size:,}, {refused} refused; plain CBPE {theirs:.4f}, always the reference's {none:.4f}"
            items.append(Item(name=f"estimate-{name}-{order}", figure=mine, unit="", bar=bar, better="lower", note=note))
            items.append(Item(name=f"estimate-{name}-{order}-over-plain", figure=mine - theirs, unit="", bar=NO_WORSE, better="lower"))
            share = float(np.mean(held[name])) if held[name] else 0.0
            items.append(Item(name=f"estimate-{name}-{order}-covered", figure=share, unit="", bar=COVERED, better="higher"))
    kept = f"{learnt.rows:,} rows of {len(schema.inputs)} inputs, kept in {len(estimate.encode(learnt)) / 1000:,.0f} kB"
    return [
        *items,
        Item(name="estimate-chunk-time", figure=slowest, unit="s", bar=0.5, better="lower", note="of one core, the slowest of all chunks"),
        Item(name="estimate-learning-time", figure=learning_s, unit="s", bar=10, better="lower", note=f"of one core, from {kept}"),
    ]


def figures(chunk: Data, chance: Any) -> dict[str, float]:
    """Accuracy and AUC where the truth of each row has this chance."""
    from modelyard.monitor.estimate.figures import binary

    found = binary(chance, chunk.outputs["label"] == 1, chunk.outputs["probability"][:, 1])
    return {name: each.value for name, each in found.items() if not (name == "auc" and chance.min() == chance.max())}


def read(data: Path) -> tuple[Data, Data, Any, Any]:
    """Reference, analysis, the schema of the model that answered, and the profile of the reference.

    The truths are joined by the key that both analysis files have. The model's inputs are what is neither key, truth nor answer; a column that never
    changes in the reference taught no model anything and is none of them.
    """
    from modelyard.monitor.profile import measure, measure_outputs
    from modelyard.runtime import data as frames
    from modelyard.types import Schema, TensorSpec

    reference, analysis, truths = (frames.read_file(data / FILES.format(part)) for part in ("reference", "analysis", "analysis_target"))
    key = next(name for name in truths if name in analysis)
    truth = next(name for name in truths if name not in analysis)
    analysis = analysis.merge(truths, on=key, how="inner", validate="one_to_one")
    names = [name for name in analysis if name not in (key, truth, SCORE, SAID) and reference[name].nunique(dropna=False) > 1]
    tables = [frames.read(frame[names])[0] for frame in (reference, analysis)]
    specs = tuple(
        TensorSpec(name=name, datatype=tables[0].kinds[name].datatype, shape=(-1, 1), is_nullable=bool(reference[name].isna().any()))
        for name in names
    )
    outputs = (TensorSpec(name="label", datatype="INT64", shape=(-1,)), TensorSpec(name="probability", datatype="FP64", shape=(-1, 2)))
    schema = Schema(inputs=specs, outputs=outputs, layout="frame", task="classification", classes=(0, 1))
    both = []
    for table, frame in zip(tables, (reference, analysis), strict=True):
        score = frame[SCORE].to_numpy(np.float64)
        answers = {"label": frame[SAID].to_numpy(np.int64), "probability": np.column_stack([1 - score, score])}
        both.append(Data(dict(table.columns), answers, frame[truth].to_numpy(np.int64)))
    bins = measure(both[0].inputs, schema) + measure_outputs(both[0].outputs, schema)
    return both[0], both[1], schema, bins
