"""`audit`: what was done in this home and denied, and whether the record of it is whole."""

from __future__ import annotations

import sys
from enum import StrEnum
from typing import Annotated

import msgspec
import typer

from modelyard import config
from modelyard.cli.errors import EXIT
from modelyard.cli.show import Home, Json, emit_json, escape, line, table
from modelyard.cli.times import moment
from modelyard.control.audit import Listed, Report, require_whole
from modelyard.control.plane import ControlPlane
from modelyard.errors import DigestMismatch, InvalidConfig


class Action(StrEnum):
    """What to do with the audit chains."""

    verify = "verify"
    list = "list"


def audit(
    action: Annotated[Action, typer.Argument(help="verify, or list.")],
    *,
    since: Annotated[str | None, typer.Option(help="With list: 30m, 12h, 30d, 4w ago, or a time such as 2030-01-31 (default: all).")] = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Check that every entry of the audit chains follows from the one before, or list the entries. A chain that is not whole is exit code 6."""
    if since is not None and action is not Action.list:
        raise InvalidConfig("--since goes with list", field="since")
    with ControlPlane(config.load({"home": home})) as plane:
        if action is Action.verify:
            _verified(plane.audit_verify(), json=json)
        else:
            _list([*plane.audit_list(since=None if since is None else moment(since, option="since", is_back=True))], json=json)


def _verified(report: Report, *, json: bool) -> None:
    if not json:
        table(["chain", "entries", "found"], [(chain.name, f"{chain.entries:,}", chain.why or "whole") for chain in report.chains])
        require_whole(report)
        return
    emit_json(msgspec.to_builtins(report))
    try:
        require_whole(report)
    except DigestMismatch as error:  # the report on stdout is the answer; an error beside it would be a second document
        print(f"modelyard: {error.message}", file=sys.stderr)
        sys.exit(EXIT[type(error)])


def _list(found: list[Listed], *, json: bool) -> None:
    if json:
        emit_json([msgspec.to_builtins(listed) for listed in found])
    elif not found:
        line("nothing was recorded")
    else:
        rows = [
            (entry.at, escape(entry.principal), entry.action, escape(entry.subject), entry.outcome, escape(entry.detail))
            for entry in (listed.entry for listed in found)
        ]
        table(["at", "who", "did", "to", "outcome", "detail"], rows)
