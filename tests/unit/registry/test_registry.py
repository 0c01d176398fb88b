"""registry: names, versions, aliases, and what keeps a version from going."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from modelyard import registry
from modelyard.bundle import Attested, Built, Contents, build
from modelyard.bundle import open as open_bundle
from modelyard.errors import Conflict, InvalidInput, NotFound, StorageFull, Tampered
from modelyard.registry import Registry, Version
from modelyard.registry.blobs import FolderBlobs
from modelyard.registry.records import SqliteRecords
from modelyard.security.seal import LocalSigner, Trust
from modelyard.types import Digest


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Registry]:
    made = registry.open(tmp_path)
    yield made
    made.close()


@pytest.fixture
def make(contents: Callable[..., Contents], attested: Callable[..., Attested], signer: LocalSigner) -> Callable[[int], Built]:
    """Makes the bundle of another model for each number."""
    return lambda number: build(contents(model=f"model {number}".encode()), attested(), signer=signer)


def deploy(home: Registry, name: str, current: list[Version], history: list[Version]) -> None:
    body: dict[str, Any] = {
        "digests": [item.digest for item in current],
        "history": [{"digest": item.digest, "version": item.version} for item in history],
    }
    home.records.put(registry.DEPLOYMENT, name, body, expected=None)


def test_versions_increase_and_the_same_digest_keeps_its_own(home: Registry, make: Callable[[int], Built], attested: Callable[..., Attested]) -> None:
    first, second = home.add("churn", make(1), summary={"task": "regression"}), home.add("churn", make(2))
    assert (first.version, second.version) == (1, 2) and first.summary == {"task": "regression"}
    assert home.add("churn", make(1)) == first, "another attestation of the same digest changes nothing"
    assert home.add("fraud", make(1)).version == 1
    assert [(model.name, model.latest, model.versions) for model in home.models()] == [("churn", 2, (1, 2)), ("fraud", 1, (1,))]
    assert [item.version for item in home.versions("churn")] == [1, 2]


def test_each_reference_finds_its_version(home: Registry, make: Callable[[int], Built]) -> None:
    first, second = home.add("churn", make(1)), home.add("churn", make(2))
    assert home.resolve("churn") == second, "the newest"
    home.set_alias("churn", "champion", 1)
    assert home.resolve("churn").version == 1, "the champion"
    home.set_alias("churn", "challenger", 2)
    for ref, number in (
        ("churn:2", 2),
        ("churn@champion", 1),
        ("churn@challenger", 2),
        (f"churn@{second.digest}", 2),
        (f"churn@{first.digest[:20]}", 1),
    ):
        assert home.resolve(ref).version == number
    assert home.resolve("churn:1").aliases == ("champion",)
    home.set_alias("churn", "champion", None)
    assert home.resolve("churn").version == 2
    for ref in ("fraud", "churn:3", "churn@champion", "churn@sha256:" + "00" * 32):
        with pytest.raises(NotFound):
            home.resolve(ref)
    with pytest.raises(InvalidInput):
        home.resolve("churn@")
    with pytest.raises(NotFound):
        home.versions("fraud")


def test_an_alias_points_at_versions_that_are(home: Registry, make: Callable[[int], Built]) -> None:
    home.add("churn", make(1))
    for name, alias, version, error in (("fraud", "champion", 1, NotFound), ("churn", "champion", 2, NotFound), ("churn", "3", 1, InvalidInput)):
        with pytest.raises(error):
            home.set_alias(name, alias, version)
    home.set_alias("churn", "champion", 1)
    home.set_alias("churn", "champion", 1)
    home.set_alias("churn", "other", None)
    with pytest.raises(NotFound, match="no model is called 'fraud'"):
        home.set_alias("fraud", "champion", None)


def test_a_version_that_is_needed_is_not_deleted(home: Registry, make: Callable[[int], Built]) -> None:
    versions = [home.add("churn", make(number)) for number in range(1, 5)]
    home.set_alias("churn", "champion", 1)
    deploy(home, "live", [versions[1]], [versions[2]])
    for number, why in ((1, "alias champion"), (2, "deployed as live.*modelyard abort live"), (3, "rollback of live")):
        with pytest.raises(Conflict, match=why):
            home.delete("churn", number)
    home.delete("churn", 4)
    with pytest.raises(NotFound):
        home.delete("churn", 4)
    home.records.delete(registry.DEPLOYMENT, "live", expected=None)
    home.delete("churn", 3)
    home.delete("churn", 2)
    assert [item.version for item in home.versions("churn")] == [1]


def test_a_number_is_never_given_twice(home: Registry, make: Callable[[int], Built]) -> None:
    home.add("churn", make(1))
    home.delete("churn", 1)
    with pytest.raises(NotFound, match="deleted"):
        home.resolve("churn")
    assert home.add("churn", make(1)).version == 2


def test_gc_takes_what_no_version_refers_to(home: Registry, make: Callable[[int], Built], trust: Trust) -> None:
    first, second = home.add("churn", make(1)), home.add("churn", make(2))
    home.blobs.put(b"of a package that died")
    assert home.gc(min_age_s=3600).blobs == 0
    assert home.gc().blobs == 1
    home.delete("churn", 2)
    before = len(home.blobs.list())
    assert home.gc().blobs == before - len(make(1).blobs)
    assert open_bundle(home.blobs, first.index, trust=trust).digest == first.digest
    assert not home.blobs.has(second.index)


def test_a_full_disk_registers_nothing(tmp_path: Path, make: Callable[[int], Built], home: Registry) -> None:
    class Full(FolderBlobs):
        count = 0

        def put(self, data: bytes) -> Digest:
            Full.count += 1
            if Full.count > 3:
                raise StorageFull("no space left")
            return super().put(data)

    broken = Registry(Full(tmp_path / "blobs"), home.records)
    with pytest.raises(StorageFull):
        broken.add("churn", make(1))
    assert home.models() == ()
    assert home.gc().blobs == 3
    assert home.add("churn", make(1)).version == 1


def test_a_home_whose_database_is_gone_is_not_begun_anew(tmp_path: Path, make: Callable[[int], Built]) -> None:
    home = registry.open(tmp_path)
    home.add("churn", make(1))
    home.close()
    data = (tmp_path / "registry.sqlite").read_bytes()
    for path in tmp_path.glob("registry.sqlite*"):
        path.unlink()
    with pytest.raises(Tampered, match="restore"):
        registry.open(tmp_path)
    assert not (tmp_path / "registry.sqlite").exists()
    (tmp_path / "registry.sqlite").write_bytes(data)
    again = registry.open(tmp_path)
    assert again.resolve("churn").version == 1
    again.close()


PACKAGE = """
import json, sys
from pathlib import Path
from modelyard import registry
from modelyard.bundle import Built
from modelyard.bundle.base import digest_of
home = registry.open(Path(sys.argv[1]))
numbers = []
for number in range(12):
    data = f"{sys.argv[2]} {number}".encode()
    numbers.append(home.add("churn", Built(digest_of(data), digest_of(data), {digest_of(data): data})).version)
    if number % 3 == 0:
        home.gc()
home.close()
print(json.dumps(numbers))
"""


def test_processes_at_once_never_get_the_same_number_and_gc_takes_nothing_of_theirs(tmp_path: Path) -> None:
    started = [subprocess.Popen([sys.executable, "-c", PACKAGE, str(tmp_path), str(who)], stdout=subprocess.PIPE, text=True) for who in range(3)]
    numbers = [json.loads(process.communicate()[0]) for process in started]
    assert sorted(number for each in numbers for number in each) == list(range(1, 37)) and all(item == sorted(item) for item in numbers)
    home = registry.open(tmp_path)
    home.gc()
    assert all(home.blobs.has(item.index) for item in home.versions("churn")) and len(home.blobs.list()) == 36
    home.close()


def test_importing_the_registry_loads_no_database() -> None:
    code = "import sys, modelyard.registry; print({'sqlite3', 'sqlalchemy', 'cryptography'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "set()"


def test_the_records_are_sqlites(tmp_path: Path) -> None:
    home = registry.open(tmp_path)
    assert isinstance(home.records, SqliteRecords) and isinstance(home.blobs, FolderBlobs)
    home.close()
