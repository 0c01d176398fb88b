"""Runs the suite: `python -m tests.faults [--long] [--no-write] [--no-controls] [--counts] [NAME…]`.

Prints one line per item, `NAME FIGURE BAR PASS|FAIL`, and a count last; exits 1 when an item fails or could not be had (with `--counts`, on a
machine that others may use too: when one does that no noise can spoil; what was timed is printed). A run of everything
writes the figures into README.md (one row a fault) and docs/faults.md (all) between their markers, unless something else kept the machine busy
when it began. NAME is a number or a name. It holds no check.
"""

from __future__ import annotations

import argparse
import functools
import os
import shutil
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.__main__ import BUSY, busy_share, machine, replace_between
from tests.faults.faults import FAULTS, load
from tests.faults.judge import Fault, Item, Judged, controlled, judge, markdown, summary
from tests.faults.scene import CLIENT_CORE, Missing, Scene

AT_ONCE = 3
"""Faults at a time, of those that may share the machine."""

ROOT = Path(__file__).resolve().parents[2]


def run(fault: Fault, *, is_long: bool, limit_s: float, limit: int, with_controls: bool = True) -> Judged:
    """A fault and its controls, each in a folder of its own that is gone afterwards."""

    def once(without: str = "") -> tuple[Item, ...]:
        folder = Path(tempfile.mkdtemp(prefix=f"fault-{fault.number}-"))
        try:
            scene = Scene(fault, folder, without=without, is_long=is_long and not without, limit_s=limit_s, limit=limit)
            fault.run(scene)
            return scene.finish()
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    items, runs = judge(once)
    without = {control.without: None for control in fault.controls if with_controls}
    found = {name: _without(name, lambda name=name: once(name)) for name in without}  # once for all controls that take the same away
    controls = [controlled(found[control.without], control) for control in fault.controls if with_controls]
    return Judged(fault=fault, items=items, controls=tuple(controls), runs=runs)


def _without(name: str, once: Callable[[], tuple[Item, ...]]) -> tuple[Item, ...]:
    """The items of a run with a defence taken away; none when it could not run, so that its controls fail."""
    try:
        return once()
    except Exception:  # noqa: BLE001 - a control that cannot run has not shown anything; the others still may
        print(f"without {name}:", file=sys.stderr)
        traceback.print_exc()
        return ()


def main() -> int:
    """Run what was asked for. Exit code 1 when an item fails or could not be had, 2 for an unknown name."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="a fault's number or name; default: all")
    parser.add_argument(
        "--long", action="store_true", help="the long forms, bounded by FAULTS_LEAK_S (default 7200) and FAULTS_FUZZ (default 1000000)"
    )
    parser.add_argument("--no-write", action="store_true", help="leave README.md and docs/faults.md as they are")
    parser.add_argument("--no-controls", action="store_true", help="without the negative controls")
    parser.add_argument("--counts", action="store_true", help="fail by what is counted alone; what is timed is printed")
    arguments = parser.parse_args()
    chosen = [name for name in FAULTS if not arguments.names or {name, name.split("-", 1)[1], str(int(name[:2]))} & set(arguments.names)]
    if not chosen or (arguments.names and len(chosen) < len(set(arguments.names))):
        parser.error(f"the faults are {', '.join(FAULTS)}")
    limit_s, limit = float(os.environ.get("FAULTS_LEAK_S", "7200")), int(os.environ.get("FAULTS_FUZZ", "1000000"))
    keeps = not (arguments.no_write or arguments.names or arguments.no_controls or arguments.long)
    if keeps and (share := busy_share()) > BUSY:
        print(
            f"something else takes {share:.0%} of this machine: figures are printed, README.md and docs/faults.md stay as they are", file=sys.stderr
        )
        keeps = False
    if sys.platform != "linux":
        print("the faults need Linux: /proc, and a core for each side", file=sys.stderr)
        return int(os.environ.get("CI") == "true")
    about = machine()  # all of it, before this process keeps to one core
    os.sched_setaffinity(0, {CLIENT_CORE})  # of this thread, and of those that it starts
    suite = Suite(is_long=arguments.long, limit_s=limit_s, limit=limit, with_controls=not arguments.no_controls)
    faults = {name: load(name) for name in chosen}
    for name, fault in faults.items():
        if not fault.may_share:
            suite.judge(name, fault)
    shared = {name: fault for name, fault in faults.items() if fault.may_share}
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(suite.judge, shared.keys(), shared.values()))
    if keeps and len(suite.judged) == len(FAULTS):
        _write([suite.judged[name] for name in FAULTS], about)
    print(f"{suite.passed} of {suite.total} reach their bar")
    missed = suite.missed_counts if arguments.counts else suite.total - suite.passed
    return int(missed > 0)


class Suite:
    """What was found so far. Faults may be judged by several threads; the lines of one stay together."""

    def __init__(self, *, is_long: bool, limit_s: float, limit: int, with_controls: bool) -> None:
        self.judged: dict[str, Judged] = {}
        self.passed = self.total = self.missed_counts = 0
        self._run = functools.partial(run, is_long=is_long, limit_s=limit_s, limit=limit, with_controls=with_controls)
        self._lock = threading.Lock()

    def judge(self, name: str, fault: Fault) -> None:
        """Run one fault and print what it found."""
        began = time.monotonic()
        try:
            found = self._run(fault)
        except Exception as error:  # noqa: BLE001 - one broken check must not hide the others
            with self._lock:
                self._broken(name, error)
            return
        with self._lock:
            self.judged[name] = found
            for item in (*found.items, *found.controls):
                print(item.line, flush=True)
                if item.note and not item.passed:
                    print(f"  {item.name}: {item.note}", file=sys.stderr, flush=True)
                self.passed += item.passed
                self.total += 1
                self.missed_counts += item.exact and not item.passed
            runs = "" if found.runs == 1 else f", {found.runs} runs"
            print(f"{name}: {time.monotonic() - began:.0f} s{runs}", file=sys.stderr, flush=True)

    def _broken(self, name: str, error: Exception) -> None:
        if isinstance(error, Missing) and os.environ.get("CI") != "true":
            print(f"{name} left out: {error}", file=sys.stderr, flush=True)
            return
        traceback.print_exception(error)
        print(f"{name} nan - FAIL", flush=True)
        self.total += 1
        self.missed_counts += 1


def _write(judged: list[Judged], about: str) -> None:
    dated = f"Measured on {datetime.now(UTC):%Y-%m-%d}: {about}."
    for path, begin, end, body in (
        (ROOT / "docs/faults.md", "<!-- figures: begin -->", "<!-- figures: end -->", f"{dated}\n\n{markdown(judged)}"),
        (ROOT / "README.md", "<!-- faults: begin -->", "<!-- faults: end -->", f"{dated}\n\n{summary(judged)}"),
    ):
        path.write_text(replace_between(path.read_text("utf-8"), body, begin, end), "utf-8")


if __name__ == "__main__":
    sys.exit(main())
