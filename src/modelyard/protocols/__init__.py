"""Pure wire codecs: bytes of one protocol to and from the one internal form of a question and an answer.

Each member hides one wire and knows no other; none touches a socket, a clock or the environment. `base.Codec` is what they
have in common, `tensors` and `records` are what JSON values mean under a schema on every wire.
"""

from __future__ import annotations

from importlib import import_module

from modelyard.protocols.base import Codec, Joint
from modelyard.types import Schema

CODECS = {
    "oip_v2": "modelyard.protocols.oip_v2:OipV2",
    "kserve_v1": "modelyard.protocols.kserve_v1:KServeV1",
    "tfserving": "modelyard.protocols.tfserving:TFServing",
    "tf_classify": "modelyard.protocols.tfserving:Classify",
    "tf_regress": "modelyard.protocols.tfserving:Regress",
    "v1_predict": "modelyard.protocols.v1_predict:V1Predict",
    "v1_explain": "modelyard.protocols.v1_explain:V1Explain",
    "azureml": "modelyard.protocols.azureml:AzureML",
    "azureml_query": "modelyard.protocols.azureml:AzureQuery",
    "vertex": "modelyard.protocols.kserve_v1:KServeV1",  # the same envelope, under a path of the platform's
    "mlflow": "modelyard.protocols.mlflow:MLflow",
    "csv": "modelyard.protocols.csv_table:CsvTable",
    "arrow": "modelyard.protocols.arrow:Arrow",
    "json_lines": "modelyard.protocols.json_lines:JsonLines",
    "oip_v2_grpc": "modelyard.protocols.oip_v2_grpc:OipV2Grpc",
    "tfserving_grpc": "modelyard.protocols.tfserving_grpc:TFServingGrpc",
    "tf_classify_grpc": "modelyard.protocols.tfserving_grpc:ClassifyGrpc",
    "tf_regress_grpc": "modelyard.protocols.tfserving_grpc:RegressGrpc",
    "oip_v2_grpc_stream": "modelyard.protocols.oip_v2_grpc:OipV2GrpcStream",
}


class Codecs(dict[str, Codec]):
    """The codecs of one deployment, each bound to its name and schema when it is first asked for: most models are asked in one wire only.

    `codecs["oip_v2"]` is a wire; `codecs["mlflow:csv:json_lines"]` reads CSV, answers in JSON lines and refuses as MLflow does (an empty part is the
    wire itself).
    """

    def __init__(self, name: str, schema: Schema) -> None:
        super().__init__()
        self._name = name
        self._schema = schema

    def __missing__(self, key: str) -> Codec:
        wire, *forms = key.split(":")
        if forms:
            reader, writer = (self[form or wire] for form in forms)
            codec: Codec = Joint(self[wire], reader, writer)
        else:
            module, _, kind = CODECS[wire].partition(":")
            codec = getattr(import_module(module), kind)(self._name, self._schema)
        self[key] = codec
        return codec


def bind(name: str, schema: Schema) -> Codecs:
    """Every codec, to be bound to the deployment `name` and its schema."""
    return Codecs(name, schema)
