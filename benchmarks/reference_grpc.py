"""Reference gRPC server over one ONNX model: `reference_grpc.py MODEL.onnx PORT`, a bare `grpc.aio` servicer of ModelInfer.

It checks nothing, counts nothing and protects against nothing: a ruler, not a server. Its messages are protobuf's own (upb), its tensors raw.
"""

import asyncio
import sys

import grpc
import numpy as np
import onnxruntime as ort

from modelyard.protocols.messages import kind

REQUEST, RESPONSE = kind("inference.ModelInferRequest"), kind("inference.ModelInferResponse")
DATATYPES = {"int64": "INT64", "float32": "FP32"}

options = ort.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
session = ort.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
input_name = session.get_inputs()[0].name
output_names = [output.name for output in session.get_outputs()]


async def infer(request, context):
    tensor = request.inputs[0]
    rows = np.frombuffer(request.raw_input_contents[0], np.float32).reshape(tensor.shape)
    response = RESPONSE(model_name=request.model_name, model_version="1", id=request.id)
    for name, values in zip(output_names, session.run(None, {input_name: rows}), strict=True):
        response.outputs.add(name=name, datatype=DATATYPES[str(values.dtype)], shape=values.shape)
        response.raw_output_contents.append(values.tobytes())
    return response


async def main():
    server = grpc.aio.server()
    method = grpc.unary_unary_rpc_method_handler(infer, request_deserializer=REQUEST.FromString, response_serializer=RESPONSE.SerializeToString)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("inference.GRPCInferenceService", {"ModelInfer": method}),))
    server.add_insecure_port(f"127.0.0.1:{sys.argv[2]}")
    await server.start()
    await server.wait_for_termination()


asyncio.run(main())
