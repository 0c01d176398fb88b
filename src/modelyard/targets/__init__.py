"""Where a deployment runs.

Hides how a platform is told which versions shall answer and how it says that they do. A target starts or steers a data plane; it must
never import one. Built-ins stand in the literal table below.
"""

from __future__ import annotations

TARGETS: dict[str, str] = {"local": "modelyard.targets.local:Local"}
"""Target name -> "module:Class"."""
