"""Asks a Prometheus server for one number.

Hides its HTTP API (`/api/v1/query`). What is asked is one fixed path of the server that was named when the rollout was planned: no redirect is
followed, no proxy of the environment used, an answer is read up to a limit and for so long, and of it nothing but the number goes on, into no message
either.
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

import msgspec

from modelyard.errors import DeadlineExceeded, InvalidConfig, ModelyardError, Unavailable
from modelyard.exchange import trusting
from modelyard.rollout.guards.grammar import VERSION

if TYPE_CHECKING:
    import httpx

TIMEOUT_S = 5.0
ANSWER_BYTES = 1 << 20


class _Data(msgspec.Struct):
    resultType: str  # noqa: N815  as the server writes it
    result: list[Any]


class _Answer(msgspec.Struct):
    data: _Data


class _Series(msgspec.Struct):
    value: tuple[float | int, str]


def ask(url: str, query: str, version: int, *, transport: httpx.BaseTransport | None = None, timeout_s: float = TIMEOUT_S) -> float:
    """The number that `query`, with `{version}` replaced, gives now.

    Raises InvalidConfig where the server refuses the query or answers with more than one number, Unavailable where there is none or no server.
    """
    import httpx

    place = f"{url.rstrip('/')}/api/v1/query"
    until_s = time.monotonic() + timeout_s
    try:
        with (
            httpx.Client(verify=trusting(""), trust_env=False, follow_redirects=False, timeout=timeout_s, transport=transport) as client,
            client.stream("GET", place, params={"query": query.replace(VERSION, str(version))}) as answer,
        ):
            body = bytearray()
            for chunk in answer.iter_bytes():
                body += chunk
                if len(body) > ANSWER_BYTES:
                    raise InvalidConfig("the query's answer is too large for one number; sum or average it", field="guard", rule="query")
                if time.monotonic() > until_s:
                    raise DeadlineExceeded(f"Prometheus did not answer in {timeout_s:g} s")
            status = answer.status_code
    except httpx.TimeoutException as error:
        raise DeadlineExceeded(f"Prometheus did not answer in {timeout_s:g} s") from error
    except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as error:
        raise Unavailable("Prometheus cannot be reached") from error
    if status in (400, 422):
        raise InvalidConfig("Prometheus refuses the query", field="guard", rule="query")
    if status != 200:
        raise Unavailable(f"Prometheus answered with status {status}")
    return _number(bytes(body))


def _number(body: bytes) -> float:
    try:
        data = msgspec.json.decode(body, type=_Answer).data
        if data.resultType == "scalar":
            values = [msgspec.convert(data.result, tuple[float | int, str])]
        elif data.resultType == "vector":
            values = [each.value for each in msgspec.convert(data.result, list[_Series])]
        else:
            raise _not_one("a series over time")
        numbers = [float(text) for _, text in values]
    except ModelyardError:
        raise
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise Unavailable("Prometheus answered with something else than a number") from error
    if len(numbers) > 1:
        raise _not_one(f"{len(numbers)} numbers")
    if not numbers or not math.isfinite(numbers[0]):
        raise Unavailable("Prometheus has no number for the query now")
    return numbers[0]


def _not_one(what: str) -> InvalidConfig:
    return InvalidConfig(f"the query gives {what} instead of one number; sum or average it", field="guard", rule="query")
