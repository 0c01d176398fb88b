"""TLS on the data plane, by real clients: who is refused, what never hangs, and a rotation of certificates under load."""

from __future__ import annotations

import json
import os
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from certificates import Authority

from modelyard.cli import main
from serving import Running, home_with, line_row, read_answer, running

ASK = b"GET /v2/models HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tls")


@pytest.fixture(scope="module")
def authority(folder: Path) -> Authority:
    return Authority(folder)


@pytest.fixture(scope="module")
def server(folder: Path, authority: Authority) -> Iterator[Running]:
    certificate, key = authority.server("served")
    with running(home_with(folder / "h", "line"), settings={"tls_cert_file": certificate, "tls_key_file": key}) as server:
        yield server


@pytest.fixture(scope="module")
def mutual(folder: Path, authority: Authority) -> Iterator[Running]:
    certificate, key = authority.server("mutual")
    settings = {"tls_cert_file": certificate, "tls_key_file": key, "tls_client_ca_file": authority.path, "tls_client_names": "trainer"}
    with running(home_with(folder / "m", "line"), settings=settings) as server:
        yield server


def ask(port: int, context: ssl.SSLContext, data: bytes = ASK) -> int | None:
    """The status of the answer over TLS; None when there is none, however it was refused."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=15) as plain, context.wrap_socket(plain, server_hostname="localhost") as secure:
            secure.sendall(data)
            with secure.makefile("rb") as stream:
                answer = read_answer(stream)
        return None if answer is None else answer.status
    except (ssl.SSLError, ConnectionError):
        return None


def trusting(authority: Authority, client: tuple[Path, Path] | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=authority.path)
    if client is not None:
        context.load_cert_chain(*client)
    return context


def test_requests_are_answered_kept_alive_pipelined_and_large(server: Running, authority: Authority) -> None:
    assert server.url.startswith("https://")
    body = json.dumps({"inputs": line_row()}).encode()
    post = b"POST /v2/models/line/infer HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    with server.connect() as plain, trusting(authority).wrap_socket(plain, server_hostname="localhost") as secure, secure.makefile("rb") as stream:
        assert secure.version() == "TLSv1.3"
        secure.sendall(post * 20 + ASK)
        statuses = []
        while (answer := read_answer(stream)) is not None:
            statuses.append(answer.status)
        assert statuses == [200] * 21
    many = {
        "inputs": [
            {"name": name, "datatype": kind, "shape": [3000, 1], "data": [1] * 3000} for name, kind in (("a", "FP64"), ("b", "INT64"), ("c", "FP32"))
        ]
    }
    body = json.dumps(many).encode()
    head = b"POST /v2/models/line/infer HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body)
    assert ask(server.port, trusting(authority), head + body) == 200


def test_old_versions_plain_text_and_unknown_authorities_get_nothing(server: Running, authority: Authority, tmp_path: Path) -> None:
    old = trusting(authority)
    old.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    old.set_ciphers("ALL:@SECLEVEL=0")
    for version in (ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1):
        with pytest.warns(DeprecationWarning):
            old.maximum_version = version
        assert ask(server.port, old) is None
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    assert ask(server.port, old) == 200, "the same client is let in with TLS 1.2"
    with server.connect() as plain:
        plain.sendall(ASK)
        with suppress(ConnectionError):
            assert not plain.recv(4096).startswith(b"HTTP"), "no answer in the clear"
    assert ask(server.port, trusting(Authority(tmp_path, "stranger"))) is None
    assert ask(server.port, trusting(authority)) == 200
    assert "Traceback" not in server.log.read_text()


def test_a_handshake_that_stalls_is_closed(server: Running, authority: Authority) -> None:
    stalled = [server.connect() for _ in range(5)]
    stalled[1].sendall(b"\x16\x03\x01\x02\x00\x01\x00")
    started = time.monotonic()
    assert ask(server.port, trusting(authority)) == 200
    for connection in stalled:
        connection.settimeout(15)
        try:
            while connection.recv(4096):
                pass
        except ConnectionError:
            pass
        connection.close()
    assert time.monotonic() - started < 14


def test_clients_are_let_in_by_authority_time_and_name(mutual: Running, authority: Authority, folder: Path) -> None:
    assert ask(mutual.port, trusting(authority, authority.client("trainer"))) == 200
    refused = {
        "none": None,
        "over": authority.client("over", days=-1),
        "another name": authority.client("somebody"),
        "a server's": authority.server("trainer-server", names=("trainer",)),
        "another authority's": Authority(folder, "other").client("trainer"),
    }
    for what, client in refused.items():
        assert ask(mutual.port, trusting(authority, client)) is None, what
    assert ask(mutual.port, trusting(authority, authority.client("trainer"))) == 200


def test_grpc_is_inside_the_same_tls(mutual: Running, authority: Authority, folder: Path) -> None:
    import grpc

    def is_live(client: tuple[Path, Path] | None) -> bool:
        given = {} if client is None else {"private_key": client[1].read_bytes(), "certificate_chain": client[0].read_bytes()}
        credentials = grpc.ssl_channel_credentials(authority.path.read_bytes(), **given)
        where = f"localhost:{mutual.card['grpc'].rpartition(':')[2]}"
        with grpc.secure_channel(where, credentials) as channel:
            try:
                return bool(channel.unary_unary("/inference.GRPCInferenceService/ServerLive")(b"", timeout=5) == b"\x08\x01")
            except grpc.RpcError as error:
                assert error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
                return False

    assert is_live(authority.client("trainer"))
    assert not is_live(None) and not is_live(authority.client("somebody")) and not is_live(Authority(folder, "third").client("trainer"))
    with grpc.insecure_channel(mutual.card["grpc"]) as channel, pytest.raises(grpc.RpcError):
        channel.unary_unary("/inference.GRPCInferenceService/ServerLive")(b"", timeout=5)


def test_the_command_line_asks_its_own_home_and_others(server: Running, mutual: Running, authority: Authority, tmp_path: Path) -> None:
    rows = tmp_path / "rows.csv"
    rows.write_text("a,b,c\n1,2,3\n")
    certificate, key = authority.client("trainer")
    environment = pytest.MonkeyPatch()
    try:
        environment.setenv("MODELYARD_TLS_CERT_FILE", str(authority.folder / "served.crt"))
        environment.setenv("MODELYARD_TLS_KEY_FILE", str(authority.folder / "served.key"))
        assert main(["predict", "line", "--data", str(rows), "--home", str(server.home.folder)]) == 0
        for url, flags, code in (
            (server.url, ["--cacert", str(authority.path)], 0),
            (server.url, [], 8),
            (mutual.url, ["--cacert", str(authority.path)], 8),
            (mutual.url, ["--cacert", str(authority.path), "--cert", str(certificate), "--cert-key", str(key)], 0),
            (mutual.url, ["--cacert", str(rows)], 2),
        ):
            assert main(["predict", "line", "--data", str(rows), "--url", url, *flags]) == code, (url, flags)
    finally:
        environment.undo()


def test_the_printed_line_works(server: Running, component: Callable[[str], str]) -> None:
    component("curl")
    line = server.card["models"][0]["curl"]
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=20, check=False)
    assert "predictions" in done.stdout or '"name":"line"' in done.stdout, (line, done.stdout, done.stderr)


def test_certificates_are_rotated_under_load_without_a_failure(folder: Path, authority: Authority) -> None:
    certificate, key = authority.server("rotated")
    home = home_with(folder / "r", "line")
    body = json.dumps({"inputs": line_row()}).encode()
    post = b"POST /v2/models/line/infer HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    statuses: list[int | None] = []
    seen: set[int] = set()
    over = threading.Event()
    with running(home, workers=2, settings={"tls_cert_file": certificate, "tls_key_file": key}) as server:

        def load() -> None:
            context = trusting(authority)
            while not over.is_set():
                statuses.append(ask(server.port, context, post))

        def shown() -> int:
            with server.connect() as plain, trusting(authority).wrap_socket(plain, server_hostname="localhost") as secure:
                return hash(secure.getpeercert(binary_form=True))

        kept = socket.create_connection(("127.0.0.1", server.port), timeout=15)
        with trusting(authority).wrap_socket(kept, server_hostname="localhost") as old:
            threads = [threading.Thread(target=load) for _ in range(3)]
            for thread in threads:
                thread.start()
            seen.add(shown())
            for _ in range(5):
                made = authority.server("next")
                for target, source in zip((certificate, key), made, strict=True):
                    os.replace(source, target)
                until, before = time.monotonic() + 10, len(seen)
                while len(seen) == before and time.monotonic() < until:
                    seen.add(shown())
            certificate.write_text("no certificate")
            time.sleep(1)
            assert shown() in seen, "the last good pair goes on"
            over.set()
            for thread in threads:
                thread.join()
            old.sendall(ASK)
            assert read_answer(old.makefile("rb")) is not None, "a connection from before every rotation is still open"
        assert len(seen) >= 6
        assert statuses and set(statuses) == {200}
        assert "holds no certificate" in server.log.read_text()
        assert "Traceback" not in server.log.read_text()
