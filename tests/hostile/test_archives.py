"""Malicious archives: one bad entry refuses the whole, nothing is written anywhere, and the archive without it opens."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from modelyard.bundle import Built, archive
from modelyard.bundle import open as open_bundle
from modelyard.errors import DigestMismatch, PayloadTooLarge, UnsupportedFormat
from modelyard.security.seal import Trust
from modelyard.types import Digest


class Blobs:
    def __init__(self, blobs: dict[Digest, bytes]) -> None:
        self.blobs = blobs

    def read(self, digest: Digest, *, limit_bytes: int) -> bytes:
        return self.blobs[digest]

    def listing(self) -> None:
        return None


def entry(name: str, data: bytes = b"x", *, kind: bytes = tarfile.REGTYPE, link: str = "", size: int | None = None) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, len(data) if size is None else size
    return info, data


def write(path: Path, built: Built, *more: tuple[tarfile.TarInfo, bytes], form: int = tarfile.USTAR_FORMAT, first: bool = False) -> Path:
    archive.export(Blobs(built.blobs), built.index, path.with_name("good.tar"))
    good = path.with_name("good.tar").read_bytes()
    end = len(good.rstrip(b"\0")) + 511 & ~511
    added = b"".join(info.tobuf(form) + data + b"\0" * (-len(data) % 512) for info, data in more)
    path.write_bytes((added + good[:end] if first else good[:end] + added) + b"\0" * 1024)
    path.with_name("good.tar").unlink()
    return path


def opened(path: Path, trust: Trust) -> str:
    source = archive.source(path)
    return open_bundle(source, source.index, trust=trust).digest


def test_the_archive_without_a_bad_entry_opens(tmp_path: Path, built: Built, trust: Trust) -> None:
    assert opened(write(tmp_path / "x.tar", built), trust) == built.digest
    assert opened(write(tmp_path / "x.tar", built, entry("blobs/", b"", kind=tarfile.DIRTYPE), first=True), trust) == built.digest


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize(
    "bad",
    [
        entry("../../etc/cron.d/evil"),
        entry("blobs/sha256/../../../evil"),
        entry("/etc/passwd"),
        entry("./../evil"),
        entry("blobs//sha256/x"),
        entry("..\\evil"),
        entry("C:\\evil"),
        entry("blobs/sha256/note"),
        entry("blobs/sha256/" + "0" * 64),
        entry(".github/workflows/x.yml"),
        entry("index.json"),
        entry("INDEX.JSON"),
        entry("./index.json"),
        entry("oci-layout"),
        entry("evil", b"", kind=tarfile.SYMTYPE, link="/etc/passwd"),
        entry("index.json", b"", kind=tarfile.SYMTYPE, link="/etc/passwd"),
        entry("evil", b"", kind=tarfile.LNKTYPE, link="../../etc/passwd"),
        entry("evil", b"", kind=tarfile.CHRTYPE),
        entry("evil", b"", kind=tarfile.BLKTYPE),
        entry("evil", b"", kind=tarfile.FIFOTYPE),
        entry("evil", b"", kind=tarfile.CONTTYPE),
        entry("evil", b"", kind=tarfile.GNUTYPE_SPARSE),
        entry("././@LongLink", b"../../evil\0", kind=tarfile.GNUTYPE_LONGNAME),
        entry("evil", b"16 path=../evil\n", kind=tarfile.XHDTYPE),
        entry("evil", b"16 path=../evil\n", kind=tarfile.XGLTYPE),
        entry("evil/", b"", kind=tarfile.DIRTYPE),
        entry("../", b"", kind=tarfile.DIRTYPE),
        entry("blobs/", b"hidden", kind=tarfile.DIRTYPE),
        entry("huge", b"", size=(8 << 30) - 1),
        entry("", b""),
    ],
    ids=lambda bad: f"{bad[0].name}-{bad[0].type.decode('latin-1')}",
)
def test_one_bad_entry_refuses_the_whole(tmp_path: Path, built: Built, trust: Trust, bad: tuple[tarfile.TarInfo, bytes], first: bool) -> None:
    path = write(tmp_path / "x.tar", built, bad, first=first)
    with pytest.raises((DigestMismatch, UnsupportedFormat)):
        opened(path, trust)
    assert os.listdir(tmp_path) == ["x.tar"], "nothing was written"


KINDS = (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, b"Z")
NAMES = ("../x", "a/../x", "/x", "//x", "a//x", "./../x", "a/./x", "..\\x", "a\\..\\x", "..", "")


@pytest.mark.parametrize(
    ("bad", "why"),
    [(entry("x", b"", kind=kind), "link, a device") for kind in KINDS]
    + [(entry(name), "name or kind") for name in NAMES]
    + [(entry(name, b"", kind=tarfile.DIRTYPE), "name or kind") for name in ("..", "evil", "blobs/x")]
    + [(entry("good"), "twice"), (entry("GOOD"), "twice"), (entry("./good"), "twice"), (entry("huge", b"", size=1 << 32), "size")],
)
def test_the_reader_itself_refuses_each_by_its_own_rule(tmp_path: Path, bad: tuple[tarfile.TarInfo, bytes], why: str) -> None:
    path = tmp_path / "x.tar"
    blocks = [info.tobuf(tarfile.USTAR_FORMAT) + data + b"\0" * (-len(data) % 512) for info, data in (entry("good"), bad)]
    path.write_bytes(blocks[0] + b"\0" * 1024)
    assert archive.read_tar(path) == {"good": (512, 1)}
    path.write_bytes(b"".join(blocks) + b"\0" * 1024)
    with pytest.raises((DigestMismatch, UnsupportedFormat), match=why):
        archive.read_tar(path)


@pytest.mark.parametrize("size", [1 << 40, 1 << 62, (1 << 63) - 512, 1 << 80])
def test_a_size_that_no_file_has_is_refused(tmp_path: Path, size: int) -> None:
    path = tmp_path / "x.tar"
    path.write_bytes(entry("huge", b"", size=size)[0].tobuf(tarfile.GNU_FORMAT) + b"\0" * 1024)
    with pytest.raises(DigestMismatch, match="size"):
        archive.read_tar(path)


def test_another_layout_is_refused(tmp_path: Path, built: Built) -> None:
    path = write(tmp_path / "x.tar", built)
    archive.export(archive.source(path), built.index, tmp_path / "folder")
    archive.source(tmp_path / "folder")
    (tmp_path / "folder" / "oci-layout").write_bytes(b'{"imageLayoutVersion":"2.0.0"}')
    with pytest.raises(UnsupportedFormat, match="oci-layout"):
        archive.source(tmp_path / "folder")


def test_names_of_other_systems_and_bad_bytes_are_refused(tmp_path: Path, built: Built, trust: Trust) -> None:
    good = write(tmp_path / "x.tar", built).read_bytes()
    for old, new in ((b"oci-layout", b"oci\xfflayout"), (b"ustar", b"usta\xff")):
        (tmp_path / "y.tar").write_bytes(good.replace(old, new, 1))
        with pytest.raises(UnsupportedFormat):  # the header's checksum, before all
            opened(tmp_path / "y.tar", trust)


@pytest.mark.parametrize("cut", [1, 511, 512, 1024, 4096])
def test_a_truncated_archive_is_refused(tmp_path: Path, built: Built, trust: Trust, cut: int) -> None:
    good = write(tmp_path / "x.tar", built).read_bytes().rstrip(b"\0")
    (tmp_path / "x.tar").write_bytes(good[:-cut])
    with pytest.raises(DigestMismatch, match="cut short"):
        opened(tmp_path / "x.tar", trust)


def test_bytes_behind_the_end_are_refused(tmp_path: Path, built: Built, trust: Trust) -> None:
    path = write(tmp_path / "x.tar", built)
    good = path.read_bytes()
    path.write_bytes(good + b"\0" * 4096)
    opened(path, trust)
    for tail in (b"evil", b"\0" * 4096 + b"e"):
        path.write_bytes(good + tail)
        with pytest.raises(DigestMismatch, match="behind its end"):
            opened(path, trust)


def test_too_many_entries_are_refused(tmp_path: Path, built: Built) -> None:
    many = [entry(f"blobs/sha256/{number:064x}", b"") for number in range(archive.ENTRIES_LIMIT)]
    with pytest.raises(UnsupportedFormat, match="too many"):
        archive.source(write(tmp_path / "x.tar", built, *many))


def test_an_archive_beyond_the_cap_is_refused_by_its_size_alone(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    with path.open("wb") as file:
        file.truncate(archive.ARCHIVE_LIMIT_BYTES + 1)  # sparse: it takes no room
    with pytest.raises(PayloadTooLarge):
        archive.source(path)


@pytest.mark.parametrize(
    "pack", [lambda data: __import__("gzip").compress(data), lambda data: b"PK\x03\x04" + data, lambda data: b"\x80\x04" + data, lambda _: b""]
)
def test_compressed_archives_zips_and_pickles_are_none(tmp_path: Path, built: Built, pack: Callable[[bytes], bytes]) -> None:
    path = write(tmp_path / "x.tar", built)
    path.write_bytes(pack(path.read_bytes()))
    with pytest.raises((DigestMismatch, UnsupportedFormat)):
        archive.source(path)


def test_pythons_own_reader_would_have_taken_what_we_refuse(tmp_path: Path, built: Built) -> None:
    # The control of the defence: the archive is well-formed, and a reader without our rules lists the entry that leaves the folder.
    path = write(tmp_path / "x.tar", built, entry("../../etc/cron.d/evil"))
    with tarfile.open(fileobj=io.BytesIO(path.read_bytes())) as found:
        assert "../../etc/cron.d/evil" in found.getnames()
