"""The issuer's keys, against a real server: discovery, rotation, its absence, and what it may not make the home do."""

from __future__ import annotations

import json
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from issuing import Issuer as Real
from issuing import Signing
from issuing import issuer as running

from modelyard import config
from modelyard.config import Settings
from modelyard.errors import DeadlineExceeded, ModelyardError, Unavailable
from modelyard.security import issuer as module
from modelyard.security.issuer import AGAIN_S, Issuer


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def real() -> Iterator[Real]:
    with running() as made:
        yield made


@pytest.fixture
def made(real: Real, tmp_path: Path) -> Callable[..., Issuer]:
    def make(clock: Clock | None = None, **more: Any) -> Issuer:
        return Issuer(settings(real, tmp_path, **more), clock=clock or Clock())

    return make


def settings(real: Real, home: Path, **more: Any) -> Settings:
    return config.load({"home": home, **real.settings(), **more})


def wait_until(is_so: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_keys_are_where_the_discovery_document_says(real: Real, made: Callable[..., Issuer]) -> None:
    issuer = made()
    with pytest.raises(Unavailable, match="not known yet"):
        issuer.key("k1")
    issuer.look()
    found = issuer.key("k1")
    assert found is not None and found.algorithm == "RS256" and issuer.key("k2") is None
    assert real.asked == ["/.well-known/openid-configuration", "/jwks"]
    state = issuer.state
    assert (state.issuer, state.keys, state.trouble) == (real.url, 1, None)
    assert state.good_until is not None and state.confirmed_at is not None and state.good_until - state.confirmed_at == 86_400


def test_keys_at_a_url_or_in_a_file_need_no_discovery(real: Real, made: Callable[..., Issuer], tmp_path: Path) -> None:
    by_url = made(oidc_keys_url=f"{real.url}/jwks")
    by_url.look()
    assert real.asked == ["/jwks"] and by_url.key("k1") is not None
    path = tmp_path / "keys.json"
    path.write_bytes(real.set())
    by_file = made(oidc_keys_file=str(path))
    by_file.look()
    assert real.asked == ["/jwks"] and by_file.key("k1") is not None
    path.write_text('{"keys": []}')
    by_file.look()
    assert by_file.key("k1") is None


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_keys_in_a_file_that_others_may_change_are_not_believed(real: Real, made: Callable[..., Issuer], tmp_path: Path, mode: int) -> None:
    """Who writes that file makes tokens."""
    path = tmp_path / "keys.json"
    path.write_bytes(real.set())
    path.chmod(mode)
    issuer = made(oidc_keys_file=str(path))
    assert issuer._turn() == module.FILE_EVERY_S and "changed by other users" in (issuer.state.trouble or "")
    with pytest.raises(Unavailable):
        issuer.key("k1")
    path.chmod(0o644)
    issuer.look()
    assert issuer.key("k1") is not None and issuer.state.trouble is None
    path.write_bytes(json.dumps({"keys": [Signing("mallory").jwk()]}).encode())
    path.chmod(mode)
    issuer._turn()
    assert issuer.key("k1") is not None, "what was good before is believed on, for as long as it may be"
    with pytest.raises(Unavailable):
        issuer.key("mallory")


def test_a_key_that_is_withdrawn_is_believed_no_longer(real: Real, made: Callable[..., Issuer]) -> None:
    issuer = made()
    issuer.look()
    real.keys = [Signing("k2", "ES256")]
    issuer.look()
    assert issuer.key("k1") is None and issuer.key("k2") is not None
    real.keys = []
    issuer.look()
    assert issuer.key("k2") is None, "a set without keys is what the issuer says"


def test_last_good_keys_serve_while_it_is_away_for_so_long_and_no_longer(real: Real, made: Callable[..., Issuer]) -> None:
    clock = Clock()
    issuer = made(clock, oidc_keys_max_age_s=100)
    issuer.look()
    real.status = 500
    clock.now += 100
    with pytest.raises(Unavailable, match="500"):
        issuer.look()
    assert issuer.key("k1") is not None
    clock.now += 0.1
    with pytest.raises(Unavailable, match="away for longer"):
        issuer.key("k1")
    real.status = 200
    issuer.look()
    assert issuer.key("k1") is not None


def test_they_are_kept_over_a_restart_with_their_age(
    real: Real, made: Callable[..., Issuer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made().look()
    path = tmp_path / "keys/issuer.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    real.status = 500
    again = made(oidc_keys_max_age_s=1000)
    assert again.key("k1") is not None and again.state.keys == 1
    kept = json.loads(path.read_bytes())
    path.write_text(json.dumps({**kept, "confirmed_at": kept["confirmed_at"] - 1001}))
    with pytest.raises(Unavailable, match="away for longer"):
        made(oidc_keys_max_age_s=1000).key("k1")
    path.write_text(json.dumps({**kept, "confirmed_at": kept["confirmed_at"] + 1e9}))
    assert made(oidc_keys_max_age_s=1000).state.confirmed_at == pytest.approx(time.time(), abs=5), "a time to come makes no key younger than now"


@pytest.mark.parametrize("spoil", ["mode", "form", "issuer", "source", "jwks"])
def test_what_is_kept_of_another_or_by_another_is_not_believed(made: Callable[..., Issuer], tmp_path: Path, spoil: str) -> None:
    made().look()
    path = tmp_path / "keys/issuer.json"
    if spoil == "mode":
        path.chmod(0o666)
    elif spoil == "form":
        path.write_bytes(path.read_bytes()[:-9])
    else:
        path.write_text(json.dumps({**json.loads(path.read_bytes()), spoil: "https://other.example"}))
    with pytest.raises(Unavailable, match="not known yet"):
        made().key("k1")


def redirected(real: Real) -> None:
    real.status, real.headers = 302, {"location": f"{real.url}/jwks"}


def elsewhere(place: str) -> Callable[[Real], None]:
    return lambda real: real.document.update(jwks_uri=place)


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (redirected, "redirect"),
        (lambda real: real.document.update(issuer="https://other.example"), "another issuer"),
        (lambda real: real.document.update(issuer=f"{real.url}/"), "another issuer"),
        (lambda real: real.document.pop("jwks_uri"), "no discovery document"),
        (lambda real: real.document.update(jwks_uri=["x"]), "no discovery document"),
        (elsewhere("http://192.0.2.1/jwks"), "not https"),
        (elsewhere("file:///etc/passwd"), "not https"),
        (elsewhere("https://user:secret@login.example/"), "not https"),
        (lambda real: setattr(real, "status", 404), "404"),
        (lambda real: setattr(real, "body", b"no json"), "no JSON Web Key Set"),
        (lambda real: setattr(real, "body", b" " * (300 << 10)), "256 KiB"),
        (lambda real: real.document.update(more="x" * (70 << 10)), "64 KiB"),
    ],
)
def test_what_it_may_not_say_or_lead_to(real: Real, made: Callable[..., Issuer], spoil: Callable[[Real], Any], why: str) -> None:
    issuer = made()
    issuer.look()
    spoil(real)
    with pytest.raises(ModelyardError, match=why) as refused:
        issuer.look()
    assert issuer.key("k1") is not None, "what was good is believed on"
    assert "secret" not in refused.value.message


def test_a_document_over_https_does_not_lead_to_http(real: Real, made: Callable[..., Issuer], monkeypatch: pytest.MonkeyPatch) -> None:
    issuer = made(oidc_issuer="https://login.example")
    asked = []

    def answer(url: str, limit_bytes: int) -> bytes:
        asked.append(url)
        return json.dumps({"issuer": "https://login.example", "jwks_uri": f"{real.url}/jwks"}).encode()

    monkeypatch.setattr(issuer, "_get", answer)
    with pytest.raises(Unavailable, match="not https"):
        issuer.look()
    assert asked == ["https://login.example/.well-known/openid-configuration"]


def test_one_that_trickles_is_given_up(real: Real, made: Callable[..., Issuer], monkeypatch: pytest.MonkeyPatch) -> None:
    issuer = made(oidc_keys_url=f"{real.url}/jwks")
    issuer.look()
    monkeypatch.setattr(module, "TIMEOUT_S", 0.3)
    real.trickles = True
    with pytest.raises(DeadlineExceeded):
        issuer.look()


def test_an_unknown_key_is_looked_for_once_however_many_ask(real: Real, made: Callable[..., Issuer]) -> None:
    with made() as issuer:
        first = issuer.coming("k1")
        assert first is not None
        first.result(10)
        wait_until(lambda: issuer.coming("k1") is None)
        real.keys.insert(0, Signing("k2", "ES256"))
        real.asked.clear()
        real.hold.clear()
        waiting = [issuer.coming("k2") for _ in range(50)]
        assert len(set(map(id, waiting))) == 1 and waiting[0] is not None and not waiting[0].done()
        real.hold.set()
        waiting[0].result(10)
        assert issuer.key("k2") is not None and real.asked == ["/.well-known/openid-configuration", "/jwks"]


def test_looks_that_tokens_ask_for_are_some_seconds_apart(real: Real, made: Callable[..., Issuer]) -> None:
    clock = Clock()
    with made(clock) as issuer:
        wait_until(lambda: issuer.state.keys == 1)
        wait_until(lambda: issuer._coming is None)
        real.asked.clear()
        asked = issuer.coming("nobody-0")
        assert asked is not None
        asked.result(10)
        for number in range(100):
            assert issuer.coming(f"nobody-{number}") is None
        assert len(real.asked) == 2
        clock.now += AGAIN_S
        again = issuer.coming("nobody")
        assert again is not None
        again.result(10)
        assert len(real.asked) == 4


def test_a_turn_that_fails_is_told_and_not_the_last(real: Real, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "AWAY_S", 0.02)
    monkeypatch.setattr(module, "EVERY_S", 0.02)
    told: list[str] = []
    well: list[int] = []
    real.status = 503
    with Issuer(settings(real, tmp_path), failed=lambda error: told.append(error.message), went_well=lambda: well.append(1)) as issuer:
        wait_until(lambda: len(told) > 1)
        assert "503" in told[0] and "no token is accepted" in told[0] and issuer.state.trouble is not None
        real.status = 200
        wait_until(lambda: bool(well))
        assert issuer.key("k1") is not None and issuer.state.trouble is None
        real.status = 500
        told.clear()
        wait_until(lambda: bool(told))
        assert "believed until" in told[0]
        with pytest.raises(Unavailable, match="none of its last"):
            issuer.key("k2")


def test_an_end_does_not_wait_for_it(real: Real, made: Callable[..., Issuer]) -> None:
    real.hold.clear()
    with made() as issuer:
        wait_until(lambda: bool(real.asked))
        coming = issuer.coming("k1")
    assert coming is not None and not coming.done()
