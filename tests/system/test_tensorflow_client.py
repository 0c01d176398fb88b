"""TensorFlow Serving's own client (tensorflow-serving-api, in an environment of its own) against a running data plane."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from serving import home_with, running

CLIENT = """
import json, sys
import grpc
import numpy as np
import tensorflow as tf
from google.protobuf import wrappers_pb2
from tensorflow_serving.apis import classification_pb2, get_model_metadata_pb2, get_model_status_pb2, inference_pb2, model_management_pb2
from tensorflow_serving.apis import model_service_pb2_grpc, predict_pb2, prediction_service_pb2_grpc, regression_pb2

channel = grpc.insecure_channel(sys.argv[1])
stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
models = model_service_pb2_grpc.ModelServiceStub(channel)
said = {}

def refused(ask):
    try:
        ask()
    except grpc.RpcError as error:
        return [error.code().name, error.details()]

def predict(name, **inputs):
    request = predict_pb2.PredictRequest()
    request.model_spec.name = name
    request.model_spec.signature_name = "serving_default"
    for key, value in inputs.items():
        request.inputs[key].CopyFrom(value)
    return request

def example(**features):
    kinds = {str: lambda v: tf.train.Feature(bytes_list=tf.train.BytesList(value=[v.encode()])),
             int: lambda v: tf.train.Feature(int64_list=tf.train.Int64List(value=[v])),
             float: lambda v: tf.train.Feature(float_list=tf.train.FloatList(value=[v])),
             list: lambda v: tf.train.Feature(float_list=tf.train.FloatList(value=v))}
    return tf.train.Example(features=tf.train.Features(feature={k: kinds[type(v)](v) for k, v in features.items()}))

rows = np.array([[1, 2, 3, 4], [4, 5, 6, 7]], np.float32)
answer = stub.Predict(predict("grid", X=tf.make_tensor_proto(rows)), 20)
said["probability"] = tf.make_ndarray(answer.outputs["probability"]).tolist()
said["label"] = list(answer.outputs["label"].int64_val)
said["spec"] = [answer.model_spec.name, answer.model_spec.version.value, answer.model_spec.signature_name]
single = predict("line", a=tf.make_tensor_proto(1.0, tf.float64, shape=[2, 1]), b=tf.make_tensor_proto([[2], [3]], tf.int64),
                 c=tf.make_tensor_proto([[np.nan], [3.0]], tf.float32))
said["line"] = tf.make_ndarray(stub.Predict(single, 20).outputs["prediction"]).tolist()
texts = predict("shop", city=tf.make_tensor_proto([["paris"], ["berlin"]]), size=tf.make_tensor_proto([[3.0], [4.0]], tf.float64))
said["shop"] = tf.make_ndarray(stub.Predict(texts, 20).outputs["prediction"]).tolist()
filtered = predict("grid", X=tf.make_tensor_proto(rows))
filtered.output_filter.append("label")
said["filtered"] = list(stub.Predict(filtered, 20).outputs)

classify = classification_pb2.ClassificationRequest()
classify.model_spec.name = "grid"
classify.input.example_list.examples.extend([example(X=[1.0, 2.0, 3.0, 4.0]), example(X=[9.0, 9.0, 9.0, 9.0])])
result = stub.Classify(classify, 20).result
said["classes"] = [[[each.label, round(each.score, 3)] for each in one.classes] for one in result.classifications]

regress = regression_pb2.RegressionRequest()
regress.model_spec.name = "shop"
regress.input.example_list_with_context.context.CopyFrom(example(city="paris"))
regress.input.example_list_with_context.examples.extend([example(size=1.0), example(size=2.0)])
said["regressions"] = [each.value for each in stub.Regress(regress, 20).result.regressions]

metadata = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
metadata.model_spec.name = "grid"
found = stub.GetModelMetadata(metadata, 20)
signatures = get_model_metadata_pb2.SignatureDefMap()
assert found.metadata["signature_def"].Unpack(signatures)
signature = signatures.signature_def["serving_default"]
said["inputs"] = {k: [tf.dtypes.as_dtype(v.dtype).name, [dim.size for dim in v.tensor_shape.dim]] for k, v in signature.inputs.items()}

status = get_model_status_pb2.GetModelStatusRequest()
status.model_spec.name = "grid"
states = models.GetModelStatus(status, 20).model_version_status
said["status"] = [[each.version, get_model_status_pb2.ModelVersionStatus.State.Name(each.state)] for each in states]
status.model_spec.version.CopyFrom(wrappers_pb2.Int64Value(value=9))
said["no version"] = refused(lambda: models.GetModelStatus(status, 20))[0]
labelled = predict("grid", X=tf.make_tensor_proto(rows))
labelled.model_spec.version_label = "stable"
said["stable"] = stub.Predict(labelled, 20).model_spec.version.value
said["unknown"] = refused(lambda: stub.Predict(predict("none"), 20))
said["misfit"] = refused(lambda: stub.Predict(predict("grid", X=tf.make_tensor_proto(rows[:, :3])), 20))
said["no regression"] = refused(lambda: stub.Regress(regression_pb2.RegressionRequest(model_spec={"name": "grid"}), 20))[0]
said["multi"] = refused(lambda: stub.MultiInference(inference_pb2.MultiInferenceRequest(), 20))[0]
said["reload"] = refused(lambda: models.HandleReloadConfigRequest(model_management_pb2.ReloadConfigRequest(), 20))
print("SAID", json.dumps(said))
"""


@pytest.mark.system
def test_the_client_of_tensorflow_serving(tmp_path: Path, tensorflow_python: Path) -> None:
    with running(home_with(tmp_path / "home", "grid", "line", "shop")) as server:
        done = subprocess.run(
            [str(tensorflow_python), "-c", CLIENT, str(server.grpc)], capture_output=True, text=True, check=False, timeout=240, cwd=tmp_path
        )
    assert done.returncode == 0, done.stderr[-4000:]
    said: dict[str, Any] = json.loads(done.stdout.split("SAID ")[1])
    assert [sum(row) for row in said["probability"]] == pytest.approx([1, 1])
    assert said["label"] == [0, 1]
    assert said["spec"] == ["grid", 1, "serving_default"]
    assert said["line"] == [21.0, 331.0]
    assert said["shop"] == [6.0, 4.0]
    assert said["filtered"] == ["label"]
    assert [[label for label, _ in row] for row in said["classes"]] == [["0", "1"]] * 2
    assert said["classes"][1][1][1] == 1.0
    assert said["regressions"] == [2.0, 4.0]
    assert said["inputs"] == {"X": ["float32", [-1, 4]]}
    assert said["status"] == [[1, "AVAILABLE"]]
    assert said["stable"] == 1
    assert said["no version"] == "NOT_FOUND"
    assert said["unknown"][0] == "NOT_FOUND"
    assert said["misfit"][0] == "INVALID_ARGUMENT" and "'X'" in said["misfit"][1]
    assert said["no regression"] == "INVALID_ARGUMENT"
    assert said["multi"] == "UNIMPLEMENTED"
    assert said["reload"][0] == "PERMISSION_DENIED" and "modelyard deploy" in said["reload"][1]
