"""The control API as an OpenAPI 3.1 document, made from the operations themselves.

Hides how structs become JSON Schema. Pure: the same operations give the same document.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import msgspec

from modelyard.console.operations import BYTES, Operation
from modelyard.console.uploads import MEDIA
from modelyard.security import policy
from modelyard.types import Verdict

FORM = "#/components/schemas/{name}"
_FORMS = {
    "name": "^[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?$",
    "alias": "^[a-z]([a-z0-9._-]{0,61}[a-z0-9])?$",
    "version": "^([1-9][0-9]{0,8}|sha256:[0-9a-f]{8,64}|[a-z]([a-z0-9._-]{0,61}[a-z0-9])?)$",
    "id": "^[0-9a-f]{1,64}$",
    "route": "^[a-z0-9]([a-z0-9_-]{0,61}[a-z0-9])?$",
}
_REFUSALS = {
    400: "The request does not fit; `field` and `rule` say where.",
    401: "No valid access key or token.",
    403: "The key may not do this.",
    404: "There is no such thing.",
    409: "The world has moved on; `current` is its state where there is one.",
    413: "The body is too large.",
    415: "The body is of another media type.",
    422: "A gate said no (`verdicts`), or bytes are not what their seal says.",
    429: "Too much at once; Retry-After says when to ask again.",
    500: "A failure of the server's own.",
    503: "Something that is needed is away; Retry-After says when to ask again.",
    504: "It took too long.",
    507: "The disk is full; nothing half-done was left.",
}


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """What went wrong, to what, and what to do next."""

    code: str
    message: str
    field: str | None
    rule: str | None
    verdicts: tuple[Verdict, ...]
    current: dict[str, Any] | None = None


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """The one form of every refusal."""

    error: Told


def describe(operations: Iterable[Operation]) -> dict[str, Any]:
    """The document of `operations`."""
    known = tuple(operations)
    types = [Failure, *(kind for each in known for kind in (each.answer, each.body, each.query) if kind is not None)]
    forms, components = msgspec.json.schema_components(types, ref_template=FORM)
    components = {name: _open(schema) for name, schema in components.items()}
    form = {id(kind): each for kind, each in zip(types, forms, strict=True)}
    paths: dict[str, dict[str, Any]] = {}
    for each in known:
        paths.setdefault(each.route, {})[each.method.lower()] = _operation(each, form, components)
    return {
        "openapi": "3.1.0",
        "info": {"title": "modelyard control API", "version": "1", "description": "Every verb of the command line; always with an access key."},
        "servers": [{"url": "/"}],
        "security": [{"key": []}],
        "paths": paths,
        "components": {"schemas": components, "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}},
    }


def _open(schema: Any) -> Any:
    """A schema without `items: false`, which ends a list of fixed length and which generators of clients cannot read; its length says the same."""
    if isinstance(schema, list):
        return [_open(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    told = {name: _open(each) for name, each in schema.items()}
    if told.get("items") is False:
        places = told.pop("prefixItems")
        kinds = [each for at, each in enumerate(places) if each not in places[:at]]
        told["items"] = kinds[0] if len(kinds) == 1 else {"anyOf": kinds}
    return told


def _operation(each: Operation, form: dict[int, Any], components: dict[str, Any]) -> dict[str, Any]:
    told: dict[str, Any] = {
        "operationId": each.name,
        "summary": each.line,
        "description": f"Roles: {', '.join(sorted(policy.ROUTES[each.method, each.route].roles))}.",
        "tags": [each.path.split("/")[1].removesuffix(".json")],
    }
    parameters = [*_path(each), *_query(each, components), *_headers(each)]
    if parameters:
        told["parameters"] = parameters
    if each.kind == "upload":
        told["requestBody"] = {"required": True, "content": {media: {"schema": {"type": "string", "format": "binary"}} for media in MEDIA}}
    elif each.kind == "bytes":
        told["requestBody"] = {"required": True, "content": {BYTES: {"schema": {"type": "string", "format": "binary"}}}}
    elif each.body is not None:
        is_needed = any(field.required for field in msgspec.structs.fields(each.body))
        told["requestBody"] = {"required": is_needed, "content": {"application/json": {"schema": form[id(each.body)]}}}
    told["responses"] = {str(status): _success(each, form) for status in each.statuses}
    refusal = {"application/json": {"schema": form[id(Failure)]}}
    told["responses"] |= {str(status): {"description": line, "content": refusal} for status, line in _REFUSALS.items()}
    return told


def _success(each: Operation, form: dict[int, Any]) -> dict[str, Any]:
    if each.kind == "download":
        return {"description": "The file.", "content": {"application/x-tar": {"schema": {"type": "string", "format": "binary"}}}}
    if each.kind == "metrics":
        return {"description": "Prometheus' text form.", "content": {"text/plain": {"schema": {"type": "string"}}}}
    return {"description": "Done." if each.is_change else "Found.", "content": {"application/json": {"schema": form[id(each.answer)]}}}


def _path(each: Operation) -> list[dict[str, Any]]:
    names = re.findall(r"{(\w+)}", each.path)
    return [{"name": name, "in": "path", "required": True, "schema": {"type": "string", "pattern": _FORMS[name]}} for name in names]


def _query(each: Operation, components: dict[str, Any]) -> list[dict[str, Any]]:
    if each.query is None:
        return []
    schema = components[each.query.__name__]
    required = schema.get("required", ())
    return [{"name": name, "in": "query", "required": name in required, "schema": part} for name, part in schema["properties"].items()]


def _headers(each: Operation) -> list[dict[str, Any]]:
    told = []
    if each.is_change:
        told.append(
            {
                "name": "Idempotency-Key",
                "in": "header",
                "description": "The same key with the same request is one effect and one answer, for a day.",
                "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"},
            }
        )
    if each.has_generation:
        told.append(
            {
                "name": "If-Match",
                "in": "header",
                "description": "The ETag of the deployment that the caller has seen: its generation.",
                "schema": {"type": "string", "pattern": '^"[0-9]{1,15}"$'},
            }
        )
    return told
