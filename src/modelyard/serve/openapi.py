"""The OpenAPI description of what is served, made from each model's schema.

Hides how a TensorSpec becomes a JSON schema. Pure. Examples are the card's public example, never a row of anybody's data.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from modelyard.types import Schema, TensorSpec

_JSON = {"BOOL": "boolean", "BYTES": "string"}
_REFERENCE = {"$ref": "#/components/schemas/Error"}
_REFERENCE_STATUS = {"$ref": "#/components/schemas/Status"}
_BULK = "application/vnd.apache.arrow.stream, text/csv and application/jsonlines are read and, by Accept, written here as well."
QUERY_INPUTS = 100
"""A model of more inputs is not described as a query, though it can be asked by one."""


class Described(NamedTuple):
    """What the document says of one model: its name, its schema, and the public example by input ({} for none)."""

    name: str
    schema: Schema
    example: Mapping[str, Any]


def describe(models: Iterable[tuple[str, Schema, Mapping[str, Any]]], *, release: str, is_whole: bool = True) -> dict[str, Any]:
    """OpenAPI 3.1 for `models`, each a name, its schema and the public example; with `is_whole` also of what belongs to no model.

    It keeps to what generators of clients can read: every operation has an id, every array its items, and no schema is a choice of several.
    """
    paths: dict[str, Any] = _common() if is_whole else {}
    listed = [Described(*model) for model in models]
    for model, ident in zip(listed, _idents([model.name for model in listed]), strict=True):
        paths |= _of_model(model, ident)
    if is_whole and len(listed) == 1:
        paths |= _of_single(listed[0])
    return {
        "openapi": "3.1.0",
        "info": {"title": "modelyard" if is_whole else listed[0].name, "version": release, "description": "Models served by modelyard."},
        "paths": paths,
        "components": {
            "schemas": {
                "Error": {
                    "type": "object",
                    "required": ["error"],
                    "properties": {name: {"type": "string"} for name in ("error", "code", "field", "rule")},
                },
                "Status": {"type": "object", "description": "What this wire says of the server or a model."},
            }
        },
    }


def _common() -> dict[str, Any]:
    """What belongs to no model."""
    index = {"schema": {"type": "object", "properties": {"ready": {"type": "boolean"}}}, "example": {}}
    listed = {"description": "Every loaded version", "content": {"application/json": {"schema": {"type": "array", "items": _REFERENCE_STATUS}}}}
    return {
        "/": {"get": _get("alive", "Whether the server is alive")},
        "/ping": {"get": _plain("ping", "Readiness, without a body"), "post": _plain("ping_by_post", "Readiness, without a body")},
        "/health": {"get": _plain("health", "Readiness (MLflow)", "text/plain")},
        "/version": {"get": _plain("version", "The release of this server (MLflow)", "text/plain")},
        "/healthz/live": {"get": _get("live_probe", "Liveness")},
        "/healthz/ready": {"get": _get("ready_probe", "Readiness")},
        "/metrics": {"get": _plain("metrics", "Prometheus metrics", "text/plain")},
        "/v2": {"get": _get("server_metadata", "Server metadata")},
        "/v2/health/live": {"get": _get("server_live", "Liveness (Open Inference Protocol V2)")},
        "/v2/health/ready": {"get": _get("server_ready", "Readiness (Open Inference Protocol V2)")},
        "/v2/models": {"get": _get("list_models", "Models served here")},
        "/v2/repository/index": {
            "post": {
                "operationId": "repository_index",
                "summary": "Every loaded version",
                "requestBody": {"required": False, "content": {"application/json": index}},
                "responses": {"200": listed, "400": _refusal("The body is another")},
            }
        },
        "/v1/models": {"get": _get("list_models_v1", "Models served here (KServe V1)")},
        "/models": {"get": _get("list_models_sagemaker", "Models served here (SageMaker)")},
        "/execution-parameters": {"get": _get("execution_parameters", "What SageMaker's batch transform asks")},
    }


def _of_model(model: Described, ident: str) -> dict[str, Any]:
    """The routes of one model; `ident` is its name as part of an operation's id."""
    name, schema, _ = model
    v2 = _post(f"infer_{ident}", f"Predict with {name} (Open Inference Protocol V2)", _v2(model), _v2_answer(schema))
    v2["description"] = _BULK
    paths = {
        f"/v2/models/{name}": {"get": _get(f"metadata_{ident}", f"Metadata of {name}")},
        f"/v2/models/{name}/ready": {"get": _get(f"ready_{ident}", f"Whether {name} is ready")},
        f"/v2/models/{name}/infer": {"post": v2},
        f"/v2/models/{name}/openapi.json": {"get": _get(f"openapi_{ident}", f"This description, of {name} alone")},
        f"/v1/models/{name}": {"get": _get(f"status_{ident}", f"Whether {name} is ready (KServe V1), and its versions (TensorFlow Serving)")},
        f"/v1/models/{name}/metadata": {"get": _get(f"signature_{ident}", f"The signature of {name} (TensorFlow Serving)")},
        f"/v1/models/{name}:predict": {"post": _post(f"predict_{ident}", f"Predict with {name} (KServe V1)", _v1(model), _rows("predictions"))},
        f"/models/{name}": {"get": _get(f"describe_{ident}", f"How SageMaker lists {name}")},
        f"/models/{name}/invoke": {"post": _post(f"invoke_{ident}", f"Predict with {name} (SageMaker)", _v1(model), _rows("predictions"))},
    }
    explain = _post(f"explain_{ident}", f"Explain predictions of {name} (KServe V1)", _why(_v1(model), schema), _reasons())
    paths[f"/v1/models/{name}:explain"] = {"post": explain}
    if schema.task == "classification":
        classify = _post(f"classify_{ident}", f"Classes and scores by {name} (TensorFlow Serving)", _examples(model), _rows("results"))
        paths[f"/v1/models/{name}:classify"] = {"post": classify}
    elif schema.task == "regression":
        regress = _post(f"regress_{ident}", f"A number per example by {name} (TensorFlow Serving)", _examples(model), _rows("results"))
        paths[f"/v1/models/{name}:regress"] = {"post": regress}
    return paths


