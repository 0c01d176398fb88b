"""A store with hosts for the tests of this room."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from rolling import World

from modelyard import registry
from modelyard.bundle import Attested, Contents, build
from modelyard.security.seal import LocalSigner


@pytest.fixture
def world(tmp_path: Path, contents: Callable[..., Contents], attested: Callable[..., Attested], signer: LocalSigner) -> World:
    """One host, three versions of `churn`, nothing deployed."""
    records = registry.open(tmp_path)
    versions = [records.add("churn", build(contents(model=b"model %d" % number), attested(), signer=signer)) for number in range(3)]
    return World(tmp_path, versions, records)
