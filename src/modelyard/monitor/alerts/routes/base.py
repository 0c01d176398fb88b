"""What every wire's settings have in common, and how they are read: strictly, by name.

Hides how a table becomes a struct. It must not know any wire.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import msgspec

from modelyard.errors import InvalidConfig
from modelyard.monitor.alerts.base import Severity
from modelyard.monitor.alerts.secret import Secret, of


class Written(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What may be said of any route: the severities that it takes, pages alone if nothing is said."""

    severities: tuple[Severity, ...] = ("page",)


T = TypeVar("T", bound=Written)


def read(name: str, written: dict[str, Any], kind: type[T]) -> T:
    """`written` as `kind`. Raises InvalidConfig, naming the route, what does not fit, and what may be said."""
    known = [field.encode_name for field in msgspec.structs.fields(kind)]
    for each in written:
        if each not in known:
            raise InvalidConfig(f"route {name} has no {each}; it may have {', '.join(known)}", field=f"routes.{name}.{each}", rule="known")
    try:
        found = msgspec.convert(written, kind)
    except msgspec.ValidationError as error:
        raise InvalidConfig(f"route {name}: {error}", field=f"routes.{name}", rule="form") from error
    if not found.severities:
        raise InvalidConfig(f"route {name} takes no severity; it may take page and report", field=f"routes.{name}.severities", rule="required")
    return found


def needed(name: str, what: str, secret: Secret | None) -> Secret:
    """`secret`, which the route cannot be without. Raises InvalidConfig."""
    if secret is None:
        raise InvalidConfig(f"route {name}: say where its {what} lies, by {what}_file or {what}_env", field=f"routes.{name}.{what}", rule="required")
    return secret


def secret(name: str, what: str, written: Written, folder: Path) -> Secret | None:
    """What `written` says by `<what>_file` or `<what>_env`. Raises InvalidConfig naming the route."""
    try:
        return of(what, file=getattr(written, f"{what}_file"), variable=getattr(written, f"{what}_env"), folder=folder)
    except InvalidConfig as error:
        raise InvalidConfig(f"route {name}: {error.message}", field=f"routes.{name}.{what}", rule=error.rule) from error


def beside(folder: Path, path: str) -> str:
    """A file that settings in `folder` name; empty stays so."""
    return str(folder / Path(path).expanduser()) if path else ""
