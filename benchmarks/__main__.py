"""Runs the benchmarks: `python -m benchmarks [--no-write] [NAME…]`.

Prints one line per item, `NAME FIGURE BAR PASS|FAIL`, and a count last; exits 1 when an item fails. A run of everything also
writes its two tables into docs/benchmarks.md between their markers, and the parity table into docs/parity.md, unless something else kept the
machine busy when it began: such timings must not be kept. A run of all that one table holds writes that table. It holds no measurement.
"""

from __future__ import annotations

import argparse
import platform
import sys
import time
import traceback
from datetime import UTC, datetime
from importlib import import_module, metadata
from pathlib import Path

from benchmarks.items import Item

# name -> "module:function"; each function gives the list of its items.
SERVING = {
    "serving": "benchmarks.serving:run",
    "many": "benchmarks.many:run",
    "adult": "benchmarks.adult:run",
    "image": "benchmarks.image:run",
    "grpc": "benchmarks.grpc_infer:run",
    "isolated": "benchmarks.isolated:run",
    "packaging": "benchmarks.packaging:run",
    "profile": "benchmarks.profiles:run",
    "starts": "benchmarks.starts:run",
}
VERSIONS = {
    "guards": "benchmarks.guards:run",
    "experiments-drawn": "benchmarks.experiments:run",
    "sticky-drawn": "benchmarks.sticky:run",
    "canary": "benchmarks.rollouts:canary",
    "shadow": "benchmarks.rollouts:shadow",
    "deploys": "benchmarks.deploys:run",
    "records": "benchmarks.records:run",
}
BENCHMARKS = SERVING | VERSIONS
TABLES = (
    (SERVING, ("<!-- figures: begin -->", "<!-- figures: end -->")),
    (VERSIONS, ("<!-- versions: begin -->", "<!-- versions: end -->")),
)
"""Each table of docs/benchmarks.md: what it holds, and its markers."""
# page in docs -> "module:function" giving Markdown; they hold no bar of speed, so they make no line here.
PAGES = {
    "stages": "benchmarks.stages:table",
    "parity": "benchmarks.parity_table:table",
    "judged": "benchmarks.guards:table",
    "experiments": "benchmarks.experiments:table",
    "sticky": "benchmarks.sticky:table",
}
DRAWN = {"judged", "experiments", "sticky"}
"""Pages that hold what was drawn at random and nothing that was timed: they are kept however busy the machine is."""
# where a table stands that is not the figures of its own page: page in docs, and its markers.
PLACES = {
    "stages": ("benchmarks", ("<!-- stages: begin -->", "<!-- stages: end -->")),
    "judged": ("rollouts", ("<!-- figures: begin -->", "<!-- figures: end -->")),
    "experiments": ("rollouts", ("<!-- experiments: begin -->", "<!-- experiments: end -->")),
    "sticky": ("rollouts", ("<!-- sticky: begin -->", "<!-- sticky: end -->")),
}

ROOT = Path(__file__).resolve().parents[1]
BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"
BUSY = 0.15
LIBRARIES = ("numpy", "onnxruntime", "scikit-learn", "treelite", "uvicorn", "httptools", "uvloop", "msgspec")


def load(target: str):
    """The function that `module:function` names."""
    module, _, name = target.partition(":")
    return getattr(import_module(module), name)


def machine() -> str:
    """What the figures were measured on: its class, never its name or paths."""
    cpu = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), cpu)
    except OSError:
        pass
    from modelyard.config import cores

    versions = ", ".join(f"{name} {metadata.version(name)}" for name in LIBRARIES)
    return f"{cores()} cores ({cpu}), {platform.system()} {platform.machine()}, Python {platform.python_version()}; {versions}"


