"""The audit log over HTTP: an auditor reads it, nobody else, and a changed one is found."""

from __future__ import annotations

import sqlite3

import pytest
from api import Api

from modelyard import config
from modelyard.control.plane import ControlPlane

UNSEEN = ("?since=0001-01-01T00:00:00%2B14:00", "?since=9999-12-31T23:59:59-14:00", "?skip=99999999999999999999", "?skip=9223372036854775807")
"""Times and places that no calendar and no counter has."""


@pytest.fixture
def api() -> Api:
    return Api(ControlPlane(config.load()))


def test_an_auditor_alone_reads_it_page_by_page(api: Api) -> None:
    auditor = api.key("auditor")
    for key in (api.admin, api.key("operator"), api.key("viewer")):
        assert api.ask("GET", "/audit", key=key).status_code == 403
    found = api.told("GET", "/audit", key=auditor)
    assert found[0]["entry"]["action"] == "key-create" and {entry["chain"] for entry in found} == {"records"}
    assert api.told("GET", "/audit?skip=1&limit=1", key=auditor) == found[1:2]
    assert api.told("GET", "/audit?since=2999-01-01T00:00:00Z", key=auditor) == []
    for query in ("?limit=0", "?limit=1001", "?skip=-1", "?limit=ten", "?since=never", "?after=1", "?limit=1&limit=2", *UNSEEN):
        assert api.ask("GET", f"/audit{query}", key=auditor).status_code == 400


def test_a_changed_chain_is_found(api: Api) -> None:
    auditor = api.key("auditor")
    api.key("viewer")
    assert api.told("POST", "/audit/verify", key=auditor)["is_whole"] is True
    with sqlite3.connect(api.plane.settings.home / "registry.sqlite") as database:
        database.execute("UPDATE audit SET line = replace(line, 'key-create', 'key-revoke') WHERE sequence = 2")
    report = api.told("POST", "/audit/verify", key=auditor)
    assert report["is_whole"] is False and report["chains"][0]["first_bad"] == 2
