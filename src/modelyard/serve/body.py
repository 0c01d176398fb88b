"""A large body on its way from the socket straight into the memory in which it is read.

Hides how that is had of an event loop: while such a body comes, `Incoming` stands in for its connection as the transport's protocol and hands out the
stretch that is still empty. The common way copies each part out of the loop's buffer, and all parts once more to put them together. It must not know
what the bytes mean, but for where binary tensors begin.
"""

from __future__ import annotations

import asyncio
import ctypes
from typing import Protocol

ALIGNED_BYTES = 8
"""No number of any datatype is longer: what begins at a multiple of it is never askew."""

_unfilled = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_ssize_t)(("PyByteArray_FromStringAndSize", ctypes.pythonapi))
"""A bytearray that nobody has written to: to fill 600 kB with zeros, only to fill them again, takes as long as to receive them."""


_NOTHING = memoryview(b"")
"""Stands for the end of a body, which it does not keep: uvloop holds on to an `Incoming` as long as its connection lasts."""


class Receiver(Protocol):
    """The connection whose body comes; it is told of everything, as if the transport were its own."""

    def arrived(self, size: int) -> bool:
        """So many bytes more are in their place; gives whether they are wanted. Called with the last one, it has to take the transport back."""

    def eof_received(self) -> bool: ...

    def connection_lost(self, error: Exception | None) -> None: ...

    def pause_writing(self) -> None: ...

    def resume_writing(self) -> None: ...


def space(size: int, *, before: int = 0) -> bytearray:
    """Memory for a body of `size` bytes; behind the first `before` of them it is as straight as numpy wants its arrays.

    What it holds is left over from others: show nothing of it before all of it is filled.
    """
    lead = -before % ALIGNED_BYTES
    body: bytearray = _unfilled(None, lead + size)
    del body[:lead]  # moves where it begins, and no byte
    return body


class Incoming(asyncio.BufferedProtocol):
    """Fills `body` from byte `at` on for `receiver`. What is not wanted is overwritten, so that there is always room for it."""

    def __init__(self, receiver: Receiver, body: bytearray, at: int) -> None:
        self._receiver = receiver
        self._empty = memoryview(body)[at:]

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - asyncio calls it with that
        return self._empty

    def buffer_updated(self, nbytes: int) -> None:
        if self._receiver.arrived(nbytes):
            self._empty = self._empty[nbytes:] or _NOTHING

    def eof_received(self) -> bool:
        return self._receiver.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self._receiver.connection_lost(exc)

    def pause_writing(self) -> None:
        self._receiver.pause_writing()

    def resume_writing(self) -> None:
        self._receiver.resume_writing()
