"""LitServe: one worker on the CPU, batches as it comes with them switched off (they add a wait)."""

import os

import litserve
from forest import load, rows_of, tensors


class Forest(litserve.LitAPI):
    """The forest."""

    def setup(self, device):
        self.run = load()

    def decode_request(self, request, **kwargs):
        return rows_of(request)

    def predict(self, x, **kwargs):
        return self.run(x)

    def encode_response(self, output, **kwargs):
        return {"model_name": "forest", "outputs": tensors(output)}


if __name__ == "__main__":
    server = litserve.LitServer(Forest(), accelerator="cpu", devices=1, workers_per_device=1, disable_openapi_url=True)
    server.run(host="127.0.0.1", port=int(os.environ["PEER_PORT"]), generate_client_file=False, log_level="warning", access_log=False)
