"""bundle.bom: CycloneDX 1.6 with what its schema demands, and nothing that changes from day to day."""

from __future__ import annotations

from collections.abc import Callable

from modelyard.bundle.artefact import Contents
from modelyard.bundle.bom import bill
from modelyard.types import Digest


def test_a_bill_names_the_model_its_libraries_and_their_dependency(contents: Callable[..., Contents]) -> None:
    card = contents().card
    made = bill(card, model=Digest("sha256:" + "ab" * 32))
    assert (made["bomFormat"], made["specVersion"], made["version"]) == ("CycloneDX", "1.6", 1)
    model = made["metadata"]["component"]
    assert model["type"] == "machine-learning-model" and model["hashes"] == [{"alg": "SHA-256", "content": "ab" * 32}]
    assert [item["format"] for item in model["modelCard"]["modelParameters"]["inputs"]] == ["age: FP64", "city: BYTES"]
    references = {item["bom-ref"] for item in made["components"]}
    assert references == {"python", "pkg:pypi/numpy@2.4.6", "pkg:pypi/scikit-learn@1.9.1"}
    assert set(made["dependencies"][0]["dependsOn"]) == references
    assert "serialNumber" not in made and "timestamp" not in made["metadata"]


def test_a_local_version_is_quoted_as_a_purl(contents: Callable[..., Contents]) -> None:
    import msgspec

    card = msgspec.structs.replace(contents().card, packages={"torch": "2.9.0+cpu"})
    assert bill(card, model=Digest("sha256:" + "ab" * 32))["components"][1]["purl"] == "pkg:pypi/torch@2.9.0%2Bcpu"
