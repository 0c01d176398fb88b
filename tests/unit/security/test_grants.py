"""Claims become roles by the mapping alone: what is not mapped gives nothing, and more groups never give less."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.errors import Forbidden, InvalidConfig
from modelyard.security.grants import EVERY_MODEL, Grants, granted, parse, values
from modelyard.security.policy import ROLES

GROUPS = st.sampled_from(["a", "b", "c", "CN=ml,OU=x", "a b", "operator", "admin"])
MAPPINGS = st.dictionaries(GROUPS, st.lists(st.sampled_from(ROLES), min_size=1, max_size=3).map(tuple), max_size=4)
ANYTHING: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | GROUPS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


def roles_of(mapping: dict[str, tuple[str, ...]], groups: Any) -> set[str]:
    try:
        roles, models = granted(Grants("groups", mapping), {"groups": groups})
    except Forbidden:
        return set()
    assert roles and models == ()
    return set(roles)


@given(MAPPINGS, st.lists(GROUPS, max_size=5))
def test_roles_are_those_of_the_groups_that_are_mapped_and_no_other(mapping: dict[str, tuple[str, ...]], groups: list[str]) -> None:
    assert roles_of(mapping, groups) == {role for group in groups for role in mapping.get(group, ())}


@given(MAPPINGS, st.lists(GROUPS, max_size=4), GROUPS)
def test_another_group_takes_no_role_away(mapping: dict[str, tuple[str, ...]], groups: list[str], another: str) -> None:
    assert roles_of(mapping, groups) <= roles_of(mapping, [*groups, another])


@given(MAPPINGS, ANYTHING)
def test_whatever_the_claim_holds_nothing_unmapped_gives_a_role(mapping: dict[str, tuple[str, ...]], claim: Any) -> None:
    named = {each for each in (claim if isinstance(claim, list) else [claim]) if isinstance(each, str)}
    assert roles_of(mapping, claim) <= {role for group in named for role in mapping.get(group, ())}


@given(MAPPINGS)
def test_what_is_written_is_what_is_read(mapping: dict[str, tuple[str, ...]]) -> None:
    assert parse("; ".join(f"{group} = {' + '.join(roles)}" for group, roles in mapping.items())) == mapping


def test_a_directorys_name_and_an_empty_mapping() -> None:
    assert parse(" CN=ml,OU=x = operator+approver ;\n b=viewer; ") == {"CN=ml,OU=x": ("operator", "approver"), "b": ("viewer",)}
    assert parse("") == {}


@pytest.mark.parametrize("text", ["a", "a=", "=viewer", "a=boss", "a=viewer+", "a=viewer; a=admin"])
def test_a_mapping_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(InvalidConfig) as refused:
        parse(text)
    assert refused.value.field == "oidc_roles"


def test_claims_are_found_by_name_or_by_way() -> None:
    assert values({"realm_access": {"roles": ["x", "y", "x"]}}, "realm_access.roles") == ("x", "y")
    assert values({"https://a.example/groups": ["x"]}, "https://a.example/groups") == ("x",)
    assert values({"groups": "ML Admins"}, "groups") == ("ML Admins",), "one value, spaces and all"
    assert values({"scope": "read write"}, "scope") == ("read", "write")
    assert values({"a": ["b"]}, "a.b") == () and values({}, "a.b.c") == () and values({"a": {"b": {"c": 7}}}, "a.b.c") == ()


def test_models_are_those_of_the_claim_and_none_is_not_all() -> None:
    grants = Grants("groups", {"a": ("operator",)}, "models")
    assert granted(grants, {"groups": ["a"], "models": ["churn", "line"]}) == (("operator",), ("churn", "line"))
    assert granted(grants, {"groups": ["a"], "models": [EVERY_MODEL]}) == (("operator",), ())
    for models in ([], None, [7], "", {}):
        with pytest.raises(Forbidden, match="names no model"):
            granted(grants, {"groups": ["a"], "models": models})
