"""What a verb may ask of whoever carries it out, and how one verb becomes a call of a blocking and of an awaiting client.

A verb is a generator: it yields a `Send` or a `Pause`, and is told the `Reply`, or the error that came instead. A stream of answers yields an `Item`
for each as well. `verb` and `stream` are descriptors: on a face that blocks they give a function, on one that awaits a coroutine function, with the
signature of the generator either way. Hides nothing else; it must not know HTTP's library nor any verb.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Iterator
from pathlib import Path
from typing import Any, Concatenate, Generic, NamedTuple, ParamSpec, TypeVar, overload

from modelyard.errors import ModelyardError

P = ParamSpec("P")
T = TypeVar("T")


class Send(NamedTuple):
    """One request. `upload` is a file to send as the body, `save_to` one to write a good answer's body to, whole or not at all."""

    method: str
    url: str
    headers: dict[str, str]
    content: bytes | None
    timeout_s: float
    upload: Path | None = None
    save_to: Path | None = None


class Pause(NamedTuple):
    """Wait."""

    seconds: float


class Item(NamedTuple):
    """One value of a stream."""

    value: Any


class Reply(NamedTuple):
    """What a server said."""

    status: int
    headers: dict[str, str]
    content: bytes


Effect = Send | Pause | Item
Told = Reply | ModelyardError | None
Steps = Generator[Effect, Told, T]


class Blocking:
    """A face whose calls return when they are done."""

    def run(self, steps: Steps[T]) -> T:
        """Carry out `steps` and return what they come to."""
        raise NotImplementedError

    def iterate(self, steps: Steps[None]) -> Iterator[Any]:
        """Carry out `steps`, giving each item as it comes."""
        raise NotImplementedError


class Awaiting:
    """A face whose calls are awaited."""

    async def run(self, steps: Steps[T]) -> T:
        """Carry out `steps` and return what they come to."""
        raise NotImplementedError

    def iterate(self, steps: Steps[None]) -> AsyncIterator[Any]:
        """Carry out `steps`, giving each item as it comes."""
        raise NotImplementedError


class verb(Generic[P, T]):  # noqa: N801 - a decorator
    """A verb of both faces, from the generator that is its policy."""

    def __init__(self, steps: Callable[Concatenate[Any, P], Steps[T]]) -> None:
        self.steps = steps
        self.__doc__ = steps.__doc__
        self.__name__ = steps.__name__
        self._signature = _without_self(steps)

    @overload
    def __get__(self, face: None, kind: type[Any]) -> verb[P, T]: ...
    @overload
    def __get__(self, face: Blocking, kind: type[Any]) -> Callable[P, T]: ...
    @overload
    def __get__(self, face: Awaiting, kind: type[Any]) -> Callable[P, Coroutine[Any, Any, T]]: ...
    def __get__(self, face: Blocking | Awaiting | None, kind: type[Any]) -> Any:
        if face is None:
            return self

        @functools.wraps(self.steps)
        def call(*arguments: Any, **options: Any) -> Any:
            return face.run(self.steps(face, *arguments, **options))

        call.__signature__ = self._signature  # type: ignore[attr-defined]
        return call


class stream(Generic[P, T]):  # noqa: N801 - a decorator
    """As `verb`, of a call that gives its answers one after the other; the hint of its generator's items is that of the call's return."""

    def __init__(self, steps: Callable[Concatenate[Any, P], Steps[None]], item: type[T]) -> None:
        self.steps = steps
        self.__doc__ = steps.__doc__
        self.__name__ = steps.__name__
        self._signature = _without_self(steps)
        self.item = item

    @overload
    def __get__(self, face: None, kind: type[Any]) -> stream[P, T]: ...
    @overload
    def __get__(self, face: Blocking, kind: type[Any]) -> Callable[P, Iterator[T]]: ...
    @overload
    def __get__(self, face: Awaiting, kind: type[Any]) -> Callable[P, AsyncIterator[T]]: ...
    def __get__(self, face: Blocking | Awaiting | None, kind: type[Any]) -> Any:
        if face is None:
            return self

        @functools.wraps(self.steps)
        def call(*arguments: Any, **options: Any) -> Any:
            return face.iterate(self.steps(face, *arguments, **options))

        call.__signature__ = self._signature  # type: ignore[attr-defined]
        return call


def streaming(item: type[T]) -> Callable[[Callable[Concatenate[Any, P], Steps[None]]], stream[P, T]]:
    """Make a generator a `stream` of `item`s."""
    return lambda steps: stream(steps, item)


def gathered(steps: Steps[None]) -> Steps[list[Any]]:
    """All that a stream gives, at its end."""
    found: list[Any] = []
    told: Told = None
    while True:
        try:
            effect = steps.send(told)
        except StopIteration:
            return found
        if isinstance(effect, Item):
            found.append(effect.value)
            told = None
        else:
            told = yield effect


def _without_self(steps: Callable[..., Any]) -> inspect.Signature:
    signature = inspect.signature(steps)
    return signature.replace(parameters=list(signature.parameters.values())[1:])
