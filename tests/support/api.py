"""The control API without a socket: a home, its application, and a caller with whatever key a test gives."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import httpx

from modelyard.console.app import build
from modelyard.console.guard import Guard
from modelyard.control.access import home_identity, home_keyring
from modelyard.control.plane import ControlPlane
from modelyard.control.status import Status
from modelyard.security.base import Identity
from modelyard.security.identity import Keyring
from modelyard.security.issuer import Issuer
from modelyard.types import Principal
from serving import Home

HOST = "127.0.0.1:8090"
WORLD = Status(home="h", data_plane=None, deployments=())


class Api:
    """One home's API, for who has a key, or a token of `issuer`. `changes` counts what the driver was told of."""

    def __init__(self, plane: ControlPlane, issuer: Issuer | None = None) -> None:
        self.plane = plane
        self.home = Home(plane.settings.home)
        self.keyring: Keyring = home_keyring(plane.settings)
        self.identity: Identity = home_identity(plane.settings, issuer)
        self.changes = 0
        self.app: Guard = self.build()
        self.admin = self.keyring.add("admin", roles=("admin",))

    def build(
        self, status: Callable[[], Status] = lambda: WORLD, *, hosts: Iterable[str] = (HOST,), failing: Callable[[], Mapping[str, str]] = dict
    ) -> Guard:
        """The guarded application, anew."""
        return build(self.plane, identity=self.identity, hosts=hosts, status=status, changed=self._changed, failing=failing)

    def key(self, *roles: str, models: tuple[str, ...] = ()) -> str:
        """A key with these roles, for these models."""
        return self.plane.key_create(_SOMEBODY, "-".join((*roles, *models)), roles=roles, models=models)[0]

    def ask(self, method: str, path: str, *, key: str | None = "", headers: dict[str, str] | None = None, **options: Any) -> httpx.Response:
        """What the API answers to `method` on `/api/v1` + `path`, asked with the admin's key or another (None: without)."""
        key = self.admin if key == "" else key

        async def go() -> httpx.Response:
            sent = {"host": HOST, **({"authorization": f"Bearer {key}"} if key else {}), **(headers or {})}
            async with httpx.AsyncClient(transport=httpx.ASGITransport(self.app), base_url=f"http://{HOST}") as client:
                return await client.request(method, f"/api/v1{path}", headers=sent, **options)

        return asyncio.run(go())

    def told(self, method: str, path: str, **options: Any) -> Any:
        """The JSON of an answer that went well."""
        answer = self.ask(method, path, **options)
        assert answer.status_code < 300, answer.text
        return answer.json()

    def _changed(self) -> None:
        self.changes += 1


_SOMEBODY = Principal("test", ("admin",))
