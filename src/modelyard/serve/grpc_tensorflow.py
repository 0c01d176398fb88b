"""TensorFlow Serving's gRPC services: PredictionService and ModelService.GetModelStatus.

Hides their methods, and that a model is named by a model_spec (version, or label). It must not compute or frame; predictions go to `Edge.ask`.
MultiInference and SessionRun are not spoken. Source: tensorflow_serving/apis.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from modelyard.errors import Forbidden, InvalidInput, NotFound
from modelyard.protocols import tfserving_grpc
from modelyard.protocols.messages import kind, parse
from modelyard.protocols.tfserving import SIGNATURE
from modelyard.security.policy import INVOKE, LOAD, SEE
from modelyard.serve.dataplane import DataPlane, Deployment, Version
from modelyard.serve.routes.v1 import labelled
from modelyard.serve.rpc import Call, Route

if TYPE_CHECKING:
    from modelyard.serve.edge import Edge

AVAILABLE = 30
SIGNATURES = "signature_def"


class TensorFlowServing:
    """The methods of both services. Lives in the event loop."""

    def __init__(self, plane: DataPlane, edge: Edge) -> None:
        self._plane = plane
        self._edge = edge
        predictions, models = "/tensorflow.serving.PredictionService/", "/tensorflow.serving.ModelService/"
        self.routes = {
            predictions + "Predict": Route(partial(self._ask, "tfserving_grpc"), INVOKE),
            predictions + "Classify": Route(partial(self._ask, "tf_classify_grpc"), INVOKE),
            predictions + "Regress": Route(partial(self._ask, "tf_regress_grpc"), INVOKE),
            predictions + "GetModelMetadata": Route(self._metadata, SEE),
            models + "GetModelStatus": Route(self._status, SEE),
            models + "HandleReloadConfigRequest": Route(self._reload, LOAD),
        }

    def _ask(self, codec: str, call: Call) -> None:
        self._edge.ask(call, self._find(call), codec)

    def _find(self, call: Call) -> Deployment | Version:
        """What the call's model_spec names. Raises Forbidden where the caller's key is for other models, NotFound, Unavailable, InvalidInput."""
        name, number, label = tfserving_grpc.address(call.body)
        if not name:
            raise InvalidInput("model_spec names a model", field="model_spec", rule="required")
        caller = call.head.caller
        if caller.models is not None:
            caller.require_model(name)
        target = self._plane.find(name, number)
        return labelled(target, label.lower()) if label and isinstance(target, Deployment) else target

    def _metadata(self, call: Call) -> None:
        asked = parse(kind("tensorflow.serving.GetModelMetadataRequest"), call.body)
        if list(asked.metadata_field) != [SIGNATURES]:
            raise InvalidInput(f"metadata_field is {SIGNATURES}", field="metadata_field", rule="known")
        target = self._find(call)
        version = target.champion if isinstance(target, Deployment) else target
        answer = kind("tensorflow.serving.GetModelMetadataResponse")()
        answer.model_spec.name, answer.model_spec.version.value, answer.model_spec.signature_name = version.name, version.number, SIGNATURE
        told = answer.metadata[SIGNATURES]
        told.type_url, told.value = "type.googleapis.com/tensorflow.serving.SignatureDefMap", tfserving_grpc.signature(version.schema)
        call.reply(answer.SerializeToString())

    def _status(self, call: Call) -> None:
        parse(kind("tensorflow.serving.GetModelStatusRequest"), call.body)
        target = self._find(call)
        numbers = sorted(target.versions) if isinstance(target, Deployment) else [target.number]
        if not numbers:
            raise NotFound("no version of the model is loaded here", field="version", rule="loaded")
        answer = kind("tensorflow.serving.GetModelStatusResponse")()
        for number in numbers:
            answer.model_version_status.add(version=number, state=AVAILABLE, status={"error_code": 0})
        call.reply(answer.SerializeToString())

    def _reload(self, call: Call) -> None:  # noqa: ARG002
        raise Forbidden(
            "a configuration is not taken here: use `modelyard deploy` and `modelyard undeploy`, or the repository's methods under `serve --dynamic`",
            rule="dynamic",
        )
