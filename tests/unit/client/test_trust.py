"""Which servers are believed."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
from certificates import Authority

from modelyard.client.trust import trusting
from modelyard.errors import InvalidConfig


def test_which_servers_are_believed(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    certificate, key = authority.client("me")
    assert trusting(None) is None
    assert trusting(authority.path).check_hostname  # type: ignore[union-attr]
    pinned = trusting(None, pinned=certificate)
    assert pinned is not None and not pinned.check_hostname and pinned.verify_mode == ssl.CERT_REQUIRED
    assert trusting(authority.path, certificate=certificate, key=key) is not None
    text = tmp_path / "text"
    text.write_text("no PEM")
    for bad in (
        {"authority": text},
        {"authority": tmp_path / "nowhere"},
        {"authority": None, "certificate": text},
        {"authority": authority.path, "certificate": certificate},
    ):
        with pytest.raises(InvalidConfig):
            trusting(**bad)
