"""Every fault of the suite under pytest: `pytest -m faults`. `make faults` runs the same and prints the table."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import pytest
from tests.faults import scene
from tests.faults.__main__ import run
from tests.faults.faults import FAULTS, load

pytestmark = [pytest.mark.system, pytest.mark.faults, pytest.mark.timeout(1200)]


@pytest.fixture(autouse=True)
def on_the_clients_core() -> Iterator[None]:
    if sys.platform != "linux":
        pytest.skip("needs Linux: /proc and a core for each side")
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {scene.CLIENT_CORE})
    yield
    os.sched_setaffinity(0, before)


@pytest.mark.parametrize("name", FAULTS)
def test_fault(name: str) -> None:
    try:
        judged = run(load(name), is_long=False, limit_s=0, limit=0)
    except scene.Missing as error:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(str(error))
    missed = [f"{item.line} {item.note}" for item in (*judged.items, *judged.controls) if not item.passed]
    assert not missed, "\n".join(missed)
