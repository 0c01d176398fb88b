"""The admin key: made once, private, and void when its file is lost. Who is let in: by a key, or by a token of the home's issuer."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from issuing import issuer

from modelyard import config
from modelyard.client.places import read_admin_key
from modelyard.control.access import admin_key, home_identity, home_issuer, home_keyring
from modelyard.errors import Forbidden, InvalidConfig, NotFound, Unauthenticated, Unavailable
from modelyard.security.identity import mint


def test_the_key_is_made_once_and_kept_private() -> None:
    settings = config.load()
    first, second = admin_key(settings), admin_key(settings)
    assert first.key == first.if_new == second.key and second.if_new is None
    path = settings.home / "keys" / "admin.key"
    assert path.stat().st_mode & 0o777 == 0o600 and read_admin_key(settings) == first.key
    keyring = home_keyring(settings)
    assert keyring.authenticate(first.key).roles == ("admin",)


def test_a_lost_file_means_a_new_key_and_the_old_one_is_void() -> None:
    settings = config.load()
    old = admin_key(settings).key
    (settings.home / "keys" / "admin.key").unlink()
    with pytest.raises(NotFound):
        read_admin_key(settings)
    new = admin_key(settings)
    assert new.if_new not in (None, old)
    keyring = home_keyring(settings)
    assert keyring.authenticate(new.key).name == "key:admin"
    with pytest.raises(Unauthenticated):
        keyring.authenticate(old)


def test_a_file_with_another_key_is_replaced() -> None:
    settings = config.load()
    admin_key(settings)
    (settings.home / "keys" / "admin.key").write_text("my_something\n")
    assert admin_key(settings).if_new is not None


def test_a_key_file_that_others_can_read_is_refused() -> None:
    settings = config.load()
    admin_key(settings)
    (settings.home / "keys" / "admin.key").chmod(0o644)
    with pytest.raises(InvalidConfig, match="read by other users"):
        read_admin_key(settings)


def test_of_several_first_starts_at_once_one_makes_the_key() -> None:
    """Each has its own descriptor of the lock, as processes have."""
    for _ in range(5):
        settings = config.load()
        (settings.home / "keys" / "admin.key").unlink(missing_ok=True)
        together = threading.Barrier(8)

        def start(_: int, settings: config.Settings = settings, together: threading.Barrier = together) -> str:
            together.wait()
            return admin_key(settings).key

        with ThreadPoolExecutor(8) as pool:
            keys = set(pool.map(start, range(8)))
        live = [record for record in home_keyring(settings)._store.all() if record.name == "admin"]
        assert len(keys) == 1 and len(live) == 1 and home_keyring(settings).authenticate(keys.pop()).roles == ("admin",)


def test_a_token_is_its_issuers_subject_with_what_its_groups_may() -> None:
    with issuer() as real:
        settings = config.load(real.settings())
        found = home_issuer(settings, failed=lambda _: None, went_well=lambda: None)
        assert found is not None
        identity = home_identity(settings, found)
        with pytest.raises(Unavailable) as away:
            identity.authenticate(real.token())
        assert away.value.rule == "issuer", "told as it is: no fault of the keys' file"
        found.look()
        who = identity.authenticate(real.token(groups=["ml-ops", "ml-approvers", "others"]))
        assert who.name == f"oidc:{real.url}#ann" and who.roles == ("viewer", "approver", "operator") and who.models == ()
        with pytest.raises(Forbidden, match="no group") as refused:
            identity.authenticate(real.token(groups=["others"]))
        assert refused.value.caller == f"oidc:{real.url}#ann"
        with pytest.raises(Unauthenticated) as refused_unknown:
            identity.authenticate(real.token(groups=["others"], aud="another"))
        assert refused_unknown.value.caller is None, "a token that is not good names nobody"
        assert identity.authenticate(admin_key(settings).key).name == "key:admin", "keys are let in as before"
        for shown in (None, "", mint(), "my_x.y.z"):
            with pytest.raises(Unauthenticated):
                identity.authenticate(shown)


def test_models_are_those_of_the_claim_that_is_named() -> None:
    with issuer() as real:
        settings = config.load({**real.settings(), "oidc_models_claim": "models"})
        found = home_issuer(settings, failed=lambda _: None, went_well=lambda: None)
        assert found is not None
        found.look()
        identity = home_identity(settings, found)
        assert identity.authenticate(real.token(models=["churn"])).models == ("churn",)
        with pytest.raises(Forbidden, match="names no model"):
            identity.authenticate(real.token())


def test_only_a_token_with_an_unknown_key_is_worth_a_wait() -> None:
    with issuer() as real:
        settings = config.load(real.settings())
        found = home_issuer(settings, failed=lambda _: None, went_well=lambda: None)
        identity = home_identity(settings, found)
        assert [identity.coming(shown) for shown in (None, mint(), "a.b.c")] == [None, None, None]
        assert identity.coming(real.token()) is not None
        assert home_keyring(settings).coming(real.token()) is None


def test_without_an_issuer_a_token_is_no_key() -> None:
    settings = config.load()
    assert home_issuer(settings, failed=lambda _: None, went_well=lambda: None) is None
    with issuer() as real, pytest.raises(Unauthenticated, match="access key"):
        home_identity(settings, None).authenticate(real.token())


def test_a_mapping_that_is_none_stops_the_start() -> None:
    with issuer() as real:
        settings = config.load({**real.settings(), "oidc_roles": "ml-ops=boss"})
        with pytest.raises(InvalidConfig, match="no role"):
            home_identity(settings, home_issuer(settings, failed=lambda _: None, went_well=lambda: None))
