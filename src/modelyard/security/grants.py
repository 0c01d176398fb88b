"""What the claims of a token let its holder do: groups become roles, and a claim may name the models.

Hides how a claim is found in a token and how the mapping is written. Default deny: what is not mapped gives nothing, and who is given nothing is
refused. It must not judge a token: that is `security.tokens`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from modelyard.errors import Forbidden, InvalidConfig
from modelyard.security.policy import ROLES

EVERY_MODEL = "*"
SPACED = frozenset({"scope", "scp"})
"""Claims whose one text holds several values (RFC 8693, 4.2); any other text is one value, spaces and all."""


class Grants(NamedTuple):
    """Which claim holds a person's groups, what each group may, and which claim, if any, names the models that the person is held to."""

    roles_claim: str
    roles: Mapping[str, tuple[str, ...]]
    models_claim: str = ""


def parse(text: str) -> dict[str, tuple[str, ...]]:
    """The mapping that is written `GROUP=ROLE+ROLE; GROUP=ROLE`. Raises InvalidConfig."""
    found: dict[str, tuple[str, ...]] = {}
    for entry in filter(None, map(str.strip, text.split(";"))):
        group, _, said = entry.rpartition("=")  # a group's name may be a directory's, with = in it
        group, roles = group.strip(), tuple(role.strip() for role in said.split("+"))
        if not group or group in found:
            raise InvalidConfig("oidc_roles is written GROUP=ROLE+ROLE; GROUP=ROLE, each group once", field="oidc_roles", rule="form")
        if unknown := sorted(set(roles) - set(ROLES)):
            raise InvalidConfig(f"oidc_roles: {unknown[0]!r} is no role; there are {', '.join(ROLES)}", field="oidc_roles", rule="known")
        found[group] = roles
    return found


def granted(grants: Grants, claims: Mapping[str, Any]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The roles, and the models (none: all), that these claims give. Raises Forbidden where they give no role, or none of the models."""
    mine = {role for group in values(claims, grants.roles_claim) for role in grants.roles.get(group, ())}
    if not mine:
        raise Forbidden(f"no group of the token ({grants.roles_claim}) has a role here", rule="token-roles")
    roles = tuple(role for role in ROLES if role in mine)
    if not grants.models_claim:
        return roles, ()
    models = values(claims, grants.models_claim)
    if not models:
        raise Forbidden(f"the token names no model ({grants.models_claim})", rule="token-models")
    return roles, () if EVERY_MODEL in models else models


def values(claims: Mapping[str, Any], name: str) -> tuple[str, ...]:
    """The texts of the claim `name`: of that very name, else by the way of names with dots between them. What is no text counts for nothing."""
    found: Any = claims.get(name)
    if found is None:
        found = claims
        for step in name.split("."):
            found = found.get(step) if isinstance(found, Mapping) else None
    if isinstance(found, str):
        found = found.split() if name in SPACED else [found]
    return tuple(dict.fromkeys(each for each in found if isinstance(each, str) and each)) if isinstance(found, list) else ()
