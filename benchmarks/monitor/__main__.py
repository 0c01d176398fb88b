"""Runs the seven bars of monitoring: `python -m benchmarks.monitor [--no-write] [--data FOLDER] [NAME…]`.

Prints one line per item, `NAME FIGURE BAR PASS|FAIL`, and a count last; exits 1 when an item fails. A run of everything on the project's own data
also writes docs/monitoring-benchmarks.md. FOLDER holds other data of the same files and columns. It holds no measurement.
"""

from __future__ import annotations

import argparse
import sys
import traceback
from pathlib import Path

from benchmarks.__main__ import ROOT, load, markdown, write_page
from benchmarks.items import Item

# name -> "module:function"; each function takes the folder of data and gives the list of its items.
BARS: dict[str, str] = {
    "drift": "benchmarks.monitor.drift:quiet",
    "profiles": "benchmarks.monitor.drift:profiles",
    "unused": "benchmarks.monitor.drift:unused",
    "causes": "benchmarks.monitor.causes:run",
    "ingest": "benchmarks.monitor.ingest:run",
    "scale": "benchmarks.monitor.scale:run",
    "receiving": "benchmarks.monitor.receiving:run",
    "labels": "benchmarks.monitor.labels:run",
    "concept": "benchmarks.monitor.concept:run",
    "nab": "benchmarks.monitor.nab:run",
    "operations": "benchmarks.monitor.operations:run",
    "pure-concept": "benchmarks.monitor.pure:run",
    "estimate": "benchmarks.monitor.estimate:run",
    "estimate-numbers": "benchmarks.monitor.estimate_numbers:run",
    "seasonal": "benchmarks.monitor.seasonal:run",
    "seasonal-performance": "benchmarks.monitor.seasonal_performance:run",
    "month": "benchmarks.monitor.month:run",
}
DATA = ROOT.parent / "shared" / "data"


def main() -> int:
    """Run what was asked for. Exit code 1 when an item fails or could not be measured, 2 for an unknown name."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.monitor", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(BARS)}; default: all")
    parser.add_argument("--data", type=Path, default=DATA, help="where the data lies")
    parser.add_argument("--no-write", action="store_true", help="leave docs/monitoring-benchmarks.md as it is")
    arguments = parser.parse_args()
    unknown = sorted(set(arguments.names) - set(BARS))
    if unknown:
        parser.error(f"no such bar: {', '.join(unknown)}")
    found: list[Item] = []
    broken: list[str] = []
    for name in arguments.names or BARS:
        try:
            items = load(BARS[name])(arguments.data)
        except Exception:  # noqa: BLE001  # the other bars are still to be measured
            traceback.print_exc()
            broken.append(name)
            continue
        for item in items:
            print(item.line, flush=True)
            if item.note:
                print(f"    {item.note}", flush=True)
        found += items
    for name in broken:
        print(f"{name} nan >=0 FAIL")
    failed = sum(not item.passed for item in found) + len(broken)
    print(f"{len(found) + len(broken)} items, {failed} failed")
    if not (arguments.names or arguments.no_write or broken) and arguments.data == DATA:
        write_page("monitoring-benchmarks", markdown(found))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
