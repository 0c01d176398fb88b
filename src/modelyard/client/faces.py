"""The two faces: one blocks, one is awaited. Each only carries out what a verb asks for: send this, wait so long.

Hides httpx, which is loaded with the first client. It must not know a verb.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import ssl
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from modelyard import files
from modelyard.client.steps import Awaiting, Blocking, Effect, Item, Pause, Reply, Send, Steps, Told
from modelyard.client.verbs import Verbs
from modelyard.errors import DeadlineExceeded, ModelyardError, Unavailable

if TYPE_CHECKING:
    import httpx

T = TypeVar("T")

_CHUNK_BYTES = 256 << 10
sleep = time.sleep


class Client(Blocking, Verbs):
    """modelyard in Python: predictions, and every verb of the control API. `Client()` is this machine's own home.

    Holds one pool of connections until `close`; may be used from several threads. What may be asked twice is tried again, within a budget, where a
    server is overloaded or away; each change is one effect however often it is tried. Refusals are raised as `modelyard.errors`.
    """

    def _open(self, trust: ssl.SSLContext) -> None:
        import httpx

        # A proxy from the environment must never see what is meant for this machine.
        self._http = httpx.Client(trust_env=False, verify=trust)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def call(self, method: str, path: str, body: object = None, *, answer: type[T]) -> T:
        """What the control API answers to `method` on `/api/v1` + `path`, as `answer`: for what has no verb of its own."""
        return self.run(self.asked(method, path, body, answer))

    def run(self, steps: Steps[T]) -> T:
        """Carry out `steps` and return what they come to."""
        told: Told = None
        try:
            while True:
                told = self._do(steps.send(told))
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]

    def iterate(self, steps: Steps[None]) -> Iterator[Any]:
        """Carry out `steps`, giving each item as it comes."""
        told: Told = None
        with contextlib.suppress(StopIteration):
            while True:
                effect = steps.send(told)
                if isinstance(effect, Item):
                    yield effect.value
                told = self._do(effect)

    def _do(self, effect: Effect) -> Told:
        if isinstance(effect, Pause):
            sleep(effect.seconds)
        if not isinstance(effect, Send):
            return None
        try:
            content = effect.content if effect.upload is None else _parts(effect.upload)
            asked = self._http.build_request(effect.method, effect.url, content=content, headers=_headers(effect), timeout=effect.timeout_s)
            answer = self._http.send(asked, stream=True)
            with contextlib.closing(answer):
                with _saved(effect, answer) as keep:
                    for part in answer.iter_bytes(_CHUNK_BYTES):
                        keep.append(part)
                return Reply(answer.status_code, dict(answer.headers), keep.content)
        except Exception as error:  # noqa: BLE001 - told to the verb, which raises it
            return _translated(error, effect)


class AsyncClient(Awaiting, Verbs):
    """`Client`, whose calls are awaited (`async with AsyncClient(url, key) as client: await client.predict(…)`), in one event loop."""

    def _open(self, trust: ssl.SSLContext) -> None:
        import httpx

        # A proxy from the environment must never see what is meant for this machine.
        self._http = httpx.AsyncClient(trust_env=False, verify=trust)

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def call(self, method: str, path: str, body: object = None, *, answer: type[T]) -> T:
        """What the control API answers to `method` on `/api/v1` + `path`, as `answer`: for what has no verb of its own."""
        return await self.run(self.asked(method, path, body, answer))

    async def run(self, steps: Steps[T]) -> T:
        """Carry out `steps` and return what they come to."""
        told: Told = None
        try:
            while True:
                told = await self._do(steps.send(told))
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]

    async def iterate(self, steps: Steps[None]) -> AsyncIterator[Any]:
        """Carry out `steps`, giving each item as it comes."""
        told: Told = None
        with contextlib.suppress(StopIteration):
            while True:
                effect = steps.send(told)
                if isinstance(effect, Item):
                    yield effect.value
                told = await self._do(effect)

    async def _do(self, effect: Effect) -> Told:
        if isinstance(effect, Pause):
            await asyncio.sleep(effect.seconds)
        if not isinstance(effect, Send):
            return None
        try:
            content = effect.content if effect.upload is None else _parts_of(effect.upload)
            asked = self._http.build_request(effect.method, effect.url, content=content, headers=_headers(effect), timeout=effect.timeout_s)
            answer = await self._http.send(asked, stream=True)
            async with contextlib.aclosing(answer):
                with _saved(effect, answer) as keep:
                    async for part in answer.aiter_bytes(_CHUNK_BYTES):
                        keep.append(part)
                return Reply(answer.status_code, dict(answer.headers), keep.content)
        except Exception as error:  # noqa: BLE001 - told to the verb, which raises it
            return _translated(error, effect)


class _Body:
    """A reply's body: in memory, or in the file beside its place."""

    def __init__(self, file: Any = None) -> None:
        self._file = file
        self._parts: list[bytes] = []

    def append(self, part: bytes) -> None:
        if self._file is None:
            self._parts.append(part)
        else:
            self._file.write(part)

    @property
    def content(self) -> bytes:
        return b"".join(self._parts)


@contextlib.contextmanager
def _saved(send: Send, answer: httpx.Response) -> Iterator[_Body]:
    if send.save_to is None or answer.status_code >= 400:
        yield _Body()
        return
    beside = send.save_to.with_name(f".{send.save_to.name}.{secrets.token_hex(4)}.tmp")
    try:
        with beside.open("xb") as file:
            yield _Body(file)
        beside.rename(send.save_to)
    except OSError as error:
        raise files.translate(error, send.save_to) from error
    finally:
        beside.unlink(missing_ok=True)


def _headers(send: Send) -> dict[str, str]:
    return send.headers if send.upload is None else {**send.headers, "content-length": str(send.upload.stat().st_size)}


def _parts(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while part := file.read(_CHUNK_BYTES):
            yield part


async def _parts_of(path: Path) -> AsyncIterator[bytes]:
    with path.open("rb") as file:
        while part := await asyncio.to_thread(file.read, _CHUNK_BYTES):
            yield part


def _translated(error: Exception, send: Send) -> ModelyardError:
    import httpx

    where = send.url.partition("/api/v1")[0].partition("/v2/")[0]
    if isinstance(error, ModelyardError):
        return error
    if isinstance(error, httpx.TimeoutException):
        told: ModelyardError = DeadlineExceeded(f"{where} did not answer in time")
    elif isinstance(error, httpx.NetworkError | httpx.RemoteProtocolError) and not isinstance(error, httpx.ConnectError):
        told = Unavailable(f"{where} broke off before it had answered; what it was asked may be done all the same")
    elif isinstance(error, httpx.TransportError | httpx.InvalidURL):
        told = Unavailable(f"nothing answers at {where}")
    elif isinstance(error, OSError) and send.upload is not None:
        told = files.translate(error, send.upload)
    else:
        raise error
    told.__cause__ = error
    return told
