"""The OpenAPI description of what is served, made from each model's schema.

Hides how a TensorSpec becomes a JSON schema. Pure. Examples are the card's public example, never a row of anybody's data.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from modelyard.types import Schema, TensorSpec

_JSON = {"BOOL": "boolean", "BYTES": "string"}
_REFERENCE = {"$ref": "#/components/schemas/Error"}


def describe(models: Iterable[tuple[str, Schema, Mapping[str, Any]]], *, release: str) -> dict[str, Any]:
    """OpenAPI 3.1 for `models`, each a name, its schema and the public example by input ({} for none)."""
    paths: dict[str, Any] = {
        "/v2": {"get": _get("Server metadata")},
        "/v2/health/live": {"get": _get("Liveness")},
        "/v2/health/ready": {"get": _get("Readiness")},
        "/v2/models": {"get": _get("Models served here")},
        "/v1/models": {"get": _get("Models served here")},
        "/ping": {"get": _get("Readiness, without a body")},
        "/metrics": {"get": _get("Prometheus metrics")},
    }
    listed = list(models)
    for name, schema, example in listed:
        v2, v1 = _v2(schema, example), _v1(schema, example)
        paths[f"/v2/models/{name}"] = {"get": _get(f"Metadata of {name}")}
        paths[f"/v2/models/{name}/ready"] = {"get": _get(f"Whether {name} is ready")}
        paths[f"/v2/models/{name}/infer"] = {"post": _post(f"Predict with {name} (Open Inference Protocol V2)", v2, _v2_answer(schema))}
        paths[f"/v1/models/{name}"] = {"get": _get(f"Whether {name} is ready (KServe V1)")}
        paths[f"/v1/models/{name}:predict"] = {"post": _post(f"Predict with {name} (KServe V1)", v1, _rows())}
        paths[f"/v1/models/{name}:explain"] = {"post": _post(f"Explain predictions of {name} (KServe V1)", _why(v1, schema), _reasons())}
    if len(listed) == 1:
        paths["/invocations"] = {"post": _post("Predict (MLflow, SageMaker)", _records(listed[0][1], listed[0][2]), _rows())}
    return {
        "openapi": "3.1.0",
        "info": {"title": "modelyard", "version": release, "description": "Models served by modelyard."},
        "paths": paths,
        "components": {
            "schemas": {
                "Error": {
                    "type": "object",
                    "required": ["error"],
                    "properties": {name: {"type": "string"} for name in ("error", "code", "field", "rule")},
                }
            }
        },
    }


def describe_score(name: str, schema: Schema, *, version: int, release: str) -> dict[str, Any]:
    """Azure ML's description of `/score`: Swagger 2.0, or OpenAPI 3.0 for `version` 3."""
    row = _plain_row(schema, "nullable" if version == 3 else "x-nullable")
    body = {"type": "object", "required": ["input_data"], "properties": {"input_data": {"type": "array", "minItems": 1, "items": row}}}
    rows = {"type": "array", "items": {}}
    info = {"title": name, "version": release}
    if version == 3:
        post = {
            "requestBody": {"required": True, "content": {"application/json": {"schema": body}}},
            "responses": {"200": {"description": "One answer per row", "content": {"application/json": {"schema": rows}}}},
        }
        return {"openapi": "3.0.3", "info": info, "paths": {"/": _alive(), "/score": {"post": {"operationId": "score", **post}}}}
    given = [{"in": "body", "name": "body", "required": True, "schema": body}]
    post = {
        "consumes": ["application/json"],
        "produces": ["application/json"],
        "parameters": given,
        "responses": {"200": {"description": "One answer per row", "schema": rows}},
    }
    return {"swagger": "2.0", "info": info, "paths": {"/": _alive(), "/score": {"post": {"operationId": "score", **post}}}}


def _alive() -> dict[str, Any]:
    return {"get": {"operationId": "alive", "responses": {"200": {"description": "The server is alive"}}}}


