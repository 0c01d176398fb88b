"""What may whom: one literal table of every route of the control plane, and default deny.

Hides how a right is looked up. A route that is not in the table is denied, and its presence stops the start; an entry without a route
stops it too, so that the table never says more or less than the server does. It must not authenticate: that is `security.identity`.
"""

from __future__ import annotations

from collections.abc import Iterable

from modelyard.errors import Forbidden, InvalidConfig
from modelyard.types import Principal

ROLES = ("viewer", "invoker", "developer", "approver", "operator", "admin", "auditor")

_SEE = frozenset({"viewer", "developer", "approver", "operator", "admin"})
_OPERATE = frozenset({"operator", "admin"})

ROUTES: dict[tuple[str, str], frozenset[str]] = {
    ("GET", "/api/v1/status"): _SEE,
    ("GET", "/api/v1/deployments"): _SEE,
    ("GET", "/api/v1/deployments/{name}"): _SEE,
    ("POST", "/api/v1/deployments/{name}"): _OPERATE,
    ("POST", "/api/v1/deployments/{name}/rollback"): _OPERATE,
    ("DELETE", "/api/v1/deployments/{name}"): _OPERATE,
}
"""(method, route) -> roles that may call it."""

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


def _names(routes: list[tuple[str, str]]) -> str:
    return ", ".join(f"{method} {path}" for method, path in routes)
