"""Ray Serve: one replica behind its proxy."""

import os
import signal

import ray
from forest import load, rows_of, tensors
from ray import serve


@serve.deployment(num_replicas=1, max_ongoing_requests=100)
class Forest:
    """The forest."""

    def __init__(self) -> None:
        self.run = load()

    async def __call__(self, request):
        return {"model_name": "forest", "outputs": tensors(self.run(rows_of(await request.json())))}


if __name__ == "__main__":
    variables = {name: os.environ[name] for name in ("PEER_MODEL", "PYTHONPATH")}
    ray.init(include_dashboard=False, num_cpus=2, log_to_driver=False, runtime_env={"env_vars": variables})
    serve.start(http_options={"host": "127.0.0.1", "port": int(os.environ["PEER_PORT"])}, logging_config={"enable_access_log": False})
    serve.run(Forest.bind(), route_prefix="/")
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    serve.shutdown()
    ray.shutdown()
