"""A pipeline over mixed columns (adult.parquet: 6 numeric, 8 categorical), records in `instances`, beside the app that one writes for it by hand.

The same ONNX graph answers on both sides: the one that modelyard made of scaling, one-hot codes and a logistic regression. Ours has everything on
and a key; theirs is `byhand/people.py`.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from benchmarks.items import Item, ratio, spread
from benchmarks.servers import JSON, Home, Question, Wrk, started

DATA = Path(__file__).resolve().parents[1].parent / "shared" / "data" / "adult.parquet"
ROUNDS = 5
CONNECTIONS = 32


def census(home: Home) -> bytes:
    """Train and package the pipeline as `adult`; gives the body of a request with one record."""
    from sklearn.compose import make_column_transformer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    import modelyard
    from modelyard.runtime.data import read_file

    people = read_file(DATA)
    income = people.pop("class")
    texts = [name for name in people if people[name].dtype.kind not in "iuf"]
    numbers = [name for name in people if name not in texts]
    columns = make_column_transformer((StandardScaler(), numbers), (OneHotEncoder(handle_unknown="ignore"), texts))
    pipeline = make_pipeline(columns, LogisticRegression(max_iter=500)).fit(people, income)
    modelyard.package(pipeline, name="adult", data=people[:5000], labels=income[:5000], home=home.folder)
    home.serve("adult")
    return json.dumps({"instances": json.loads(people[:1].to_json(orient="records"))}).encode()


def run() -> list[Item]:
    """Records at 32 connections."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        home, wrk = Home(folder / "home"), Wrk(folder)
        body = census(home)
        model = folder / "adult.onnx"
        model.write_bytes(home.model("adult"))
        ours = Question(["/v1/models/adult:predict"], body, {**JSON, **home.authorization})
        theirs = Question(["/"], body, ours.headers)
        command = [sys.executable, "-m", "benchmarks.byhand.people", str(model), "{port}"]
        with started(command, theirs) as app, home.started(ours) as server:
            wrk.load(server.port, ours, CONNECTIONS), wrk.load(app.port, theirs, CONNECTIONS)
            figure, mine, others = ratio(
                lambda: wrk.load(server.port, ours, CONNECTIONS).requests_s,
                lambda: wrk.load(app.port, theirs, CONNECTIONS).requests_s,
                rounds=ROUNDS,
            )
    note = f"records/s: ours {spread(mine, '')}, by hand {spread(others, '')}"
    return [Item(name="adult-records", figure=figure, unit="x", bar=1.5, better="higher", note=note)]
