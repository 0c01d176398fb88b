"""Every path that the data plane answers, a file per family of wires; `ROUTES` is the one table that `serve.edge` builds from.

A family is a class that takes the Edge and has `fixed` and `find` (`base.Routes`). To add a route, add it to its family; nothing registers by
being imported.
"""

from __future__ import annotations

from modelyard.serve.routes.azureml import AzureML
from modelyard.serve.routes.health import Health
from modelyard.serve.routes.oip_v2 import OipV2
from modelyard.serve.routes.sagemaker import SageMaker
from modelyard.serve.routes.v1 import V1
from modelyard.serve.routes.vertex import Vertex

ROUTES = (Health, OipV2, V1, SageMaker, AzureML, Vertex)
"""Where two families have the same path and method, the later one answers: what a platform names comes last."""
