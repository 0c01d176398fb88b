"""Operations as values: what is said of them is what the table of policies and the routes need."""

from __future__ import annotations

import re

from modelyard.console.routes import OPERATIONS
from modelyard.security import policy


def test_each_is_named_once_and_has_its_policy() -> None:
    assert len({each.name for each in OPERATIONS}) == len(OPERATIONS)
    assert [(each.method, each.route) for each in OPERATIONS if (each.method, each.route) not in policy.ROUTES] == []


def test_what_a_key_for_some_models_may_ask_is_what_can_be_held_to_them() -> None:
    """A route about one model names it in its path; one that lists leaves out what is not granted."""
    for each in OPERATIONS:
        scope = policy.ROUTES[each.method, each.route].scope
        assert (scope == policy.MODEL) <= ("{name}" in each.path), each.name
        assert (scope == policy.PART) == (each.sift is not None), each.name
        assert ("{name}" in each.path) == (scope == policy.MODEL), each.name


def test_a_change_of_a_deployment_can_be_held_to_a_generation_and_repeated() -> None:
    for each in OPERATIONS:
        if each.is_change and re.match(r"/deployments/{name}(/(rollback|promote|pause|resume|abort|approve))?$", each.path):
            assert each.has_generation and each.current is not None and each.recall is not None, each.name
