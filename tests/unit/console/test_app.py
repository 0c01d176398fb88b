"""The routes: each exactly once, each with its policy, answered in JSON."""

from __future__ import annotations

from fastapi import FastAPI

from modelyard import config
from modelyard.console.app import build, served
from modelyard.control.access import home_keyring
from modelyard.control.plane import ControlPlane
from modelyard.control.status import Status
from modelyard.security import policy


def test_what_is_served_is_what_the_policy_names_and_no_more() -> None:
    with ControlPlane(config.load()) as plane:
        keyring = home_keyring(plane.settings)
        guard = build(plane, keyring=keyring, hosts={"h"}, status=lambda: Status(home="", data_plane=None, deployments=()), changed=lambda: None)
        assert {(method, route.path) for route in guard.routes for method in route.methods} == set(policy.ROUTES)


def test_fastapis_own_pages_are_off() -> None:
    assert served(FastAPI(docs_url=None, redoc_url=None, openapi_url=None)) == set()
    assert served(FastAPI()) != set()
