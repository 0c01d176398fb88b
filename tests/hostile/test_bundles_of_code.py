"""Bundles that carry code: what lies in them is checked by content at build and again at open, and nothing of it runs before its seal is trusted."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from modelyard import runtime
from modelyard.bundle import Built, Contents, build, manifest, parts
from modelyard.bundle import open as open_bundle
from modelyard.errors import DigestMismatch, Tampered, UnsupportedFormat, UntrustedSigner
from modelyard.security.seal import LocalSigner, Trust, local_signer
from modelyard.types import Digest

RUNTIME = {"kind": "python", "entry": "m:predict"}
CODE = {"code/m.py": b"def predict(inputs): return inputs['age'][:, 0]\n", "files/w.json": b"[1]"}


class Blobs:
    def __init__(self, blobs: dict[Digest, bytes]) -> None:
        self.blobs = blobs

    def read(self, digest: Digest, *, limit_bytes: int) -> bytes:
        return self.blobs[digest]

    def listing(self) -> frozenset[Digest]:
        return frozenset(self.blobs)


@pytest.fixture
def made(contents: Callable[..., Contents], attested: Callable[..., object], signer: LocalSigner) -> Callable[..., Built]:
    def make(members: dict[str, bytes] = CODE, *, kind: object = RUNTIME, by: LocalSigner = signer) -> Built:
        return build(contents(model=b"", parts=members, runtime=kind), attested(), signer=by)  # type: ignore[arg-type]

    return make


def test_a_bundle_of_code_opens_with_its_members_in_order(made: Callable[..., Built], trust: Trust) -> None:
    built = made()
    opened = open_bundle(Blobs(built.blobs), built.index, trust=trust)
    assert opened.parts == CODE and "model" not in {member.role for member in opened.members}
    assert made(dict(reversed(CODE.items()))).digest == built.digest
    assert made({**CODE, "files/w.json": b"[2]"}).digest != built.digest


BAD = {
    "pickle": {"files/w.npz": pickle.dumps([1], 4)},
    "pickle called json": {"files/x.json": pickle.dumps({"a": 1}, 0)},
    "torch": {"files/w.pt": b"PK\x03\x04"},
    "library": {"code/m.so": b"\x7fELF"},
    "up": {"code/../../evil.py": b""},
    "absolute": {"code//etc/evil.py": b""},
    "hidden": {"code/.evil.py": b""},
    "case": {"code/M.py": b""},
}


@pytest.mark.parametrize("bad", BAD)
def test_what_is_bad_is_refused_at_build_and_though_sealed_at_open(
    made: Callable[..., Built], trust: Trust, monkeypatch: pytest.MonkeyPatch, bad: str
) -> None:
    with pytest.raises(UnsupportedFormat):
        made({**CODE, **BAD[bad]})
    with monkeypatch.context() as open_gate:  # a careless tool that holds a trusted key
        open_gate.setattr(parts, "check", lambda _: None)
        open_gate.setattr(parts, "check_paths", lambda _: None)
        built = made({**CODE, **BAD[bad]})
    with pytest.raises(UnsupportedFormat):
        open_bundle(Blobs(built.blobs), built.index, trust=trust)


@pytest.mark.parametrize("kind", [{"kind": "onnx"}, {"kind": "other"}])
def test_members_of_code_belong_to_kind_python_alone(made: Callable[..., Built], trust: Trust, kind: object) -> None:
    built = made(kind=kind)
    with pytest.raises(UnsupportedFormat, match="kind python"):
        open_bundle(Blobs(built.blobs), built.index, trust=trust)


def test_a_model_of_kind_python_has_code(
    contents: Callable[..., Contents], attested: Callable[..., object], signer: LocalSigner, trust: Trust
) -> None:
    built = build(contents(runtime=RUNTIME), attested(), signer=signer)  # type: ignore[arg-type]
    with pytest.raises(UnsupportedFormat, match="kind python"):
        open_bundle(Blobs(built.blobs), built.index, trust=trust)


def test_a_changed_source_is_found(made: Callable[..., Built], trust: Trust) -> None:
    built = made()
    digest = next(digest for digest, data in built.blobs.items() if data == CODE["code/m.py"])
    with pytest.raises(DigestMismatch, match=r"code/m\.py"):
        open_bundle(Blobs({**built.blobs, digest: CODE["code/m.py"].replace(b"age", b"agf")}), built.index, trust=trust)


def test_code_of_an_unknown_signer_never_runs(made: Callable[..., Built], trust: Trust, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[object] = []
    monkeypatch.setattr(subprocess, "Popen", lambda *given, **_: started.append(given))
    built = made(by=local_signer(tmp_path / "keys"))
    with pytest.raises((UntrustedSigner, Tampered)):
        runtime.open(open_bundle(Blobs(built.blobs), built.index, trust=trust))
    assert not started


def test_listed_out_of_order_or_twice_is_refused(made: Callable[..., Built]) -> None:
    layers = tuple(manifest.describe_part(path, data) for path, data in sorted(CODE.items()))
    fixed = tuple(manifest.describe_member(role, form, b"{}") for role, form in manifest.ROLES.items() if role != "model")

    def listed(*given: manifest.Descriptor) -> manifest.Manifest:
        return manifest.Manifest(schema_version=2, media_type=manifest.MANIFEST_TYPE, artifact_type=manifest.MODEL, config=layers[0], layers=given)

    assert len(manifest.members(listed(*fixed, *layers), manifest.ROLES, name="it")) == len(fixed) + 2
    for wrong in ((*fixed, *layers[::-1]), (*layers, *fixed), (*fixed, *layers, layers[-1]), fixed, (*fixed[:-1], *layers)):
        with pytest.raises(DigestMismatch):
            manifest.members(listed(*wrong), manifest.ROLES, name="it")


SCRIPT = """
import sys
from pathlib import Path
import numpy as np
from sklearn.linear_model import Ridge
import modelyard
folder = Path(sys.argv[1]); folder.mkdir()
source = b"class M:\\n    def load(self, files): files['w'], files['r']\\n    def predict(self, i): return i['X'][:, 0]\\n"
(folder / "m.py").write_bytes(source.replace(b"\\n", sys.argv[2].encode().decode("unicode_escape").encode()))
X = np.arange(300.0).reshape(100, 3)
held = [object() for _ in range(int(sys.argv[3]))]
files = {"w": np.arange(3), "r": Ridge().fit(X, X[:, 0])}
made = modelyard.package("m:M", name=sys.argv[4], data=X, code=[folder / "m.py"], files=files, home=folder / "home", progress=lambda *_: None)
print(made.digest)
"""


@pytest.mark.system
def test_one_digest_whatever_the_machine(tmp_path: Path) -> None:
    digests = set()
    for number, (ends, held) in enumerate((("\\n", 0), ("\\r\\n", 50_000))):
        environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "PYTHONHASHSEED": str(number + 1), "TZ": ("UTC", "Asia/Tokyo")[number]}
        command = [sys.executable, "-c", SCRIPT, str(tmp_path / f"{number}"), ends, str(held), f"name-{number}"]
        digests.add(subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout.strip())
    assert len(digests) == 1
