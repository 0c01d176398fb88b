"""cli.times: spans reach forward or back, times without a zone are UTC, and anything else is named."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from modelyard.cli.times import moment
from modelyard.errors import InvalidConfig


def test_spans_reach_forward_or_back() -> None:
    now, minute = datetime.now(UTC), timedelta(minutes=1)
    for text, length in (("90m", timedelta(minutes=90)), ("1h", timedelta(hours=1)), (" 2d ", timedelta(days=2)), ("4w", timedelta(weeks=4))):
        assert abs(now + length - moment(text, option="expires")) < minute
        assert abs(now - length - moment(text, option="since", is_back=True)) < minute


def test_a_time_without_a_zone_is_utc() -> None:
    assert moment("2030-01-31", option="since") == datetime(2030, 1, 31, tzinfo=UTC)
    assert moment("2030-01-31T12:00:00+02:00", option="since") == datetime(2030, 1, 31, 10, tzinfo=UTC)


@pytest.mark.parametrize("text", ["soon", "h", "-1h", "99999999d", "", "0001-01-01T00:00:00+14:00"])
def test_what_is_neither_is_named(text: str) -> None:
    with pytest.raises(InvalidConfig, match="--since is a span"):
        moment(text, option="since", is_back=True)
