"""Who gets an answer without the right: every route of the data plane, by every method and spelling, without a key and with the least of them."""

from __future__ import annotations

import itertools
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from modelyard.security.audit import AuditLog, FileLines
from modelyard.security.identity import mint, new
from modelyard.security.keys import FileKeys
from serving import Home, Running, home_with, line_row, read_answer, running

PUBLIC = {"/", "/ping", "/health", "/healthz/live", "/healthz/ready", "/v2/health/live", "/v2/health/ready"}
"""What answers whoever asks. A route that joins them does so here, in as many words."""

NAMED = (
    "/v2/models/line", "/v2/models/line/ready", "/v2/models/line/infer", "/v2/models/line/versions/1/infer", "/v2/repository/models/line/load",
    "/v2/repository/models/line/unload", "/v1/models/line", "/v1/models/line:predict", "/v1/models/line:explain", "/v1/models/line/metadata",
    "/v1/models/line/labels/champion:predict", "/models/line", "/models/line/invoke", "/nothing", "/v2/models/none/infer",
)  # fmt: skip
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    return home_with(tmp_path_factory.mktemp("census") / "h", "line")


@pytest.fixture(scope="module")
def keys(home: Home) -> dict[str, str]:
    made = {
        role: new(role, roles=(role,), models=models) for role, models in (("auditor", ()), ("invoker", ("other",)), ("viewer", ()), ("admin", ()))
    }
    for _, record in made.values():
        FileKeys(home.folder / "keys" / "access.json").put(record)
    return {role: key for role, (key, _) in made.items()}


@pytest.fixture(scope="module")
def server(home: Home, keys: dict[str, str]) -> Iterator[Running]:
    assert keys
    with running(home, "--host", "0.0.0.0") as server:
        yield server


def fixed_paths() -> set[str]:
    """Every path without a name that the families of routes have."""
    from modelyard.serve import routes

    class Any_:
        def __getattr__(self, name: str) -> object:
            return Any_() if name == "settings" else (lambda *_: None) if not name.endswith("_route") else ""

    return {path for family in routes.ROUTES for path in family(Any_()).fixed}  # type: ignore[arg-type]


def spellings(path: str) -> set[str]:
    """The path as it is, and as somebody writes it who looks for a way around."""
    tricks = {
        path,
        path + "/",
        path + "?x=1",
        path + "%2F",
        "/" + path,
        path.upper(),
        path.replace("/", "/./"),
        path + ";a",
        path + "/..",
        path + "%00",
    }
    return tricks | {f"/%{ord(path[1]):02x}{path[2:]}" if len(path) > 1 else path, f"http://localhost{path}"}


def statuses(
    server: Running, wanted: list[tuple[str, str]], key: str | None, *, host: str = "localhost", more: str = ""
) -> dict[tuple[str, str], int]:
    """What each (method, path) answers, on one connection as long as it lasts."""
    found: dict[tuple[str, str], int] = {}
    left = list(wanted)
    while left:
        with server.connect() as connection, connection.makefile("rb") as stream:
            while left:
                method, path = left[0]
                authorization = "" if key is None else f"Authorization: Bearer {key}\r\n"
                connection.sendall(f"{method} {path} HTTP/1.1\r\nHost: {host}\r\n{authorization}{more}Content-Length: 0\r\n\r\n".encode())
                if method == "HEAD":
                    line = stream.readline()
                    found[left.pop(0)] = int(line.split()[1])
                    break  # its body does not come; a new connection is simpler than knowing so
                answer = read_answer(stream)
                assert answer is not None
                found[left.pop(0)] = answer.status
                if answer.headers.get("connection") == "close":
                    break
    return found


def test_every_route_wants_a_key_but_the_public_ones(server: Running) -> None:
    paths = fixed_paths() - {""}
    assert paths > PUBLIC and "/metrics" in paths and "/models" in paths
    closed = sorted(set(itertools.chain.from_iterable(spellings(path) for path in (*(paths - PUBLIC), *NAMED))))
    for (method, path), status in statuses(server, [(method, path) for path in closed for method in METHODS], None).items():
        assert status in (400, 401), (method, path, status)
    for path in PUBLIC:
        assert statuses(server, [("GET", path)], None) == {("GET", path): 200}


