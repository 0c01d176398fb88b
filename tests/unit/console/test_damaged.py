"""console.damaged: every request of one who holds a key is told what is wrong, and nobody else is told anything."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import pytest

from modelyard.console import damaged
from modelyard.errors import Tampered
from modelyard.security.identity import Keyring
from modelyard.security.keys import FileKeys

WRONG = Tampered("registry.sqlite is damaged; modelyard restore FILE")


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_only_who_holds_a_key_is_told(tmp_path: Path, method: str) -> None:
    keyring = Keyring(FileKeys(tmp_path / "access.json"))
    key = keyring.add("admin", roles=("admin",))

    async def ask(authorization: str | None) -> httpx.Response:
        transport = httpx.ASGITransport(app=damaged.build(WRONG, keyring))
        headers = {} if authorization is None else {"Authorization": authorization}
        async with httpx.AsyncClient(transport=transport, base_url="http://home") as client:
            return await client.request(method, "/api/v1/status", headers=headers)

    told = asyncio.run(ask(f"Bearer {key}"))
    assert told.status_code == 422 and told.json()["error"]["message"] == WRONG.message
    for wrong in (None, "Bearer my_nonsense", f"Basic {key}"):
        refused = asyncio.run(ask(wrong))
        assert refused.status_code == 401 and "registry" not in refused.text and refused.headers["WWW-Authenticate"] == "Bearer"


def test_keys_that_cannot_be_read_are_not_described(tmp_path: Path) -> None:
    keyring = Keyring(FileKeys(tmp_path / "access.json"))
    key = keyring.add("admin", roles=("admin",))
    (tmp_path / "access.json").chmod(0o666)

    async def ask() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=damaged.build(WRONG, keyring)), base_url="http://home") as client:
            return await client.get("/", headers={"Authorization": f"Bearer {key}"})

    told = asyncio.run(ask())
    assert told.status_code == 503 and "registry" not in told.text and str(tmp_path) not in told.text
