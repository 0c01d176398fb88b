"""Two hundred models in one worker: what idle neighbours cost a busy one, what spread traffic costs, and how much memory is ours.

Every model is the forest of 100 trees over 30 floats under another digest, so each has a session of its own. Idle: one model's throughput beside
199 others and without them. Spread: 32 connections whose requests go round all 200, beside the same connections at one; with it, what a server
written by hand keeps when its requests are spread so (`byhand.many`), which says how much of the loss is the sessions', and ours beside plain ASGI.
Memory: a worker's growth per model, less what a session alone grows a process by.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from benchmarks.byhand.many import MODELS
from benchmarks.items import Item, ratio, spread
from benchmarks.servers import Home, Question, Running, Wrk, resident_mb, started, v2
from benchmarks.serving import forest

ROUNDS = 5
CONNECTIONS = 32


def multiply(home: Home) -> list[str]:
    """Register the forest of `home` 200 times, each under a name and digest of its own; gives the names.

    The copies differ in a remark inside the graph. They are built of the packaged one's members: converting and proving 200 times would show nothing.
    """
    import msgspec
    import onnx

    from modelyard import bundle, registry
    from modelyard.bundle.base import FolderReader
    from modelyard.monitor import profile
    from modelyard.runtime.binding import Binding
    from modelyard.security.seal import Trust, local_signer

    known = registry.open(home.folder)
    first = bundle.open(FolderReader(home.folder / "blobs"), known.resolve("forest").index, trust=Trust(home.folder / "keys"))
    graph = onnx.load_from_string(first.read("model"))
    inputs, outputs = profile.decode(first.read("profile")), profile.decode(first.read("output-profile"))
    runtime = msgspec.json.decode(first.read("runtime"), type=Binding)
    signer = local_signer(home.folder / "keys")
    names = [f"forest-{number:03}" for number in range(MODELS)]
    for name in names:
        graph.doc_string = name
        contents = bundle.Contents(
            model=graph.SerializeToString(),
            runtime=runtime,
            schema=first.schema,
            lock=first.lock,
            profile=inputs,
            golden=first.golden.inputs,
            card=first.card,
        )
        attested = bundle.Attested(name=name, outputs=first.golden.outputs, parity={}, platform={}, profile=outputs)
        known.add(name, bundle.build(contents, attested, signer=signer))
    return names


def by_hand(kind: str, model: Path) -> list[str]:
    """The command line of `byhand.many` over `model`."""
    return [sys.executable, "-m", "benchmarks.byhand.many", kind, str(model), "{port}"]


def session_mb(model: Path) -> float:
    """By how much one more session over `model` grows a process: the mean of 199, in a process of its own."""
    script = (
        "import sys; from pathlib import Path; from benchmarks.servers import resident_mb; from modelyard.runtime.onnx import session; import os\n"
        "data = Path(sys.argv[1]).read_bytes(); held = [session(data)]; before = resident_mb(os.getpid())\n"
        f"held += [session(data) for _ in range({MODELS - 1})]; print((resident_mb(os.getpid()) - before) / {MODELS - 1})"
    )
    return float(subprocess.run([sys.executable, "-c", script, str(model)], capture_output=True, text=True, check=True).stdout)


def run() -> list[Item]:
    """Idle neighbours, spread traffic, memory."""
    import numpy as np
    from sklearn.datasets import load_breast_cancer

    with tempfile.TemporaryDirectory() as folder:
        model, home = forest(Path(folder))
        names = multiply(home)
        wrk = Wrk(Path(folder))
        row = load_breast_cancer().data[:1].astype(np.float32)
        one = v2(names[0], row, home.authorization)
        all_of_them = Question([f"/v2/models/{name}/infer" for name in names], one.body, one.headers)
        home.serve(names[0], plan="one")
        home.serve(*names, plan="many")
        with ExitStack() as stack:
            alone, many = (stack.enter_context(home.started(one, plan=plan)) for plan in ("one", "many"))
            bare, tick = (stack.enter_context(started(by_hand(kind, model), one)) for kind in ("bare", "tick"))

            def rate(side: Running, question: Question) -> float:
                return wrk.load(side.port, question, CONNECTIONS).requests_s

            rate(alone, one), rate(many, one), rate(many, all_of_them)
            before, after = resident_mb(alone.pid), resident_mb(many.pid)
            rate(bare, all_of_them), rate(tick, all_of_them)
            idle, with_idle, without = ratio(lambda: rate(many, one), lambda: rate(alone, one), rounds=ROUNDS)
            spread_out, of_all, of_one = ratio(lambda: rate(many, all_of_them), lambda: rate(many, one), rounds=ROUNDS)
            by_tick, tick_all, tick_one = ratio(lambda: rate(tick, all_of_them), lambda: rate(tick, one), rounds=ROUNDS)
            beside, ours, theirs = ratio(lambda: rate(many, all_of_them), lambda: rate(bare, all_of_them), rounds=ROUNDS)
        own = session_mb(model)
    return [
        Item(
            name="many-idle",
            figure=idle,
            unit="x",
            bar=0.9,
            better="higher",
            note=f"requests/s: beside {MODELS - 1} idle models {spread(with_idle, '')}, without {spread(without, '')}",
        ),
        Item(
            name="many-spread",
            figure=spread_out,
            unit="x",
            bar=0.6,
            better="higher",
            note=f"requests/s: over {MODELS} models {spread(of_all, '')}, at one {spread(of_one, '')}; a tick server by hand keeps "
            f"{by_tick:.3f} x ({spread(tick_all, '')}, {spread(tick_one, '')})",
        ),
        Item(
            name="many-spread-beside-bare",
            figure=beside,
            unit="x",
            bar=1.0,
            better="higher",
            note=f"requests/s over {MODELS} models: ours {spread(ours, '')}, bare ASGI {spread(theirs, '')}",
        ),
        Item(
            name="many-memory",
            figure=(after - before) / (MODELS - 1) - own,
            unit="MB",
            bar=1.0,
            better="lower",
            note=f"per model, of {MODELS}; a session alone takes {own:.2f} MB more",
        ),
    ]
