"""The error tree is translated once at each edge, by a table that is total."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module

import pytest

from modelyard.errors import ModelyardError


def tree(kind: type[ModelyardError] = ModelyardError) -> Iterator[type[ModelyardError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from tree(child)


@pytest.mark.parametrize(
    ("module", "table"),
    [
        ("modelyard.serve.errors", "STATUS"),
        ("modelyard.serve.errors", "GRPC"),
        ("modelyard.console.errors", "STATUS"),
        ("modelyard.cli.errors", "EXIT"),
    ],
)
def test_an_edge_translates_every_error(module: str, table: str) -> None:
    entries = getattr(import_module(module), table)
    assert set(entries) == {kind for kind in tree() if kind.__module__ == "modelyard.errors"}


def test_codes_are_unique() -> None:
    kinds = [kind for kind in tree() if kind.__module__ == "modelyard.errors"]
    assert len({kind.code for kind in kinds}) == len(kinds)
