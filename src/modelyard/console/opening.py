"""The API of a home whose store may not be there yet: what says why not, and the real one from when it can be opened.

Hides that two applications take turns behind one listener, and the thread that tries again. It must not answer anything itself.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from modelyard.console.failures import Failures
from modelyard.errors import InvalidConfig, ModelyardError, Unavailable, UnsupportedFormat

App = Callable[[MutableMapping[str, Any], Any, Any], Awaitable[None]]

REST_S = 1.0  # between two tries


class Opening:
    """An ASGI application: what `make` gives, as soon as that does not fail, and until then what `instead` makes of the failure.

    `begin` and `end` from the thread that serves; requests in its event loop.
    """

    def __init__(self, make: Callable[[], App], instead: Callable[[ModelyardError], App]) -> None:
        self._make = make
        self._instead = instead
        self._app = instead(Unavailable("the control process is starting; try again"))
        self._failures = Failures()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._try_on, name="opening")

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        """Serve one request."""
        await self._app(scope, receive, send)

    def begin(self) -> str:
        """Open it; what it waits for where that is not possible yet, else nothing. Raises what no waiting mends."""
        try:
            self._app = self._make()
        except (InvalidConfig, UnsupportedFormat):
            raise
        except ModelyardError as error:
            self._shut(error)
            self._thread.start()
            return error.message
        return ""

    def end(self) -> None:
        """Try no more."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def _shut(self, why: ModelyardError) -> None:
        self._app = self._instead(why)
        self._failures.tell("opening", why)

    def _try_on(self) -> None:
        took_s = 0.0
        while not self._stop.wait(max(REST_S, 2 * took_s)):  # a large database is read whole before it is called damaged
            began_s = time.monotonic()
            try:
                self._app = self._make()
            except ModelyardError as error:
                self._shut(error)
            except Exception as error:  # noqa: BLE001  # as at each turn of a loop
                self._failures.tell("opening", error)
            else:
                return
            took_s = time.monotonic() - began_s
