"""ONNX files that reach outside: refused when built and, under a good seal, when opened."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from onnx import TensorProto, ValueInfoProto, helper, numpy_helper

from modelyard.bundle import Attested, Built, Contents, build, selfcontained
from modelyard.bundle import open as open_bundle
from modelyard.errors import UnsupportedFormat
from modelyard.security.seal import LocalSigner, Trust
from modelyard.types import Digest


class Blobs:
    def __init__(self, blobs: dict[Digest, bytes]) -> None:
        self.blobs = blobs

    def read(self, digest: Digest, *, limit_bytes: int) -> bytes:
        return self.blobs[digest]

    def listing(self) -> None:
        return None


def weights(location: str | None) -> TensorProto:
    tensor = numpy_helper.from_array(np.ones(4, dtype=np.float32), "w")
    if location is not None:
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=location)
    return tensor


def result() -> ValueInfoProto:
    return helper.make_tensor_value_info("y", TensorProto.FLOAT, [4])


def condition() -> ValueInfoProto:
    return helper.make_tensor_value_info("c", TensorProto.BOOL, [1])


def model(location: str | None) -> bytes:
    graph = helper.make_graph([helper.make_node("Identity", ["w"], ["y"])], "g", [], [result()], initializer=[weights(location)])
    return helper.make_model(graph).SerializeToString()


@pytest.mark.parametrize("location", ["a/../../etc/passwd", "/etc/passwd", "weights.bin", "\\\\host\\share"])
def test_external_data_is_refused_at_build_and_at_open(
    contents: Callable[..., Contents],
    attested: Callable[..., Attested],
    signer: LocalSigner,
    trust: Trust,
    monkeypatch: pytest.MonkeyPatch,
    location: str,
) -> None:
    def make(data: bytes) -> Built:
        return build(contents(model=data), attested(), signer=signer)

    good = make(model(None))
    assert open_bundle(Blobs(good.blobs), good.index, trust=trust).read("model") == model(None)
    with pytest.raises(UnsupportedFormat, match="other files"):
        make(model(location))
    with monkeypatch.context() as without_the_check:
        without_the_check.setattr(selfcontained, "check", lambda _: None)
        evil = make(model(location))
        assert open_bundle(Blobs(evil.blobs), evil.index, trust=trust).read("model") == model(location), "without the check it would be opened"
    with pytest.raises(UnsupportedFormat, match="other files"):
        open_bundle(Blobs(evil.blobs), evil.index, trust=trust)


def test_a_model_file_is_refused_before_any_library_could_follow_its_references(monkeypatch: pytest.MonkeyPatch) -> None:
    from modelyard.runtime.originals import adapt, onnx

    branch = helper.make_graph([helper.make_node("Constant", [], ["y"], value=weights("../secret"))], "b", [], [result()])
    hidden = helper.make_graph([helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch)], "g", [condition()], [result()])
    monkeypatch.setattr(onnx, "session", lambda _: pytest.fail("a session was made"))
    for data in (model("../secret"), helper.make_model(hidden).SerializeToString()):
        with pytest.raises(UnsupportedFormat, match="other files"):
            adapt(data)
