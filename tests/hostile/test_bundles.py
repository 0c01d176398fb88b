"""Malicious bundles: one byte, file or seal is wrong, and nothing of the bundle is loaded. The control of each: the bundle as it was opens."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from modelyard.bundle import Attested, Built, Bundle, Contents, archive, build, canonical, manifest
from modelyard.bundle import open as open_bundle
from modelyard.bundle.base import digest_of
from modelyard.errors import DigestMismatch, SealInvalid, Tampered, UnsupportedFormat, UntrustedSigner
from modelyard.security.seal import LocalSigner, Trust, local_signer
from modelyard.types import Digest


class Blobs:
    """A bundle in memory, alone."""

    def __init__(self, blobs: dict[Digest, bytes]) -> None:
        self.blobs = blobs

    def read(self, digest: Digest, *, limit_bytes: int) -> bytes:
        return self.blobs[digest]

    def listing(self) -> frozenset[Digest]:
        return frozenset(self.blobs)


class Forge:
    """A bundle taken apart, to be changed and put together again with every digest right: what a thief without the key can do."""

    def __init__(self, built: Built) -> None:
        self.blobs = dict(built.blobs)
        self.index: dict[str, Any] = json.loads(self.blobs.pop(built.index))
        self.documents = [json.loads(self.blobs.pop(item["digest"])) for item in self.index["manifests"]]
        self.blobs.pop(self.model["config"]["digest"])  # written anew by `assemble`

    @property
    def model(self) -> dict[str, Any]:
        return self.documents[0]

    @property
    def attestation(self) -> dict[str, Any]:
        return self.documents[1]

    def put(self, data: bytes, descriptor: dict[str, Any]) -> None:
        self.blobs.pop(descriptor["digest"], None)
        self.blobs[digest_of(data)] = data
        descriptor.update(digest=digest_of(data), size=len(data))

    def layer(self, role: str) -> dict[str, Any]:
        layers = self.model["layers"] + self.attestation["layers"]
        found: dict[str, Any] = next(item for item in layers if item["annotations"]["org.modelyard.role"] == role)
        return found

    def assemble(self) -> Built:
        """Every config, subject and descriptor follows what was changed; only the seals' signatures cannot."""
        blobs = dict(self.blobs)
        config = canonical.encode(
            {
                "descriptor": {},
                "config": {"format": "onnx"},
                "modelfs": {"type": "layers", "diffIds": [item["digest"] for item in self.model["layers"]]},
            }
        )
        blobs[digest_of(config)] = config
        self.model["config"].update(digest=digest_of(config), size=len(config))
        subjects = {1: 0, 2: 0, 3: 1}
        for place, document in enumerate(self.documents[: len(self.index["manifests"])]):
            if place in subjects:
                of = self.index["manifests"][subjects[place]]
                document["subject"] = {"mediaType": of["mediaType"], "digest": of["digest"], "size": of["size"]}
            data = canonical.encode(document)
            blobs[digest_of(data)] = data
            self.index["manifests"][place].update(digest=digest_of(data), size=len(data))
        index = canonical.encode(self.index)
        blobs[digest_of(index)] = index
        return Built(Digest(next((item["digest"] for item in self.index["manifests"]), "")), digest_of(index), blobs)


def opened(built: Built, trust: Trust) -> Bundle:
    return open_bundle(Blobs(built.blobs), built.index, trust=trust)


def test_the_forge_gives_back_what_it_was_given(built: Built, trust: Trust) -> None:
    assert Forge(built).assemble() == built
    assert opened(built, trust).digest == built.digest


