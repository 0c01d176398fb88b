"""What to do about an alert, in plain words: by its cause where that is known, else by what failed.

Hides the wording. Pure. It must not promise what nobody has measured: it says where to look and what mends the usual case.
"""

from __future__ import annotations

from modelyard.monitor.alerts.base import detector_of

BY_CAUSE = {
    "upstream break": (
        "Look at what fills {columns} (the last release of the pipeline before it, a unit, a default, a source that stands still) and mend it there; "
        "until then `modelyard rollback` helps only where a version before did without it. Do not retrain on these rows."
    ),
    "population shift": (
        "Other cases are asked about than the model learnt from. Look at how {columns} moved (`modelyard monitor`); where the estimated harm is "
        "small, go on and watch; where it is not, retrain with rows of now."
    ),
    "concept shift": (
        "The same inputs have other answers than before: the model has aged, and no mending of the data helps. Retrain with the latest labels and "
        "deploy the result as a canary."
    ),
}
"""By the kind of cause that `monitor.cause` names."""

BY_RULE = {
    "drift": (
        "Compare {columns} with the data that the model was packaged with (`modelyard monitor`): first whether the source changed (unit, default, "
        "new category), then whether the cases are others. If accuracy holds, nothing else is needed; if not, retrain with rows of now."
    ),
    "multivariate": "Columns moved together though each alone may look as ever. Look for a join, a filter or a client that changed.",
    "concept": (
        "The errors rose on labelled rows: what the model learnt holds no longer. Look at the slices that suffer (`modelyard monitor`), then retrain "
        "with the latest labels; `modelyard rollback` where the loss began with a deploy."
    ),
    "performance": (
        "The model does worse on labelled rows than it did when it was packaged. `modelyard rollback` where it began with a deploy; else retrain "
        "with the latest labels."
    ),
    "shift": "The latest window differs from the data that the model was packaged with in {columns}. Nothing is lost yet; look whether it goes on.",
    "estimated_performance": (
        "Without labels the model is estimated to do worse than it did when it was packaged. Get labels of some of these rows to be sure, then "
        "retrain."
    ),
    "quality": "Look at what fills {columns}: values are missing, unknown, out of range, of another unit, or stand still. Mend it at the source.",
    "operations": (
        "Look at `modelyard status` and the data plane's log: latency, errors, queue, CPU and memory by version; `modelyard rollback` if a deploy "
        "began it."
    ),
    "watch": "The monitor itself missed minutes, or was told of them late: look at the clock, the disk and the log of the control process.",
    "slo": (
        "Callers are not answered as promised. `modelyard status` says which errors; `modelyard rollback` if it began with a deploy, else look at "
        "load, queue and the processes of models that are code."
    ),
    "slices": "One group of cases suffers more than the others. Look at its rows and labels; more of them in training is the usual cure.",
}
"""By the detector."""

ELSE = "Look at `modelyard monitor` for what failed and since when."


def advise(rule: str, cause: str, columns: tuple[str, ...]) -> str:
    """What to do about a failing `rule` whose cause is of the kind `cause` (empty: not known) and whose guilty columns are `columns`."""
    text = BY_CAUSE.get(cause) or BY_RULE.get(rule) or BY_RULE.get(detector_of(rule), ELSE)
    return text.replace("{columns}", named(columns) or "the inputs")


def named(columns: tuple[str, ...], most: int = 5) -> str:
    """The first of `columns` by name, and how many more there are."""
    more = len(columns) - most
    return ", ".join(columns[:most]) + (f" and {more} more" if more > 0 else "")
