"""Model files: the safe formats are read, whatever they are called; what runs code when read is refused, whatever it is called."""

from __future__ import annotations

import gzip
import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import catboost
import joblib
import lightgbm
import numpy as np
import pytest
import skops.io
import xgboost
from skl2onnx import to_onnx
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.preprocessing import FunctionTransformer
from sklearn.tree import DecisionTreeClassifier

from modelyard.errors import MalformedPayload, NotFound, UnsupportedFormat
from modelyard.runtime.data import read as read_data
from modelyard.runtime.originals import load
from modelyard.runtime.originals.files import read


class Bomb:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self._path,))


@pytest.fixture(scope="module")
def x() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(80, 2))


@pytest.fixture(scope="module")
def y(x: np.ndarray) -> np.ndarray:
    return (x[:, 0] > 0).astype(int)


def compressed(data: bytes) -> bytes:
    made = io.BytesIO()
    joblib.dump(data, made, compress=("zlib", 3))
    return made.getvalue()


def torch_archive(data: bytes) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr("archive/data.pkl", data)
    return made.getvalue()


@pytest.mark.parametrize("name", ["model.pkl", "model.onnx", "model.json", "model.txt", "model.cbm", "model.skops", "model"])
@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_a_pickle_is_refused_under_any_name_and_its_code_does_not_run(name: str, protocol: int, tmp_path: Path) -> None:
    proof = tmp_path / "ran"
    data = pickle.dumps(Bomb(proof), protocol)
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(UnsupportedFormat) as refused:
        load(path)
    assert not proof.exists()
    if protocol >= 2:
        assert "is a pickle and is not read" in refused.value.message
        assert "skops.io.dump" in refused.value.message
        assert "modelyard.package in the process that trained it" in refused.value.message
    pickle.loads(data)  # negative control: unpickling does run it
    assert proof.exists()


@pytest.mark.parametrize(
    ("name", "data", "what"),
    [
        ("m.joblib", compressed(b"x"), "a compressed file, as joblib writes"),
        ("m.onnx", gzip.compress(b"x"), "a compressed file"),
        ("m.pt", torch_archive(b"x"), "an archive with a pickle"),
        ("m.skops", torch_archive(b"x"), "an archive with a pickle"),
        ("m.h5", b"\x89HDF\r\n\x1a\n" + bytes(9), "an HDF5 file"),
        ("m.onnx", b"\x93NUMPY" + bytes(9), "a numpy file"),
        ("m.sav", b"anything", "a pickle"),
        ("m.txt", b"anything", "not a model file that this release reads"),
        ("m.onnx", b"PK\x03\x04" + bytes(40), "not a skops file"),
        ("m.onnx", b"", "not an ONNX model"),
    ],
)
def test_other_formats_are_refused_by_what_they_are(name: str, data: bytes, what: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises((UnsupportedFormat, MalformedPayload), match=what):
        load(path)


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        load(tmp_path / "none.onnx")


@pytest.mark.parametrize(
    "model",
    [
        RandomForestClassifier(3, random_state=0),
        HistGradientBoostingClassifier(max_iter=3),
        HistGradientBoostingClassifier(max_iter=3, categorical_features=[1]),
        KNeighborsClassifier(),
        MLPClassifier((3,), max_iter=2000, tol=1e-2, random_state=0),
        xgboost.XGBClassifier(n_estimators=3, n_jobs=1),
        lightgbm.LGBMClassifier(n_estimators=3, n_jobs=1, verbose=-1),
        catboost.CatBoostClassifier(iterations=3, verbose=0, allow_writing_files=False, thread_count=1),
    ],
    ids=lambda model: type(model).__name__,
)
def test_skops_files_of_estimators(model: Any, x: np.ndarray, y: np.ndarray, tmp_path: Path) -> None:
    data = np.c_[x[:, 0], np.round(np.abs(x[:, 1]))]
    path = tmp_path / "model.skops"
    skops.io.dump(model.fit(data, y), path)
    original = load(path)
    answers = original.predict(read_data(data)[0])
    np.testing.assert_array_equal(answers["probability"], model.predict_proba(data))
    assert original.classes == (0, 1)


def test_a_skops_file_of_other_types_is_refused_by_their_names(x: np.ndarray, y: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / "model.skops"
    skops.io.dump(FunctionTransformer(func=np.save), path)
    with pytest.raises(UnsupportedFormat, match=r"types that are not trusted: numpy"):
        load(path)
    skops.io.dump(DecisionTreeClassifier().fit(x, y), path)
    whole = path.read_bytes()
    with zipfile.ZipFile(io.BytesIO(whole)) as archive, zipfile.ZipFile(path, "w") as broken:
        for name in archive.namelist():
            broken.writestr(name, b"{}" if name == "schema.json" else archive.read(name))
    with pytest.raises(MalformedPayload):
        load(path)


def test_the_libraries_own_files(x: np.ndarray, y: np.ndarray, tmp_path: Path) -> None:
    boosted = xgboost.XGBClassifier(n_estimators=3, n_jobs=1).fit(x, y)
    light = lightgbm.LGBMClassifier(n_estimators=3, n_jobs=1, verbose=-1).fit(x, y)
    cat = catboost.CatBoostClassifier(iterations=3, verbose=0, allow_writing_files=False, thread_count=1).fit(x, np.where(y, "yes", "no"))
    boosted.save_model(tmp_path / "m.json")
    boosted.save_model(tmp_path / "m.ubj")
    light.booster_.save_model(tmp_path / "m.txt")
    cat.save_model(str(tmp_path / "m.cbm"))
    table, _ = read_data(x)
    for name, model in (("m.json", boosted), ("m.ubj", boosted), ("m.txt", light), ("m.cbm", cat)):
        original = load(tmp_path / name)
        assert original.task == "classification"
        np.testing.assert_allclose(original.predict(table)["probability"], model.predict_proba(x), atol=1e-7)
    assert load(tmp_path / "m.cbm").classes == ("no", "yes")
    assert load(tmp_path / "m.json").classes == (0, 1)


@pytest.mark.parametrize(("name", "head"), [("m.json", b"{"), ("m.txt", b"tree\n"), ("m.cbm", b"CBM1")])
def test_broken_files_of_theirs_say_so(name: str, head: bytes, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(head + b"nothing")
    with pytest.raises(MalformedPayload, match="not a whole"):
        load(path)


def test_an_onnx_file_is_its_bytes(x: np.ndarray, y: np.ndarray, tmp_path: Path) -> None:
    model = to_onnx(RandomForestClassifier(2).fit(x, y), x[:1].astype(np.float32))
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    assert read(path) == path.read_bytes()
    assert load(path).kind == "onnx"
