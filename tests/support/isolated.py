"""Bundles of small models that are code, for tests: the classes of `isolated_models/`, packaged as a user would."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import modelyard
from modelyard.bundle import Bundle

MODELS = Path(__file__).with_name("isolated_models")
COLUMNS = 4
POISON = 666.0


def rows(count: int = 70, columns: int = COLUMNS) -> np.ndarray:
    """Rows of which none is poison."""
    return np.random.default_rng(0).random((count, columns)).astype(np.float32)


def package(home: Path, model: str, *, name: str | None = None, module: str = "faulty", **more: Any) -> Bundle:
    """Package the class `model` of `isolated_models/<module>.py` into `home`, under its name in lower case unless another is given."""
    data = more.pop("data", None)
    return modelyard.package(
        f"{module}:{model}",
        name=name or model.lower(),
        data=rows() if data is None else data,
        code=[MODELS / f"{module}.py"],
        home=home,
        progress=lambda *_: None,
        **more,
    )


def poison(columns: int = COLUMNS) -> list[float]:
    """A row on which a faulty model misbehaves."""
    return [POISON, *([0.0] * (columns - 1))]
