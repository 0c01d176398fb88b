"""Small data of the shapes that conversion must get right."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest


@pytest.fixture(scope="session")
def numbers() -> np.ndarray:
    """Float64 features of very different ranges: what float32 cannot hold apart."""
    rng = np.random.default_rng(0)
    return np.c_[rng.normal(size=400), rng.normal(size=400) * 1e6 + 123456.789, rng.integers(0, 5, 400) + 0.1, rng.lognormal(size=400) * 1e-3]


@pytest.fixture(scope="session")
def two(numbers: np.ndarray) -> np.ndarray:
    """A label of two texts."""
    return np.where(numbers[:, 0] + (numbers[:, 1] - 123456.789) / 1e6 > 0.2, "yes", "no")


@pytest.fixture(scope="session")
def three(numbers: np.ndarray) -> np.ndarray:
    """A label of three numbers."""
    return np.digitize(numbers[:, 0] + numbers[:, 2], [1.5, 3.0]) * 10


@pytest.fixture(scope="session")
def target(numbers: np.ndarray) -> np.ndarray:
    """A number to predict, in the hundreds."""
    return 300 * numbers[:, 0] + 100 * np.sin(numbers[:, 2]) + 50


@pytest.fixture(scope="session")
def people() -> pd.DataFrame:
    """A frame with numbers, an integer, text, and missing values in both."""
    rng = np.random.default_rng(1)
    frame = pd.DataFrame(
        {
            "age": rng.integers(18, 90, 300).astype(float),
            "income": rng.lognormal(10, 1, 300),
            "children": rng.integers(0, 4, 300),
            "city": rng.choice(["Oslo", "Łódź", "São Paulo", "x"], 300),
            "plan": rng.choice(["a", "b"], 300),
        }
    )
    frame.loc[frame.index[::9], "age"] = np.nan
    frame["city"] = frame["city"].astype(object).where(frame.index % 7 != 0, None)
    return frame


@pytest.fixture(scope="session")
def churned(people: pd.DataFrame) -> np.ndarray:
    """The label of `people`."""
    return ((people["income"] > 20000) ^ (people["city"] == "Oslo")).to_numpy().astype(int)
