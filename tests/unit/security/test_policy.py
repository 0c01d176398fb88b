"""The route policy: default deny, and a table that says neither more nor less than is served."""

from __future__ import annotations

import pytest

from modelyard.errors import Forbidden, InvalidConfig
from modelyard.security import policy
from modelyard.types import Principal

ADMIN = Principal("key:admin", ("admin",))


def test_the_table_itself_is_complete() -> None:
    policy.require_complete(policy.ROUTES)


def test_a_route_without_a_policy_stops_the_start() -> None:
    with pytest.raises(InvalidConfig, match="without a policy: GET /api/v1/secrets"):
        policy.require_complete([*policy.ROUTES, ("GET", "/api/v1/secrets")])


def test_a_policy_without_a_route_stops_the_start() -> None:
    with pytest.raises(InvalidConfig, match="without a route"):
        policy.require_complete(list(policy.ROUTES)[1:])


@pytest.mark.parametrize("route", [None, "/api/v1/secrets", "/api/v1/status/"])
def test_what_is_not_in_the_table_is_denied_even_to_the_admin(route: str | None) -> None:
    with pytest.raises(Forbidden):
        policy.allow(ADMIN, "GET", route)


def test_a_method_that_is_not_in_the_table_is_denied() -> None:
    policy.allow(ADMIN, "GET", "/api/v1/status")
    for method in ("HEAD", "OPTIONS", "PUT"):
        with pytest.raises(Forbidden):
            policy.allow(ADMIN, method, "/api/v1/status")


def test_roles_are_those_that_exist_and_lookers_change_nothing() -> None:
    for (method, route), roles in policy.ROUTES.items():
        assert roles <= set(policy.ROLES)
        if method in policy.MUTATIONS:
            for role in ("viewer", "invoker", "auditor"):
                with pytest.raises(Forbidden):
                    policy.allow(Principal("key:x", (role,)), method, route)


def test_a_key_for_some_models_opens_no_control_route() -> None:
    for method, route in policy.ROUTES:
        with pytest.raises(Forbidden, match="some models"):
            policy.allow(Principal("key:x", ("admin",), ("churn",)), method, route)


def test_each_role_has_its_rights_on_the_data_plane_and_an_unknown_one_none() -> None:
    assert set(policy.RIGHTS) == set(policy.ROLES)
    assert policy.rights(["viewer", "invoker"]) == {"see", "metrics", "invoke"}
    assert policy.rights(["unheard-of", "auditor"]) == frozenset()
    assert all(policy.PUBLIC not in may for may in policy.RIGHTS.values())


def test_a_principal_without_roles_may_do_nothing() -> None:
    with pytest.raises(Forbidden):
        policy.allow(Principal("anonymous"), "GET", "/api/v1/status")