def _of_single(model: Described) -> dict[str, Any]:
    """The routes that name no model."""
    query = [
        {"name": spec.name, "in": "query", "required": True, "schema": {"type": "string"}, "description": "an array's values with commas between"}
        for spec in model.schema.inputs
    ]
    answers = {"200": _ok("One answer", {"type": "array", "items": {}}), "400": _refusal("The row does not fit the model's schema")}
    ask = {"operationId": "score_by_query", "summary": "Predict one row (Azure ML)", "parameters": query, "responses": answers}
    score = _post("score", "Predict (Azure ML)", _v1(model, "data"), {"type": "array", "items": {}})
    return {
        "/invocations": {"post": _post("invocations", "Predict (MLflow, SageMaker)", _v1(model), _rows("predictions"))},
        "/score": {"post": score, **({"get": ask} if len(query) <= QUERY_INPUTS else {})},
        "/swagger.json": {"get": _get("swagger", "Azure ML's description of /score")},
    }


def _idents(names: list[str]) -> list[str]:
    """Names as parts of operation ids, each another."""
    found: dict[str, int] = {}
    idents = []
    for name in names:
        ident = re.sub(r"\W", "_", name)
        found[ident] = found.get(ident, 0) + 1
        idents.append(ident if found[ident] == 1 else f"{ident}_{found[ident]}")
    return idents


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


