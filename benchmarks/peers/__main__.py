"""Runs the peers: `python -m benchmarks.peers [--no-write] [NAME…]`.

Each peer gets an environment of its own, made once from pinned requirements and kept outside the checkout, and serves the forest of 100 trees over 30
floats twice: pickled, and as the ONNX session that modelyard runs. One core for the server, wrk on another, 32 connections, one row a
request; rounds of theirs and ours alternate. A peer that cannot be installed or started here is named with the reason. A whole run writes
docs/peers.md, docs/peers.svg and the lines about them in the README.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple

from benchmarks.__main__ import BUSY, ROOT, busy_share, replace_between, write_page
from benchmarks.items import Item, ratio
from benchmarks.peers.chart import Bar, chart
from benchmarks.servers import JSON, Question, Running, Wrk, started, v2
from benchmarks.serving import forest

HERE = Path(__file__).parent
FLAVOURS = ("onnx", "pickle")
CONNECTIONS, ROUNDS, SECONDS = 32, 3, 3
IN_README = ("<!-- peers: begin -->", "<!-- peers: end -->")
BARS = {("mlserver", "onnx"): 20, ("kserve", "onnx"): 20, ("mlserver", "pickle"): 150, ("kserve", "pickle"): 150}


class Peer(NamedTuple):
    """A server: its name in the table, the distribution whose version counts, the route, and its command line."""

    title: str
    package: str
    path: str
    command: tuple[str, ...]
    speaks_v2: bool = True


PEERS = {
    "fastapi": Peer("FastAPI by hand", "fastapi", "/", ("python", "fastapi_app.py")),
    "mlserver": Peer("MLServer", "mlserver", "/v2/models/forest/infer", ("python", "mlserver_app.py")),
    "kserve": Peer("KServe", "kserve", "/v2/models/forest/infer", ("python", "kserve_app.py")),
    "litserve": Peer("LitServe", "litserve", "/predict", ("python", "litserve_app.py")),
    "bentoml": Peer("BentoML", "bentoml", "/infer", ("bentoml", "serve", "bentoml_app:Forest", "--host", "127.0.0.1", "--port", "{port}")),
    "ray": Peer("Ray Serve", "ray", "/", ("python", "ray_app.py")),
    "mlflow": Peer("MLflow models serve", "mlflow", "/invocations", ("python", "mlflow_app.py"), speaks_v2=False),
}


class Found(NamedTuple):
    """What came of one peer and flavour: requests per second (NaN without), the wait at one connection, ours ÷ theirs, and why there is nothing."""

    requests_s: float
    p50_us: float
    times: float
    reason: str = ""


def cache() -> Path:
    """Where environments are kept."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "modelyard" / "peers"


def environment(name: str) -> Path:
    """The folder of the peer's programs, made first where it is not there yet. Raises RuntimeError with the installer's last words."""
    requirements = HERE / "requirements" / f"{name}.txt"
    folder = cache() / f"{name}-{hashlib.sha256(requirements.read_bytes()).hexdigest()[:12]}"
    ready = folder / ".ready"
    if not ready.exists():
        print(f"{name}: installing into {folder.name}", file=sys.stderr)
        uv = Path(sys.executable).with_name("uv")
        for words in (
            [sys.executable, "-m", "venv", "--clear", str(folder)],
            [str(uv), "pip", "install", "--quiet", "--python", str(folder), "--require-hashes", "-r", str(requirements)],
        ):
            done = subprocess.run(words, capture_output=True, text=True, check=False)
            if done.returncode:
                raise RuntimeError(f"cannot be installed here: {(done.stderr.strip().splitlines() or ['no reason given'])[-1][:200]}")
        ready.touch()
    return folder / "bin"


