"""Prints our largest files, functions, parameter lists and fan-ins beside what the codebases worth reading keep (`make house`).

A feel for scale, never a limit: it fails nothing.
"""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

SRC = Path(__file__).parents[2] / "src" / "modelyard"
TYPICAL = {"lines of a file": 400, "lines of a function": 35, "parameters": 6}


def main() -> None:
    files: list[tuple[int, str]] = []
    functions: list[tuple[int, str]] = []
    parameters: list[tuple[int, str]] = []
    imports: Counter[str] = Counter()
    for path in sorted(SRC.rglob("*.py")):
        name = path.relative_to(SRC).as_posix()
        text = path.read_text("utf-8")
        files.append((text.count("\n"), name))
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                functions.append((node.end_lineno - node.lineno + 1, f"{name}:{node.lineno} {node.name}"))
                count = len(node.args.args) + len(node.args.kwonlyargs) + len(node.args.posonlyargs)
                parameters.append((count, f"{name}:{node.lineno} {node.name}"))
            elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("modelyard"):
                imports[str(node.module)] += 1
    for title, rows in (("lines of a file", files), ("lines of a function", functions), ("parameters", parameters)):
        within = sum(size <= TYPICAL[title] for size, _ in rows) / len(rows)
        print(f"\n{title}: {within:.0%} within {TYPICAL[title]} (the codebases worth reading: 95 %)")
        for size, where in sorted(rows, reverse=True)[:5]:
            print(f"  {size:5}  {where}")
    print("\nimported most")
    for module, count in imports.most_common(5):
        print(f"  {count:5}  {module}")
    print(f"\n{len(files)} files, {sum(size for size, _ in files):,} lines")


if __name__ == "__main__":
    main()
