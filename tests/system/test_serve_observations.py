"""Every prediction leaves an observation, beside the path and after the answer; workers that are drained leave none behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelyard import events
from serving import home_with, line_row, running

pytestmark = pytest.mark.system


def test_each_answer_and_each_refusal_is_counted_once(tmp_path: Path) -> None:
    home = home_with(tmp_path / "h", "line")
    spool = home.folder / "spool"
    with running(home, "--spool", str(spool), workers=2) as server:
        ids = [server.infer("line", line_row(a=float(n))).headers["x-prediction-id"] for n in range(40)]
        refused = [server.infer("line", line_row(a="x")).status for _ in range(5)]
    assert refused == [400] * 5
    parts = [part for path in events.pending(spool) for part in events.read(path).parts]
    assert sum(part.requests for part in parts) == 40
    assert sum(part.failures["schema_mismatch"].requests for part in parts if part.failures) == 5
    assert len(set(ids)) == 40
    uses = [part.use for part in parts if part.use is not None]
    assert uses, "what serving took is told with it"
    assert sum(use.ran_us for use in uses) > 0 and sum(use.cpu_us for use in uses) > 0
    assert all(use.looks == 1 and use.resident_bytes > 1 << 20 for use in uses)


def test_without_a_spool_none_are_kept(tmp_path: Path) -> None:
    home = home_with(tmp_path / "h", "line")
    with running(home) as server:
        assert server.infer("line", line_row()).status == 200
    assert not (home.folder / "spool").exists()
