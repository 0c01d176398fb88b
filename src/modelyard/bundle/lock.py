"""The environment lock: which Python and which distributions a model was made with, and how another environment differs.

Hides how installed versions are found. It must not judge whether a difference matters: the golden replay does that; a difference only warns.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from platform import python_version

import msgspec

from modelyard.errors import InvalidInput
from modelyard.types import Verdict


class Lock(msgspec.Struct, frozen=True, kw_only=True):
    """Versions by distribution name (normalised as by PEP 503), and of Python."""

    python: str
    packages: dict[str, str]


def take(distributions: Iterable[str]) -> Lock:
    """The versions of `distributions` in this environment. Raises InvalidInput for one that is not installed."""
    packages = {name: _version(name) for name in sorted({_normal(item) for item in distributions})}
    missing = [name for name, version in packages.items() if version is None]
    if missing:
        raise InvalidInput(f"the model needs {', '.join(missing)}, which is not installed here", field="packages", rule="installed")
    return Lock(python=python_version(), packages={name: version for name, version in packages.items() if version is not None})


def here(lock: Lock) -> Lock:
    """The same distributions as they stand in this environment; those that are absent are left out."""
    found = {name: _version(name) for name in sorted(lock.packages)}
    return Lock(python=python_version(), packages={name: version for name, version in found.items() if version is not None})


def difference(lock: Lock, here: Lock) -> Verdict:
    """`pass` when both are the same, else `warn` naming each difference (package: locked version, version here)."""
    pairs = {"python": (lock.python, here.python)} | {name: (version, here.packages.get(name)) for name, version in lock.packages.items()}
    found = [f"{name} {locked} is {present or 'absent'} here" for name, (locked, present) in sorted(pairs.items()) if locked != present]
    packages = f"{len(lock.packages)} distribution{'' if len(lock.packages) == 1 else 's'}"
    evidence = "; ".join(found) if found else f"Python and {packages} are those of the lock"
    return Verdict(outcome="warn" if found else "pass", rule="lock", evidence=evidence, numbers={"differing": float(len(found))})


def _version(name: str) -> str | None:
    from importlib import metadata  # 50 ms, and a worker never asks

    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