def _ok(says: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": says, "content": {"application/json": {"schema": schema}}}


def _refusal(says: str) -> dict[str, Any]:
    return {"description": says, "content": {"application/json": {"schema": _REFERENCE}}}


def _get(ident: str, summary: str) -> dict[str, Any]:
    return {"operationId": ident, "summary": summary, "responses": {"200": _ok("OK", _REFERENCE_STATUS), "503": {"description": "Not ready"}}}


def _plain(ident: str, summary: str, media: str = "") -> dict[str, Any]:
    answer: dict[str, Any] = {"description": "OK"} | ({"content": {media: {"schema": {"type": "string"}}}} if media else {})
    return {"operationId": ident, "summary": summary, "responses": {"200": answer, "503": {"description": "Not ready"}}}


def _post(ident: str, summary: str, body: dict[str, Any], answer: dict[str, Any]) -> dict[str, Any]:
    refusals = {
        "400": "The input does not fit the model's schema",
        "404": "No such model",
        "413": "Too large",
        "415": "A media type that is not read",
        "429": "Overloaded: try again after Retry-After seconds",
        "503": "Not ready",
        "504": "The deadline passed",
    }
    return {
        "operationId": ident,
        "summary": summary,
        "requestBody": {"required": True, "content": {"application/json": body}},
        "responses": {"200": _ok("The prediction", answer), **{status: _refusal(says) for status, says in refusals.items()}},
    }


def _element(spec: TensorSpec) -> dict[str, Any]:
    kind = _kind(spec)
    element: dict[str, Any] = {"type": [kind, "null"] if spec.is_nullable else kind}
    if spec.categories is not None and not spec.unknown_allowed and not spec.is_nullable and _are_names(spec.categories):
        element["enum"] = list(spec.categories)
    return element


def _are_names(categories: tuple[Any, ...]) -> bool:
    """Whether generators can make a name of each category: two that they would call the same end a whole client."""
    made = [re.sub(r"\W+", "_", each).strip("_").upper() for each in categories if isinstance(each, str)]
    return len(set(made)) == len(categories) and all(name[:1].isalpha() for name in made)


def _value(spec: TensorSpec) -> dict[str, Any]:
    value = _element(spec)
    sizes = spec.shape[1:]
    if spec.shape in {(-1,), (-1, 1)}:
        sizes = ()
    for size in reversed(sizes):
        value = {"type": "array", "items": value} | ({"minItems": size, "maxItems": size} if size >= 0 else {})
    return value


def _v2(model: Described) -> dict[str, Any]:
    _, schema, example = model
    inputs = "; ".join(f"{spec.name} {spec.datatype} {list(spec.shape)}" for spec in schema.inputs)
    tensor = {
        "type": "object",
        "required": ["name", "shape", "datatype", "data"],
        "properties": {
            "name": {"type": "string"},
            "shape": {"type": "array", "items": {"type": "integer"}},
            "datatype": {"type": "string"},
            "data": {"type": "array", "items": {}, "description": "flat in row-major order, or nested as the shape says"},
        },
    }
    body: dict[str, Any] = {
        "schema": {
            "type": "object",
            "required": ["inputs"],
            "properties": {
                "id": {"type": "string"},
                "inputs": {"type": "array", "minItems": 1, "items": tensor, "description": f"the model's inputs: {inputs}"},
            },
        }
    }
    if is_complete(schema, example):
        body["example"] = v2_request(schema, example)
    return body


def _why(body: dict[str, Any], schema: Schema) -> dict[str, Any]:
    """The body of `:explain`: that of `:predict`, and what is to be explained."""
    if schema.classes is not None:
        wanted: dict[str, Any] = {"class": {"description": f"one of {', '.join(map(str, schema.classes[:20]))}"}}
    else:
        wanted = {
            "output": {"type": "string", "description": f"one of {', '.join(spec.name for spec in schema.outputs)}"},
            "element": {"type": "integer", "minimum": 0},
        }
    asked = body["schema"]
    properties = {**asked["properties"], "parameters": {"type": "object", "properties": wanted, "additionalProperties": False}}
    return {**body, "schema": {**asked, "properties": properties}}


def _reasons() -> dict[str, Any]:
    by_input = {"type": "object", "additionalProperties": {}}
    explanation = {
        "type": "object",
        "required": ["output", "value", "base", "contributions", "standard_errors", "method"],
        "properties": {
            "output": {"type": "string"},
            "value": {"type": ["number", "null"], "description": "What is explained"},
            "base": {"type": ["number", "null"], "description": "Its mean over the background rows"},
            "contributions": by_input,
            "standard_errors": by_input,
            "method": {"type": "string", "description": "exact or sampled"},
        },
    }
    answer = _rows("predictions")
    properties = {**answer["properties"], "explanations": {"type": "array", "items": explanation}}
    return {**answer, "required": ["predictions", "explanations"], "properties": properties}


def _v2_answer(schema: Schema) -> dict[str, Any]:
    output = {
        "type": "object",
        "required": ["name", "shape", "datatype", "data"],
        "properties": {
            "name": {"type": "string", "description": f"one of {', '.join(spec.name for spec in schema.outputs)}"},
            "shape": {"type": "array", "items": {"type": "integer"}},
            "datatype": {"type": "string"},
            "data": {"type": "array", "items": {}},
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


def _v1(model: Described, key: str = "instances") -> dict[str, Any]:
    """Rows under `key`: the form of KServe V1, which MLflow, SageMaker and Vertex AI take as well."""
    _, schema, example = model
    rows = {"type": "array", "minItems": 1, "items": _row(schema)}
    body: dict[str, Any] = {"schema": {"type": "object", "required": [key], "properties": {key: rows}}}
    if is_complete(schema, example):
        body["example"] = {key: v1_request(schema, example)["instances"]}
    return body


def _examples(model: Described) -> dict[str, Any]:
    _, schema, example = model
    rows = {"type": "array", "minItems": 1, "items": _record(schema)}
    body: dict[str, Any] = {"schema": {"type": "object", "required": ["examples"], "properties": {"examples": rows}}}
    if is_complete(schema, example):
        body["example"] = {"examples": [{spec.name: example[spec.name] for spec in schema.inputs}]}
    return body


def _row(schema: Schema) -> dict[str, Any]:
    return _value(schema.inputs[0]) if schema.layout == "array" else _record(schema)


def _record(schema: Schema) -> dict[str, Any]:
    return {
        "type": "object",
        "required": [spec.name for spec in schema.inputs],
        "properties": {spec.name: _value(spec) for spec in schema.inputs},
        "additionalProperties": False,
    }


def _rows(key: str) -> dict[str, Any]:
    return {"type": "object", "required": [key], "properties": {key: {"type": "array", "items": {}}}}
