"""Access keys: their form, what is kept of them, and who is let in."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from modelyard.errors import Unauthenticated
from modelyard.security.base import KeyRecord
from modelyard.security.identity import Keyring, fingerprint, is_well_formed, mint


class Memory:
    """A KeyStore in a dict."""

    def __init__(self) -> None:
        self.kept: dict[str, KeyRecord] = {}

    def get(self, id: str) -> KeyRecord | None:
        return self.kept.get(id)

    def put(self, record: KeyRecord) -> None:
        self.kept[record.id] = record

    def remove(self, id: str) -> None:
        self.kept.pop(id, None)

    def all(self) -> tuple[KeyRecord, ...]:
        return tuple(self.kept.values())


def test_a_key_has_its_form_and_no_two_are_alike() -> None:
    keys = {mint() for _ in range(100)}
    assert len(keys) == 100
    assert all(is_well_formed(key) and key.startswith("my_") and len(key) == 52 for key in keys)


@pytest.mark.parametrize(
    "change",
    [lambda key: key[:-1], lambda key: key[:10] + ("A" if key[10] != "A" else "B") + key[11:], lambda key: "mx_" + key[3:], lambda key: key + "é"],
)
def test_a_changed_key_fails_its_checksum(change: object) -> None:
    assert not is_well_formed(change(mint()))  # type: ignore[operator]


def test_what_is_kept_does_not_hold_the_key() -> None:
    store = Memory()
    key = Keyring(store).add("admin", roles=("admin",))
    (record,) = store.all()
    assert record.sha256 == fingerprint(key) and record.id == record.sha256[:12]
    assert key not in repr(record) and key[3:20] not in repr(record)


def test_a_known_key_gives_its_principal() -> None:
    keyring = Keyring(Memory())
    principal = keyring.authenticate(keyring.add("ci", roles=("operator",)))
    assert (principal.name, principal.roles) == ("key:ci", ("operator",))


def test_a_missing_malformed_or_unknown_key_is_refused_alike() -> None:
    keyring = Keyring(Memory())
    keyring.add("ci", roles=("operator",))
    messages = set()
    for key in (None, "", "my_", mint()):
        with pytest.raises(Unauthenticated) as refused:
            keyring.authenticate(key)
        messages.add(refused.value.message)
    assert len(messages) == 1


def test_an_id_alone_lets_nobody_in() -> None:
    store = Memory()
    key = Keyring(store).add("ci", roles=("operator",))
    (record,) = store.all()
    store.kept[record.id] = KeyRecord(id=record.id, sha256=record.id + "0" * 52, name="ci", roles=("admin",), created_at=record.created_at)
    with pytest.raises(Unauthenticated):
        Keyring(store).authenticate(key)


def test_an_expired_or_revoked_key_is_refused() -> None:
    keyring = Keyring(Memory())
    late = keyring.add("late", roles=("viewer",), expires_at=datetime.now(UTC) - timedelta(seconds=1))
    gone = keyring.add("gone", roles=("viewer",), expires_at=datetime.now(UTC) + timedelta(hours=1))
    assert keyring.authenticate(gone).name == "key:gone"
    keyring.revoke("gone")
    for key in (late, gone):
        with pytest.raises(Unauthenticated):
            keyring.authenticate(key)