def test_a_flipped_bit_in_any_blob_is_named(built: Built, trust: Trust) -> None:
    paths = {member.digest: member.path for member in opened(built, trust).members}
    for digest, data in built.blobs.items():
        for position in {0, len(data) // 2, len(data) - 1}:
            changed = bytearray(data)
            changed[position] ^= 1
            with pytest.raises(DigestMismatch) as caught:
                open_bundle(Blobs({**built.blobs, digest: bytes(changed)}), built.index, trust=trust)
            assert caught.value.field == paths.get(digest, caught.value.field) and caught.value.field


def test_a_truncated_or_longer_blob_is_named(built: Built, trust: Trust) -> None:
    for digest, data in built.blobs.items():
        for changed in (data[:-1], b"", data + b"\n"):
            with pytest.raises(DigestMismatch) as caught:
                open_bundle(Blobs({**built.blobs, digest: changed}), built.index, trust=trust)
            assert caught.value.field


def test_two_blobs_swapped_are_found(built: Built, trust: Trust) -> None:
    first, second = (member.digest for member in opened(built, trust).members[:2])
    with pytest.raises(DigestMismatch, match=r"model\.onnx"):
        open_bundle(Blobs({**built.blobs, first: built.blobs[second], second: built.blobs[first]}), built.index, trust=trust)


@pytest.mark.parametrize("role", [*manifest.ROLES, *manifest.ATTESTED_ROLES])
def test_a_member_replaced_with_every_digest_put_right_breaks_the_seal(built: Built, trust: Trust, role: str) -> None:
    forge = Forge(built)
    data = forge.blobs[forge.layer(role)["digest"]]
    forge.put(data[:-1] + b" " + data[-1:], forge.layer(role))
    with pytest.raises(SealInvalid):
        opened(forge.assemble(), trust)


def test_members_that_change_places_break_the_seal(built: Built, trust: Trust) -> None:
    forge = Forge(built)
    one, other = forge.layer("card"), forge.layer("bom")
    one["digest"], other["digest"], one["size"], other["size"] = other["digest"], one["digest"], other["size"], one["size"]
    with pytest.raises(SealInvalid):
        opened(forge.assemble(), trust)


@pytest.mark.parametrize("place", [2, 3])
def test_a_stripped_seal_is_refused(built: Built, trust: Trust, place: int) -> None:
    forge = Forge(built)
    del forge.index["manifests"][place], forge.documents[place]
    with pytest.raises(UnsupportedFormat, match="seal"):
        opened(forge.assemble(), trust)


def test_the_seals_of_another_bundle_do_not_fit(
    built: Built, contents: Callable[..., Contents], attested: Callable[..., Attested], signer: LocalSigner, trust: Trust
) -> None:
    other = Forge(build(contents(model=b"another"), attested(), signer=signer))
    for place in (2, 3):
        forge = Forge(built)
        forge.blobs |= other.blobs
        forge.blobs.pop(forge.documents[place]["layers"][0]["digest"])
        forge.documents[place] = other.documents[place]
        forge.blobs = _only_listed(forge)
        with pytest.raises(SealInvalid):
            opened(forge.assemble(), trust)


def test_the_two_seals_of_one_bundle_do_not_stand_for_each_other(built: Built, trust: Trust) -> None:
    forge = Forge(built)
    forge.documents[2], forge.documents[3] = forge.documents[3], forge.documents[2]
    with pytest.raises(SealInvalid):
        opened(forge.assemble(), trust)


def test_the_attestation_of_another_digest_is_refused(
    built: Built, contents: Callable[..., Contents], attested: Callable[..., Attested], signer: LocalSigner, trust: Trust
) -> None:
    other = build(contents(model=b"another"), attested(), signer=signer)
    mine, theirs = json.loads(built.blobs[built.index]), json.loads(other.blobs[other.index])
    for places in ((1, 3), (1,), (3,)):
        mixed = dict(mine, manifests=[theirs["manifests"][place] if place in places else mine["manifests"][place] for place in range(4)])
        data = canonical.encode(mixed)
        blobs = {**built.blobs, **other.blobs, digest_of(data): data}
        with pytest.raises(DigestMismatch, match="another bundle"):
            open_bundle(_Shared(blobs), digest_of(data), trust=trust)
    open_bundle(_Shared({**built.blobs, **other.blobs}), other.index, trust=trust)


def test_a_bundle_sealed_by_a_stranger_is_refused_whole(
    contents: Callable[..., Contents], attested: Callable[..., Attested], trust: Trust, tmp_path: Path
) -> None:
    stranger = local_signer(tmp_path)
    theirs = build(contents(), attested(), signer=stranger)
    with pytest.raises(UntrustedSigner, match="modelyard trust add"):
        opened(theirs, trust)
    assert opened(theirs, Trust(tmp_path)).signer == stranger.key_id


def test_a_strangers_attestation_of_a_trusted_model_is_refused(
    built: Built, contents: Callable[..., Contents], attested: Callable[..., Attested], trust: Trust, tmp_path: Path
) -> None:
    forge, theirs = Forge(built), Forge(build(contents(), attested(name="evil"), signer=local_signer(tmp_path)))
    for place in (1, 3):
        forge.documents[place] = theirs.documents[place]
    forge.blobs = _only_listed(forge, theirs)
    mixed = forge.assemble()
    assert mixed.digest == built.digest
    with pytest.raises(UntrustedSigner):
        opened(mixed, trust)


@pytest.mark.parametrize(
    "name", [".github/workflows/x.yml", "README", "blobs/sha256/note", "blobs/md5/" + "0" * 32, "blobs/sha256/" + "0" * 64, "Index.json"]
)
def test_a_file_that_nothing_lists_is_refused(tmp_path: Path, built: Built, trust: Trust, name: str) -> None:
    folder = tmp_path / "churn"
    archive.export(Blobs(built.blobs), built.index, folder)
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(b"")
    with pytest.raises(DigestMismatch, match="lists"):
        open_folder(folder, trust)
    shutil.rmtree(folder)
    archive.export(Blobs(built.blobs), built.index, folder)
    open_folder(folder, trust)


@pytest.mark.parametrize("what", ["link to a file", "link to a folder", "pipe"])
def test_links_and_special_files_in_a_folder_are_refused(tmp_path: Path, built: Built, trust: Trust, what: str) -> None:
    folder = tmp_path / "churn"
    archive.export(Blobs(built.blobs), built.index, folder)
    open_folder(folder, trust)
    if what == "link to a folder":
        (folder / "blobs").rename(tmp_path / "elsewhere")
        (folder / "blobs").symlink_to(tmp_path / "elsewhere")
    else:
        blob = next((folder / "blobs" / "sha256").iterdir())
        blob.rename(tmp_path / "elsewhere")
        blob.symlink_to(tmp_path / "elsewhere") if what == "link to a file" else os.mkfifo(blob)
    with pytest.raises(UnsupportedFormat, match="link"):
        open_folder(folder, trust)


def test_an_index_put_in_place_of_the_right_one_is_another_bundle(tmp_path: Path, built: Built, trust: Trust) -> None:
    folder = tmp_path / "churn"
    archive.export(Blobs(built.blobs), built.index, folder)
    index = json.loads((folder / "index.json").read_bytes())
    index["manifests"][0], index["manifests"][1] = index["manifests"][1], index["manifests"][0]
    (folder / "index.json").write_bytes(canonical.encode(index))
    with pytest.raises(Tampered):
        open_folder(folder, trust)


@pytest.mark.parametrize(
    "change",
    [
        lambda forge: forge.layer("model").update(size=1 << 40),
        lambda forge: forge.layer("model").update(size=-1),
        lambda forge: forge.layer("lock").update(size=1 << 30),
        lambda forge: forge.layer("golden-outputs").update(size=1 << 62),
        lambda forge: forge.layer("model").update(size=forge.layer("model")["size"] + 1),
        lambda forge: forge.layer("model")["annotations"].update({"org.cncf.model.filepath": "../../model.onnx"}),
        lambda forge: forge.layer("model")["annotations"].update({"org.cncf.model.filepath": "/etc/passwd"}),
        lambda forge: forge.layer("model")["annotations"].update({"org.cncf.model.filepath": "card.json"}),
        lambda forge: forge.layer("model")["annotations"].update({"org.modelyard.role": "pickle"}),
        lambda forge: forge.layer("model")["annotations"].update({"more": "x"}),
        lambda forge: forge.layer("model").update(digest="sha256:../../../../etc/passwd"),
        lambda forge: forge.layer("model").update(digest="md5:" + "0" * 32),
        lambda forge: forge.layer("model").update(mediaType="application/vnd.cncf.model.weight.v1.tar"),
        lambda forge: forge.layer("model").update(urls=["http://example.com/model"]),
        lambda forge: forge.model["layers"].append(dict(forge.layer("model"))),
        lambda forge: forge.model["layers"].reverse(),
        lambda forge: forge.model["layers"].pop(),
        lambda forge: forge.attestation["layers"].append(dict(forge.layer("model"))),
        lambda forge: forge.model.update(artifactType="application/vnd.cncf.model.manifest.v2+json"),
        lambda forge: forge.model.update(annotations={"org.modelyard.format": "2"}),
        lambda forge: forge.model.update(schemaVersion=1),
        lambda forge: forge.documents[2]["layers"].append(dict(forge.documents[2]["layers"][0])),
        lambda forge: forge.documents[2]["layers"][0].update(size=1 << 40),
        lambda forge: forge.index["manifests"].append(dict(forge.index["manifests"][0])),
        lambda forge: forge.index.update(manifests=[]),
        lambda forge: forge.index["manifests"][0].update(platform={"os": "linux"}),
    ],
)
def test_documents_that_claim_otherwise_are_refused_before_members_are_read(built: Built, trust: Trust, change: Callable[[Forge], object]) -> None:
    forge = Forge(built)
    change(forge)
    forged = forge.assemble()
    source = _Watched(forged.blobs)
    with pytest.raises((DigestMismatch, UnsupportedFormat, SealInvalid)):
        open_bundle(source, forged.index, trust=trust)
    assert not source.members


@pytest.mark.parametrize(
    "spell",
    [
        lambda data: data.replace(b'{"', b'{ "', 1),
        lambda data: data + b"\n",
        lambda data: data.replace(b'"schemaVersion":2', b'"schemaVersion":2,"schemaVersion":2'),
        lambda data: b"[" * 100_000,
        lambda data: b"\xef\xbb\xbf" + data,
    ],
)
def test_an_index_spelled_in_another_way_is_refused(built: Built, trust: Trust, spell: Callable[[bytes], bytes]) -> None:
    data = spell(built.blobs[built.index])
    blobs = {digest: blob for digest, blob in built.blobs.items() if digest != built.index} | {digest_of(data): data}
    with pytest.raises(UnsupportedFormat):
        open_bundle(Blobs(blobs), digest_of(data), trust=trust)


def test_a_source_that_changes_its_answer_cannot_have_another_model_used(built: Built, trust: Trust) -> None:
    class Fickle(Blobs):
        asked: set[Digest] = set()

        def read(self, digest: Digest, *, limit_bytes: int) -> bytes:
            if digest in self.asked:
                return b"evil"
            self.asked.add(digest)
            return self.blobs[digest]

    bundle = open_bundle(Fickle(built.blobs), built.index, trust=trust)
    assert bundle.read("model") == b"a model"


@pytest.mark.parametrize(
    ("role", "data"),
    [
        ("golden", b"\xff" * 64),
        ("schema", b"[" * 40_000),
        ("profile", b"[" * 40_000),
        ("card", b'{"title":1}'),
        ("lock", b'{"packages":{},"python":"3.11.7","more":1}'),
        ("platform", b'{"name":"../../x"}'),
        ("platform", b"[]"),
        ("runtime", b"[]"),
        ("runtime", b'{"kind":"joblib"}'),
    ],
)
def test_a_member_of_a_wrong_form_is_refused_even_under_a_good_seal(built: Built, signer: LocalSigner, trust: Trust, role: str, data: bytes) -> None:
    forge = Forge(built)
    forge.put(data, forge.layer(role))
    resealed = _reseal(forge, signer)
    with pytest.raises(UnsupportedFormat):
        opened(resealed, trust)
    assert opened(_reseal(Forge(built), signer), trust).digest == built.digest


@pytest.mark.parametrize("role", ["model", "golden-outputs"])
def test_a_size_that_is_not_the_members_is_refused_even_under_a_good_seal(built: Built, signer: LocalSigner, trust: Trust, role: str) -> None:
    for wrong in (1, -1):
        forge = Forge(built)
        forge.layer(role)["size"] += wrong
        with pytest.raises(DigestMismatch, match="bytes where"):
            opened(_reseal(forge, signer), trust)


def open_folder(folder: Path, trust: Trust) -> Bundle:
    source = archive.source(folder)
    return open_bundle(source, source.index, trust=trust)


class _Shared(Blobs):
    def listing(self) -> None:  # type: ignore[override]
        return None


class _Watched(Blobs):
    """Remembers whether a member that is no document was read."""

    members = False

    def read(self, digest: Digest, *, limit_bytes: int) -> bytes:
        self.members |= self.blobs.get(digest) == b"a model"
        return super().read(digest, limit_bytes=limit_bytes)


def _only_listed(*forges: Forge) -> dict[Digest, bytes]:
    blobs = {digest: data for forge in forges for digest, data in forge.blobs.items()}
    documents = forges[0].documents
    listed = {item["digest"] for document in documents for item in (*document["layers"], document["config"])} - {documents[0]["config"]["digest"]}
    return {digest: data for digest, data in blobs.items() if digest in listed}


def _reseal(forge: Forge, signer: LocalSigner) -> Built:
    from modelyard.security.seal import seal

    for place in (0, 1):
        forge.assemble()
        members = {item["annotations"]["org.cncf.model.filepath"]: item["digest"] for item in forge.documents[place]["layers"]}
        sealed = seal(signer, subject=Digest(forge.index["manifests"][place]["digest"]), members=members)
        forge.put(sealed, forge.documents[place + 2]["layers"][0])
    return forge.assemble()
