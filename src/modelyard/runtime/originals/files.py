"""Model files of safe formats.

Hides the formats' magic bytes and readers. A file is what its first bytes say, not its name: a pickle called `.onnx` is refused as a
pickle. Nothing is constructed before the format is known to run no code, and from a skops file only types that are listed here.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

from modelyard.errors import MalformedPayload, NotFound, PayloadTooLarge, UnsupportedFormat

UNPACKED_LIMIT_BYTES = 2 << 30
_SAFE_WAY = (
    "it runs code when it is read. Save the model with skops (skops.io.dump) or in its library's own format (.onnx, XGBoost .json or .ubj, "
    "LightGBM .txt, CatBoost .cbm), or call modelyard.package in the process that trained it"
)
_REFUSED_SUFFIXES = {
    ".bin": "a binary of unknown format", ".dill": "a pickle", ".h5": "an HDF5 file", ".hdf5": "an HDF5 file", ".joblib": "a joblib file",
    ".keras": "a Keras archive", ".model": "a binary of unknown format", ".npy": "a numpy file", ".npz": "a numpy archive", ".pickle": "a pickle",
    ".pkl": "a pickle", ".pt": "a PyTorch archive", ".pth": "a PyTorch archive", ".sav": "a pickle",
}  # fmt: skip

TRUSTED = (
    "catboost.core.CatBoostClassifier",
    "catboost.core.CatBoostRegressor",
    "collections.OrderedDict",
    "functools.partial",
    "lightgbm.basic.Booster",
    "lightgbm.sklearn.LGBMClassifier",
    "lightgbm.sklearn.LGBMRegressor",
    "numpy.dtype",
    "sklearn.compose._column_transformer._RemainderColsList",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "sklearn.metrics._dist_metrics.EuclideanDistance64",
    "sklearn.neighbors._ball_tree.BallTree",
    "sklearn.neighbors._kd_tree.KDTree",
    "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
    "sklearn.neural_network._stochastic_optimizers.SGDOptimizer",
    "sklearn.tree._tree.Tree",
    "sklearn.utils._bunch.Bunch",
    "sklearn.utils.validation.check_array",
    "xgboost.core.Booster",
    "xgboost.sklearn.XGBClassifier",
    "xgboost.sklearn.XGBRFClassifier",
    "xgboost.sklearn.XGBRFRegressor",
    "xgboost.sklearn.XGBRegressor",
)
"""Types beyond skops' own list that a model may hold. None of them runs code of the file's choosing when it is built;
a partial holds a function of this list or of skops' own."""


def read(path: Path) -> Any:
    """The model in `path`: bytes for ONNX, else the library's own object. Raises NotFound, UnsupportedFormat, PayloadTooLarge or MalformedPayload."""
    if not path.is_file():
        raise NotFound(f"no such model file: {path}")
    with path.open("rb") as file:
        head = file.read(4096)
    _refuse(path, head)
    if head.startswith(b"CBM1"):
        return _catboost(path)
    if head.startswith(b"PK\x03\x04"):
        return _skops(path)
    if head.startswith(b"tree\n") or head.startswith(b"tree\r\n"):
        return _lightgbm(path)
    if head.lstrip()[:1] == b"{":
        return _xgboost(path)
    if head[:1] in (b"\x08", b"\x3a", b"\x12", b"\x42") and path.suffix.lower() in (".onnx", ".pb", ""):
        return path.read_bytes()
    if path.suffix.lower() == ".onnx":
        raise MalformedPayload(f"{path.name} is not an ONNX model")
    raise UnsupportedFormat(
        f"{path.name}: not a model file that this release reads (.onnx, skops, XGBoost .json or .ubj, LightGBM .txt, CatBoost .cbm)"
    )


