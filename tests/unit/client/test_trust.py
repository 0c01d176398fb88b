"""Which servers are believed."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
from certificates import Authority
from receivers import empty_object, receiver

from modelyard.client import Client
from modelyard.client.trust import trusting
from modelyard.errors import InvalidConfig, Unavailable


def test_which_servers_are_believed(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    certificate, key = authority.client("me")
    for context in (trusting(), trusting(authority.path)):
        assert context.check_hostname and context.verify_mode == ssl.CERT_REQUIRED and context.minimum_version == ssl.TLSVersion.TLSv1_2
    assert [each["subject"] for each in trusting(authority.path).get_ca_certs()] == [((("commonName", "authority"),),)]
    pinned = trusting(None, pinned=certificate)
    assert not pinned.check_hostname and pinned.verify_mode == ssl.CERT_REQUIRED
    assert trusting(authority.path, certificate=certificate, key=key).check_hostname
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


def test_the_systems_authorities_are_those_of_the_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the client too, which once believed the list of a package in their place: an authority of one's own that was installed was refused."""
    authority = Authority(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.path))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path / "none"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.server("server"))
    with receiver(context) as server, Client(f"https://localhost:{server.port}", "my_key") as client:
        server.answer = empty_object
        assert client.call("POST", "/deployments", answer=dict) == {}
        monkeypatch.delenv("SSL_CERT_FILE")
        with Client(f"https://localhost:{server.port}", "my_key") as other, pytest.raises(Unavailable):
            other.call("POST", "/deployments", answer=dict)
        assert len(server.asked) == 1
