"""The file that says where alerts go: `alerts.toml` in the home, a table `[routes.NAME]` for each receiver.

Hides TOML and that the file is read again when it changes. What is wrong in it is said by name; until it is mended the routes of before stand, so
that a slip of the pen silences nobody. It holds no secret: routes name the files or variables in which theirs lie.
"""

from __future__ import annotations

import re
import stat
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modelyard.errors import InvalidConfig, ModelyardError, NotFound
from modelyard.files import read_limited
from modelyard.monitor.alerts import routes
from modelyard.monitor.alerts.base import Route

LIMIT_BYTES = 1 << 20
MOST_ROUTES = 100
_NAME = re.compile(r"[a-z0-9]([a-z0-9_-]{0,61}[a-z0-9])?")


def read(path: Path) -> dict[str, Route]:
    """The routes in the file `path`, by name; none where there is no such file. Raises InvalidConfig naming route and field."""
    try:
        content = read_limited(path, LIMIT_BYTES)
        if path.stat().st_mode & stat.S_IWOTH:  # whoever writes it says what this home sends, and to whom
            raise InvalidConfig(f"{path.name} can be changed by other users; run: chmod o-w {path.name}", field="alerts_file", rule="mode")
    except NotFound:
        return {}
    except InvalidConfig:
        raise
    except (ModelyardError, OSError) as error:
        raise InvalidConfig(f"{path.name} cannot be read", field="alerts_file") from error
    import tomllib

    try:
        values = tomllib.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise InvalidConfig(f"{path.name} cannot be read as TOML: {error}", field="alerts_file", rule="form") from error
    unknown = sorted(values.keys() - {"routes"})
    tables: Any = values.get("routes", {})
    if unknown or not isinstance(tables, dict):
        raise InvalidConfig(f"{path.name} has tables [routes.NAME] and nothing else", field=unknown[0] if unknown else "routes", rule="known")
    if len(tables) > MOST_ROUTES:
        raise InvalidConfig(f"{path.name} has at most {MOST_ROUTES} routes", field="routes", rule="count")
    found: dict[str, Route] = {}
    for name, table in tables.items():
        if not _NAME.fullmatch(name):
            raise InvalidConfig(f"{path.name}: a route's name has 1 to 63 of a-z, 0-9, '_' and '-'", field="routes", rule="name")
        if not isinstance(table, dict):
            raise InvalidConfig(f"{path.name}: route {name} is a table [routes.{name}]", field=f"routes.{name}", rule="form")
        found[name] = routes.make(name, table, path.parent)
    return found


class Routes:
    """The routes of a file, read again when it has changed. Any thread may ask."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._seen: tuple[int, int, int] | None = (-1, -1, -1)
        self._routes: dict[str, Route] = {}
        self.trouble = ""

    def __call__(self) -> Mapping[str, Route]:
        """The routes in force; `trouble` says what keeps the file of now from being used, if anything does."""
        with self._lock:
            seen = self._stamp()
            if seen != self._seen:
                self._seen = seen
                try:
                    self._routes, self.trouble = read(self._path), ""
                except InvalidConfig as error:
                    self.trouble = error.message
            return self._routes

    def _stamp(self) -> tuple[int, int, int] | None:
        try:
            status = self._path.stat()
        except OSError:
            return None
        return status.st_ctime_ns, status.st_size, status.st_ino  # its mode counts too, which leaves mtime alone