def _refuse(path: Path, head: bytes) -> None:
    what = None
    if head[:1] == b"\x80" and head[1:2] in b"\x02\x03\x04\x05":
        what = "a pickle"
    elif head.startswith((b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda", b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x04\x22\x4d\x18")):
        what = "a compressed file, as joblib writes"
    elif head.startswith(b"\x89HDF\r\n\x1a\n"):
        what = "an HDF5 file"
    elif head.startswith(b"\x93NUMPY"):
        what = "a numpy file"
    elif (
        head.startswith(b"PK\x03\x04")
        and any(name.endswith((".pkl", "config.json", ".npy")) for name in _members(path))
        and "schema.json" not in _members(path)
    ):
        what = "an archive with a pickle or code in it"
    elif head[:1] in b"(c]}l" and head.rstrip().endswith(b".") and not head.startswith(b"{"):
        what = "a pickle"
    elif path.suffix.lower() in _REFUSED_SUFFIXES and not head.startswith(b"CBM1"):
        what = _REFUSED_SUFFIXES[path.suffix.lower()]
    if what is not None:
        raise UnsupportedFormat(f"{path.name} is {what} and is not read: {_SAFE_WAY}", field="model", rule="format")


def _members(path: Path) -> list[str]:
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    except (zipfile.BadZipFile, OSError):
        return []


def _unpacked_bytes(path: Path) -> int:
    with zipfile.ZipFile(path) as archive:
        return sum(entry.file_size for entry in archive.infolist())


def _skops(path: Path) -> Any:
    if "schema.json" not in _members(path):
        raise UnsupportedFormat(f"{path.name} is an archive but not a skops file; {_SAFE_WAY}", field="model", rule="format")
    # An entry never gives more bytes than it declares, so the sum bounds what reading it can take.
    if (unpacked := _unpacked_bytes(path)) > UNPACKED_LIMIT_BYTES:
        raise PayloadTooLarge(
            f"{path.name} unpacks to {unpacked:,} bytes; a skops file has at most {UNPACKED_LIMIT_BYTES:,}", field="model", rule="size"
        )
    import skops.io

    data = path.read_bytes()
    try:
        unknown = sorted(set(skops.io.get_untrusted_types(data=data)) - set(TRUSTED))
    except Exception as error:
        raise MalformedPayload(f"{path.name} is not a whole skops file") from error
    if unknown:
        raise UnsupportedFormat(
            f"{path.name} holds types that are not trusted: {', '.join(unknown[:5])}. Call modelyard.package in the process that trained it",
            field="model",
            rule="trusted-types",
        )
    try:
        return skops.io.loads(data, trusted=list(TRUSTED))
    except Exception as error:
        raise MalformedPayload(f"{path.name} cannot be built from its skops file: {type(error).__name__}") from error


def _catboost(path: Path) -> Any:
    try:
        import catboost
    except ImportError as error:
        raise _absent(path, "CatBoost", "catboost") from error
    try:
        return catboost.CatBoost().load_model(str(path))
    except catboost.CatBoostError as error:
        raise MalformedPayload(f"{path.name} is not a whole CatBoost model") from error


def _lightgbm(path: Path) -> Any:
    try:
        import lightgbm
    except ImportError as error:
        raise _absent(path, "LightGBM", "lightgbm") from error
    try:
        return lightgbm.Booster(model_str=path.read_text("utf-8"))
    except (lightgbm.basic.LightGBMError, ValueError) as error:
        raise MalformedPayload(f"{path.name} is not a whole LightGBM model") from error


def _xgboost(path: Path) -> Any:
    try:
        import xgboost
    except ImportError as error:
        raise _absent(path, "XGBoost", "xgboost") from error
    try:
        return xgboost.Booster(model_file=bytearray(path.read_bytes()))
    except (xgboost.core.XGBoostError, ValueError) as error:
        raise MalformedPayload(f"{path.name} is not a whole XGBoost model") from error


def _absent(path: Path, library: str, extra: str) -> UnsupportedFormat:
    return UnsupportedFormat(f"{path.name} is a {library} model; install modelyard[{extra}] to package it", field="model", rule="library")