def serve(name: str, model: Path, question: Question) -> AbstractContextManager[Running]:
    """The peer over `model`."""
    peer = PEERS[name]
    programs = environment(name)
    program, *rest = peer.command
    words = [str(programs / program), *(str(HERE / "apps" / word) if word.endswith(".py") else word for word in rest)]
    variables = {
        "PEER_MODEL": str(model),
        "PEER_PORT": "{port}",
        "PYTHONPATH": str(HERE / "apps"),
        "PATH": f"{programs}{os.pathsep}{os.environ.get('PATH', '')}",
        "BENTOML_DO_NOT_TRACK": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "DO_NOT_TRACK": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    return started(words, question, environment=variables, wait_s=120)


class Bench:
    """The forest in both forms, and ours beside each peer."""

    def __init__(self, folder: Path) -> None:
        import joblib
        import numpy as np
        from sklearn.datasets import load_breast_cancer
        from sklearn.ensemble import RandomForestClassifier

        onnx, self.home = forest(folder)
        X, y = load_breast_cancer(return_X_y=True)
        X = X.astype(np.float32)
        pickled = folder / "forest.joblib"
        joblib.dump(RandomForestClassifier(100, random_state=0).fit(X, y), pickled)
        self.models = {"onnx": onnx, "pickle": pickled}
        self.ours = v2("forest", X[:1], self.home.authorization)
        self.rows = (b'{"inputs": [%b]}' % str(X[0].tolist()).encode(), self.ours.body)
        self.wrk = Wrk(folder)

    def measure(self, name: str, flavour: str, port: int) -> Found:
        """Theirs beside ours, which answers on `port`."""
        peer = PEERS[name]
        question = Question([peer.path], self.rows[peer.speaks_v2], JSON)
        load = self.wrk.load
        try:
            with serve(name, self.models[flavour], question) as theirs:
                load(theirs.port, question, CONNECTIONS, SECONDS)
                times, _, rates = ratio(
                    lambda: load(port, self.ours, CONNECTIONS, SECONDS).requests_s,
                    lambda: load(theirs.port, question, CONNECTIONS, SECONDS).requests_s,
                    rounds=ROUNDS,
                )
                return Found(statistics.median(rates), load(theirs.port, question, 1, SECONDS).p50_us, times)
        except RuntimeError as error:
            return Found(float("nan"), float("nan"), float("nan"), str(error).strip().splitlines()[-1][:200])


def versions(name: str) -> str:
    """The version that a peer's requirements pin."""
    package = PEERS[name].package
    lines = (HERE / "requirements" / f"{name}.txt").read_text().splitlines()
    return next(
        line.split()[0].partition("==")[2] for line in lines if line.partition("[")[0].startswith(f"{package}==") or line.startswith(f"{package}[")
    )


def table(found: dict[tuple[str, str], Found], ours: tuple[float, float]) -> str:
    """The page: one line per peer."""
    lines = [
        "| server | ONNX session, requests/s | p50 at 1 | ours is | pickled forest, requests/s | p50 at 1 | ours is |",
        "|---|---:|---:|---:|---:|---:|---:|",
        f"| **modelyard** | **{ours[0]:,.0f}** | {ours[1] / 1000:.2f} ms | | | | |",
    ]
    for name, peer in PEERS.items():
        cells = []
        for flavour in FLAVOURS:
            item = found[name, flavour]
            cells += [item.reason, "", ""] if item.reason else [f"{item.requests_s:,.0f}", f"{item.p50_us / 1000:.2f} ms", f"{item.times:,.1f} x"]
        lines.append(f"| {peer.title} {versions(name)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def summary(found: dict[tuple[str, str], Found]) -> str:
    """The chart and what it shows in a sentence, for the README."""
    told = []
    for flavour, says in (("onnx", "as theirs with the same ONNX session"), ("pickle", "as theirs with the pickle")):
        times = [found[name, flavour].times for name in PEERS if not found[name, flavour].reason]
        if times:
            told.append(f"{min(times):,.0f} to {max(times):,.0f} times as many {says}")
    return f"![Requests per second of modelyard and other servers](docs/peers.svg)\n\nOne core of modelyard answers {', and '.join(told)}."


def picture(found: dict[tuple[str, str], Found], ours: float) -> str:
    """The chart."""
    rows: list[tuple[str, Sequence[Bar]]] = [("modelyard", [Bar("ours", ours)])]
    for name, peer in PEERS.items():
        bars = [Bar(each, None if found[name, each].reason else found[name, each].requests_s, "not to be had here") for each in FLAVOURS]
        rows.append((peer.title, bars))
    note = "random forest of 100 trees, 32 connections, one core; blue: the same ONNX session, ochre: pickled scikit-learn"
    return chart("Requests per second (logarithmic)", note, rows)


def main() -> int:
    """Run what was asked for; 1 when a bar is missed or a figure that has one could not be had."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(PEERS)}; default: all")
    parser.add_argument("--no-write", action="store_true", help="leave the pages under docs/ as they are")
    arguments = parser.parse_args()
    unknown = sorted(set(arguments.names) - set(PEERS))
    if unknown:
        parser.error(f"no such peer: {', '.join(unknown)}")
    keeps = not arguments.no_write and not arguments.names
    if keeps and (share := busy_share()) > BUSY:
        print(f"something else takes {share:.0%} of this machine: figures are printed, the pages under docs stay as they are", file=sys.stderr)
        keeps = False
    found: dict[tuple[str, str], Found] = {}
    items: list[Item] = []
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder))
        with bench.home.started(bench.ours) as ours:
            bench.wrk.load(ours.port, bench.ours, CONNECTIONS, SECONDS)
            for name in arguments.names or PEERS:
                for flavour in FLAVOURS:
                    item = found[name, flavour] = bench.measure(name, flavour, ours.port)
                    if item.reason:
                        print(f"{name} {flavour}: {item.reason}", flush=True)
                    else:
                        said = f"{item.requests_s:,.0f} requests/s, p50 {item.p50_us / 1000:.2f} ms; ours is {item.times:,.1f} times as fast"
                        print(f"{name} {flavour}: {said}", flush=True)
                    if (name, flavour) in BARS:
                        items.append(Item(name=f"peers-{name}-{flavour}", figure=item.times, unit="x", bar=BARS[name, flavour], better="higher"))
                        print(items[-1].line, flush=True)
            rates = [bench.wrk.load(ours.port, bench.ours, CONNECTIONS, SECONDS).requests_s for _ in range(ROUNDS)]
            own = statistics.median(rates), bench.wrk.load(ours.port, bench.ours, 1, SECONDS).p50_us
    if keeps:
        write_page("peers", f"![Requests per second](peers.svg)\n\n{table(found, own)}")
        (ROOT / "docs" / "peers.svg").write_text(picture(found, own[0]), "utf-8")
        readme = ROOT / "README.md"
        readme.write_text(replace_between(readme.read_text("utf-8"), summary(found), *IN_README), "utf-8")
    passed = sum(item.passed for item in items)
    print(f"{passed} of {len(items)} reach their bar")
    return 0 if passed == len(items) else 1


if __name__ == "__main__":
    sys.exit(main())
