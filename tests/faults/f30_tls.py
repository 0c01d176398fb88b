"""Fault 30: who must not get in by TLS, and new certificates under load."""

from __future__ import annotations

import os
import socket
import ssl
import time
import warnings
from pathlib import Path

from certificates import Authority
from tests.faults import probes, scene
from tests.faults.judge import Control, Fault
from tests.faults.scene import Scene, Server

from serving import read_answer

ASK = b"GET /v2/models HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
STALLED, ROTATIONS = 50, 4


def run(scene_: Scene) -> None:
    folder = scene_.folder / "tls"
    folder.mkdir()
    authority = Authority(folder)
    certificate, key = authority.server("served")
    settings = {"tls_cert_file": certificate, "tls_key_file": key, "tls_client_ca_file": authority.path, "tls_client_names": "trainer"}
    with scene_.server(scene_.home("line"), settings=settings, mark=False) as server:
        server.is_ended = True  # health is asked for in the clear by others; here it is asked with the right certificate
        _strangers(scene_, server, authority, folder)
    if scene_.without in {"", "rotation beside"}:
        _rotation(scene_, authority)


def _strangers(scene_: Scene, server: Server, authority: Authority, folder: Path) -> None:
    good = authority.client("trainer")
    kinds: dict[str, tuple[Path, Path] | None] = {
        "no certificate": None,
        "an expired one": authority.client("over", days=-1),
        "another name's": authority.client("somebody"),
        "a server's": authority.server("trainer-server", names=("trainer",)),
        "another authority's": _other(folder).client("trainer"),
    }
    accepted, longest = [], 0.0
    for name, client in kinds.items():
        status, seconds = _ask(server, _context(authority, client))
        longest = max(longest, seconds)
        if status is not None:
            accepted.append(name)
    for version in (ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1):
        old = _context(authority, good)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            old.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
            old.maximum_version = version
        old.set_ciphers("ALL:@SECLEVEL=0")
        status, seconds = _ask(server, old)
        longest = max(longest, seconds)
        if status is not None:
            accepted.append(version.name)
    stalled = [server.connect(15) for _ in range(STALLED)]
    began = time.monotonic()
    for number, connection in enumerate(stalled):
        if number % 2:
            connection.sendall(b"\x16\x03\x01\x02\x00\x01\x00")
    with server.connect(15) as plain:
        plain.sendall(ASK)
        if b"HTTP/1.1 200" in _rest(plain):
            accepted.append("plain text")
    works = [_ask(server, _context(authority, good))[0] for _ in range(3)] if not scene_.is_control else []
    for connection in stalled if not scene_.is_control else []:
        _rest(connection)
    stalled_s = time.monotonic() - began
    for connection in stalled:
        connection.close()
    scene_.item("accepted", len(accepted), 0, exact=True, note=", ".join(accepted) or f"{len(kinds) + 3} kinds of callers")
    scene_.item("refused_after", longest, 10, "s")
    if not scene_.is_control:
        scene_.item("stalled_closed", stalled_s, 10, "s", note=f"the last of {STALLED} handshakes that stop half-way")
        scene_.item("good_refused", sum(status != 200 for status in works), 0, exact=True, note="the right certificate, meanwhile")


def _rotation(scene_: Scene, authority: Authority) -> None:
    certificate, key = authority.server("rotated")
    traffic = scene.line(count=8)
    with scene_.server(scene_.home("line"), workers=2, settings={"tls_cert_file": certificate, "tls_key_file": key}, mark=False) as server:
        server.is_ended = True
        rounds = 2 if scene_.is_control else ROTATIONS
        loading = server.load(traffic, connections=8, seconds=60, rate=100, reconnects=True, ca_file=str(authority.path))
        serials = {_serial(server, authority)}
        for _ in range(rounds):
            before = _serial(server, authority)
            fresh = authority.server("fresh")
            os.replace(fresh[1], key)
            os.replace(fresh[0], certificate)
            probes.wait(lambda before=before: _serial(server, authority) != before, 8, 0.1)
            time.sleep(1.0)
            serials.add(_serial(server, authority))
        tally = loading.end(now=True)
        scene_.item("rotation_failures", tally.sent - tally.good, 0, exact=True, note=f"of {tally.sent:,}, each on a connection of its own")
        scene_.item("rotations_seen", len(serials) - 1, rounds, better="higher", exact=True)


def _other(folder: Path) -> Authority:
    elsewhere = folder / "other"
    elsewhere.mkdir()
    return Authority(elsewhere, "other")


def _context(authority: Authority, client: tuple[Path, Path] | None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=authority.path)
    if client is not None:
        context.load_cert_chain(*client)
    return context


def _ask(server: Server, context: ssl.SSLContext) -> tuple[int | None, float]:
    """The status over TLS, None when there is none, and the seconds."""
    began = time.monotonic()
    try:
        with server.connect(15) as plain, context.wrap_socket(plain, server_hostname="localhost") as secure:
            secure.sendall(ASK)
            with secure.makefile("rb") as stream:
                answer = read_answer(stream)
        return (None if answer is None else answer.status), time.monotonic() - began
    except (ssl.SSLError, OSError):
        return None, time.monotonic() - began


def _rest(connection: socket.socket) -> bytes:
    data = b""
    try:
        while more := connection.recv(4096):
            data += more
    except OSError:
        pass
    return data


def _serial(server: Server, authority: Authority) -> str:
    try:
        with server.connect(5) as plain, _context(authority, None).wrap_socket(plain, server_hostname="localhost") as secure:
            return str((secure.getpeercert() or {}).get("serialNumber"))
    except (ssl.SSLError, OSError):
        return ""


FAULT = Fault(
    number=30,
    name="tls",
    title="TLS: strangers, stalled handshakes, new certificates",
    method=(
        "Plain text, TLS 1.0 and 1.1, no client certificate, an expired one, another name's, a server's, another authority's, and 50 "
        "handshakes that stop half-way. Then four new certificates "
        "while clients ask 100 times a second, each time on a connection of its own."
    ),
    run=run,
    controls=(
        Control(without="client certificates", misses="accepted", text="a server that asks for no certificate."),
        Control(without="rotation beside", misses="rotation_failures", text="a listener whose context is emptied while the new files are read."),
    ),
    headline="accepted",
)