def test_the_census_can_fail(tmp_path: Path) -> None:
    with running(home_with(tmp_path / "h", "line"), "--host", "0.0.0.0", "--insecure") as open_to_all:
        found = statuses(
            open_to_all, [("GET", "/v2/models"), ("GET", "/metrics"), ("GET", "/v2/models/line"), ("POST", "/v2/repository/models/line/load")], None
        )
    assert list(found.values()) == [200, 200, 200, 403], "without the defence all but loading is open"


def test_a_key_without_the_right_is_refused_everywhere(server: Running, keys: dict[str, str]) -> None:
    closed = [(method, path) for path in (*sorted(fixed_paths() - PUBLIC - {""}), *NAMED) for method in METHODS]
    assert set(statuses(server, closed, keys["auditor"]).values()) == {403}
    named = [(method, path) for method, path in closed if "/line" in path]
    found = statuses(server, named, keys["invoker"])
    assert {found[each] for each in named if "models/line" in each[1]} <= {403, 404, 405}, "no model but its own"
    assert found["POST", "/v2/models/line/infer"] == found["POST", "/models/line/invoke"] == found["GET", "/v2/models/line"] == 403
    assert statuses(server, [("POST", "/invocations")], keys["invoker"]) == {("POST", "/invocations"): 403}
    assert statuses(server, [("GET", "/metrics")], keys["invoker"]) == {("GET", "/metrics"): 403}
    for path in ("/v2/repository/models/line/load", "/v2/repository/models/line/unload"):
        assert statuses(server, [("POST", path)], keys["viewer"]) == {("POST", path): 403}


def test_foreign_pages_and_hosts_are_refused(server: Running, keys: dict[str, str], tmp_path: Path) -> None:
    open_routes = [("GET", "/v2/models"), ("POST", "/v2/models/line/infer"), ("GET", "/metrics")]
    for origin in ("http://evil.example", "null", "http://localhost:1", "https://localhost.evil.example"):
        found = statuses(server, open_routes, keys["admin"], more=f"Origin: {origin}\r\n")
        assert set(found.values()) == {403}, origin
    with running(home_with(tmp_path / "h", "line")) as local:
        for host in ("evil.example", f"evil.example:{local.port}", "127.0.0.1.evil.example"):
            assert set(statuses(local, open_routes, None, host=host).values()) == {403}, host
        assert statuses(local, open_routes[:1], None, more="Origin: http://evil.example\r\n") == {open_routes[0]: 403}
        assert statuses(local, open_routes[:1], None, host=f"127.0.0.1:{local.port}") == {open_routes[0]: 200}


def test_ten_thousand_wrong_keys_let_nobody_in_and_hold_nobody_up(server: Running, home: Home, keys: dict[str, str]) -> None:
    rounds, guessers = 250, 40
    told: Counter[int | None] = Counter()
    over = threading.Event()

    def guess() -> None:
        with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection, connection.makefile("rb") as stream:
            for _ in range(rounds):
                if over.is_set():
                    return
                head = f"GET /v2/models HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {mint()}\r\n\r\n"
                connection.sendall(head.encode())
                answer = read_answer(stream)
                told[None if answer is None else answer.status] += 1

    threads = [threading.Thread(target=guess) for _ in range(guessers)]
    for thread in threads:
        thread.start()
    for _ in range(200):
        answer = server.ask("POST", "/v2/models/line/infer", {"inputs": line_row()}, headers={"Authorization": f"Bearer {keys['admin']}"})
        assert answer.status == 200
    guessed = sum(told.values())
    over.set()
    for thread in threads:
        thread.join()
    assert set(told) == {401}
    assert guessed < rounds * guessers, "those who guess are held back; those with a key are not"
    entries = [entry for entry in AuditLog(FileLines(home.folder / "audit.jsonl")).entries() if entry.outcome == "denied"]
    assert entries and AuditLog(FileLines(home.folder / "audit.jsonl")).verify() >= len(entries)
    text = (home.folder / "audit.jsonl").read_text() + server.log.read_text()
    assert "my_" not in text, "no key, right or wrong, is written down"
