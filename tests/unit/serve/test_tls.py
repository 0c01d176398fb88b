"""The certificate in force: which files are refused, and that a new pair is used by the next handshake of a listener that never closed."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import msgspec
import pytest
from certificates import Authority

from modelyard.config import Settings
from modelyard.errors import InvalidConfig, NotFound
from modelyard.serve.tls import Tls, names, open_tls


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def settings(pair: tuple[Path, Path], **more: str) -> Settings:
    return msgspec.structs.replace(Settings(), tls_cert_file=str(pair[0]), tls_key_file=str(pair[1]), **more)


def test_none_is_asked_for_by_default_and_half_of_it_is_refused(authority: Authority) -> None:
    assert open_tls(Settings()) is None
    certificate, key = authority.server("here")
    assert open_tls(settings((certificate, key))) is not None
    for more in (
        {"tls_cert_file": str(certificate)},
        {"tls_key_file": str(key)},
        {"tls_client_ca_file": str(authority.path)},
        {"tls_client_names": "trainer"},
        {"tls_cert_file": str(certificate), "tls_key_file": str(key), "tls_client_names": "trainer"},
    ):
        with pytest.raises(InvalidConfig):
            open_tls(Settings(**more))  # type: ignore[arg-type]


def test_files_that_do_not_do_stop_the_start(authority: Authority, tmp_path: Path) -> None:
    certificate, key = authority.server("here")
    other, other_key = authority.server("other")
    over, over_key = authority.server("over", days=-1)
    nothing = tmp_path / "nothing"
    text = tmp_path / "text"
    text.write_text("no PEM")
    text.chmod(0o600)
    for pair, kind in (
        ((certificate, other_key), InvalidConfig),
        ((other, key), InvalidConfig),
        ((over, over_key), InvalidConfig),
        ((nothing, key), NotFound),
        ((certificate, nothing), NotFound),
        ((text, key), InvalidConfig),
        ((certificate, text), InvalidConfig),
    ):
        with pytest.raises(kind):
            Tls(settings(pair))
    for bad in (text, nothing):
        with pytest.raises(InvalidConfig):
            Tls(settings((certificate, key), tls_client_ca_file=str(bad)))
    for mode in (0o604, 0o660, 0o644):
        key.chmod(mode)
        with pytest.raises(InvalidConfig, match="other users"):
            Tls(settings((certificate, key)))
    key.chmod(0o640)
    Tls(settings((certificate, key)))


def test_a_key_with_a_password_is_refused_and_never_asked_for(authority: Authority) -> None:
    from cryptography.hazmat.primitives import serialization

    certificate, key = authority.server("here")
    private = serialization.load_pem_private_key(key.read_bytes(), None)
    encryption = serialization.BestAvailableEncryption(b"secret")
    key.write_bytes(private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption))
    with pytest.raises(InvalidConfig, match="without a password"):
        Tls(settings((certificate, key)))


def test_names_of_a_certificate(authority: Authority) -> None:
    assert names(authority.server("here", names=("churn.example", "*.churn.example", "10.0.0.1"))[0]) == ("churn.example", "10.0.0.1")
    assert names(authority.path) == ()


class Shown(asyncio.Protocol):
    """Says nothing and closes: what matters is the handshake."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()


def handshake(port: int, trusted: Path, **versions: ssl.TLSVersion) -> str:
    """The name on the certificate that the server shows; raises what the handshake raises."""
    import socket

    context = ssl.create_default_context(cafile=trusted)
    context.set_alpn_protocols(["h2", "http/1.1"])
    for name, version in versions.items():
        setattr(context, name, version)
    with socket.create_connection(("127.0.0.1", port), timeout=10) as plain, context.wrap_socket(plain, server_hostname="127.0.0.1") as secure:
        subject = (secure.getpeercert() or {})["subject"]
        assert secure.selected_alpn_protocol() == "http/1.1"
        return str(dict(pair for group in subject for pair in group)["commonName"])  # type: ignore[misc]


def test_the_next_handshake_uses_the_new_pair_and_a_bad_one_changes_nothing(authority: Authority) -> None:
    import uvloop

    pair = authority.server("first")
    tls = Tls(settings(pair))

    def write(found: tuple[Path, Path]) -> None:
        for target, source in zip(pair, found, strict=True):
            target.write_bytes(source.read_bytes())

    async def test() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(Shown, "127.0.0.1", 0, ssl=tls.context("http/1.1"))
        port = server.sockets[0].getsockname()[1]

        async def shown() -> str:
            return await asyncio.to_thread(handshake, port, authority.path)

        assert await shown() == "first" and not tls.is_stale
        write(authority.server("second"))
        assert not tls.is_stale, "it is looked at again before it is believed to be whole"
        assert tls.is_stale
        tls.take(tls.load())
        assert await shown() == "second" and not tls.is_stale
        pair[0].write_bytes(authority.server("third")[0].read_bytes())  # without its key
        assert not tls.is_stale and tls.is_stale
        with pytest.raises(InvalidConfig):
            tls.load()
        assert await shown() == "second" and not tls.is_stale, "told once"
        write(authority.server("fourth"))
        assert not tls.is_stale and tls.is_stale
        tls.take(tls.load())
        assert await shown() == "fourth"
        server.close()

    uvloop.run(test())


def test_a_client_is_let_in_by_its_name(authority: Authority) -> None:
    pair = authority.server("here")

    class Connection:
        def __init__(self, *given: str) -> None:
            self._given = given

        def getpeercert(self) -> dict[str, object]:
            return {"subjectAltName": tuple(("DNS", name) for name in self._given)}

    named = Tls(settings(pair, tls_client_ca_file=str(authority.path), tls_client_names="trainer, Batch"))
    assert named.admits(Connection("x", "TRAINER")) and named.admits(Connection("batch"))
    assert not named.admits(Connection("trainer.evil.example")) and not named.admits(Connection()) and not named.admits(None)
    assert Tls(settings(pair, tls_client_ca_file=str(authority.path))).admits(Connection("anyone"))
