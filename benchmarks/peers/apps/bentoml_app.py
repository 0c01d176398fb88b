"""BentoML: one service, one worker."""

import bentoml
from forest import load, rows_of, tensors


@bentoml.service(workers=1, logging={"access": {"enabled": False}})
class Forest:
    """The forest."""

    def __init__(self) -> None:
        self.run = load()

    @bentoml.api
    def infer(self, inputs: list[dict]) -> dict:
        """Answer in the form of the Open Inference Protocol."""
        return {"model_name": "forest", "outputs": tensors(self.run(rows_of({"inputs": inputs})))}
