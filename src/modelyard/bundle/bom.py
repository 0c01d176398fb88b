"""The bill of materials: the model and the libraries that it was made with, as CycloneDX 1.6 (ML-BOM).

Hides the CycloneDX form. No serial number and no time: it lies under the Digest, and the same inputs give the same bytes.
Source: ECMA-424, CycloneDX 1.6 (components of type machine-learning-model with a model card); purl of type pypi.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from modelyard.bundle.card import Card
from modelyard.types import Digest


def bill(card: Card, *, model: Digest) -> dict[str, Any]:
    """The bill for a model whose file has the digest `model`, from the facts on its card."""
    libraries = [_library(name, version) for name, version in sorted(card.packages.items())]
    python = {"type": "platform", "bom-ref": "python", "name": "python", "version": card.python}
    schema = card.schema
    component = {
        "type": "machine-learning-model",
        "bom-ref": "model",
        "name": card.title,
        "hashes": [{"alg": "SHA-256", "content": model.removeprefix("sha256:")}],
        "modelCard": {
            "modelParameters": {
                "task": schema.task,
                "inputs": [{"format": f"{spec.name}: {spec.datatype}"} for spec in schema.inputs],
                "outputs": [{"format": f"{spec.name}: {spec.datatype}"} for spec in schema.outputs],
            },
            "considerations": {"technicalLimitations": list(card.limits)},
        },
    }
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": component},
        "components": [python, *libraries],
        "dependencies": [{"ref": "model", "dependsOn": ["python", *(item["bom-ref"] for item in libraries)]}],
    }


def _library(name: str, version: str) -> dict[str, str]:
    purl = f"pkg:pypi/{quote(name)}@{quote(version)}"
    return {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}
