"""modelyard takes a trained model to production and keeps it healthy there.

The public names are re-exported lazily: `import modelyard` loads nothing but this file. Nobody inside the package imports it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from modelyard.bundle import Bundle as Bundle
    from modelyard.client import AsyncClient as AsyncClient
    from modelyard.client import Client as Client
    from modelyard.client import Step as Step
    from modelyard.client import Strategy as Strategy
    from modelyard.control import package as package

__version__ = "0.1.0"
__all__ = ["AsyncClient", "Bundle", "Client", "Step", "Strategy", "package"]

_HOMES = {
    "AsyncClient": "modelyard.client",
    "Bundle": "modelyard.bundle",
    "Client": "modelyard.client",
    "Step": "modelyard.client",
    "Strategy": "modelyard.client",
    "package": "modelyard.control",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'modelyard' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
