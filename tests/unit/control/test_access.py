"""The admin key: made once, private, and void when its file is lost."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from modelyard import config
from modelyard.client.places import read_admin_key
from modelyard.control.access import admin_key, home_keyring
from modelyard.errors import InvalidConfig, NotFound, Unauthenticated


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
