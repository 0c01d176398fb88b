"""runtime.originals.sources: from classes, folders and trained state to members, the same on every machine."""

from __future__ import annotations

import io
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from modelyard.errors import InvalidConfig, NotFound, Unconvertible, UnsupportedFormat
from modelyard.runtime.originals.sources import entry_of, gather, npz, skops


def plain(inputs: dict[str, np.ndarray]) -> np.ndarray:
    return inputs["X"]


class Outer:
    class Inner:
        def predict(self, inputs: dict[str, np.ndarray]) -> np.ndarray:
            return inputs["X"]


def made() -> list[object]:
    offset = 1

    class Local:
        pass

    def closure(inputs: dict[str, np.ndarray]) -> np.ndarray:
        return inputs["X"] + offset

    return [lambda inputs: inputs, Local, closure, Outer.Inner, Outer(), partial(plain), print, Outer().__init__]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "churn"
    (folder / "__pycache__").mkdir(parents=True)
    (folder / "__init__.py").write_bytes(b"from churn.model import Model\r\n")
    (folder / "model.py").write_text("class Model:\n    def predict(self, inputs):\n        return inputs['X']\n")
    (folder / "words.txt").write_text("a\nb\n")
    (folder / "__pycache__" / "model.cpython-311.pyc").write_bytes(b"\0")
    (folder / ".secret").write_text("canary")
    return folder


@pytest.mark.parametrize("target", made(), ids=str)
def test_what_its_source_does_not_tell_is_refused_naming_the_way(target: object) -> None:
    with pytest.raises(Unconvertible, match="code="):
        entry_of(target)


def test_names_at_the_top_of_a_module_are_entries() -> None:
    assert entry_of(plain) == f"{__name__}:plain" and entry_of(Outer) == f"{__name__}:Outer"
    assert entry_of("churn.model:Model") == "churn.model:Model"
    for text in ("churn", "churn:", "churn:a.b", "../churn:Model", "churn:Model()"):
        with pytest.raises(Unconvertible):
            entry_of(text)


def test_a_package_folder_becomes_members_without_what_is_hidden_or_compiled(source: Path) -> None:
    found = gather("churn.model:Model", [source], {})
    assert sorted(found.members) == ["code/churn/__init__.py", "code/churn/model.py", "code/churn/words.txt"]
    assert found.members["code/churn/__init__.py"] == b"from churn.model import Model\n"


def test_a_plain_folder_is_a_root_of_modules(source: Path) -> None:
    (source / "__init__.py").unlink()
    assert sorted(gather("model:Model", [source], {}).members) == ["code/model.py", "code/words.txt"]


def test_a_module_that_is_not_in_the_source_is_refused(source: Path, tmp_path: Path) -> None:
    with pytest.raises(Unconvertible, match="not among"):
        gather("other:Model", [source], {})
    with pytest.raises(Unconvertible, match="names no source"):
        gather("churn.model:Model", [], {})
    with pytest.raises(NotFound):
        gather("churn.model:Model", [tmp_path / "nowhere.py"], {})
    with pytest.raises(InvalidConfig, match="two sources"):
        gather("churn.model:Model", [source, source], {})


def test_links_are_refused(source: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("canary")
    (source / "link.txt").symlink_to(tmp_path / "secret.txt")
    with pytest.raises(InvalidConfig, match="link"):
        gather("churn.model:Model", [source], {})
    with pytest.raises(InvalidConfig, match="link"):
        gather("churn.model:Model", [source / "link.txt"], {})


def test_state_is_named_after_its_format(source: Path, tmp_path: Path) -> None:
    (tmp_path / "facts.json").write_text('{"a": 1}')
    files = {"facts": tmp_path / "facts.json", "w": np.ones(3), "both.npz": {"a": np.zeros(2), "b": np.ones(1)}}
    members = gather("churn.model:Model", [source], files).members
    assert sorted(path for path in members if path.startswith("files/")) == ["files/both.npz", "files/facts.json", "files/w.npz"]
    with np.load(io.BytesIO(members["files/both.npz"])) as read:
        assert sorted(read) == ["a", "b"]
    with pytest.raises(InvalidConfig, match="two files"):
        gather("churn.model:Model", [source], {"w": np.ones(3), "w.npz": np.ones(3)})
    for bad in (object(), {"a": 1}, np.array([{}]), lambda: 1):
        with pytest.raises(UnsupportedFormat):
            gather("churn.model:Model", [source], {"w": bad})
    with pytest.raises(UnsupportedFormat):
        gather("churn.model:Model", [source], {"../w": np.ones(3)})


def test_arrays_give_the_same_bytes_whenever_and_however_they_lie() -> None:
    array = np.arange(6.0).reshape(2, 3)
    assert npz({"a": array}) == npz({"a": np.asfortranarray(array)})


SKOPS = """
import hashlib, numpy as np
from sklearn.preprocessing import StandardScaler
from modelyard.runtime.originals.sources import skops
held = [object() for _ in range({count})]
print(hashlib.sha256(skops(StandardScaler().fit(np.arange(12.0).reshape(4, 3)))).hexdigest())
"""


def test_an_estimator_gives_the_same_bytes_in_every_process() -> None:
    shown = {
        subprocess.run([sys.executable, "-c", SKOPS.format(count=count)], capture_output=True, text=True, check=True).stdout for count in (0, 100_000)
    }
    assert len(shown) == 1


def test_an_estimator_comes_back_from_its_bytes() -> None:
    import skops.io
    from sklearn.ensemble import RandomForestRegressor

    X = np.random.default_rng(0).random((40, 3))
    forest = RandomForestRegressor(3, random_state=0).fit(X, X[:, 0])
    again = skops.io.loads(skops_bytes := skops_of(forest), trusted=skops.io.get_untrusted_types(data=skops_bytes))
    np.testing.assert_array_equal(again.predict(X), forest.predict(X))


def skops_of(estimator: object) -> bytes:
    return skops(estimator)
