"""bundle.build: one digest for one content, whoever builds it, where and when."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from modelyard.bundle import Attested, Built, Contents, build
from modelyard.bundle import open as open_bundle
from modelyard.errors import InvalidInput
from modelyard.security.seal import LocalSigner, Trust, local_signer
from modelyard.types import Digest

ROOT = Path(__file__).parents[3]
BUILD = """
import importlib.util, sys
from pathlib import Path
spec = importlib.util.spec_from_file_location("conftest", sys.argv[1])
conftest = importlib.util.module_from_spec(spec)
spec.loader.exec_module(conftest)
from modelyard.bundle import build
from modelyard.security.seal import local_signer
attested = conftest.sample_attested(name=sys.argv[3], platform={"time": sys.argv[3]})
print(build(conftest.sample_contents(), attested, signer=local_signer(Path(sys.argv[2]))).digest)
"""


class Blobs:
    def __init__(self, blobs: dict[Digest, bytes]) -> None:
        self.blobs = blobs

    def read(self, digest: Digest, *, limit_bytes: int) -> bytes:
        return self.blobs[digest]

    def listing(self) -> frozenset[Digest]:
        return frozenset(self.blobs)


def test_homes_users_dates_locales_hash_seeds_and_threads_give_one_digest(tmp_path: Path, built: Built) -> None:
    environments = [
        {"USER": "ada", "LC_ALL": "C", "PYTHONHASHSEED": "1", "OMP_NUM_THREADS": "1", "TZ": "UTC", "PYTHONUTF8": "0"},
        {"USER": "eve", "LC_ALL": "C.UTF-8", "PYTHONHASHSEED": "77", "OMP_NUM_THREADS": "2", "TZ": "Asia/Tokyo"},
    ]
    shown = set()
    for number, environment in enumerate(environments):
        arguments = [sys.executable, "-c", BUILD, str(ROOT / "tests/conftest.py"), str(tmp_path / f"home{number}" / "keys"), f"name-{number}"]
        done = subprocess.run(
            arguments, capture_output=True, text=True, check=True, env={**environment, "HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
        )
        shown.add(done.stdout.strip())
    assert shown == {built.digest}


def test_the_attestation_and_the_key_are_not_under_the_digest_and_the_contents_are(
    contents: Callable[..., Contents], attested: Callable[..., Attested], built: Built, tmp_path: Path, signer: LocalSigner
) -> None:
    again = build(contents(), attested(name="other", platform={"time": "now"}), signer=local_signer(tmp_path))
    assert again.digest == built.digest and again.index != built.index
    card = contents().card
    changes: list[dict[str, Any]] = [
        {"model": b"another"},
        {"profile": {}},
        {"runtime": {"kind": "other"}},
        {"card": msgspec.structs.replace(card, rows=101)},
        {"lock": msgspec.structs.replace(contents().lock, python="3.12.0")},
    ]
    digests = {build(contents(**change), attested(), signer=signer).digest for change in changes}
    assert len(digests) == len(changes) and built.digest not in digests


def test_an_integer_where_a_real_stands_changes_nothing(
    contents: Callable[..., Contents], attested: Callable[..., Attested], signer: LocalSigner
) -> None:
    def digest(low: float) -> str:
        schema = contents().schema
        age = msgspec.structs.replace(schema.inputs[0], minimum=(low,))
        return build(contents(schema=msgspec.structs.replace(schema, inputs=(age, schema.inputs[1]))), attested(), signer=signer).digest

    assert digest(18) == digest(18.0) != digest(19.0)


@pytest.mark.parametrize(
    "change",
    [
        {"golden": {"age": np.zeros((3, 1))}},
        {"golden": {"age": np.zeros((2, 1)), "city": np.array([["a"]] * 3, dtype=object)}},
        {"golden": {"age": np.zeros((0, 1)), "city": np.empty((0, 1), dtype=object)}},
        {"profile": {"age": float("nan")}},
        {"runtime": {"sort": "onnx"}},
    ],
)
def test_contents_that_do_not_fit_together_are_refused(
    contents: Callable[..., Contents], attested: Callable[..., Attested], signer: LocalSigner, change: dict[str, Any]
) -> None:
    with pytest.raises(InvalidInput):
        build(contents(**change), attested(), signer=signer)


def test_a_name_that_could_not_be_a_reference_is_refused(
    contents: Callable[..., Contents], attested: Callable[..., Attested], signer: LocalSigner
) -> None:
    for name in ("", "Churn", "a/b", "../a", "a:1", "a@b"):
        with pytest.raises(InvalidInput):
            build(contents(), attested(name=name), signer=signer)


def test_nothing_of_a_tagged_column_lies_under_the_digest_but_in_the_schema(
    contents: Callable[..., Contents], attested: Callable[..., Attested], signer: LocalSigner
) -> None:
    built = build(contents(), attested(), signer=signer)
    holders = [data for data in built.blobs.values() if "Łódź".encode() in data]
    assert len(holders) == 1 and b'"categories"' in holders[0] and b'"title"' not in holders[0]


def closed(contents: Callable[..., Contents], **changes: Any) -> Contents:
    """Sample contents whose tagged text takes only what the model knows."""
    schema = contents().schema
    age, city = schema.inputs
    city = msgspec.structs.replace(city, categories=None, unknown_allowed=False)
    schema = msgspec.structs.replace(schema, inputs=(age, city))
    golden = {**contents().golden, "city": np.full((3, 1), "Oslo", dtype=object)}
    card = msgspec.structs.replace(contents().card, schema=schema, example={"age": 41.5})
    return contents(**{"schema": schema, "golden": golden, "card": card, "values": {"city": ("Oslo", "Turku")}, **changes})


def test_values_kept_apart_stand_in_no_other_member_and_are_put_back_when_opened(
    contents: Callable[..., Contents], attested: Callable[..., Attested], signer: LocalSigner, trust: Trust
) -> None:
    made = build(closed(contents), attested(), signer=signer)
    holding = {digest for digest, data in made.blobs.items() if b"Oslo" in data or b"Turku" in data}
    opened = open_bundle(Blobs(made.blobs), made.index, trust=trust)
    assert holding == {member.digest for member in opened.members if member.role == "values"}
    assert opened.golden.inputs["city"].tolist() == [["Oslo"]] * 3
    assert opened.schema.inputs[1].categories is None and opened.strict_schema.inputs[1].categories == ("Oslo", "Turku")
    assert msgspec.structs.replace(opened.strict_schema, inputs=opened.schema.inputs) == opened.schema


def test_a_bundle_without_values_kept_apart_has_no_such_member(built: Built, trust: Trust) -> None:
    opened = open_bundle(Blobs(built.blobs), built.index, trust=trust)
    assert "values" not in {member.role for member in opened.members} and opened.strict_schema is opened.schema


def test_values_that_may_not_be_kept_apart_are_refused(
    contents: Callable[..., Contents], attested: Callable[..., Attested], signer: LocalSigner
) -> None:
    wrong: list[dict[str, Any]] = [
        {"values": {"age": (1.0,)}},
        {"values": {"town": ("Oslo",)}},
        {"values": {"city": (1,)}},
        {"golden": contents().golden},
    ]
    for changes in wrong:
        with pytest.raises(InvalidInput):
            build(closed(contents, **changes), attested(), signer=signer)
