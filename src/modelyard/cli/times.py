"""Times as a person types them: a span such as 30d, or a time such as 2030-01-31."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from modelyard.errors import InvalidConfig

_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_SPAN = re.compile(r"(\d{1,6})([mhdw])")


def moment(text: str, *, option: str, is_back: bool = False) -> datetime:
    """The end of a span from now (its begin, if it reaches back), or a time, UTC where it names no zone. Raises InvalidConfig naming `option`."""
    given = text.strip()
    span = _SPAN.fullmatch(given)
    try:
        if span is not None:
            length = timedelta(**{_UNITS[span[2]]: int(span[1])})
            return datetime.now(UTC) + (-length if is_back else length)
        at = datetime.fromisoformat(given)
        return (at if at.tzinfo is not None else at.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise InvalidConfig(f"--{option} is a span such as 30d or 12h, or a time such as 2030-01-31", field=option, rule="form") from error
