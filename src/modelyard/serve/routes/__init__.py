"""Every path that the data plane answers, a file per family of wires; `ROUTES` is the one table that `serve.edge` builds from.

A family is a class that takes the Edge and has `fixed` and `find` (`base.Routes`). To add a route, add it to its family; nothing registers by
being imported.
"""

from __future__ import annotations

from modelyard.serve.routes.health import Health
from modelyard.serve.routes.oip_v2 import OipV2
from modelyard.serve.routes.scoring import Scoring
from modelyard.serve.routes.v1 import V1

ROUTES = (Health, OipV2, V1, Scoring)
