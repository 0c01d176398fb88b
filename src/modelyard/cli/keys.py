"""`keys`: who may ask the data plane: make, list and revoke access keys."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from modelyard import config
from modelyard.cli.show import Home, Json, emit_json, escape, line, table
from modelyard.cli.times import moment
from modelyard.control.plane import ControlPlane, local_principal
from modelyard.errors import InvalidConfig

if TYPE_CHECKING:
    from modelyard.security.base import KeyRecord


class Action(StrEnum):
    """What to do with keys."""

    create = "create"
    list = "list"
    revoke = "revoke"


class Priority(StrEnum):
    """Classes of requests, the highest first."""

    high = "high"
    normal = "normal"
    low = "low"


def keys(
    action: Annotated[Action, typer.Argument(help="create NAME, list, or revoke ID.")],
    which: Annotated[
        str | None, typer.Argument(metavar="[NAME|ID]", help="The new key's name (create), or the first digits of an id (revoke).")
    ] = None,
    *,
    role: Annotated[
        list[str] | None, typer.Option(help="invoker (default), viewer, developer, approver, operator, admin, auditor or exporter; repeatable.")
    ] = None,
    model: Annotated[list[str] | None, typer.Option(help="For this deployment alone; repeatable (default: all).")] = None,
    priority: Annotated[Priority, typer.Option(help="The highest class that requests with it have, whatever X-Priority asks for.")] = Priority.high,
    expires: Annotated[str | None, typer.Option(help="30m, 12h, 30d, 4w, or a time such as 2030-01-31 (default: never).")] = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Make, list or revoke access keys. A key is shown once, when it is made; a revoked one is refused within a second."""
    if action is not Action.list and which is None:
        raise InvalidConfig("say which: modelyard keys create NAME, or modelyard keys revoke ID", field="name")
    if action is not Action.create and (role or model or expires or priority is not Priority.high):
        raise InvalidConfig("--role, --model, --priority and --expires go with create", field="action")
    with ControlPlane(config.load({"home": home})) as plane:
        if which is None or action is Action.list:
            _list(plane.key_list(), plane.key_uses(), json=json)
        elif action is Action.create:
            roles, models = tuple(role or ("invoker",)), tuple(model or ())
            key, record = plane.key_create(local_principal(), which, roles=roles, models=models, expires_at=expiry(expires), priority=priority.value)
            _tell_new(key, record, json=json)
        else:
            revoked = plane.key_revoke(local_principal(), which)
            if json:
                emit_json(_shown(revoked))
            else:
                line(f"revoked: {revoked.id} ({escape(revoked.name)})")


def expiry(text: str | None) -> datetime | None:
    """When a key ends: a span from now, or a time (UTC where it names no zone). Raises InvalidConfig."""
    if text is None:
        return None
    at = moment(text, option="expires")
    if at <= datetime.now(UTC):
        raise InvalidConfig("--expires lies in the past", field="expires", rule="range")
    return at


def _tell_new(key: str, record: KeyRecord, *, json: bool) -> None:
    if json:
        emit_json({"key": key, **_shown(record)})
        return
    line(f"[bold]{key}[/bold]   (shown this once)")
    line(f"  id       {record.id}   revoke it: modelyard keys revoke {record.id}")
    until = f"until {record.expires_at}" if record.expires_at else "no end"
    line(f"  may      {', '.join(record.roles)}; {', '.join(record.models) or 'all models'}; {until}")
    line("  send it  Authorization: Bearer my_…   (modelyard takes it from MODELYARD_KEY)")


def _list(found: tuple[KeyRecord, ...], uses: dict[str, str], *, json: bool) -> None:
    if json:
        emit_json([{**_shown(record), "last_used_at": uses.get(record.id)} for record in found])
    elif not found:
        line("no keys yet; next: modelyard keys create NAME")
    else:
        now = datetime.now(UTC)
        rows = [
            (
                record.id,
                record.name,
                ", ".join(record.roles),
                ", ".join(record.models) or "all",
                record.priority,
                uses.get(record.id),
                _until(record, now),
            )
            for record in found
        ]
        table(["id", "name", "roles", "models", "priority", "last used", "until"], rows)


def _until(record: KeyRecord, now: datetime) -> str:
    if record.expires_at is None:
        return "no end"
    return record.expires_at + (" (over)" if datetime.fromisoformat(record.expires_at) <= now else "")


def _shown(record: KeyRecord) -> dict[str, Any]:
    """The record without what a key is known by."""
    told: dict[str, Any] = {field.name: getattr(record, field.name) for field in msgspec.structs.fields(record)}
    del told["sha256"]
    return told
