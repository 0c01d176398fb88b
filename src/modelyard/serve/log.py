"""What the data plane's processes say on stderr: one line per fact, in one shape, as JSON for machines or as text for a person.

Hides the two forms. A line has `time` (UTC), `level`, `event`, who says it (`process`, `slot`, `pid`) and the event's own fields, which
docs/reference.md lists. It must not hold a payload, a secret or a library's own text, and never fails: whoever read the log may be gone.
"""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Literal

Level = Literal["info", "warning", "error"]


class Log:
    """The lines of one process. `form` is `json`, `text`, or `auto`: text where stderr is a terminal."""

    def __init__(self, form: str = "auto", *, process: str = "worker", slot: int | None = None) -> None:
        self._is_text = form == "text" or (form == "auto" and _is_terminal())
        self._process = process
        self._slot = slot

    def info(self, event: str, **fields: Any) -> None:
        """Something went its way."""
        self.write("info", event, fields)

    def warning(self, event: str, **fields: Any) -> None:
        """Something needs a look, and was dealt with."""
        self.write("warning", event, fields)

    def error(self, event: str, **fields: Any) -> None:
        """Something failed."""
        self.write("error", event, fields)

    def write(self, level: Level, event: str, fields: dict[str, Any]) -> None:
        """One line; fields that are None are left out."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        origin = {"process": self._process, "slot": self._slot, "pid": os.getpid()}
        given = {name: value for name, value in fields.items() if value is not None}
        line = {"time": now, "level": level, "event": event, **{name: value for name, value in origin.items() if value is not None}, **given}
        text = _text(line) if self._is_text else json.dumps(line, default=str)
        with suppress(OSError, ValueError):  # ValueError: stderr was closed
            sys.stderr.write(text + "\n")
            sys.stderr.flush()


def _text(line: dict[str, Any]) -> str:
    who = line["process"] + (f" {line['slot']}" if "slot" in line else "")
    head = f"{line['time']} {line['level']:<7} {who}: {line['event']}"
    shown = [f"{name}={_plain(value)}" for name, value in line.items() if name not in ("time", "level", "event", "process", "slot", "pid", "message")]
    message = [f"({_one_line(line['message'])})"] if "message" in line else []
    return " ".join([head, *shown, *message])


def _plain(value: Any) -> str:
    """`value` as one word, or in quotes, as JSON."""
    return value if isinstance(value, str) and value.isprintable() and value and not set(' "=') & set(value) else json.dumps(value, default=str)


def _one_line(text: str) -> str:
    return "".join(mark if mark.isprintable() else " " for mark in text)


def _is_terminal() -> bool:
    try:
        return sys.stderr.isatty()
    except (AttributeError, ValueError):
        return False
