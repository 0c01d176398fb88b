"""KServe's Python server: a custom model, one worker, no gRPC."""

import os

from forest import load
from kserve import InferOutput, InferResponse, Model, ModelServer


class Forest(Model):
    """The forest."""

    def __init__(self) -> None:
        super().__init__("forest")
        self.run = load()
        self.ready = True

    def predict(self, payload, headers=None, response_headers=None):
        labels, probabilities = self.run(payload.inputs[0].as_numpy())
        outputs = []
        for name, datatype, array in (("label", "INT64", labels), ("probability", "FP32", probabilities)):
            output = InferOutput(name, list(array.shape), datatype)
            output.set_data_from_numpy(array, binary_data=False)
            outputs.append(output)
        return InferResponse(payload.id or "0", "forest", outputs)


if __name__ == "__main__":
    ModelServer(http_port=int(os.environ["PEER_PORT"]), enable_grpc=False, workers=1, access_log_format=None).start([Forest()])
