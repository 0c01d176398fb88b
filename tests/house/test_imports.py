"""What importing does: the layers hold, a module has no side effect, and light commands stay light."""

from __future__ import annotations

import json
import os
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import modelyard

ROOT = Path(__file__).parents[2]
MODULES = sorted(info.name for info in pkgutil.walk_packages(modelyard.__path__, "modelyard.") if not info.name.endswith("__main__"))
HEAVY = {
    "sqlalchemy",
    "alembic",
    "psycopg",
    "fsspec",
    "s3fs",
    "fastapi",
    "uvicorn",
    "sklearn",
    "scipy",
    "river",
    "pandas",
    "polars",
    "onnx",
    "skl2onnx",
    "onnxmltools",
    "treelite",
    "duckdb",
    "httpx",
    "jwt",
}

SIDE_EFFECTS = """
import os, sys, threading, importlib, json, signal
folder, *modules = sys.argv[1:]
os.chdir(folder)
def world():
    return dict(os.environ), threading.active_count(), set(os.listdir(folder)), signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
found, before = {}, world()
for module in modules:
    importlib.import_module(module)
    after = world()
    if after != before:
        found[module] = [name for name, a, b in zip(("environment", "threads", "files", "SIGTERM", "SIGINT"), before, after) if a != b]
    before = after
print(json.dumps(found))
"""


def side_effects(folder: Path, *modules: str, search: Path = ROOT) -> dict[str, list[str]]:
    """What importing each module, one after the other in one process, changed."""
    environment = {**os.environ, "HOME": str(folder), "ORT_DISABLE_TELEMETRY": "1", "PYTHONPATH": str(search), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-c", SIDE_EFFECTS, str(folder), *modules]
    shown = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert shown.returncode == 0, shown.stderr
    return dict(json.loads(shown.stdout))


def test_importing_a_module_changes_nothing(tmp_path: Path) -> None:
    assert side_effects(tmp_path, *MODULES) == {}


def test_the_check_for_side_effects_can_fail(tmp_path: Path) -> None:
    (tmp_path / "search").mkdir()
    (tmp_path / "search" / "rude.py").write_text("import os; os.environ['RUDE'] = '1'; open('rude.txt', 'w').close()")
    (tmp_path / "home").mkdir()
    assert side_effects(tmp_path / "home", "json", "rude", search=tmp_path / "search") == {"rude": ["environment", "files"]}


def loaded_by(*arguments: str) -> set[str]:
    """The top-level modules that `python ARGUMENTS` has loaded when it ends."""
    code = (
        "import sys, runpy, atexit, json\n"
        "atexit.register(lambda: print('\\nLOADED', json.dumps(sorted({name.split('.')[0] for name in sys.modules})), file=sys.stderr))\n"
        f"sys.argv = {['modelyard', *arguments[1:]]!r}\n"
        f"runpy.run_module({arguments[0]!r}, run_name='__main__')\n"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    line = [line for line in shown.stderr.splitlines() if line.startswith("LOADED")]
    assert line, shown.stderr
    return set(json.loads(line[-1].removeprefix("LOADED ")))


@pytest.mark.parametrize("arguments", [("modelyard.cli", "--help"), ("modelyard.cli", "serve", "--help"), ("modelyard.serve", "--help")])
def test_light_commands_load_nothing_heavy(arguments: tuple[str, ...]) -> None:
    assert not loaded_by(*arguments) & (HEAVY | {"numpy", "onnxruntime", "google", "hpack"})


def test_a_worker_loads_nothing_heavy() -> None:
    code = (
        "import sys, modelyard.serve.worker, modelyard.runtime.onnx, modelyard.monitor.profile; print(*{name.split('.')[0] for name in sys.modules})"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not set(shown.stdout.split()) & (HEAVY | {"typer", "rich"})


def test_the_check_for_heavy_modules_can_fail() -> None:
    assert "sqlite3" in loaded_by("modelyard.registry.records")


def test_onnxruntime_leaves_no_file_and_no_thread(tmp_path: Path) -> None:
    code = (
        "from modelyard import config; config.quiet_onnxruntime()\n"
        "import os, onnxruntime; print(len(os.listdir('/proc/self/task')) if os.path.isdir('/proc/self/task') else 1)"
    )
    environment = {name: value for name, value in os.environ.items() if name not in {"ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME"}}
    environment |= {"HOME": str(tmp_path), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert shown.stdout.strip() == "1"
    assert not list(tmp_path.rglob("*"))
