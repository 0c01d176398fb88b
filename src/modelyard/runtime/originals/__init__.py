"""Models as their users have them: live objects and files of safe formats, each as an Original.

Hides the table of classes and of file formats. It must never unpickle: a format that runs code when read is refused, whatever its name.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelyard.errors import Unconvertible

if TYPE_CHECKING:
    from modelyard.runtime.originals.base import Original

_FAMILIES = ("xgboost", "lightgbm", "catboost", "sklearn")
_BARE = {
    ("xgboost", "Booster"): "modelyard.runtime.originals.bare:XgboostBooster",
    ("lightgbm", "Booster"): "modelyard.runtime.originals.bare:LightgbmBooster",
    ("torch", "Module"): "modelyard.runtime.originals.torch:TorchModel",
}
_KINDS = {"sklearn": "scikit-learn"}


def adapt(model: Any) -> Original:
    """`model` as an Original: a fitted estimator, a Booster, an ONNX ModelProto or its bytes, or the path of a model file.

    Raises Unconvertible for a class that this release does not know or that is not fitted, and what `load` raises for a path.
    """
    if isinstance(model, (str, Path)):
        return load(Path(model))
    if isinstance(model, (bytes, bytearray)):
        return _onnx(bytes(model))
    if type(model).__name__ == "ModelProto" and type(model).__module__.startswith("onnx"):
        return _onnx(model.SerializeToString(deterministic=True))
    for base in type(model).__mro__:
        family = base.__module__.partition(".")[0]
        if (family, base.__name__) in _BARE:
            module, _, name = _BARE[family, base.__name__].partition(":")
            original: Original = getattr(import_module(module), name)(model)
            return original
        if family in _FAMILIES:
            return _estimator(model, family)
    raise Unconvertible(
        f"{type(model).__module__}.{type(model).__qualname__} is not a model that this release packages; it takes scikit-learn, XGBoost, LightGBM, "
        "CatBoost and PyTorch models, ONNX, and for all others code: a class or function with code=[…], whose state is files={…}",
        field="model",
        rule="class",
    )


def load(path: Path) -> Original:
    """The model in a file: `.onnx`, skops, XGBoost `.json` or `.ubj`, LightGBM `.txt`, CatBoost `.cbm`, told apart by content.

    Raises NotFound, UnsupportedFormat (pickle and its relatives, with the safe way named), or MalformedPayload.
    """
    from modelyard.runtime.originals.files import read

    found = read(path)
    if isinstance(found, bytes):
        return _onnx(found)
    if type(found).__name__ == "CatBoost":
        from modelyard.runtime.originals.bare import CatboostModel

        return CatboostModel(found)
    return adapt(found)


def _onnx(data: bytes) -> Original:
    from modelyard.runtime.originals.onnx import OnnxModel

    return OnnxModel(data)


def _estimator(model: Any, family: str) -> Original:
    from modelyard.runtime.originals.estimators import Estimator

    if not hasattr(model, "predict"):
        raise Unconvertible(f"{type(model).__name__} does not predict; package a Pipeline that ends in a predictor", field="model", rule="class")
    if not _is_fitted(model, family):
        raise Unconvertible(f"{type(model).__name__} is not fitted; call fit before packaging", field="model", rule="fitted")
    return Estimator(model, kind=_KINDS.get(family, family))


def _is_fitted(model: Any, family: str) -> bool:
    if family == "catboost":
        return bool(model.is_fitted())
    from sklearn.exceptions import NotFittedError
    from sklearn.utils.validation import check_is_fitted

    try:
        check_is_fitted(model)
    except NotFittedError:
        return False
    return True
