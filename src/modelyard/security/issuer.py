"""The keys of the one issuer that a home believes: looked at again by age and when a token names a new one, and kept for when the issuer is away.

Hides discovery, the thread that asks, and the file `keys/issuer.json` with what was last good. No request asks the issuer itself: who needs a new
look is given a Future of it, all the same one, and looks that requests ask for come ten seconds apart at least. It must not see a token.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from modelyard import files
from modelyard.errors import ModelyardError, NotFound, Unavailable
from modelyard.exchange import exchange, is_confidential
from modelyard.security import jwks

if TYPE_CHECKING:
    from modelyard.config import Settings
    from modelyard.security.jwks import IssuerKey

EVERY_S = 300.0
"""Between two looks that go well: so long a key that the issuer has withdrawn may still be believed."""

FILE_EVERY_S = 1.0
"""The same of a file on this machine."""

AWAY_S = 15.0
"""Between two looks while the issuer does not answer."""

AGAIN_S = 10.0
"""Between two looks that tokens with unknown keys ask for."""

TIMEOUT_S = 5.0
DOCUMENT_BYTES = 64 << 10
WELL_KNOWN = "/.well-known/openid-configuration"

log = logging.getLogger("modelyard.control")


class IssuerState(msgspec.Struct, frozen=True, kw_only=True):
    """How it stands with the issuer: how many of its keys are known, since when nobody has confirmed them, and until when they are believed.

    Times are seconds since 1970; None where none are known. `trouble` says why the last look failed.
    """

    issuer: str
    keys: int
    confirmed_at: float | None
    good_until: float | None
    trouble: str | None


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """The file's form: whose keys these are, when they were last confirmed, and the set as it came."""

    issuer: str
    source: str
    confirmed_at: float
    jwks: str


