"""TensorFlow Serving's methods: which model is meant, and what is told of it."""

from __future__ import annotations

from typing import Any, cast

import pytest

from modelyard.errors import Forbidden, InvalidInput, NotFound
from modelyard.protocols.messages import kind
from modelyard.serve.access import ANYONE, Caller
from modelyard.serve.dataplane import Deployment
from modelyard.serve.grpc_tensorflow import TensorFlowServing
from modelyard.types import Digest, Principal, TrafficPlan
from serving import GRID

PREDICTIONS, MODELS = "/tensorflow.serving.PredictionService/", "/tensorflow.serving.ModelService/"


class Version:
    def __init__(self, number: int) -> None:
        self.name, self.number, self.digest, self.schema = "m", number, Digest(f"sha256:{number}"), GRID


class Plane:
    def __init__(self) -> None:
        versions = {each.digest: each for each in (Version(1), Version(2))}
        plan = TrafficPlan(
            name="m", generation=1, weights={Digest("sha256:1"): 90, Digest("sha256:2"): 10}, versions={d: v.number for d, v in versions.items()}
        )
        self.deployment = Deployment(plan, cast(Any, versions))

    def find(self, name: str, number: int | None = None) -> Any:
        if name != "m" or number not in {None, 1, 2}:
            raise NotFound("no model of this name is served here")
        return self.deployment if number is None else self.deployment.versions[number]


class Edge:
    def __init__(self) -> None:
        self.asked: list[tuple[Any, str]] = []

    def ask(self, call: Any, target: Any, codec: str) -> None:
        self.asked.append((target, codec))


class Call:
    def __init__(self, body: bytes, caller: Caller = ANYONE) -> None:
        self.body = body
        self.head = type("Head", (), {"caller": caller})
        self.said: list[bytes] = []
        self.reply = self.said.append


@pytest.fixture
def services() -> TensorFlowServing:
    return TensorFlowServing(cast(Any, Plane()), cast(Any, Edge()))


def ask(services: TensorFlowServing, path: str, body: bytes, caller: Caller = ANYONE) -> Any:
    call = Call(body, caller)
    services.routes[path].handler(cast(Any, call))
    return call.said


def spec(message: str = "PredictRequest", **values: Any) -> bytes:
    return bytes(kind(f"tensorflow.serving.{message}")(model_spec={"name": "m"} | values).SerializeToString())


def test_a_request_goes_to_what_its_spec_names(services: TensorFlowServing) -> None:
    asked = cast(Any, services._edge).asked
    for values in ({}, {"version": {"value": 2}}, {"version_label": "Stable"}, {"version_label": "canary"}):
        ask(services, PREDICTIONS + "Predict", spec(**values))
    deployment = cast(Any, services._plane).deployment
    assert [target for target, _ in asked] == [deployment, deployment.versions[2], deployment.versions[1], deployment.versions[2]]
    for method, codec in (("Classify", "tf_classify_grpc"), ("Regress", "tf_regress_grpc")):
        ask(services, PREDICTIONS + method, spec())
        assert asked[-1][1] == codec
    for values, error in (({"name": ""}, InvalidInput), ({"name": "n"}, NotFound), ({"version_label": "x"}, InvalidInput)):
        with pytest.raises(error):
            ask(services, PREDICTIONS + "Predict", spec(**values))


def test_a_key_for_other_models_gets_nothing(services: TensorFlowServing) -> None:
    other = Caller(Principal("key:k"), ANYONE.rights, frozenset({"other"}))
    for path in (PREDICTIONS + "Predict", PREDICTIONS + "GetModelMetadata", MODELS + "GetModelStatus"):
        body = kind("tensorflow.serving.GetModelMetadataRequest")(model_spec={"name": "m"}, metadata_field=["signature_def"]).SerializeToString()
        with pytest.raises(Forbidden):
            ask(services, path, body if "Metadata" in path else spec(), other)


def test_metadata_and_status(services: TensorFlowServing) -> None:
    body = kind("tensorflow.serving.GetModelMetadataRequest")(model_spec={"name": "m"}, metadata_field=["signature_def"]).SerializeToString()
    said = kind("tensorflow.serving.GetModelMetadataResponse").FromString(ask(services, PREDICTIONS + "GetModelMetadata", body)[0])
    assert said.model_spec.version.value == 1
    assert said.metadata["signature_def"].type_url.endswith("/tensorflow.serving.SignatureDefMap")
    with pytest.raises(InvalidInput):
        ask(services, PREDICTIONS + "GetModelMetadata", spec("GetModelMetadataRequest"))
    response = kind("tensorflow.serving.GetModelStatusResponse")
    for values, numbers in (({}, [1, 2]), ({"version": {"value": 2}}, [2])):
        said = response.FromString(ask(services, MODELS + "GetModelStatus", spec("GetModelStatusRequest", **values))[0])
        assert [(each.version, each.state) for each in said.model_version_status] == [(number, 30) for number in numbers]


def test_a_configuration_is_refused(services: TensorFlowServing) -> None:
    with pytest.raises(Forbidden, match="modelyard deploy"):
        ask(services, MODELS + "HandleReloadConfigRequest", b"")
