"""Secrets of routes: read from a file or from the environment when they are needed, never kept, never shown.

Hides where a secret lies. A file that other users can read is refused: what is written in it is no secret.
"""

from __future__ import annotations

import stat
from pathlib import Path
from typing import NamedTuple

from modelyard import config, files
from modelyard.errors import InvalidConfig, ModelyardError

LIMIT_BYTES = 64 << 10


class Secret(NamedTuple):
    """Where a secret lies: in `file`, or in the environment's variable `variable`. `what` names it in messages."""

    what: str
    file: Path | None = None
    variable: str = ""

    @property
    def place(self) -> str:
        """Where it lies, as may be shown."""
        return f"in {self.file.name}" if self.file is not None else f"in ${self.variable}"

    def read(self) -> str:
        """The secret, without the end of its line. Raises InvalidConfig where there is none, or where others can read it."""
        if self.file is None:
            value = config.secret(self.variable) or ""
        else:
            try:
                mode = self.file.stat().st_mode
                if mode & (stat.S_IROTH | stat.S_IWOTH):
                    raise InvalidConfig(f"{self.what}: other users can read {self.file.name}; chmod 600 it", field=self.what, rule="mode")
                value = files.read_limited(self.file, LIMIT_BYTES).decode("utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise InvalidConfig(f"{self.what}: {self.file.name} cannot be read", field=self.what, rule="file") from error
            except InvalidConfig:
                raise
            except ModelyardError as error:
                raise InvalidConfig(f"{self.what}: {self.file.name} cannot be read", field=self.what, rule="file") from error
        value = value.strip()
        if not value:
            raise InvalidConfig(f"{self.what}: nothing is {self.place}", field=self.what, rule="required")
        if not value.isprintable():
            raise InvalidConfig(f"{self.what}: what is {self.place} is more than one line", field=self.what, rule="form")
        return value


def of(what: str, *, file: str, variable: str, folder: Path) -> Secret | None:
    """The secret that settings name by `<what>_file` (beside the settings, where it is relative) or `<what>_env`; None where they name none.

    Raises InvalidConfig where they name both.
    """
    if file and variable:
        raise InvalidConfig(f"give {what}_file or {what}_env, not both", field=what, rule="unique")
    if not file and not variable:
        return None
    if variable:
        config.secret(variable)  # a name of another kind is refused when it is written, not when somebody is to be woken
    return Secret(what, folder / Path(file).expanduser() if file else None, variable)