def markdown(items: list[Item]) -> str:
    """The items as a table."""
    head = "| item | figure | bar | | rounds |\n|---|---:|---:|---|---|\n"
    rows = (
        f"| {i.name} | {i.figure:,.4g} {i.unit} | {'≤' if i.better == 'lower' else '≥'} {i.bar:,g} {i.unit} | {'✓' if i.passed else '✗'} | {i.note} |"
        for i in items
    )
    return head + "\n".join(rows)


def replace_between(text: str, body: str, begin_mark: str = BEGIN, end_mark: str = END) -> str:
    """`text` with what stands between the markers replaced by `body`; raises ValueError without both markers."""
    before, begin, rest = text.partition(begin_mark)
    _, end, after = rest.partition(end_mark)
    if not begin or not end:
        raise ValueError(f"the page lacks the markers {begin_mark} and {end_mark}")
    return f"{before}{begin_mark}\n{body}\n{end_mark}{after}"


def write_page(page: str, body: str, marks: tuple[str, str] = (BEGIN, END)) -> None:
    """Replace what stands between the markers in docs/<page>.md, under the date and the machine's class."""
    path = ROOT / "docs" / f"{page}.md"
    dated = f"Measured on {datetime.now(UTC):%Y-%m-%d}: {machine()}.\n\n{body.strip()}"
    path.write_text(replace_between(path.read_text("utf-8"), dated, *marks), "utf-8")


def busy_share(seconds: float = 3.0) -> float:
    """How much of the whole machine's time something else takes just now, 0 to 1; 0 where the system does not tell."""

    def times() -> tuple[int, int]:
        fields = [int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
        return sum(fields), fields[3] + fields[4]  # all; idle and waiting for a disk

    try:
        before = times()
        time.sleep(seconds)
        after = times()
    except (OSError, ValueError, IndexError):
        return 0.0
    return 1 - (after[1] - before[1]) / max(1, after[0] - before[0])


def main() -> int:
    """Run what was asked for. Exit code 1 when an item fails or could not be measured, 2 for an unknown name."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join([*BENCHMARKS, *PAGES])}; default: all")
    parser.add_argument("--no-write", action="store_true", help="leave the pages under docs/ as they are")
    arguments = parser.parse_args()
    unknown = sorted(set(arguments.names) - set(BENCHMARKS) - set(PAGES))
    if unknown:
        parser.error(f"no such benchmark: {', '.join(unknown)}")

    wanted = arguments.names or [*BENCHMARKS, *PAGES]
    keeps = not arguments.no_write
    if keeps and not DRAWN.issuperset(wanted) and (share := busy_share()) > BUSY:
        print(f"something else takes {share:.0%} of this machine: what is timed is printed, its pages under docs stay as they are", file=sys.stderr)
        keeps = False
    found: dict[str, list[Item]] = {}
    broken: list[str] = []
    for name in wanted:
        try:
            if name in PAGES:
                began_s = time.process_time()
                body = load(PAGES[name])()
                print(body, flush=True)
                print(f"{name}: {time.process_time() - began_s:.0f} s of processor time", file=sys.stderr, flush=True)
                if keeps or (name in DRAWN and not arguments.no_write):
                    page, marks = PLACES.get(name, (name, (BEGIN, END)))
                    write_page(page, body, marks)
                continue
            items: list[Item] = []
            for item in load(BENCHMARKS[name])():
                items.append(item)
                print(item.line, flush=True)
            found[name] = items
        except Exception:  # one broken benchmark must not hide the figures of the others  # noqa: BLE001
            traceback.print_exc()
            broken.append(name)
            print(f"{name} nan - FAIL", flush=True)
    for names, marks in TABLES:
        if keeps and names.keys() <= found.keys():
            write_page("benchmarks", markdown([item for name in names for item in found[name]]), marks)
    total = sum(map(len, found.values())) + len(broken)
    passed = sum(item.passed for each in found.values() for item in each)
    if total:
        print(f"{passed} of {total} reach their bar")
    return 0 if passed == total else 1


if __name__ == "__main__":
    sys.exit(main())
