"""One model, one identity: under the Digest lies only what the model, the data and the package versions determine."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = pytest.mark.system

TRAIN = """
import sys
import numpy as np, pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder
import modelyard

rng = np.random.default_rng(7)
rows = 400
X = pd.DataFrame({"age": rng.normal(40, 12, rows), "city": rng.choice(["Oslo", "Rome", "Łódź", "東京"], rows), "visits": rng.integers(0, 9, rows)})
X.loc[::17, "age"] = np.nan
y = np.where((X["visits"] > 4) | (X["city"] == "Rome"), "stays", "leaves")
if sys.argv[1] == "changed":
    X.loc[3, "visits"] = 400
numbers = make_pipeline(SimpleImputer())
columns = ColumnTransformer([("n", numbers, ["age", "visits"]), ("c", OneHotEncoder(handle_unknown="ignore"), ["city"])])
model = make_pipeline(columns, RandomForestClassifier(20, random_state=0, n_jobs=int(sys.argv[2]))).fit(X, y)
bundle = modelyard.package(model, name=sys.argv[3], data=X, labels=y)
print("DIGEST", bundle.digest)
"""


def digest(folder: Path, *arguments: str, prefix: tuple[str, ...] = (), **environment: str) -> str:
    folder.mkdir(parents=True)
    script = folder / "train.py"
    script.write_text(TRAIN, "utf-8")
    settings = {"HOME": str(folder), "MODELYARD_HOME": str(folder / "home"), **environment}
    done = subprocess.run(
        [*prefix, sys.executable, str(script), *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env={**os.environ, **settings},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split("DIGEST ")[1].strip()


def test_homes_users_dates_locales_hash_seeds_and_thread_counts_give_one_digest(tmp_path: Path, component: Callable[[str], str]) -> None:
    another_day = (component("faketime"), "-f", "+400d")
    here = digest(
        tmp_path / "a", "same", "1", "stay", USER="ada", LOGNAME="ada", LC_ALL="C", TZ="UTC", PYTHONHASHSEED="1", OMP_NUM_THREADS="1", PYTHONUTF8="0"
    )
    there = digest(
        tmp_path / "b" / "deeper",
        *("same", "2", "another-name"),
        prefix=another_day,
        USER="eve",
        LOGNAME="eve",
        LC_ALL="C.UTF-8",
        TZ="Asia/Tokyo",
        PYTHONHASHSEED="4242",
        OMP_NUM_THREADS="2",
    )
    assert here == there
    assert digest(tmp_path / "c", "changed", "1", "stay") != here, "the check can fail"
