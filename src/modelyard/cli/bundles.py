"""`inspect`, `verify`, `export`, `import`, `trust`: verbs on bundles and on whose seals are believed."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from modelyard import config
from modelyard.cli.show import Home, Json, emit_json, escape, line, short, size, table, verdicts
from modelyard.control.plane import ControlPlane, local_principal
from modelyard.errors import InvalidConfig, Rejected
from modelyard.types import Schema, TensorSpec

Reference = Annotated[str, typer.Argument(help="churn, churn:3, churn@champion, churn@sha256:…, or a bundle's folder or .tar.")]


def inspect(reference: Reference, *, home: Home = None, json: Json = False) -> None:
    """Show what a bundle holds: schema, proof, lock, members. It is opened, so every byte and both seals are verified."""
    with ControlPlane(config.load({"home": home})) as plane:
        opened, version = plane.open(reference)
    if json:
        emit_json(
            {
                "name": opened.name,
                "version": version.version if version else None,
                "aliases": version.aliases if version else (),
                "digest": opened.digest,
                "signer": opened.signer,
                "schema": opened.schema,
                "card": opened.card,
                "lock": opened.lock,
                "attestation": opened.attestation,
                "members": opened.members,
            }
        )
        return
    card, platform = opened.card, opened.attestation["platform"]
    number = f":{version.version}" if version else ""
    line(f"[bold]{opened.name}{number}[/bold]  {escape(card.title)}  {opened.digest}")
    line(f"  sealed by  {opened.signer[:16]}…  on {escape(str(platform.get('time')))}, {escape(str(platform.get('cpu')))}")
    line(f"  proof      {card.rows:,} rows within {card.tolerance.absolute:g} + {card.tolerance.relative:g}·|y|; {escape(card.method)}")
    line(f"  made with  Python {opened.lock.python}, {escape(', '.join(f'{name} {found}' for name, found in sorted(opened.lock.packages.items())))}")
    if card.quality:
        line(f"  quality    {', '.join(f'{name} {value:g}' for name, value in card.quality.items())} {card.judged_on}")
    table(["input", "type", "missing", "observed", "tag"], [_input(spec) for spec in opened.schema.inputs])
    table(["output", "type", "shape"], _outputs(opened.schema))
    table(["member", "size", "sha256"], [(member.path, size(member.size_bytes), short(member.digest)) for member in opened.members], right=("size",))


def verify(reference: Reference, *, home: Home = None, json: Json = False) -> None:
    """Check seal, every byte, the golden records and the lock, here and now.

    Differences between the lock and this environment warn; whether they matter is what the golden replay finds.
    """
    with ControlPlane(config.load({"home": home})) as plane:
        opened, found = plane.verify(reference)
    failed = [verdict for verdict in found if verdict.outcome == "fail"]
    if json and not failed:
        emit_json({"digest": opened.digest, "verdicts": found})
    elif not json:
        line(f"{escape(reference)}  {opened.digest}")
        verdicts(found)
    if failed:
        raise Rejected(f"{reference} is not fit to serve here", verdicts=found)


def export(
    reference: Annotated[str, typer.Argument(help="A version of this home, such as churn or churn:3.")],
    target: Annotated[Path, typer.Argument(help="A .tar, or a folder to be made.")],
    *,
    home: Home = None,
    json: Json = False,
) -> None:
    """Write a bundle to a folder or .tar that other homes can import."""
    settings = config.load({"home": home})
    with ControlPlane(settings) as plane:
        opened = plane.export(reference, target)
    if json:
        emit_json({"path": str(target), "digest": opened.digest, "signer": opened.signer})
        return
    line(f"wrote {escape(str(target))}  {opened.digest}")
    line(f"  another home trusts it by: modelyard trust add signing.pub   (this home's is {escape(str(settings.home / 'keys' / 'signing.pub'))})")


def import_(
    path: Annotated[Path, typer.Argument(help="A bundle's folder or .tar.")],
    *,
    name: Annotated[str | None, typer.Option(help="Register it under this name (default: its own).")] = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Register a bundle from a folder or .tar whose signer you trust."""
    with ControlPlane(config.load({"home": home})) as plane:
        version = plane.import_(local_principal(), path, name=name)
    if json:
        emit_json(version)
    else:
        line(f"[bold]{version.name}:{version.version}[/bold]  {version.digest}")


class TrustAction(StrEnum):
    """What to do with a signer."""

    add = "add"
    list = "list"
    remove = "remove"


def trust(
    action: Annotated[TrustAction, typer.Argument(help="add KEY.pub, list, or remove ID.")],
    key: Annotated[str | None, typer.Argument(help="A public key's file (add), or the first digits of its id (remove).")] = None,
    *,
    home: Home = None,
    json: Json = False,
) -> None:
    """Add, list or remove the keys of signers that this home trusts. Its own key is always trusted."""
    if action is not TrustAction.list and key is None:
        raise InvalidConfig("say which: modelyard trust add KEY.pub, or modelyard trust remove ID", field="key")
    with ControlPlane(config.load({"home": home})) as plane:
        if key is None or action is TrustAction.list:
            _list_trusted(plane, json=json)
            return
        who = local_principal()
        changed = plane.trust_add(who, Path(key)) if action is TrustAction.add else plane.trust_remove(who, key)
    if json:
        emit_json({"action": action, "key_id": changed})
    else:
        line(f"{'trusted' if action is TrustAction.add else 'no longer trusted'}: {changed}")


def _list_trusted(plane: ControlPlane, *, json: bool) -> None:
    trusted = plane.trusted()
    if json:
        emit_json(trusted)
    else:
        table(["id", "kind", "own"], [(item.key_id, item.kind, "yes" if item.is_own else "") for item in trusted])


def _input(spec: TensorSpec) -> tuple[object, ...]:
    observed = ""
    if spec.categories is not None:
        shown = ", ".join(str(value) for value in spec.categories[:6])
        observed = (
            shown + (f" and {len(spec.categories) - 6:,} more" if len(spec.categories) > 6 else "") + ("" if spec.unknown_allowed else "; no others")
        )
    elif spec.minimum:
        observed = f"{min(spec.minimum):g} to {max(spec.maximum):g}"
    width = "" if spec.shape in ((-1,), (-1, 1)) else f" {list(spec.shape)}"
    return spec.name, spec.datatype + width, "allowed" if spec.is_nullable else "", observed, spec.tag or ""


def _outputs(schema: Schema) -> list[tuple[object, ...]]:
    return [(spec.name, spec.datatype, str(list(spec.shape))) for spec in schema.outputs]
