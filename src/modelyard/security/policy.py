"""What may whom: one literal table of every route of the control plane, one of the data plane's rights, and default deny.

Hides how a right is looked up. A control route that is not in the table is denied, and its presence stops the start; an entry without a route
stops it too, so that the table never says more or less than the server does. A data route names its right when it is made, and cannot be made
without. It must not authenticate: that is `security.identity` and `serve.access`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from modelyard.errors import Forbidden, InvalidConfig
from modelyard.types import Principal

ROLES = ("viewer", "invoker", "developer", "approver", "operator", "admin", "auditor")

_SEE = frozenset({"viewer", "developer", "approver", "operator", "admin"})
_OPERATE = frozenset({"operator", "admin"})
APPROVERS = frozenset({"approver", "admin"})

ROUTES: dict[tuple[str, str], frozenset[str]] = {
    ("GET", "/api/v1/status"): _SEE,
    ("GET", "/api/v1/deployments"): _SEE,
    ("GET", "/api/v1/deployments/{name}"): _SEE,
    ("POST", "/api/v1/deployments/{name}"): _OPERATE,
    ("POST", "/api/v1/deployments/{name}/rollback"): _OPERATE,
    ("DELETE", "/api/v1/deployments/{name}"): _OPERATE,
}
"""(method, route) -> roles that may call it."""

Right = Literal["public", "see", "invoke", "metrics", "load"]
PUBLIC: Right = "public"
SEE: Right = "see"
INVOKE: Right = "invoke"
METRICS: Right = "metrics"
LOAD: Right = "load"

RIGHTS: dict[str, frozenset[Right]] = {
    "viewer": frozenset({SEE, METRICS}),
    "invoker": frozenset({SEE, INVOKE}),
    "developer": frozenset({SEE, INVOKE, METRICS}),
    "approver": frozenset({SEE, METRICS}),
    "operator": frozenset({SEE, INVOKE, METRICS, LOAD}),
    "admin": frozenset({SEE, INVOKE, METRICS, LOAD}),
    "auditor": frozenset(),
}
"""role -> what it may do on the data plane. `public` is nobody's: it needs no right."""

MUTATIONS = frozenset({"POST", "PUT", "PATCH", "DELETE"})


def require_complete(routes: Iterable[tuple[str, str]]) -> None:
    """Refuse to start when `routes` and the table differ. Raises InvalidConfig naming the routes."""
    served = set(routes)
    unguarded, unserved = sorted(served - ROUTES.keys()), sorted(ROUTES.keys() - served)
    if unguarded:
        raise InvalidConfig(f"routes without a policy: {_names(unguarded)}; give each an entry in security.policy.ROUTES", rule="policy")
    if unserved:
        raise InvalidConfig(f"policies without a route: {_names(unserved)}", rule="policy")


def allow(principal: Principal, method: str, route: str | None) -> None:
    """Return when `principal` may call `method` on `route`. Raises Forbidden otherwise, and for every route not in the table."""
    roles = ROUTES.get((method, route)) if route is not None else None
    if roles is None or roles.isdisjoint(principal.roles):
        raise Forbidden("your key has no role that may do this")
    if principal.models:
        raise Forbidden("your key is for some models and asks the data plane alone", field="model", rule="grant")


def require_approver(principal: Principal) -> None:
    """Return when `principal` may approve a step of somebody else's rollout. Raises Forbidden."""
    if APPROVERS.isdisjoint(principal.roles):
        raise Forbidden("an approval is given by a key with the role approver", rule="approver")


def rights(roles: Iterable[str]) -> frozenset[Right]:
    """What `roles` together may do on the data plane; a role that does not exist may do nothing."""
    return frozenset(right for role in roles for right in RIGHTS.get(role, frozenset()))


def _names(routes: list[tuple[str, str]]) -> str:
    return ", ".join(f"{method} {path}" for method, path in routes)
