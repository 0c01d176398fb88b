"""`backup` and `restore`: a copy of what a home knows, and the way back to it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from modelyard import config
from modelyard.cli.show import Home, Json, emit_json, escape, line
from modelyard.control import copies
from modelyard.control.plane import local_principal


def backup(
    file: Annotated[Path, typer.Argument(help="A new file.")],
    *,
    home: Home = None,
    json: Json = False,
) -> None:
    """Copy the home's records (models, versions, deployments, the audit chain) to a file, also while the home is up."""
    size_bytes = copies.backup(config.load({"home": home}), file)
    if json:
        emit_json({"file": str(file), "size_bytes": size_bytes})
    else:
        line(f"copied to {escape(str(file))} ({size_bytes:,} bytes); blobs/ and keys/ of the home are to be copied beside it")


def restore(
    file: Annotated[Path, typer.Argument(help="What `modelyard backup` wrote.")],
    *,
    home: Home = None,
    json: Json = False,
) -> None:
    """Go back to a copy of the home's records. The home must be down; what was there is kept beside."""
    kept = copies.restore(config.load({"home": home}), local_principal(), file)
    if json:
        emit_json({"restored": str(file), "kept": None if kept is None else str(kept)})
    else:
        line(f"restored from {escape(str(file))}; next: modelyard up")
        if kept is not None:
            line(f"what was there is kept as {escape(kept.name)}")
