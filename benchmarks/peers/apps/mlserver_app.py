"""MLServer: a custom runtime in the server's own process (no worker pool), as its documentation has it for one core."""

import asyncio
import os

from forest import load
from mlserver import MLModel, MLServer, ModelSettings, Settings
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceResponse


class Forest(MLModel):
    """The forest."""

    async def load(self) -> bool:
        self.run = load()
        return True

    async def predict(self, payload):
        labels, probabilities = self.run(NumpyCodec.decode_input(payload.inputs[0]))
        outputs = [NumpyCodec.encode_output("label", labels), NumpyCodec.encode_output("probability", probabilities)]
        return InferenceResponse(model_name=self.name, outputs=outputs)


async def main() -> None:
    port = int(os.environ["PEER_PORT"])
    settings = Settings(
        debug=False,
        host="127.0.0.1",
        http_port=port,
        grpc_port=port - 10_000,
        metrics_port=port - 20_000,
        parallel_workers=0,
        use_structured_logging=False,
    )
    server = MLServer(settings)
    await server.start([ModelSettings(name="forest", implementation=Forest)])


if __name__ == "__main__":
    asyncio.run(main())