def _plain_row(schema: Schema, nullable: str) -> dict[str, Any]:
    """A row in the words that Swagger 2.0 and OpenAPI 3.0 share."""
    properties: dict[str, Any] = {}
    for spec in schema.inputs:
        value: dict[str, Any] = {"type": _kind(spec)} | ({nullable: True} if spec.is_nullable else {})
        for _ in () if spec.shape in {(-1,), (-1, 1)} else spec.shape[1:]:
            value = {"type": "array", "items": value}
        properties[spec.name] = value
    if schema.layout == "array":
        return dict(properties[schema.inputs[0].name])
    return {"type": "object", "required": list(properties), "properties": properties}


def _kind(spec: TensorSpec) -> str:
    return _JSON.get(spec.datatype, "number" if spec.datatype.startswith("FP") else "integer")


def v2_request(schema: Schema, example: Mapping[str, Any]) -> dict[str, Any]:
    """The public example as a V2 request of one row."""
    return {
        "inputs": [
            {"name": spec.name, "shape": [1, *_shape_of(example[spec.name], spec)], "datatype": spec.datatype, "data": _flat(example[spec.name])}
            for spec in schema.inputs
        ]
    }


def v1_request(schema: Schema, example: Mapping[str, Any]) -> dict[str, Any]:
    """The public example as a KServe V1 request of one row: a record by name, or the bare row of a single array."""
    if schema.layout == "array":
        return {"instances": [example[schema.inputs[0].name]]}
    return {"instances": [{spec.name: example[spec.name] for spec in schema.inputs}]}


def is_complete(schema: Schema, example: Mapping[str, Any]) -> bool:
    """Whether `example` has a value for every input (a tagged column has none)."""
    return all(spec.name in example for spec in schema.inputs)


def _shape_of(value: Any, spec: TensorSpec) -> list[int]:
    sizes: list[int] = []
    while isinstance(value, list) and value:
        sizes.append(len(value))
        value = value[0]
    return sizes or [1] * (len(spec.shape) - 1)


def _flat(value: Any) -> list[Any]:
    if not isinstance(value, list):
        return [value]
    return [item for each in value for item in _flat(each)]


def _get(summary: str) -> dict[str, Any]:
    return {"summary": summary, "responses": {"200": {"description": "OK"}, "503": {"description": "Not ready"}}}


def _post(summary: str, body: dict[str, Any], answer: dict[str, Any]) -> dict[str, Any]:
    refusals = {
        "400": "The input does not fit the model's schema",
        "404": "No such model",
        "413": "Too large",
        "429": "Overloaded: try again after Retry-After seconds",
        "504": "The deadline passed",
    }
    return {
        "summary": summary,
        "requestBody": {"required": True, "content": {"application/json": body}},
        "responses": {
            "200": {"description": "The prediction", "content": {"application/json": {"schema": answer}}},
            **{status: {"description": says, "content": {"application/json": {"schema": _REFERENCE}}} for status, says in refusals.items()},
        },
    }


def _element(spec: TensorSpec) -> dict[str, Any]:
    kind = _kind(spec)
    element: dict[str, Any] = {"type": [kind, "null"] if spec.is_nullable else kind}
    if spec.categories is not None and not spec.unknown_allowed:
        element["enum"] = [*spec.categories, *([None] if spec.is_nullable else [])]
    return element


def _value(spec: TensorSpec) -> dict[str, Any]:
    value = _element(spec)
    sizes = spec.shape[1:]
    if spec.shape in {(-1,), (-1, 1)}:
        sizes = ()
    for size in reversed(sizes):
        value = {"type": "array", "items": value} | ({"minItems": size, "maxItems": size} if size >= 0 else {})
    return value


def _v2(schema: Schema, example: Mapping[str, Any]) -> dict[str, Any]:
    tensors = [
        {
            "type": "object",
            "required": ["name", "shape", "datatype", "data"],
            "properties": {
                "name": {"const": spec.name},
                "shape": {"type": "array", "items": {"type": "integer", "minimum": 1}},
                "datatype": {"type": "string", "examples": [spec.datatype]},
                "data": {"type": "array", "description": f"flat or nested as {list(spec.shape)}; elements: {_element(spec)['type']}"},
            },
        }
        for spec in schema.inputs
    ]
    body: dict[str, Any] = {
        "schema": {
            "type": "object",
            "required": ["inputs"],
            "properties": {"id": {"type": "string"}, "inputs": {"type": "array", "minItems": 1, "items": {"anyOf": tensors}}},
        }
    }
    if is_complete(schema, example):
        body["example"] = v2_request(schema, example)
    return body


