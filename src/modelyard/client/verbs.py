"""Every verb of the client, written once: what it sends, and what becomes of the reply.

Hides the paths and bodies of both planes' APIs. Each is a generator (`client.steps`), so that it blocks on one face and is awaited on the other.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

import msgspec

from modelyard import config, errors
from modelyard.client import answers, places, wire
from modelyard.client.policy import Budgets, asking, decoded, idempotency_key
from modelyard.client.steps import Item, Pause, Send, Steps, gathered, streaming, verb
from modelyard.client.trust import trusting
from modelyard.errors import InvalidConfig, InvalidInput, NotFound, Unavailable
from modelyard.exchange import is_confidential
from modelyard.types import TensorSpec

if TYPE_CHECKING:
    import ssl

    from modelyard.config import Settings
    from modelyard.types import Array

T = TypeVar("T")

BATCH_ROWS = 512
CHANGE_TIMEOUT_S = 180.0
"""A deploy runs its gates before it is answered."""

AWAY_S = 60.0
"""How long `watch` asks on while the control process is away: it may be restarting, and the rollout goes on all the same."""

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 1.0
_BODY_BYTES, _BODY_LABELS = 1000 << 10, 10_000
_NUMBER = re.compile(r"[1-9][0-9]{0,8}")


class Verbs:
    """The calls of both faces. May be used from several threads (or tasks) at once.

    `url` is the control API, `key` an access key (without it, the one in MODELYARD_KEY); without a URL, that of this machine's home is found (`home`:
    another one's settings), with its admin key where there is no other. Predictions are asked of the data plane that the control process names, but
    over plain http on another machine only where that process is asked so too; or of `data_url`. The URL of a data plane alone will do for those.
    `trust` says which servers are believed (`trusting`); without it they are the system's authorities.
    """

    def __init__(
        self,
        url: str | None = None,
        key: str | None = None,
        *,
        data_url: str | None = None,
        timeout_s: float = 30.0,
        trust: ssl.SSLContext | None = None,
        home: Settings | None = None,
    ) -> None:
        if url is not None and home is not None:
            raise InvalidInput("a URL and a home both say where to ask; give one of them", field="url", rule="unique")
        self._url = url.rstrip("/") if url is not None else None
        self._key = key if key is not None else config.key()
        self._home = home
        self._data_url = data_url.rstrip("/") if data_url is not None else None
        self._found_data: str | None = None
        self._timeout_s = timeout_s
        self._budgets = Budgets()
        self._open(trusting() if trust is None else trust)

    def _open(self, trust: ssl.SSLContext) -> None:
        """Make the pool of connections, whose servers' certificates are checked so."""
        raise NotImplementedError

    # Predictions

    @verb
    def inputs(self, name: str, *, version: int | None = None) -> Steps[tuple[TensorSpec, ...]]:
        """What the model takes: name, datatype and shape of each input. Raises NotFound or Unavailable."""
        return (yield from self._inputs(name, version))

    @verb
    def predict(self, name: str, inputs: Any, *, version: int | None = None) -> Steps[dict[str, Array]]:
        """The model's outputs for `inputs`: arrays (or lists) by input name, a frame, or, of a model with one input, an array.

        Asked in batches that fit the server's limits. Strings are `str`, missing is None or NaN. Raises what the server refuses, as the error tree.
        """
        import numpy as np

        parts = yield from gathered(self._batches(name, inputs, version))
        return {output: np.concatenate([part[output] for part in parts]) for output in parts[0]} if parts else {}

    @streaming(dict)
    def batches(self, name: str, inputs: Any, *, version: int | None = None) -> Steps[None]:
        """As `predict`, one batch of outputs after the other, in order."""
        yield from self._batches(name, inputs, version)

    def _inputs(self, name: str, version: int | None) -> Steps[tuple[TensorSpec, ...]]:
        told = yield from self._ask_data("GET", _model(name, version))
        return tuple(TensorSpec(name=item["name"], datatype=item["datatype"], shape=tuple(item["shape"])) for item in told["inputs"])

    def _batches(self, name: str, inputs: Any, version: int | None) -> Steps[None]:
        specs = yield from self._inputs(name, version)
        columns = wire.columns(name, specs, inputs)
        rows = len(columns[specs[0].name])
        at, size = 0, BATCH_ROWS
        while at < rows:
            body = {"inputs": [wire.tensor(spec, columns[spec.name][at : at + size]) for spec in specs]}
            try:
                answer = yield from self._ask_data("POST", f"{_model(name, version)}/infer", body)
            except errors.PayloadTooLarge:
                if size == 1:
                    raise
                size = max(1, size // 4)
                continue
            at += size
            yield Item({output["name"]: wire.array_of(output) for output in answer["outputs"]})

    # Deployments

    @verb
    def deployments(self) -> Steps[tuple[answers.Deployment, ...]]:
        """Every deployment."""
        return (yield from self._see("/deployments", tuple[answers.Deployment, ...]))

    @verb
    def deployment(self, name: str) -> Steps[answers.Deployment]:
        """One deployment. Raises NotFound."""
        return (yield from self._see(f"/deployments/{_part(name)}", answers.Deployment))

    @verb
    def deploy(
        self,
        reference: str,
        *,
        name: str | None = None,
        strategy: answers.Strategy | str | None = None,
        breaking: bool = False,
        expected_generation: int | None = None,
        key: str | None = None,
    ) -> Steps[answers.Deployment]:
        """Put a version (`churn`, `churn:3`, `churn@champion`) behind `name`, by default its model's; `wait` or `watch` for the end of its rollout.

        `strategy` says how it reaches the traffic, by its name or in full. `key` makes several calls one effect; without it each call is one,
        however often it is tried. Raises Rejected by a gate, Conflict while another rollout is under way or when the generation is not the expected
        one (`current` is then what there is).
        """
        body = _wanted(reference, strategy, breaking, expected_generation)
        return (yield from self._change("POST", f"/deployments/{_part(name or model_of(reference))}", body, answers.Deployment, key))

    @verb
    def plan(
        self,
        reference: str,
        *,
        name: str | None = None,
        strategy: answers.Strategy | str | None = None,
        breaking: bool = False,
        expected_generation: int | None = None,
    ) -> Steps[answers.Planned]:
        """What `deploy` would do, its gates included; nothing is changed. Raises what it would."""
        body = _wanted(reference, strategy, breaking, expected_generation)
        return (yield from self._change("POST", f"/deployments/{_part(name or model_of(reference))}/plan", body, answers.Planned))

    @verb
    def rollback(self, name: str, *, expected_generation: int | None = None, key: str | None = None) -> Steps[answers.Deployment]:
        """Go back to what served before. Raises Conflict when there is nothing."""
        return (yield from self._of_rollout(name, "rollback", {"expected_generation": expected_generation}, key))

    @verb
    def promote(self, name: str, *, expected_generation: int | None = None, key: str | None = None) -> Steps[answers.Deployment]:
        """Skip to the last step of the rollout, whatever its guards say."""
        return (yield from self._of_rollout(name, "promote", {"expected_generation": expected_generation}, key))

    @verb
    def pause(self, name: str, *, why: str = "", expected_generation: int | None = None, key: str | None = None) -> Steps[answers.Deployment]:
        """Keep the rollout at its step."""
        return (yield from self._of_rollout(name, "pause", {"why": why, "expected_generation": expected_generation}, key))

    @verb
    def resume(self, name: str, *, expected_generation: int | None = None, key: str | None = None) -> Steps[answers.Deployment]:
        """Let a paused rollout go on."""
        return (yield from self._of_rollout(name, "resume", {"expected_generation": expected_generation}, key))

    @verb
    def abort(self, name: str, *, why: str = "", expected_generation: int | None = None, key: str | None = None) -> Steps[answers.Deployment]:
        """End the rollout: what served before has all traffic again."""
        return (yield from self._of_rollout(name, "abort", {"why": why, "expected_generation": expected_generation}, key))

    @verb
    def approve(self, name: str, *, expected_generation: int | None = None, key: str | None = None) -> Steps[answers.Deployment]:
        """Let the next step that needs an approval be entered. Raises Forbidden for who began the rollout."""
        return (yield from self._of_rollout(name, "approve", {"expected_generation": expected_generation}, key))

    @verb
    def undeploy(self, name: str, *, expected_generation: int | None = None, key: str | None = None) -> Steps[answers.Deployment]:
        """Take a name out of service."""
        body = {"expected_generation": expected_generation}
        return (yield from self._change("DELETE", f"/deployments/{_part(name)}", body, answers.Deployment, key))

    @verb
    def history(self, name: str, *, limit: int = 1000) -> Steps[tuple[answers.Event, ...]]:
        """What happened to a deployment, oldest first."""
        return (yield from self._see(f"/deployments/{_part(name)}/history?limit={limit}", tuple[answers.Event, ...]))

    @verb
    def give_labels(
        self,
        name: str,
        labels: Mapping[str, str | float | bool] | Iterable[tuple[str, str | float | bool, float | None]],
        *,
        known_at: Mapping[str, float] | None = None,
    ) -> Steps[answers.Received]:
        """Give true answers of predictions, by prediction id, in as many requests as it takes; the newest of an id stands.

        `known_at` says of each, or some, since when it is known (seconds since 1970); by it the newest is found, else by when they come. Instead of a
        mapping they may be given as (id, truth, known_at or None), where an id may have several.
        """
        total = dict.fromkeys(answers.Received.__struct_fields__, 0)
        since = known_at or {}
        given = ((key, truth, since.get(key)) for key, truth in labels.items()) if isinstance(labels, Mapping) else labels
        for part in parts(given):
            told = yield from self._change("POST", f"/deployments/{_part(name)}/labels", {"labels": part}, answers.Received)
            total = {kind: count + getattr(told, kind) for kind, count in total.items()}
        return answers.Received(**total)

    @verb
    def labels(self, name: str) -> Steps[answers.Account]:
        """What became of all labels of a deployment."""
        return (yield from self._see(f"/deployments/{_part(name)}/labels", answers.Account))

    @verb
    def monitor(self, name: str, *, since: str | None = None) -> Steps[answers.Overview]:
        """How a deployment does: verdicts, the alarm budget, courses from `since` (ISO 8601) on. Raises NotFound."""
        start = f"?since={quote(since)}" if since is not None else ""
        return (yield from self._see(f"/deployments/{_part(name)}/monitor{start}", answers.Overview))

    @verb
    def monitor_settings(self, name: str) -> Steps[answers.Chosen]:
        """How a deployment is watched."""
        return (yield from self._see(f"/deployments/{_part(name)}/monitor/settings", answers.Chosen))

    @verb
    def set_monitor_settings(
        self, name: str, settings: Mapping[str, Any], *, expected_revision: int | None = None, key: str | None = None
    ) -> Steps[answers.Chosen]:
        """Let a deployment be watched as `settings` say, in the form of a `monitor.toml`; what they leave out is the default.

        Raises InvalidConfig for what its model cannot honour, Conflict when they were changed since the expected revision.
        """
        body = {"settings": dict(settings), "expected_revision": expected_revision}
        return (yield from self._change("PUT", f"/deployments/{_part(name)}/monitor/settings", body, answers.Chosen, key))

    @verb
    def observe(self, name: str, segment: bytes) -> Steps[answers.Observed]:
        """Hand over what a data plane elsewhere has counted: the bytes of a segment, under a name of the sender's. Sent again, it counts once."""
        send = self._send("POST", f"/observations?name={quote(name, safe='')}", None, timeout_s=self._timeout_s)
        send = send._replace(content=segment, headers={**send.headers, "content-type": "application/octet-stream"})
        reply = yield from asking(self._budgets.of("POST"), send, may_repeat=True)
        return _converted(decoded(reply, send.url), answers.Observed, send.url)

    @streaming(answers.Deployment)
    def watch(self, name: str, *, timeout_s: float | None = None) -> Steps[None]:
        """The deployment now and after each change, until no rollout is under way; `last` of the final one says how it ended.

        Goes on while the control process is restarted. Raises NotFound once the name is out of service, DeadlineExceeded after `timeout_s`.
        """
        yield from self._watch(name, timeout_s)

    @verb
    def wait(self, name: str, *, timeout_s: float | None = 300.0) -> Steps[answers.Deployment]:
        """The deployment once no rollout is under way. Raises Rejected when the last one went back, and as `watch` does."""
        seen: list[answers.Deployment] = yield from gathered(self._watch(name, timeout_s))
        found = seen[-1]
        if found.last is not None and found.last.verdict.outcome == "fail":
            raise errors.Rejected(f"{name} did not take version {found.last.goal.version}", verdicts=(found.last.verdict, *found.last.guards))
        return found

    def _watch(self, name: str, timeout_s: float | None) -> Steps[None]:
        began_s = heard_s = monotonic()
        seen: answers.Deployment | None = None
        rest_s = _FIRST_PAUSE_S
        while True:
            found: answers.Deployment | None
            try:
                found = yield from self._see(f"/deployments/{_part(name)}", answers.Deployment)
                heard_s = monotonic()
            except Unavailable:
                if monotonic() - heard_s > AWAY_S:
                    raise
                found = seen
            if found is not None and found != seen:
                seen, rest_s = found, _FIRST_PAUSE_S
                yield Item(found)
            if found is not None and found.rollout is None:
                return
            if timeout_s is not None and monotonic() - began_s > timeout_s:
                raise errors.DeadlineExceeded(f"the rollout of {name} is still under way after {timeout_s:g} s")
            yield Pause(rest_s)
            rest_s = min(_LONGEST_PAUSE_S, rest_s * 1.5)

    # Registry

    @verb
    def models(self) -> Steps[tuple[answers.Model, ...]]:
        """Every model."""
        return (yield from self._see("/models", tuple[answers.Model, ...]))

    @verb
    def versions(self, name: str) -> Steps[tuple[answers.Version, ...]]:
        """The versions of a model. Raises NotFound."""
        return (yield from self._see(f"/models/{_part(name)}/versions", tuple[answers.Version, ...]))

    @verb
    def inspect(self, reference: str) -> Steps[dict[str, Any]]:
        """What a version holds: schema, card, lock, members, as JSON has it."""
        return (yield from self._see(_version(reference), dict[str, Any]))

    @verb
    def verify(self, reference: str) -> Steps[answers.Verified]:
        """Run every gate on a version, there and now."""
        return (yield from self._change("POST", f"{_version(reference)}/verify", None, answers.Verified))

    @verb
    def alias(self, name: str, alias: str, version: int | None, *, key: str | None = None) -> Steps[None]:
        """Let an alias mean a version, or remove it (None)."""
        path = f"/models/{_part(name)}/aliases/{_part(alias)}"
        body = None if version is None else {"version": version}
        yield from self._change("DELETE" if version is None else "PUT", path, body, dict[str, Any], key)

    @verb
    def delete(self, name: str, version: int, *, key: str | None = None) -> Steps[None]:
        """Remove a version that nothing uses. Raises Conflict when something does."""
        yield from self._change("DELETE", f"/models/{_part(name)}/versions/{version}", None, dict[str, Any], key)

    @verb
    def gc(self, *, key: str | None = None) -> Steps[int]:
        """Free the space of what no version needs; how many bytes."""
        return (yield from self._change("POST", "/gc", None, dict[str, int], key))["size_bytes"]

    @verb
    def export(self, reference: str, path: Path | str) -> Steps[Path]:
        """Write the bundle of a version to `path`, a .tar that is not there yet; it appears whole or not at all."""
        target = Path(path)
        if target.exists():
            raise errors.Conflict(f"{target} exists; choose another name or remove it")
        send = self._send("GET", f"{_version(reference)}/export", None, timeout_s=CHANGE_TIMEOUT_S)
        yield from asking(self._budgets.of("GET"), send._replace(save_to=target), may_repeat=True)
        return target

    @verb
    def import_(self, path: Path | str, *, name: str | None = None, key: str | None = None) -> Steps[answers.Version]:
        """Register the bundle in the .tar `path`, under its own name or another. Raises Tampered, UntrustedSigner."""
        route = "/bundles" if name is None else f"/models/{_part(name)}/versions"
        send = self._send("POST", route, None, timeout_s=CHANGE_TIMEOUT_S, key=key or idempotency_key())
        send = send._replace(upload=Path(path), headers={**send.headers, "content-type": "application/x-tar"})
        reply = yield from asking(self._budgets.of("POST"), send, may_repeat=True)
        return msgspec.convert(decoded(reply, send.url), answers.Version)

    # Who is believed and let in

    @verb
    def trusted(self) -> Steps[tuple[answers.Trusted, ...]]:
        """Every signer that the home trusts."""
        return (yield from self._see("/trust", tuple[answers.Trusted, ...]))

    @verb
    def trust(self, pem: str, *, key: str | None = None) -> Steps[str]:
        """Trust the signer whose public key, or authority's certificate, is `pem`; the id."""
        return (yield from self._change("POST", "/trust", {"pem": pem}, answers.Trusted, key)).key_id

    @verb
    def distrust(self, key_id: str, *, key: str | None = None) -> Steps[None]:
        """Trust a signer no longer, by the first digits of the id."""
        yield from self._change("DELETE", f"/trust/{_part(key_id)}", None, answers.Trusted, key)

    @verb
    def keys(self) -> Steps[tuple[answers.Key, ...]]:
        """What is kept of every access key."""
        return (yield from self._see("/keys", tuple[answers.Key, ...]))

    @verb
    def create_key(
        self, name: str, *, roles: Sequence[str] = ("invoker",), models: Sequence[str] = (), expires_at: str | None = None, priority: str = "high"
    ) -> Steps[answers.Key]:
        """Make an access key, which is told this once (so a call that broke off is not tried again with its key)."""
        body = {"name": name, "roles": list(roles), "models": list(models), "expires_at": expires_at, "priority": priority}
        return (yield from self._change("POST", "/keys", body, answers.Key))

    @verb
    def revoke_key(self, id: str, *, key: str | None = None) -> Steps[answers.Key]:
        """Revoke an access key, by the first digits of its id."""
        return (yield from self._change("DELETE", f"/keys/{_part(id)}", None, answers.Key, key))

    # Alerts

    @verb
    def alerts(self) -> Steps[answers.Alerts]:
        """What fires and what is over, silences, and how the routes fare."""
        return (yield from self._see("/alerts", answers.Alerts))

    @verb
    def silence(
        self, *, until: str, why: str, deployment: str = "", rule: str = "", column: str = "", severity: str = "", key: str | None = None
    ) -> Steps[answers.Silence]:
        """Let nobody be told of the alerts that fit all that is given, until then (ISO 8601 with a zone)."""
        body = {"until": until, "why": why, "deployment": deployment, "rule": rule, "column": column, "severity": severity}
        return (yield from self._change("POST", "/silences", body, answers.Silence, key))

    @verb
    def unsilence(self, id: str, *, key: str | None = None) -> Steps[answers.Silence]:
        """End a silence now, by the first digits of its id."""
        return (yield from self._change("DELETE", f"/silences/{_part(id)}", None, answers.Silence, key))

    @verb
    def test_route(self, name: str) -> Steps[answers.Tested]:
        """Send a test message by a route of alerts, now."""
        return (yield from self._change("POST", f"/alerts/routes/{_part(name)}/test", None, answers.Tested))

    @verb
    def metrics(self) -> Steps[str]:
        """Verdicts, harm, budgets, alerts and routes in Prometheus' text form, as its scraper is told."""
        send = self._send("GET", "/metrics", None, timeout_s=self._timeout_s)
        reply = yield from asking(self._budgets.of("GET"), send, may_repeat=True)
        return reply.content.decode("utf-8")

    # The world

    @verb
    def status(self) -> Steps[answers.Status]:
        """The running world."""
        return (yield from self._see("/status", answers.Status))

    @verb
    def config(self) -> Steps[dict[str, Any]]:
        """Each setting with its value and source."""
        return (yield from self._see("/config", dict[str, Any]))

    @verb
    def audit(self, *, since: str | None = None, skip: int = 0, limit: int = 100) -> Steps[tuple[dict[str, Any], ...]]:
        """Entries of the audit log, oldest first; for an auditor's key."""
        start = f"&since={quote(since)}" if since is not None else ""
        return (yield from self._see(f"/audit?skip={skip}&limit={limit}{start}", tuple[dict[str, Any], ...]))

    @verb
    def audit_verify(self) -> Steps[dict[str, Any]]:
        """Whether the audit chains are whole, and the first entry that is not; for an auditor's key."""
        return (yield from self._change("POST", "/audit/verify", None, dict[str, Any]))

    # How they ask

    def asked(self, method: str, path: str, body: object, answer: type[T], *, key: str | None = None) -> Steps[T]:
        """What the control API answers to `method` on `path` below /api/v1, as `answer`."""
        if method == "GET":
            return (yield from self._see(path, answer))
        return (yield from self._change(method, path, body, answer, key))

    def _of_rollout(self, name: str, what: str, body: Mapping[str, object], key: str | None) -> Steps[answers.Deployment]:
        return (yield from self._change("POST", f"/deployments/{_part(name)}/{what}", body, answers.Deployment, key))

    def _see(self, path: str, answer: type[T]) -> Steps[T]:
        send = self._send("GET", path, None, timeout_s=self._timeout_s)
        reply = yield from asking(self._budgets.of("GET"), send, may_repeat=True)
        return _converted(decoded(reply, send.url), answer, send.url)

    def _change(self, method: str, path: str, body: object, answer: type[T], key: str | None = None) -> Steps[T]:
        send = self._send(method, path, _without_none(body), timeout_s=max(CHANGE_TIMEOUT_S, self._timeout_s), key=key or idempotency_key())
        reply = yield from asking(self._budgets.of(method), send, may_repeat=True)
        return _converted(decoded(reply, send.url), answer, send.url)

    def _send(self, method: str, path: str, body: object, *, timeout_s: float, key: str | None = None) -> Send:
        place = self._control()
        content = None if body is None else msgspec.json.encode(body)
        headers = (
            place.headers | ({} if content is None else {"content-type": "application/json"}) | ({} if key is None else {"idempotency-key": key})
        )
        return Send(method, f"{place.url}/api/v1{path}", headers, content, timeout_s)

    def _control(self) -> places.Place:
        if self._url is not None:
            return places.Place(self._url, self._key)
        if self._data_url is not None and self._home is None:
            raise InvalidInput("this client knows a data plane alone; give the URL of the control API as well", field="url", rule="required")
        return places.of_home(self._home, key=self._key)

    def _ask_data(self, method: str, path: str, body: object = None) -> Steps[Any]:
        """Ask the data plane: every question to it may be asked twice."""
        url, key = yield from self._data()
        content = None if body is None else msgspec.json.encode(body)
        headers = places.Place(url, key).headers | ({} if content is None else {"content-type": "application/json"})
        send = Send(method, url + path, headers, content, self._timeout_s)
        try:
            reply = yield from asking(self._budgets.of(f"data {method}"), send, may_repeat=True)
        except Unavailable:
            self._found_data = None  # it may be elsewhere the next time
            raise
        return decoded(reply, send.url)

    def _data(self) -> Steps[places.Place]:
        if self._data_url is not None:
            return places.Place(self._data_url, self._key)
        control = self._control()
        if self._found_data is None:
            send = self._send("GET", "/data-plane", None, timeout_s=self._timeout_s)
            try:
                reply = yield from asking(self._budgets.of("GET"), send, may_repeat=True)
                told = _converted(decoded(reply, send.url), answers.DataPlane, send.url)
                found = places.beside(control.url, told.url)
                if control.url.lower().startswith("https:") and not is_confidential(found):
                    raise InvalidConfig(
                        f"the data plane is at {found}, where the key can be read on the way; give data_url to ask it so all the same",
                        field="data_url", rule="confidential",
                    )  # fmt: skip
                self._found_data = found
            except NotFound:  # what answers there is a data plane itself
                self._found_data = control.url
        return control._replace(url=self._found_data)


def _wanted(reference: str, strategy: answers.Strategy | str | None, breaking: bool, expected_generation: int | None) -> dict[str, object]:
    whole = answers.Strategy(kind=strategy) if isinstance(strategy, str) else strategy
    return {"reference": reference, "breaking": breaking, "strategy": whole, "expected_generation": expected_generation}


def model_of(reference: str) -> str:
    """The model that `churn`, `churn:3` or `churn@champion` names."""
    return reference.partition("@")[0].partition(":")[0]


def _model(name: str, version: int | None) -> str:
    return f"/v2/models/{_part(name)}" if version is None else f"/v2/models/{_part(name)}/versions/{version}"


def _version(reference: str) -> str:
    """The path of a version. Raises InvalidInput for a bare name: the API names the version."""
    name = model_of(reference)
    rest = reference.removeprefix(name)
    if (rest[:1] == ":" and _NUMBER.fullmatch(rest[1:])) or (rest[:1] == "@" and len(rest) > 1):
        return f"/models/{_part(name)}/versions/{_part(rest[1:])}"
    raise InvalidInput("say which version: NAME:3, NAME@champion or NAME@sha256:…", field="reference", rule="form")


def _part(text: str) -> str:
    return quote(text, safe=":")


def _without_none(body: object) -> object:
    return {name: value for name, value in body.items() if value is not None} if isinstance(body, Mapping) else body


def _converted(told: Any, answer: type[T], url: str) -> T:
    try:
        return msgspec.convert(told, answer)
    except msgspec.ValidationError as error:
        raise Unavailable(f"{url} answered in a form that this release does not know") from error


def parts(labels: Iterable[tuple[str, str | float | bool, float | None]]) -> Iterator[list[dict[str, object]]]:
    """Labels in parts that one body of the control API holds, by id: a ledger keeps them so, and those side by side cost it a fraction.

    Those of one id stay in their order.
    """
    part: list[dict[str, object]] = []
    size = 0
    for key, truth, since in sorted(labels, key=lambda label: label[0]):
        item: dict[str, object] = {"id": key, "truth": truth}
        if since is not None:
            item["known_at"] = since
        length = len(msgspec.json.encode(item)) + 1
        if part and (size + length > _BODY_BYTES or len(part) == _BODY_LABELS):
            yield part
            part, size = [], 0
        part.append(item)
        size += length
    if part:
        yield part
