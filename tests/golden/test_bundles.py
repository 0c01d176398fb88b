"""A bundle of every past form, kept for ever: it opens, has the Digest that it had, is proved by its golden records, and refuses what it refused.

`shop` and `tagged-unlisted` were made before tagged columns had their values kept apart; `tagged` is the first form with them. `signing.pub` is the
public half of the key that sealed them.
"""

from __future__ import annotations

import gzip
import shutil
from pathlib import Path

import numpy as np
import pytest

from modelyard import bundle, runtime
from modelyard.bundle.archive import source
from modelyard.bundle.artefact import Bundle
from modelyard.errors import SchemaMismatch
from modelyard.runtime.replay import replay
from modelyard.runtime.validate import check
from modelyard.security.seal import Trust

FOLDER = Path(__file__).parent / "bundles"
DIGESTS = {
    "shop": "sha256:9f3877f38f14bd81eab73b32e22b586d57a650389b4e332663a5b79bf8304e96",
    "tagged-unlisted": "sha256:488a8f3974847682d1d2a64da8c6900d8cb0521854fea03a60624fec751b90dd",
    "tagged": "sha256:3436c44ceb2d70dcba27c760dc297ae0c3b25ff36d58690163b17e21be8dc547",
}


def opened(name: str, folder: Path) -> Bundle:
    (folder / "keys").mkdir()
    shutil.copy(FOLDER / "signing.pub", folder / "keys" / "signing.pub")
    path = folder / f"{name}.tar"
    path.write_bytes(gzip.decompress((FOLDER / f"{name}.tar.gz").read_bytes()))
    found = source(path)
    return bundle.open(found, found.index, trust=Trust(folder / "keys"))


def test_every_bundle_is_listed() -> None:
    assert {path.name.removesuffix(".tar.gz") for path in FOLDER.glob("*.tar.gz")} == set(DIGESTS)


@pytest.mark.parametrize("name", DIGESTS)
def test_a_bundle_of_a_past_form_opens_and_is_proved(name: str, tmp_path: Path) -> None:
    found = opened(name, tmp_path)
    assert found.digest == DIGESTS[name]
    verdict = replay(runtime.open(found), found.golden, found.schema, found.tolerance).verdict
    assert verdict.outcome == "pass", verdict
    check(found.strict_schema, found.golden.inputs)


@pytest.mark.parametrize(("name", "is_refused"), [("shop", True), ("tagged-unlisted", False), ("tagged", True)])
def test_an_unknown_category_is_refused_where_the_bundle_lists_the_known_ones(name: str, is_refused: bool, tmp_path: Path) -> None:
    """Without the list nothing can be refused: such a bundle is packaged again."""
    strict = opened(name, tmp_path).strict_schema
    unknown = {"city": np.array([["oslo"]], object), "size": np.array([[1.0]])}
    if is_refused:
        with pytest.raises(SchemaMismatch):
            check(strict, unknown)
    else:
        check(strict, unknown)
