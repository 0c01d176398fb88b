"""Clients in Python: of a data plane (predictions by Open Inference Protocol V2) and of a control process (changes of the world).

Hides HTTP, both wires' forms, and that a question which changes nothing is asked again, within a budget, where a server is overloaded or away; turns
what a server refuses back into the error tree. It must not know what a deployment or a bundle is:
answers of the control process are decoded into the type that the caller names.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from time import monotonic, sleep
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from modelyard import errors
from modelyard.errors import ModelyardError, Overloaded, Rejected, Unavailable
from modelyard.retries import TRIES, Budget, pause_s
from modelyard.types import TensorSpec, Verdict

if TYPE_CHECKING:
    import ssl

    import httpx

    from modelyard.types import Array

T = TypeVar("T")

BATCH_ROWS = 512
_BY_STATUS: dict[int, type[ModelyardError]] = {
    400: errors.InvalidInput,
    401: errors.Unauthenticated,
    403: errors.Forbidden,
    404: errors.NotFound,
    409: errors.Conflict,
    413: errors.PayloadTooLarge,
    415: errors.UnsupportedMedia,
    422: errors.SchemaMismatch,
    429: errors.Overloaded,
    503: errors.Unavailable,
    504: errors.DeadlineExceeded,
    507: errors.StorageFull,
}


class Client:
    """Asks a data plane. Holds one pool of connections until `close`; may be used from several threads."""

    def __init__(self, url: str, *, timeout_s: float = 30.0, key: str | None = None, trust: ssl.SSLContext | None = None) -> None:
        self._http = _Http(url, timeout_s=timeout_s, headers={} if key is None else {"authorization": f"Bearer {key}"}, trust=trust)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def inputs(self, name: str, *, version: int | None = None) -> tuple[TensorSpec, ...]:
        """What the model takes: name, datatype and shape of each input. Raises NotFound or Unavailable."""
        told = self._http.ask("GET", _path(name, version))
        return tuple(TensorSpec(name=item["name"], datatype=item["datatype"], shape=tuple(item["shape"])) for item in told["inputs"])

    def predict(self, name: str, inputs: Mapping[str, Array], *, version: int | None = None) -> dict[str, Array]:
        """The model's outputs for `inputs` (arrays by input name, batch first), asked in batches that fit the server's limits.

        Strings are object arrays of `str`, missing is None or NaN. Raises what the server refuses with, as the error tree.
        """
        import numpy as np

        parts = list(self.batches(name, inputs, version=version))
        return {output: np.concatenate([part[output] for part in parts]) for output in parts[0]}

    def batches(self, name: str, inputs: Mapping[str, Array], *, version: int | None = None) -> Iterator[dict[str, Array]]:
        """As `predict`, one batch of outputs after the other, in order."""
        specs = self.inputs(name, version=version)
        missing = [spec.name for spec in specs if spec.name not in inputs]
        if missing:
            raise errors.SchemaMismatch(f"{name} also takes {', '.join(missing)}", field=missing[0], rule="required")
        rows = len(inputs[specs[0].name])
        at, size = 0, BATCH_ROWS
        while at < rows:
            part = {spec.name: inputs[spec.name][at : at + size] for spec in specs}
            try:
                answer = self._http.ask(
                    "POST", f"{_path(name, version)}/infer", {"inputs": [_tensor(spec, part[spec.name]) for spec in specs]}, is_idempotent=True
                )
            except errors.PayloadTooLarge:
                if size == 1:
                    raise
                size = max(1, size // 4)
                continue
            at += size
            yield {output["name"]: _array(output) for output in answer["outputs"]}


def trusting(
    authority: Path | None, *, certificate: Path | None = None, key: Path | None = None, pinned: Path | None = None
) -> ssl.SSLContext | None:
    """Which servers to believe and which client certificate to show; None where nothing is said, which is the system's authorities.

    `pinned` believes exactly the certificate in that file, under whatever name: for a server that one owns. Raises InvalidConfig.
    """
    import ssl

    if authority is None and certificate is None and pinned is None:
        return None
    try:
        context = ssl.create_default_context(cafile=authority or pinned)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if pinned is not None:
            context.check_hostname = False
            context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        if certificate is not None:
            context.load_cert_chain(certificate, key, password=lambda: "")
    except (ssl.SSLError, OSError, ValueError) as error:
        raise errors.InvalidConfig("the certificate, its key or the authority cannot be read as PEM", field="cacert", rule="form") from error
    return context


class ControlClient:
    """Asks the control process of one home, with its access key."""

    def __init__(self, url: str, key: str, *, timeout_s: float = 180.0) -> None:
        self._http = _Http(url, timeout_s=timeout_s, headers={"authorization": f"Bearer {key}"})

    def __enter__(self) -> ControlClient:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def call(self, method: str, path: str, body: object = None, *, answer: type[T]) -> T:
        """What `method` on `/api/v1` + `path` answers, as `answer`. Raises the error that the control process names, or Unavailable."""
        return msgspec.convert(self._http.ask(method, f"/api/v1{path}", body), answer)


class _Http:
    """One server, spoken to in JSON."""

    def __init__(self, url: str, *, timeout_s: float, headers: Mapping[str, str], trust: ssl.SSLContext | None = None) -> None:
        import httpx

        # A proxy from the environment must never see what is meant for this machine.
        self._client = httpx.Client(base_url=url, timeout=timeout_s, headers=dict(headers), trust_env=False, verify=True if trust is None else trust)
        self._url = url
        self._timeout_s = timeout_s
        self._budgets: defaultdict[str, Budget] = defaultdict(Budget)  # by method: questions about a model do not pay for tries of its predictions

    def close(self) -> None:
        self._client.close()

    def ask(self, method: str, path: str, body: object = None, *, is_idempotent: bool = False) -> Any:
        """The decoded answer. Raises the error tree for a refusal, Unavailable when there is no server.

        GET, and what is said to be idempotent, is asked up to `TRIES` times where it was refused as overloaded, or the server was away, as far
        as the budget and the timeout allow; not before the time that a refusal named.
        """
        content = None if body is None else msgspec.json.encode(body)
        may_repeat = is_idempotent or method == "GET"
        until_s = monotonic() + self._timeout_s
        budget = self._budgets[method]
        budget.asked()
        tries = 0
        while True:
            tries += 1
            after_s = 0.0
            try:
                response = self._send(method, path, content)
                after_s = _retry_after_s(response.headers.get("retry-after", ""))
                return self._told(response)
            except (Overloaded, Unavailable) as error:
                if not may_repeat or tries >= TRIES or isinstance(error, errors.DeadlineExceeded | errors.StorageFull):
                    raise
                wait_s = pause_s(tries, random.random(), retry_after_s=after_s)  # noqa: S311 - no secret
                if monotonic() + wait_s > until_s or not budget.take():
                    raise
            sleep(wait_s)

    def _send(self, method: str, path: str, content: bytes | None) -> httpx.Response:
        import httpx

        headers = {} if content is None else {"content-type": "application/json"}
        try:
            return self._client.request(method, path, content=content, headers=headers)
        except httpx.TimeoutException as error:
            raise errors.DeadlineExceeded(f"{self._url} did not answer in time") from error
        except (httpx.TransportError, httpx.InvalidURL) as error:
            raise Unavailable(f"nothing answers at {self._url}") from error

    def _told(self, response: httpx.Response) -> Any:
        try:
            told = msgspec.json.decode(response.content) if response.content else None
        except msgspec.MsgspecError as error:
            raise Unavailable(f"{self._url} answered with HTTP {response.status_code} and no JSON") from error
        if response.status_code >= 400:
            raise refusal(response.status_code, told)
        return told


def _retry_after_s(text: str) -> float:
    return float(text) if text.isascii() and text.isdigit() and len(text) < 6 else 0.0


def refusal(status: int, told: Any) -> ModelyardError:
    """The error of the tree for what a server refused with: by its code where it names one, else by the status."""
    told = told.get("error") if isinstance(told, dict) else None
    if isinstance(told, dict):
        kind = _by_code().get(str(told.get("code")), ModelyardError)
        message = str(told.get("message") or f"HTTP {status}")
        if kind is Rejected:
            return Rejected(message, verdicts=msgspec.convert(told.get("verdicts") or (), tuple[Verdict, ...]))
        error = kind(message)
        error.field, error.rule = told.get("field"), told.get("rule")
        return error
    return _BY_STATUS.get(status, ModelyardError)(told if isinstance(told, str) else f"HTTP {status}")


def _by_code() -> dict[str, type[ModelyardError]]:
    return {kind.code: kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, ModelyardError)}


def _path(name: str, version: int | None) -> str:
    return f"/v2/models/{name}" if version is None else f"/v2/models/{name}/versions/{version}"


def _tensor(spec: TensorSpec, array: Array) -> dict[str, object]:
    shape = [len(array), *(-1 if size < 0 else size for size in spec.shape[1:])]
    flat = array.reshape(-1).tolist()
    if -1 in shape[1:]:
        shape = list(array.shape)
    if spec.datatype == "BYTES":
        data: list[object] = [None if item is None or item != item else str(item) for item in flat]  # noqa: PLR0124  # NaN
    elif spec.datatype == "BOOL":
        data = [None if item is None or item != item else bool(item) for item in flat]  # noqa: PLR0124
    else:
        data = flat
    # Half floats do not travel as JSON; FP32 holds them all.
    return {"name": spec.name, "shape": shape, "datatype": "FP32" if spec.datatype == "FP16" else spec.datatype, "data": data}


def _array(output: Mapping[str, Any]) -> Array:
    import numpy as np

    data, datatype = output["data"], output["datatype"]
    if datatype == "BYTES":
        array = np.array(data, dtype=object)
    elif datatype.startswith("FP"):
        array = np.array([np.nan if item is None else item for item in data], dtype=f"float{datatype[2:]}")
    else:
        array = np.array(data, dtype="bool" if datatype == "BOOL" else datatype.lower())
    return array.reshape(output["shape"])
