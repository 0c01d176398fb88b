"""How a route's table is read; what may stand in each kind's is tested in test_written.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelyard.errors import InvalidConfig
from modelyard.monitor.alerts.routes.base import Written, beside, needed, read


def test_a_table_is_read_strictly() -> None:
    assert read("a", {}, Written) == Written(severities=("page",))
    assert read("a", {"severities": ["report"]}, Written).severities == ("report",)
    with pytest.raises(InvalidConfig, match=r"route a has no x; it may have severities"):
        read("a", {"x": 1}, Written)


def test_what_is_needed_is_asked_for_by_name() -> None:
    with pytest.raises(InvalidConfig, match="url_file or url_env"):
        needed("a", "url", None)


def test_files_lie_beside_the_settings() -> None:
    assert beside(Path("/h"), "") == ""
    assert beside(Path("/h"), "ca.pem") == "/h/ca.pem" and beside(Path("/h"), "/etc/ca.pem") == "/etc/ca.pem"