class Issuer:
    """The keys in force, from `with` to its end. Any thread may ask; what asks the network is a thread of its own."""

    def __init__(
        self,
        settings: Settings,
        *,
        failed: Callable[[ModelyardError], None] = lambda _: None,
        went_well: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._failed, self._went_well, self._clock = failed, went_well, clock
        self._path = settings.home / "keys" / "issuer.json"
        self._source = settings.oidc_keys_file or settings.oidc_keys_url or settings.oidc_issuer.rstrip("/") + WELL_KNOWN
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(
            target=self._run, name="issuer", daemon=True
        )  # it may be waiting on the network, which must not hold up an end
        self._keys: dict[str, IssuerKey] = {}
        self._read: bytes | None = None
        self._confirmed_s: float | None = None
        self._trouble: str | None = None
        self._asked_s = float("-inf")
        self._coming: Future[None] | None = Future()  # the first look
        self._recall()

    def __enter__(self) -> Issuer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._wake.set()
        self._thread.join(1.0)

    @property
    def state(self) -> IssuerState:
        """How it stands now."""
        with self._lock:
            keys, confirmed_s, trouble = len(self._keys), self._confirmed_s, self._trouble
        at = None if confirmed_s is None else time.time() - (self._clock() - confirmed_s)
        until = None if at is None else at + self._settings.oidc_keys_max_age_s
        return IssuerState(issuer=self._settings.oidc_issuer, keys=keys, confirmed_at=at, good_until=until, trouble=trouble)

    def key(self, kid: str) -> IssuerKey | None:
        """The issuer's key of this id; None where it has none. Raises Unavailable where nobody can tell: it is away, and this is none of its last."""
        with self._lock:
            if self._confirmed_s is None:
                raise Unavailable("the keys of the tokens' issuer are not known yet; try again", rule="issuer")
            if self._clock() - self._confirmed_s > self._settings.oidc_keys_max_age_s:
                raise Unavailable("the tokens' issuer has been away for longer than its keys are believed; try again", rule="issuer")
            if kid not in self._keys and self._trouble is not None:
                raise Unavailable("the tokens' issuer is away, and this token's key is none of its last; try again", rule="issuer")
            return self._keys.get(kid)

    def coming(self, kid: str) -> Future[None] | None:
        """The end of the look that may bring the key of this id; None where it is known, or has been asked for just now."""
        with self._lock:
            is_current = self._confirmed_s is not None and self._clock() - self._confirmed_s <= self._settings.oidc_keys_max_age_s
            if is_current and kid in self._keys:
                return None
            if self._coming is None and self._clock() - self._asked_s >= AGAIN_S:
                self._coming = Future()
                self._asked_s = self._clock()
                self._wake.set()
            return self._coming

    def look(self) -> None:
        """Ask for the keys now, and let what came be in force. Raises what kept it; then those from before go on."""
        data = self._fetched()
        keys = self._keys if data == self._read else jwks.read(data)
        if not keys and data != self._read:
            log.warning("issuer: its key set holds no key that verifies tokens; every token is refused")
        with self._lock:
            self._keys, self._read, self._confirmed_s, self._trouble = keys, data, self._clock(), None
        if not self._settings.oidc_keys_file:
            self._keep(data)

    def _run(self) -> None:
        pause_s = 0.0
        while not self._stop.is_set():
            self._wake.wait(pause_s)
            self._wake.clear()
            with self._lock:
                coming = self._coming = self._coming or Future()  # who asks meanwhile waits for this look
            if not self._stop.is_set():
                pause_s = self._turn()
            with self._lock:
                self._coming = None
            coming.set_result(None)

    def _turn(self) -> float:
        """One look; how long to rest after it."""
        try:
            self.look()
        except Exception as error:  # noqa: BLE001  # a turn that fails must not be the last
            told = error if isinstance(error, ModelyardError) else Unavailable(f"its keys could not be had ({type(error).__name__})")
            with self._lock:
                self._trouble = told.message
            self._failed(Unavailable(f"{told.message}; {self._told()}"))
            return FILE_EVERY_S if self._settings.oidc_keys_file else AWAY_S
        self._went_well()
        return FILE_EVERY_S if self._settings.oidc_keys_file else EVERY_S

    def _told(self) -> str:
        until = self.state.good_until
        if until is None:
            return "no token is accepted until then"
        if until <= time.time():
            return "its last keys are too old, and no token is accepted"
        return f"its last keys are believed until {time.strftime('%Y-%m-%d %H:%M:%S', time.gmtime(until))} UTC"

    def _fetched(self) -> bytes:
        settings = self._settings
        if settings.oidc_keys_file:
            return files.read_believed(Path(settings.oidc_keys_file), jwks.LIMIT_BYTES, field="oidc_keys_file")
        return self._get(settings.oidc_keys_url or self._discovered(), jwks.LIMIT_BYTES)

    def _discovered(self) -> str:
        """Where the issuer says that its keys are (OpenID Connect Discovery, 4.3)."""
        try:
            found = msgspec.json.decode(self._get(self._source, DOCUMENT_BYTES), type=dict[str, msgspec.Raw])
            named, place = (msgspec.json.decode(found[name], type=str) for name in ("issuer", "jwks_uri"))
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, KeyError) as error:
            raise Unavailable("it has no discovery document with issuer and jwks_uri") from error
        if named != self._settings.oidc_issuer:
            raise Unavailable("its discovery document is of another issuer than oidc_issuer says, to the letter")
        if not is_confidential(place) or (place.startswith("http:") and not self._source.startswith("http:")):
            raise Unavailable("its discovery document names keys at a place that is not https")
        return place

    def _get(self, url: str, limit_bytes: int) -> bytes:
        answer = exchange(
            "GET",
            url,
            headers={"accept": "application/json"},
            ca_file=self._settings.oidc_ca_file,
            timeout_s=TIMEOUT_S,
            answer_bytes=limit_bytes + 1,
        )
        if answer.status != 200:
            raise Unavailable(
                f"it answered with status {answer.status}" + (", a redirect, which is not followed" if answer.status // 100 == 3 else "")
            )
        if len(answer.body) > limit_bytes:
            raise Unavailable(f"its answer has more than {limit_bytes >> 10} KiB")
        return answer.body

    def _keep(self, data: bytes) -> None:
        kept = Kept(issuer=self._settings.oidc_issuer, source=self._source, confirmed_at=time.time(), jwks=data.decode())
        try:
            path = files.make_folder(self._path.parent) / self._path.name
            files.write_atomically(path, msgspec.json.encode(kept), mode=0o600, durable=False)
        except ModelyardError as error:
            log.warning("issuer: its keys cannot be kept for a restart while it is away: %s", error.message)

    def _recall(self) -> None:
        """Believe what was last good before this process began, for as long as it may be."""
        if self._settings.oidc_keys_file:
            return
        try:
            kept = msgspec.json.decode(files.read_believed(self._path, 2 * jwks.LIMIT_BYTES, field="home"), type=Kept)
            if (kept.issuer, kept.source) != (self._settings.oidc_issuer, self._source):
                return
            keys = jwks.read(kept.jwks.encode())
        except NotFound:
            return
        except (ModelyardError, msgspec.MsgspecError) as error:
            log.warning("issuer: what was kept of its keys is not used: %s", error)
            return
        self._keys, self._confirmed_s = keys, self._clock() - max(0.0, time.time() - kept.confirmed_at)
