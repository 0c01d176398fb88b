"""A failure is told when it is new, and seldom while it goes on."""

from __future__ import annotations

import pytest

from modelyard.console import failures
from modelyard.errors import Unavailable


def test_a_failure_that_goes_on_is_logged_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    told = failures.Failures()
    for _ in range(3):
        told.tell("host", Unavailable("away"))
    told.tell("lease", Unavailable("away"))
    told.tell("host", Unavailable("another"))
    told.forget("host")
    told.tell("host", Unavailable("another"))
    assert [record.getMessage() for record in caplog.records] == ["host: away", "lease: away", "host: another", "host: another"]


def test_what_fails_now_is_told_until_it_goes_well() -> None:
    told = failures.Failures()
    told.tell("lease", Unavailable("away"))
    told.tell("intake", ValueError("a secret"))
    assert told.now() == {"intake": "ValueError; the log of the control process tells more", "lease": "away"}
    told.tell("lease", Unavailable("still away"))
    told.forget("intake")
    assert told.now() == {"lease": "still away"}
    told.forget("lease")
    assert told.now() == {}


def test_it_is_told_again_after_a_while(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failures, "AGAIN_S", 0.0)
    told = failures.Failures()
    for error in (ValueError("odd"), ValueError("odd")):
        told.tell("host", error)
    assert [record.getMessage() for record in caplog.records] == ["host failed", "host failed"] and caplog.records[0].exc_info
