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


MATRIX = """
                        viewer invoker developer approver operator admin auditor exporter
GET openapi.json             x       x         x        x        x     x       x        x
GET data-plane               x       x         x        x        x     x       .        .
GET status                   x       .         x        x        x     x       .        .
GET config                   .       .         .        .        x     x       .        .
GET models                   x       .         x        x        x     x       .        .
GET versions                 x       .         x        x        x     x       .        .
GET {version}                x       .         x        x        x     x       .        .
POST {version}/verify            .       .         x        .        x     x       .        .
GET export                   .       .         x        .        x     x       .        .
DELETE {version}             .       .         .        .        x     x       .        .
PUT {alias}                  .       .         x        .        x     x       .        .
DELETE {alias}               .       .         x        .        x     x       .        .
POST versions                .       .         x        .        x     x       .        .
POST bundles                 .       .         x        .        x     x       .        .
POST gc                      .       .         .        .        x     x       .        .
GET trust                    x       .         x        x        x     x       .        .
POST trust                   .       .         .        .        .     x       .        .
DELETE trust/{id}            .       .         .        .        .     x       .        .
GET keys                     .       .         .        .        .     x       .        .
POST keys                    .       .         .        .        .     x       .        .
DELETE keys/{id}             .       .         .        .        .     x       .        .
GET deployments              x       .         x        x        x     x       .        .
GET deployments/{name}       x       .         x        x        x     x       .        .
POST deployments/{name}      .       .         .        .        x     x       .        .
POST plan                    .       .         x        .        x     x       .        .
POST rollback                .       .         .        .        x     x       .        .
POST promote                 .       .         .        .        x     x       .        .
POST pause                   .       .         .        .        x     x       .        .
POST resume                  .       .         .        .        x     x       .        .
POST abort                   .       .         .        .        x     x       .        .
POST approve                 .       .         .        x        .     x       .        .
GET history                  x       .         x        x        x     x       .        .
POST labels                  .       .         x        .        x     x       .        .
GET labels                   x       .         x        x        x     x       .        .
GET monitor                  x       .         x        x        x     x       .        .
GET settings                 x       .         x        x        x     x       .        .
PUT settings                 .       .         .        .        x     x       .        .
DELETE deployments/{name}    .       .         .        .        x     x       .        .
GET metrics                  x       .         x        x        x     x       .        .
GET alerts                   x       .         x        x        x     x       .        .
POST silences                .       .         .        .        x     x       .        .
DELETE silences/{id}         .       .         .        .        x     x       .        .
POST test                    .       .         .        .        x     x       .        .
POST observations            .       .         .        .        x     x       .        x
GET audit                    .       .         .        .        .     .       x        .
POST audit/verify            .       .         .        .        .     .       x        .
"""
"""Who may what, a second time: method and the end of the route, by role. A change of the table is a change of this one."""


def test_the_table_is_the_matrix() -> None:
    head, *rows = MATRIX.strip().splitlines()
    left = dict(policy.ROUTES)
    for row in rows:
        method, end, *marks = row.split()
        (key,) = [key for key in left if key[0] == method and key[1].endswith(f"/{end}")]
        assert left.pop(key).roles == {role for role, mark in zip(head.split(), marks, strict=True) if mark == "x"}, row
    assert left == {}


def test_a_key_for_some_models_acts_on_them_alone() -> None:
    mine = Principal("key:x", policy.ROLES, ("churn",))
    for (method, route), rule in policy.ROUTES.items():
        name = "churn" if "{name}" in route else None
        if rule.scope == policy.HOME:
            with pytest.raises(Forbidden, match="about all"):
                policy.allow(mine, method, route, name=name)
            continue
        policy.allow(mine, method, route, name=name)
        if rule.scope == policy.MODEL:
            for other in ("churn2", "", None):
                with pytest.raises(Forbidden):
                    policy.allow(mine, method, route, name=other)


def test_a_key_for_all_models_sees_all() -> None:
    assert policy.sees(ADMIN, "churn") and policy.sees(Principal("key:x", (), ("churn",)), "churn")
    assert not policy.sees(Principal("key:x", ("admin",), ("churn",)), "chur")


def test_each_role_has_its_rights_on_the_data_plane_and_an_unknown_one_none() -> None:
    assert set(policy.RIGHTS) == set(policy.ROLES)
    assert policy.rights(["viewer", "invoker"]) == {"see", "metrics", "invoke"}
    assert policy.rights(["unheard-of", "auditor"]) == frozenset()
    assert all(policy.PUBLIC not in may for may in policy.RIGHTS.values())


def test_a_principal_without_roles_may_do_nothing() -> None:
    with pytest.raises(Forbidden):
        policy.allow(Principal("anonymous"), "GET", "/api/v1/status")
