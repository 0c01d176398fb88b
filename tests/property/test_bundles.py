"""The laws of the bundle: `open(build(x)) == x`; equal contents, equal Digest; any changed byte is found."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modelyard.bundle import Attested, Built, Contents, build
from modelyard.bundle import open as open_bundle
from modelyard.bundle.card import Card
from modelyard.bundle.lock import Lock
from modelyard.errors import DigestMismatch
from modelyard.security.seal import LocalSigner, Trust
from modelyard.types import Digest, Schema, TensorSpec, Tolerance

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=9)
REAL = st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | REAL | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
)
SETTINGS = settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


@st.composite
def made(draw: st.DrawFn) -> tuple[Contents, Attested]:
    names = draw(st.lists(TEXT.filter(bool), min_size=1, max_size=3, unique=True))
    rows = draw(st.integers(1, 4))
    inputs, golden, values = [], {}, {}
    for name in names:
        if draw(st.booleans()):
            low = draw(REAL)
            inputs.append(TensorSpec(name=name, datatype="FP64", shape=(-1, 1), is_nullable=draw(st.booleans()), minimum=(low,), maximum=(low,)))
            golden[name] = np.array(draw(st.lists(st.floats(), min_size=rows, max_size=rows))).reshape(rows, 1)
        elif draw(st.booleans()):
            kind, drawn = draw(st.sampled_from([("BYTES", TEXT), ("INT64", st.integers(-(2**63), 2**63 - 1)), ("FP64", REAL)]))
            values[name] = tuple(draw(st.lists(drawn, min_size=1, max_size=3)))
            inputs.append(TensorSpec(name=name, datatype=kind, shape=(-1, 1), unknown_allowed=False, tag=draw(st.sampled_from(["drop", "hash"]))))
            golden[name] = np.full((rows, 1), values[name][0], dtype={"BYTES": object, "INT64": np.int64, "FP64": np.float64}[kind])
        else:
            categories = tuple(sorted(draw(st.sets(TEXT, max_size=3))))
            inputs.append(TensorSpec(name=name, datatype="BYTES", shape=(-1, 1), categories=categories, tag=draw(st.sampled_from([None, "mask"]))))
            golden[name] = np.array(draw(st.lists(st.none() | TEXT, min_size=rows, max_size=rows)), dtype=object).reshape(rows, 1)
    output = TensorSpec(name="prediction", datatype="FP64", shape=(-1,))
    schema = Schema(inputs=tuple(inputs), outputs=(output,), layout="frame", task="regression")
    lock = Lock(python="3.11.7", packages=draw(st.dictionaries(TEXT, TEXT, max_size=2)))
    card = Card(
        title=draw(TEXT),
        schema=schema,
        method=draw(TEXT),
        tolerance=Tolerance(absolute=draw(st.floats(0, 1))),
        rows=rows,
        golden_rows=rows,
        packages=lock.packages,
        python=lock.python,
        limits=tuple(draw(st.lists(TEXT, max_size=2))),
    )
    runtime = {"kind": "onnx", "more": draw(JSON)}
    contents = Contents(
        model=draw(st.binary()), runtime=runtime, schema=schema, lock=lock, profile={"p": draw(JSON)}, golden=golden, card=card, values=values
    )
    outputs = {"prediction": np.array(draw(st.lists(st.floats(), min_size=rows, max_size=rows)))}
    return contents, Attested(name="churn", outputs=outputs, parity={"x": draw(JSON)}, platform={"cpu": draw(TEXT)})


class Blobs:
    def __init__(self, blobs: dict[Digest, bytes]) -> None:
        self.blobs = blobs

    def read(self, digest: Digest, *, limit_bytes: int) -> bytes:
        return self.blobs[digest]

    def listing(self) -> frozenset[Digest]:
        return frozenset(self.blobs)


@given(made())
@SETTINGS
def test_what_is_built_is_opened(signer: LocalSigner, trust: Trust, both: tuple[Contents, Attested]) -> None:
    contents, attested = both
    built = build(contents, attested, signer=signer)
    bundle = open_bundle(Blobs(built.blobs), built.index, trust=trust)
    assert (bundle.schema, bundle.lock, bundle.tolerance) == (contents.schema, contents.lock, contents.card.tolerance)
    assert bundle.read("model") == contents.model and bundle.name == attested.name
    assert msgspec.json.decode(bundle.read("runtime")) == contents.runtime and msgspec.json.decode(bundle.read("profile")) == contents.profile
    assert bundle.attestation == {"parity": attested.parity, "platform": {**attested.platform, "name": "churn"}}
    for mine, theirs in ((contents.golden, bundle.golden.inputs), (attested.outputs, bundle.golden.outputs)):
        assert list(mine) == list(theirs)
        for name in mine:
            np.testing.assert_array_equal(theirs[name], mine[name])
    assert build(contents, Attested(name="other", outputs=attested.outputs, parity={}, platform={}), signer=signer).digest == built.digest


@given(st.data())
@SETTINGS
def test_any_changed_byte_is_found(built: Built, trust: Trust, data: st.DataObject) -> None:
    digest = data.draw(st.sampled_from(sorted(built.blobs)))
    changed = bytearray(built.blobs[digest])
    changed[data.draw(st.integers(0, len(changed) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(DigestMismatch):
        open_bundle(Blobs({**built.blobs, digest: bytes(changed)}), built.index, trust=trust)
    assert open_bundle(Blobs(built.blobs), built.index, trust=trust).digest == built.digest
