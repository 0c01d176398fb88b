"""`monitor report`: a deployment's watch as one HTML file to keep or to send."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from modelyard import config, files
from modelyard.cli.page import page
from modelyard.cli.show import Home, Json, emit_json, escape, line
from modelyard.cli.times import moment
from modelyard.cli.world import connect
from modelyard.types import parse_name


def report(
    name: Annotated[str, typer.Argument(help="The deployment.")],
    *,
    html: Annotated[Path, typer.Option(metavar="FILE", help="The file to write; one that is there is replaced.")],
    since: Annotated[
        str | None, typer.Option(help="From when on: 24h, 7d, or a time such as 2030-01-31 (default: the window that is judged).")
    ] = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Write how a deployment does as one HTML file with plots, which needs nothing beside itself."""
    called = parse_name(name)
    begin = None if since is None else moment(since, option="since", is_back=True)
    with connect(config.load({"home": home})) as client:
        found = client.monitor(called, since=None if begin is None else begin.isoformat())
    content = page(found, at=time.time())
    files.write_atomically(html.absolute(), content, durable=False)
    if json:
        emit_json({"path": str(html), "size_bytes": len(content), "verdicts": len(found.verdicts), "alerts": len(found.alerts)})
    else:
        held = f"{len(found.verdicts):,} verdicts, {len(found.series):,} courses and {len(found.alerts):,} alerts"
        line(f"{escape(str(html))}: {held} of {escape(called)}")
