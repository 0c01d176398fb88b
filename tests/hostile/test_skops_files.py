"""skops files that unpack to more than a model may hold: refused by what they declare, before anything is unpacked."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
import skops.io
from sklearn.linear_model import LinearRegression

from modelyard.errors import PayloadTooLarge
from modelyard.runtime.originals import files


def test_a_file_that_unpacks_without_end_is_refused_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.skops"
    skops.io.dump(LinearRegression().fit([[0.0], [1.0]], [0.0, 1.0]), path)
    assert isinstance(files.read(path), LinearRegression)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("more.npy", b"\0" * (1 << 20))
    assert path.stat().st_size < 1 << 16
    monkeypatch.setattr(files, "UNPACKED_LIMIT_BYTES", 1 << 20)
    monkeypatch.setattr(skops.io, "get_untrusted_types", lambda **_: pytest.fail("it was read"))
    with pytest.raises(PayloadTooLarge, match="unpacks to"):
        files.read(path)
