"""bundle.manifest: ModelPack's forms as published, and only these."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from modelyard.bundle import Built, manifest
from modelyard.errors import DigestMismatch, UnsupportedFormat


def documents(built: Built) -> tuple[manifest.Index, manifest.Manifest]:
    index = manifest.read_index(built.blobs[built.index])
    found = manifest.read_manifest(built.blobs[built.digest], artifact_type=manifest.MODEL, subject=None, name="it")
    return index, found


def test_the_model_is_a_modelpack_artefact_with_one_raw_layer_per_member(built: Built) -> None:
    document = json.loads(built.blobs[built.digest])
    assert document["artifactType"] == "application/vnd.cncf.model.manifest.v1+json"
    assert document["config"]["mediaType"] == "application/vnd.cncf.model.config.v1+json"
    assert {layer["mediaType"] for layer in document["layers"]} == {
        f"application/vnd.cncf.model.{kind}.v1.raw" for kind in ("weight", "weight.config", "dataset", "doc")
    }
    paths = [layer["annotations"]["org.cncf.model.filepath"] for layer in document["layers"]]
    assert paths[0] == "model.onnx" and len(set(paths)) == len(paths) == len(manifest.ROLES)
    config = json.loads(built.blobs[document["config"]["digest"]])
    assert config["modelfs"] == {"type": "layers", "diffIds": [layer["digest"] for layer in document["layers"]]}
    assert config["config"] == {"format": "onnx"}


def test_attestation_and_seals_refer_to_their_subject(built: Built) -> None:
    index, found = documents(built)
    model, attestation, *seals = (json.loads(built.blobs[item.digest]) for item in index.manifests)
    assert "subject" not in model and attestation["subject"]["digest"] == built.digest
    assert [item["subject"]["digest"] for item in seals] == [built.digest, index.manifests[1].digest]
    assert [member.role for member in manifest.members(found, manifest.ROLES, name="it")] == list(manifest.ROLES)


def test_a_manifest_of_another_kind_or_subject_is_refused(built: Built) -> None:
    index, _ = documents(built)
    attestation = built.blobs[index.manifests[1].digest]
    manifest.read_manifest(attestation, artifact_type=manifest.ATTESTATION, subject=index.manifests[0], name="it")
    with pytest.raises(UnsupportedFormat, match="another kind"):
        manifest.read_manifest(attestation, artifact_type=manifest.MODEL, subject=index.manifests[0], name="it")
    with pytest.raises(DigestMismatch, match="another bundle"):
        manifest.read_manifest(attestation, artifact_type=manifest.ATTESTATION, subject=index.manifests[2], name="it")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("model.onnx", "../model.onnx"),
        ("model.onnx", "/etc/passwd"),
        ("model.onnx", "golden.bin"),
        ('"org.modelyard.role":"model"', '"org.modelyard.role":"loader"'),
        ('"org.modelyard.format":"1"', '"org.modelyard.format":"2"'),
        ("weight.v1.raw", "weight.v1.tar"),
        ("model.config.v1", "model.config.v2"),
    ],
)
def test_a_manifest_that_says_something_new_is_refused(built: Built, old: str, new: str) -> None:
    text = built.blobs[built.digest].decode()
    assert old in text
    with pytest.raises(UnsupportedFormat):
        found = manifest.read_manifest(text.replace(old, new).encode(), artifact_type=manifest.MODEL, subject=None, name="it")
        manifest.members(found, manifest.ROLES, name="it")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda layers: layers[1:], r"lacks model\.onnx"),
        (lambda layers: (*layers, layers[0]), "twice"),
        (lambda layers: layers[::-1], "out of order"),
        (lambda layers: (), "lacks"),
    ],
)
def test_each_role_stands_once_and_in_order(built: Built, change: Any, why: str) -> None:
    _, found = documents(built)
    with pytest.raises(DigestMismatch, match=why):
        manifest.members(msgspec.structs.replace(found, layers=change(found.layers)), manifest.ROLES, name="it")


@pytest.mark.parametrize("size", [-1, 1 << 40])
def test_a_size_out_of_range_is_refused_wherever_it_stands(built: Built, size: int) -> None:
    index, found = documents(built)
    layer = msgspec.structs.replace(found.layers[0], size=size)
    with pytest.raises(UnsupportedFormat, match="size"):
        manifest.members(msgspec.structs.replace(found, layers=(layer, *found.layers[1:])), manifest.ROLES, name="it")
    listed = tuple(msgspec.structs.replace(item, size=size) for item in index.manifests)
    with pytest.raises(UnsupportedFormat, match="size"):
        manifest.read_index(manifest.write_index(listed))


def test_equal_meanings_have_equal_bytes() -> None:
    from modelyard.types import TensorSpec

    whole, real = (TensorSpec(name="a", datatype="FP64", shape=(-1,), minimum=(low,), maximum=(4,)) for low in (3, 3.0))
    assert manifest.plain(whole) == manifest.plain(real) and isinstance(manifest.plain(whole).minimum[0], float)


def test_an_optional_member_stands_once_behind_the_others_or_not_at_all(built: Built) -> None:
    _, found = documents(built)
    form = manifest.OPTIONAL_ROLES["values"]
    more = manifest.describe_member("values", form, b"{}")
    both = msgspec.structs.replace(found, layers=(*found.layers, more))
    assert [member.role for member in manifest.members(both, manifest.ROLES, name="it")] == [*manifest.ROLES, "values"]
    for layers in ((more, *found.layers), (*found.layers, more, more)):
        with pytest.raises(DigestMismatch, match="out of order"):
            manifest.members(msgspec.structs.replace(found, layers=layers), manifest.ROLES, name="it")
    with pytest.raises(UnsupportedFormat):
        manifest.members(both, manifest.ATTESTED_ROLES, name="the attestation")


def test_an_optional_member_of_the_attestation_stands_at_its_end_and_nowhere_else(built: Built) -> None:
    index, of_model = documents(built)
    attestation = built.blobs[index.manifests[1].digest]
    found = manifest.read_manifest(attestation, artifact_type=manifest.ATTESTATION, subject=index.manifests[0], name="it")
    more = manifest.describe_member("performance", manifest.OPTIONAL_ATTESTED_ROLES["performance"], b"{}")
    both = msgspec.structs.replace(found, layers=(*found.layers, more))
    assert [member.role for member in manifest.members(both, manifest.ATTESTED_ROLES, name="it")] == [*manifest.ATTESTED_ROLES, "performance"]
    with pytest.raises(DigestMismatch, match="out of order"):
        manifest.members(msgspec.structs.replace(found, layers=(more, *found.layers)), manifest.ATTESTED_ROLES, name="it")
    with pytest.raises(UnsupportedFormat):
        manifest.members(msgspec.structs.replace(of_model, layers=(*of_model.layers, more)), manifest.ROLES, name="the model")
