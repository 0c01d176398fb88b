"""Who is let in on the data plane: keys, their roles and models and end, and what a browser may do."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from modelyard.config import Settings
from modelyard.errors import Forbidden, InvalidConfig, NotFound, Unauthenticated
from modelyard.security import keys
from modelyard.security.identity import fingerprint, mint, new
from modelyard.security.keys import FileKeys
from modelyard.security.policy import INVOKE, LOAD, METRICS, SEE
from modelyard.security.uses import last_uses
from modelyard.serve import access
from modelyard.serve.access import ANYONE, ANYONE_HERE, BURST, HOLD_BACK_S, Access, is_loopback, require_keys, wants_key


def settings(tmp_path: Path, **more: object) -> Settings:
    return msgspec.structs.replace(Settings(home=tmp_path, host="0.0.0.0"), **more)


def add(tmp_path: Path, *roles: str, models: tuple[str, ...] = (), expires_in_s: float | None = None) -> bytes:
    expires_at = None if expires_in_s is None else datetime.now(UTC) + timedelta(seconds=expires_in_s)
    key, record = new("somebody", roles=roles, models=models, expires_at=expires_at)
    FileKeys(settings(tmp_path).access_keys).put(record)
    return b"Bearer " + key.encode()


def renewed(held: Access) -> Access:
    assert held.is_stale
    held.take(held.read())
    return held


def test_a_known_key_passes_and_others_do_not(tmp_path: Path) -> None:
    key = add(tmp_path, "invoker")
    held = Access(settings(tmp_path))
    caller = held.caller(key)
    assert caller.principal.roles == ("invoker",) and caller.principal.name.startswith("key:") and caller is held.caller(key)
    assert held.caller(b"bearer" + key[6:]).principal == caller.principal
    for given in (b"", b"Bearer", b"Bearer ", b"Bearer three", b"Basic" + key[6:], key[7:], key + b" two", b"Bearer " + mint().encode(), key[:-1]):
        with pytest.raises(Unauthenticated):
            held.caller(given)


def test_a_token_of_an_issuer_is_told_that_it_is_none_of_ours(tmp_path: Path) -> None:
    with pytest.raises(Unauthenticated, match="tokens are the control plane's alone"):
        Access(settings(tmp_path)).caller(b"Bearer eyJhbGciOiJSUzI1NiJ9.e30.c2ln")
    assert Access(settings(tmp_path, host="127.0.0.1")).caller(b"Bearer eyJhbGciOiJSUzI1NiJ9.e30.c2ln") is ANYONE_HERE, "a platform's own"


@pytest.mark.parametrize(
    ("role", "may"),
    [
        ("viewer", {SEE, METRICS}),
        ("invoker", {SEE, INVOKE}),
        ("operator", {SEE, INVOKE, METRICS, LOAD}),
        ("admin", {SEE, INVOKE, METRICS, LOAD}),
        ("auditor", set()),
        ("unheard-of", set()),
    ],
)
def test_a_role_may_do_what_the_table_says(tmp_path: Path, role: str, may: set[str]) -> None:
    caller = _caller(tmp_path, role)
    for right in (SEE, INVOKE, METRICS, LOAD):
        if right in may:
            caller.require(right)
        else:
            with pytest.raises(Forbidden, match="no role"):
                caller.require(right)


def _caller(tmp_path: Path, *roles: str, models: tuple[str, ...] = ()) -> access.Caller:
    key = add(tmp_path, *roles, models=models)
    return Access(settings(tmp_path)).caller(key)


def test_a_key_for_some_models_is_for_no_other(tmp_path: Path) -> None:
    caller = _caller(tmp_path, "admin", models=("churn", "line"))
    caller.require(INVOKE, "churn")
    caller.require_model("line")
    assert caller.sees("churn") and not caller.sees("shop")
    for refused in (lambda: caller.require(INVOKE, "shop"), lambda: caller.require_model("shop"), caller.require_all):
        with pytest.raises(Forbidden) as error:
            refused()
        assert error.value.rule == "grant" and "shop" not in error.value.message
    everything = _caller(tmp_path, "admin")
    everything.require_model("shop")
    everything.require_all()


def test_a_use_is_noted_whenever_a_caller_is_asked_about_and_again_each_epoch(tmp_path: Path) -> None:
    key = add(tmp_path, "invoker")
    held = Access(settings(tmp_path), process="worker-3")
    (tmp_path / "run").mkdir()
    held.caller(key)
    held.uses.write()
    (before,) = last_uses(tmp_path / "run").items()
    assert before[0] == held.caller(key).id and (tmp_path / "run/used-worker-3.json").exists()
    epoch, caller = held.epoch, held.caller(key)
    held.forget_decisions()
    assert held.epoch == epoch + 1 and held.caller(key) is caller


def test_a_revoked_key_and_an_expired_one_end_the_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key, brief = add(tmp_path, "invoker"), add(tmp_path, "invoker", expires_in_s=3600)
    held = Access(settings(tmp_path))
    held.caller(key)
    held.caller(brief)
    assert not held.is_stale
    epoch, now = held.epoch, time.time()
    monkeypatch.setattr("modelyard.serve.access.time.time", lambda: now + 3601)
    assert renewed(held).epoch == epoch + 1 and not held.is_stale
    with pytest.raises(Unauthenticated):
        held.caller(brief)
    held.caller(key)
    FileKeys(settings(tmp_path).access_keys).remove(fingerprint(key[7:].decode())[:12])
    with pytest.raises(Unauthenticated):
        renewed(held).caller(key)


def test_a_key_that_was_just_made_is_good_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held = Access(settings(tmp_path))
    epoch = held.epoch
    key = add(tmp_path, "invoker")
    with pytest.raises(Unauthenticated):
        held.caller(b"")
    assert held.caller(key).principal.roles == ("invoker",) and held.epoch > epoch
    monkeypatch.setattr(access, "READ_AT_ONCE_BYTES", 0)
    later, epoch = add(tmp_path, "invoker"), held.epoch
    with pytest.raises(Unauthenticated):
        held.caller(later)
    assert held.epoch == epoch, "a large file waits for the next look, in a thread"
    renewed(held).caller(later)


def test_a_file_that_cannot_be_read_or_has_gone_leaves_no_key(tmp_path: Path) -> None:
    key = add(tmp_path, "invoker")
    held, path = Access(settings(tmp_path)), settings(tmp_path).access_keys
    text = path.read_text()
    for change in (lambda: path.write_text("nonsense"), path.unlink):
        change()
        with pytest.raises(Unauthenticated):
            renewed(held).caller(key)
        path.write_text(text)
        path.chmod(0o600)
        renewed(held).caller(key)


def test_a_change_while_the_file_is_read_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key, real = add(tmp_path, "invoker"), keys.read
    path = settings(tmp_path).access_keys

    def read_then_revoke(place: Path) -> object:
        found = real(place)
        path.write_text('{"format": 1, "keys": []}')
        return found

    monkeypatch.setattr(keys, "read", read_then_revoke)
    held = Access(settings(tmp_path))
    monkeypatch.setattr(keys, "read", real)
    with pytest.raises(Unauthenticated):
        renewed(held).caller(key)


@pytest.mark.parametrize(
    "body",
    [
        '[{"id":"a","sha256":"zz","name":"n","roles":[],"created_at":""}]',
        '[{"id":"a","sha256":"aa","name":"n","roles":[],"created_at":"","expires_at":"soon"}]',
    ],
)
def test_a_record_that_is_none_is_refused_at_the_start(tmp_path: Path, body: str) -> None:
    path = tmp_path / "file"
    path.write_text(f'{{"format":1,"keys":{body}}}')
    with pytest.raises(InvalidConfig):
        Access(settings(tmp_path, keys_file=str(path)))


def test_when_a_key_is_wanted(tmp_path: Path) -> None:
    assert wants_key(settings(tmp_path)) and wants_key(settings(tmp_path, host="example.org"))
    assert not wants_key(settings(tmp_path, host="127.0.0.1")) and not wants_key(settings(tmp_path, insecure=True))
    assert wants_key(settings(tmp_path, host="127.0.0.1", keys_file="x")) and wants_key(settings(tmp_path, insecure=True, keys_file="x"))


def test_a_server_that_would_let_nobody_in_does_not_start(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match="modelyard keys create") as refused:
        require_keys(settings(tmp_path))
    assert "--insecure" in refused.value.message
    add(tmp_path, "invoker", expires_in_s=-1)
    with pytest.raises(InvalidConfig, match="insecure"):
        require_keys(settings(tmp_path))
    require_keys(settings(tmp_path, insecure=True))
    require_keys(settings(tmp_path, host="::1"))
    with pytest.raises(NotFound):
        require_keys(settings(tmp_path, keys_file=str(tmp_path / "nowhere")))
    add(tmp_path, "invoker")
    require_keys(settings(tmp_path))


@pytest.mark.parametrize("more", [{"host": "127.0.0.1"}, {"insecure": True}])
def test_where_no_key_is_wanted_one_of_ours_must_still_be_valid(tmp_path: Path, more: dict[str, object]) -> None:
    key = add(tmp_path, "viewer", models=("churn",))
    held = Access(settings(tmp_path, **more))
    anyone = ANYONE_HERE if "host" in more else ANYONE
    assert held.caller(b"") is anyone
    for foreign in (b"Basic dTpw", b"Bearer eyJhbGciOi.a.b", b"Bearer"):
        assert held.caller(foreign) is anyone, "a platform's own credentials mean nothing here"
    assert held.caller(key).models == {"churn"}
    for wrong in (b"Bearer " + mint().encode(), b"Bearer my_", b"Basic" + key[6:]):
        with pytest.raises(Unauthenticated):
            held.caller(wrong)


@pytest.mark.parametrize(
    "host", [b"localhost", b"LOCALHOST:8080", b"127.0.0.1:9", b"[::1]:8080", b"model.localhost", b"localhost.:80", b"", b"churn.example"]
)
def test_local_hosts_are_served_on_loopback(tmp_path: Path, host: bytes) -> None:
    held = Access(settings(tmp_path, host="127.0.0.1", allowed_hosts="other.example, Churn.Example"))
    assert held.caller(b"", host=host) is ANYONE_HERE


@pytest.mark.parametrize("host", [b"evil.example:8080", b"localhost.evil.example", b"127.0.0.1.evil.example", b"10.0.0.1", b"x", b"[fe80::1]"])
def test_another_host_is_refused_on_loopback_but_not_with_a_key(tmp_path: Path, host: bytes) -> None:
    key = add(tmp_path, "invoker")
    held = Access(settings(tmp_path, host="127.0.0.1"))
    with pytest.raises(Forbidden, match="Host"):
        held.caller(b"", host=host)
    held.caller(key, host=host)
    assert Access(settings(tmp_path, insecure=True)).caller(b"", host=host) is ANYONE


@pytest.mark.parametrize(
    ("origin", "host", "is_own"),
    [
        (b"http://localhost:8080", b"localhost:8080", True),
        (b"https://churn.example", b"churn.example", True),
        (b"https://churn.example", b"churn.example:443", True),
        (b"http://named.example:1", b"127.0.0.1:8080", True),
        (b"http://localhost:3000", b"localhost:8080", False),
        (b"http://evil.example", b"localhost:8080", False),
        (b"null", b"null", False),
        (b"file://", b"", False),
        (b"http://", b"", False),
    ],
)
def test_pages_of_other_origins_may_not_ask(tmp_path: Path, origin: bytes, host: bytes, is_own: bool) -> None:
    key = add(tmp_path, "invoker")
    for held in (Access(settings(tmp_path, insecure=True, allowed_hosts="named.example")), Access(settings(tmp_path, allowed_hosts="named.example"))):
        if is_own:
            held.caller(key, host=host, origin=origin)
        else:
            with pytest.raises(Forbidden, match="origin"):
                held.caller(key, host=host, origin=origin)


def test_whoever_has_no_key_may_not_load_from_elsewhere_unless_told(tmp_path: Path) -> None:
    Access(settings(tmp_path, host="127.0.0.1")).caller(b"").require(LOAD, "m")
    Access(settings(tmp_path, insecure=True, insecure_loading=True)).caller(b"").require(LOAD, "m")
    with pytest.raises(Forbidden):
        Access(settings(tmp_path, insecure=True)).caller(b"").require(LOAD, "m")
    with pytest.raises(Unauthenticated):
        Access(settings(tmp_path, insecure_loading=True)).caller(b"")


def test_wrong_keys_are_answered_late_once_they_are_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("modelyard.serve.access.time.monotonic", lambda: now)
    held = Access(settings(tmp_path))
    waits = [held.hold_back_s() for _ in range(BURST + 5)]
    assert waits == [0.0] * BURST + [HOLD_BACK_S] * 5
    now += 0.125
    assert [held.hold_back_s() for _ in range(3)] == [0.0, 0.0, HOLD_BACK_S]


def test_the_keys_file_of_the_older_form_is_read(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text(f"{fingerprint('secret')} somebody\n")
    caller = Access(settings(tmp_path, keys_file=str(path))).caller(b"Bearer secret")
    caller.require(INVOKE, "anything")
    caller.require(METRICS)
    with pytest.raises(Forbidden):
        caller.require(LOAD)


@pytest.mark.parametrize(
    ("host", "only_here"), [("127.0.0.1", True), ("localhost", True), ("::1", True), ("127.9.9.9", True), ("0.0.0.0", False), ("example.org", False)]
)
def test_loopback(host: str, only_here: bool) -> None:
    assert is_loopback(host) is only_here
