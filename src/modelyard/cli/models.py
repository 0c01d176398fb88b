"""`models`, `versions`, `alias`, `delete`, `gc`: verbs on the registry."""

from __future__ import annotations

from typing import Annotated

import typer

from modelyard import config
from modelyard.cli.show import Home, Json, emit_json, line, short, size, table
from modelyard.control.plane import ControlPlane, local_principal
from modelyard.errors import InvalidConfig

Name = Annotated[str, typer.Argument(help="The model's name.")]


def models(*, home: Home = None, json: Json = False) -> None:
    """List the models of this home, with their versions and aliases."""
    with ControlPlane(config.load({"home": home})) as plane:
        found = plane.models()
    if json:
        emit_json(found)
    elif not found:
        line("no models yet; next: modelyard package FILE --name NAME --data FILE, or modelyard demo")
    else:
        rows = [(model.name, len(model.versions), max(model.versions, default=None), _aliases(model.aliases)) for model in found]
        table(["model", "versions", "newest", "aliases"], rows, right=("versions", "newest"))


def versions(name: Name, *, home: Home = None, json: Json = False) -> None:
    """List the versions of a model."""
    with ControlPlane(config.load({"home": home})) as plane:
        found = plane.versions(name)
    if json:
        emit_json(found)
        return
    rows = [
        (item.version, short(item.digest), item.created_at, item.summary.get("title"), item.summary.get("rows"), ", ".join(item.aliases))
        for item in found
    ]
    table(["version", "digest", "registered", "model", "rows proved", "aliases"], rows, right=("version", "rows proved"))


def alias(
    name: Name,
    alias: Annotated[str, typer.Argument(help="The alias, such as champion: what a bare name then means.")],
    version: Annotated[int | None, typer.Argument(help="The version's number.")] = None,
    *,
    remove: Annotated[bool, typer.Option("--remove", help="Remove the alias.")] = False,
    home: Home = None,
    json: Json = False,
) -> None:
    """Point an alias such as champion at a version, or remove it."""
    if (version is None) != remove:
        raise InvalidConfig("give a version, or --remove", field="version")
    with ControlPlane(config.load({"home": home})) as plane:
        plane.set_alias(local_principal(), name, alias, version)
    if json:
        emit_json({"name": name, "alias": alias, "version": version})
    else:
        line(f"{name}@{alias} is removed" if version is None else f"{name}@{alias} is version {version}")


def delete(
    reference: Annotated[str, typer.Argument(help="NAME:VERSION.")],
    *,
    home: Home = None,
    json: Json = False,
) -> None:
    """Remove a version that nothing uses: not deployed, not aliased, not what a rollback would go back to."""
    name, _, number = reference.rpartition(":")
    if not name or not (number.isascii() and number.isdigit()):
        raise InvalidConfig("say which version: modelyard delete NAME:VERSION", field="reference")
    with ControlPlane(config.load({"home": home})) as plane:
        plane.delete(local_principal(), name, int(number))
    if json:
        emit_json({"name": name, "version": int(number)})
    else:
        line(f"{reference} is deleted; `modelyard gc` frees its space")


def gc(*, home: Home = None, json: Json = False) -> None:
    """Free the space of what no version needs."""
    with ControlPlane(config.load({"home": home})) as plane:
        swept = plane.gc(local_principal())
    if json:
        emit_json(swept)
    else:
        line(f"freed {size(swept.size_bytes)} in {swept.blobs} blobs")


def _aliases(aliases: dict[str, int]) -> str:
    return ", ".join(f"{alias} → {version}" for alias, version in sorted(aliases.items()))