def _why(body: dict[str, Any], schema: Schema) -> dict[str, Any]:
    """The body of `:explain`: that of `:predict`, and what is to be explained."""
    if schema.classes is not None:
        wanted: dict[str, Any] = {"class": {"enum": list(schema.classes)}}
    else:
        wanted = {"output": {"enum": [spec.name for spec in schema.outputs]}, "element": {"type": "integer", "minimum": 0}}
    asked = body["schema"]
    properties = {**asked["properties"], "parameters": {"type": "object", "properties": wanted, "additionalProperties": False}}
    return {**body, "schema": {**asked, "properties": properties}}


def _reasons() -> dict[str, Any]:
    by_input = {"type": "object", "additionalProperties": {"type": ["number", "null", "array"]}}
    explanation = {
        "type": "object",
        "required": ["output", "value", "base", "contributions", "standard_errors", "method"],
        "properties": {
            "output": {"type": "string"},
            "value": {"type": ["number", "null"], "description": "What is explained"},
            "base": {"type": ["number", "null"], "description": "Its mean over the background rows"},
            "contributions": by_input,
            "standard_errors": by_input,
            "method": {"enum": ["exact", "sampled"]},
        },
    }
    answer = _rows()
    properties = {**answer["properties"], "explanations": {"type": "array", "items": explanation}}
    return {**answer, "required": ["predictions", "explanations"], "properties": properties}


def _v2_answer(schema: Schema) -> dict[str, Any]:
    output = {
        "type": "object",
        "required": ["name", "shape", "datatype", "data"],
        "properties": {
            "name": {"type": "string", "enum": [spec.name for spec in schema.outputs]},
            "shape": {"type": "array", "items": {"type": "integer"}},
            "datatype": {"type": "string"},
            "data": {"type": "array"},
        },
    }
    return {
        "type": "object",
        "required": ["model_name", "outputs"],
        "properties": {
            "model_name": {"type": "string"},
            "model_version": {"type": "string"},
            "id": {"type": "string"},
            "outputs": {"type": "array", "items": output},
        },
    }


def _v1(schema: Schema, example: Mapping[str, Any]) -> dict[str, Any]:
    row = _row(schema)
    body: dict[str, Any] = {
        "schema": {"type": "object", "required": ["instances"], "properties": {"instances": {"type": "array", "minItems": 1, "items": row}}}
    }
    if is_complete(schema, example):
        body["example"] = v1_request(schema, example)
    return body


def _records(schema: Schema, example: Mapping[str, Any]) -> dict[str, Any]:
    properties = {
        "instances": {"type": "array", "minItems": 1, "items": _row(schema)},
        "dataframe_records": {"type": "array", "minItems": 1, "items": {"type": "object"}},
        "dataframe_split": {"type": "object"},
        "inputs": {"type": ["array", "object"]},
    }
    body: dict[str, Any] = {"schema": {"type": "object", "minProperties": 1, "maxProperties": 1, "properties": properties}}
    if is_complete(schema, example):
        body["example"] = v1_request(schema, example)
    return body


def _row(schema: Schema) -> dict[str, Any]:
    if schema.layout == "array":
        return _value(schema.inputs[0])
    names = [spec.name for spec in schema.inputs]
    record = {
        "type": "object",
        "required": names,
        "properties": {spec.name: _value(spec) for spec in schema.inputs},
        "additionalProperties": False,
    }
    return {"anyOf": [record, {"type": "array", "minItems": len(names), "maxItems": len(names)}]}


def _rows() -> dict[str, Any]:
    return {"type": "object", "required": ["predictions"], "properties": {"predictions": {"type": "array"}}}
