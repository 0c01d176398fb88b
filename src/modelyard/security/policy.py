"""What may whom: one literal table of every route of the control plane, one of the data plane's rights, and default deny.

Hides how a right is looked up. A control route that is not in the table is denied, and its presence stops the start; an entry without a route
stops it too, so that the table never says more or less than the server does. A data route names its right when it is made, and cannot be made
without. It must not authenticate: that is `security.identity` and `serve.access`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, NamedTuple

from modelyard.errors import Forbidden, InvalidConfig
from modelyard.types import Principal

ROLES = ("viewer", "invoker", "developer", "approver", "operator", "admin", "auditor", "exporter")

Scope = Literal["home", "model", "part", "any"]
HOME: Scope = "home"
MODEL: Scope = "model"
PART: Scope = "part"
ANY: Scope = "any"


class Rule(NamedTuple):
    """Which roles may call a route, and what a key that is for some models alone may do there.

    `home`: nothing, for the route is about everything. `model`: act on its own, which the path's `{name}` and the request name. `part`: see its own
    entries of a list. `any`: as much as everybody, unless the verb asks about each model that is spoken of.
    """

    roles: frozenset[str]
    scope: Scope


_SEE = frozenset({"viewer", "developer", "approver", "operator", "admin"})
_DEVELOP = frozenset({"developer", "operator", "admin"})
_OPERATE = frozenset({"operator", "admin"})
APPROVERS = frozenset({"approver", "admin"})
_LABEL = frozenset({"invoker", "developer", "operator", "admin"})
_ADMIN = frozenset({"admin"})
_AUDIT = frozenset({"auditor"})
_EXPORT = frozenset({"exporter", "operator", "admin"})
_ALL = frozenset(ROLES)

ROUTES: dict[tuple[str, str], Rule] = {
    ("GET", "/api/v1/openapi.json"): Rule(_ALL, ANY),
    ("GET", "/api/v1/data-plane"): Rule(_ALL - {"auditor", "exporter"}, ANY),
    ("GET", "/api/v1/status"): Rule(_SEE, PART),
    ("GET", "/api/v1/config"): Rule(_OPERATE, HOME),
    ("GET", "/api/v1/models"): Rule(_SEE, PART),
    ("GET", "/api/v1/models/{name}/versions"): Rule(_SEE, MODEL),
    ("GET", "/api/v1/models/{name}/versions/{version}"): Rule(_SEE, MODEL),
    ("POST", "/api/v1/models/{name}/versions/{version}/verify"): Rule(_DEVELOP, MODEL),
    ("GET", "/api/v1/models/{name}/versions/{version}/export"): Rule(_DEVELOP, MODEL),
    ("DELETE", "/api/v1/models/{name}/versions/{version}"): Rule(_OPERATE, MODEL),
    ("PUT", "/api/v1/models/{name}/aliases/{alias}"): Rule(_DEVELOP, MODEL),
    ("DELETE", "/api/v1/models/{name}/aliases/{alias}"): Rule(_DEVELOP, MODEL),
    ("POST", "/api/v1/models/{name}/versions"): Rule(_DEVELOP, MODEL),
    ("POST", "/api/v1/bundles"): Rule(_DEVELOP, HOME),
    ("POST", "/api/v1/gc"): Rule(_OPERATE, HOME),
    ("GET", "/api/v1/trust"): Rule(_SEE, HOME),
    ("POST", "/api/v1/trust"): Rule(_ADMIN, HOME),
    ("DELETE", "/api/v1/trust/{id}"): Rule(_ADMIN, HOME),
    ("GET", "/api/v1/keys"): Rule(_ADMIN, HOME),
    ("POST", "/api/v1/keys"): Rule(_ADMIN, HOME),
    ("DELETE", "/api/v1/keys/{id}"): Rule(_ADMIN, HOME),
    ("GET", "/api/v1/deployments"): Rule(_SEE, PART),
    ("GET", "/api/v1/deployments/{name}"): Rule(_SEE, MODEL),
    ("POST", "/api/v1/deployments/{name}"): Rule(_OPERATE, MODEL),
    ("POST", "/api/v1/deployments/{name}/plan"): Rule(_DEVELOP, MODEL),
    ("POST", "/api/v1/deployments/{name}/rollback"): Rule(_OPERATE, MODEL),
    ("POST", "/api/v1/deployments/{name}/promote"): Rule(_OPERATE, MODEL),
    ("POST", "/api/v1/deployments/{name}/pause"): Rule(_OPERATE, MODEL),
    ("POST", "/api/v1/deployments/{name}/resume"): Rule(_OPERATE, MODEL),
    ("POST", "/api/v1/deployments/{name}/abort"): Rule(_OPERATE, MODEL),
    ("POST", "/api/v1/deployments/{name}/approve"): Rule(APPROVERS, MODEL),
    ("GET", "/api/v1/deployments/{name}/history"): Rule(_SEE, MODEL),
    ("POST", "/api/v1/deployments/{name}/labels"): Rule(_DEVELOP, MODEL),
    ("GET", "/api/v1/deployments/{name}/labels"): Rule(_SEE, MODEL),
    ("GET", "/api/v1/deployments/{name}/monitor"): Rule(_SEE, MODEL),
    ("GET", "/api/v1/deployments/{name}/monitor/settings"): Rule(_SEE, MODEL),
    ("PUT", "/api/v1/deployments/{name}/monitor/settings"): Rule(_OPERATE, MODEL),
    ("DELETE", "/api/v1/deployments/{name}"): Rule(_OPERATE, MODEL),
    ("GET", "/api/v1/metrics"): Rule(_SEE, HOME),
    ("GET", "/api/v1/alerts"): Rule(_SEE, PART),
    ("POST", "/api/v1/silences"): Rule(_OPERATE, ANY),
    ("DELETE", "/api/v1/silences/{id}"): Rule(_OPERATE, ANY),
    ("POST", "/api/v1/alerts/routes/{route}/test"): Rule(_OPERATE, HOME),
    ("POST", "/api/v1/observations"): Rule(_EXPORT, ANY),
    ("GET", "/api/v1/audit"): Rule(_AUDIT, HOME),
    ("POST", "/api/v1/audit/verify"): Rule(_AUDIT, HOME),
}
"""(method, route) -> who may call it."""

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
    "exporter": frozenset(),
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


def allow(principal: Principal, method: str, route: str | None, *, name: str | None = None) -> None:
    """Return when `principal` may call `method` on `route`, whose path says `name`. Raises Forbidden, for an unknown route too."""
    rule = ROUTES.get((method, route)) if route is not None else None
    if rule is None or rule.roles.isdisjoint(principal.roles):
        raise Forbidden("you have no role that may do this", rule="role")
    if rule.scope == HOME and principal.models:
        raise Forbidden("you are held to some models, and this is about all", field="model", rule="grant")
    if rule.scope == MODEL:
        if name is None:
            raise Forbidden("this route names no model that could be granted", rule="grant")
        require_model(principal, name)


def sees(principal: Principal, name: str) -> bool:
    """Whether `principal` is granted the model (or deployment) called `name`."""
    return not principal.models or name in principal.models


def require_model(principal: Principal, name: str) -> None:
    """Return when `principal` is granted `name`. Raises Forbidden, whether there is such a model or not."""
    if not sees(principal, name):
        raise Forbidden("you are not granted this model", field="model", rule="grant")


def require_approver(principal: Principal) -> None:
    """Return when `principal` may approve a step of somebody else's rollout. Raises Forbidden."""
    if APPROVERS.isdisjoint(principal.roles):
        raise Forbidden("an approval is given by who has the role approver", rule="approver")


def rights(roles: Iterable[str]) -> frozenset[Right]:
    """What `roles` together may do on the data plane; a role that does not exist may do nothing."""
    return frozenset(right for role in roles for right in RIGHTS.get(role, frozenset()))


def _names(routes: list[tuple[str, str]]) -> str:
    return ", ".join(f"{method} {path}" for method, path in routes)
