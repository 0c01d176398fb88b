"""What the source may contain: held by reading it, so that no import order can hide a breach."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SRC = ROOT / "src" / "modelyard"
FILES = sorted(SRC.rglob("*.py"))
VENDOR = {"boto3", "kubernetes", "google", "azure", "ray", "airflow"}
UNSAFE = {"pickle", "cloudpickle", "joblib", "dill", "marshal", "shelve"}


def imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "absolute imports only"
            yield str(node.module)


def from_the_root(tree: ast.AST) -> set[str]:
    """What is imported from the package root but the modules that lie there."""
    modules = {path.stem for path in SRC.glob("*.py")} | {path.parent.name for path in SRC.glob("*/__init__.py")}
    nodes = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module == "modelyard"]
    return {alias.name for node in nodes for alias in node.names} - modules - {"__version__"}


def unsafe_imports(source: str) -> set[str]:
    return {name.split(".")[0] for name in imported(ast.parse(source))} & UNSAFE


def reads_environment(source: str) -> bool:
    return any(
        isinstance(node, ast.Attribute)
        and node.attr in {"environ", "environb", "getenv", "putenv"}
        and isinstance(node.value, ast.Name)
        and node.value.id == "os"
        for node in ast.walk(ast.parse(source))
    )


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(SRC).as_posix())
def test_a_file_keeps_the_rules_of_the_house(path: Path) -> None:
    source = path.read_text("utf-8")
    tree = ast.parse(source)
    names = set(imported(tree))
    if path.name != "__init__.py" or source.strip():
        assert ast.get_docstring(tree), "a module says why it exists"
    assert not from_the_root(tree), "nobody imports the re-exported names of the package root"
    assert not unsafe_imports(source), "no pickle anywhere"
    assert not {name.split(".")[0] for name in names} & VENDOR - {"google"}, "a vendor SDK stands in its one adapter"
    if path != SRC / "config.py":
        assert not reads_environment(source), "only config.py reads the environment"


def test_the_checks_above_can_fail() -> None:
    assert unsafe_imports("def f():\n    from pickle import loads") == {"pickle"}
    assert reads_environment("import os\nos.environ['A']")
    assert not reads_environment("import os\nos.getpid()")
    assert from_the_root(ast.parse("from modelyard import package, config")) == {"package"}


def test_nine_in_ten_modules_have_a_unit_test_of_their_name() -> None:
    # An __init__ is covered by the tests of what it holds, a `__main__` by system tests, a port (base) by the contract suite over what implements it.
    modules = [path for path in FILES if path.name not in {"__init__.py", "__main__.py", "base.py"}]
    missing = []
    for path in modules:
        relative = path.relative_to(SRC)
        if not (ROOT / "tests/unit" / relative.parent / f"test_{relative.name}").exists():
            missing.append(relative.as_posix())
    assert len(missing) <= 0.1 * len(modules), f"no unit test for {missing}"


def tracked_files() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in listed.stdout.decode().split("\0") if name and (ROOT / name).is_file()]


def test_no_tracked_file_names_a_registry_host_or_a_machine_path() -> None:
    hosts = "|".join(("p[y]pi[.]org", "python[h]osted[.]org", "np[m]js[.](org|com)", "d[e]b[.]debian[.]org", "crate[s][.]io"))
    forbidden = re.compile(rf"{hosts}|/w[o]rk/main|/r[o]ot/[.]".encode())
    assert forbidden.search(b"https://py" + b"pi.org/simple"), "the check can fail"
    found = [path.name for path in tracked_files() if forbidden.search(path.read_bytes())]
    assert not found


def test_requirements_are_pinned_with_hashes() -> None:
    for path in sorted((ROOT / "requirements").glob("*.txt")):
        text = path.read_text("utf-8")
        pins = re.findall(r"^[A-Za-z0-9_.-]+(?:\[[a-z,]+\])?==\S+", text, re.MULTILINE)
        assert pins
        blocks = re.split(r"^(?=[A-Za-z0-9])", text, flags=re.MULTILINE)[1:]
        assert all("--hash=sha256:" in block for block in blocks), path.name
        assert "nvidia" not in re.sub(r"^nvidia-nccl[^\n]*platform_machine != 'x86_64'[^\n]*", "", text, flags=re.MULTILINE)
