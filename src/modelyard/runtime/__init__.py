"""Everything that answers: an opened Bundle becomes a Runtime.

Hides which class runs which kind of model. Conversion and the libraries that train live in the sub-packages `convert` and
`originals`, which serving never loads.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

import msgspec

from modelyard.errors import UnsupportedFormat
from modelyard.runtime.binding import Binding

if TYPE_CHECKING:
    from modelyard.bundle import Bundle
    from modelyard.runtime.base import Runtime
    from modelyard.runtime.isolated import Isolation

KINDS = {"onnx": "modelyard.runtime.onnx:Onnx", "python": "modelyard.runtime.isolated.pool:Isolated"}


def open(bundle: Bundle, *, isolation: Isolation | None = None) -> Runtime:  # noqa: A001 - the room's verb, always written runtime.open
    """The Runtime for a verified bundle; `isolation` says how the processes of a model that is code are kept.

    Raises UnsupportedFormat for a kind that this release does not run, Rejected for code whose libraries are not here or that cannot be shut in.
    """
    try:
        kind = msgspec.json.decode(bundle.read("runtime"), type=_Kind).kind
        module, _, name = KINDS[kind].partition(":")
        runtime: Runtime
        if kind == "python":
            return _code(bundle, isolation)
        binding = msgspec.json.decode(bundle.read("runtime"), type=Binding)
    except (KeyError, msgspec.MsgspecError) as error:
        raise UnsupportedFormat(f"this release runs models of kind {', '.join(sorted(KINDS))}; the bundle holds another") from error
    runtime = getattr(import_module(module), name)(bundle.read("model"), binding, bundle.schema)
    return runtime


def _code(bundle: Bundle, isolation: Isolation | None) -> Runtime:
    from modelyard.runtime.isolated import Isolated, Isolation
    from modelyard.runtime.isolated.pool import Code, require

    code = msgspec.json.decode(bundle.read("runtime"), type=Code)
    require(bundle.lock)
    return Isolated(code, bundle.parts, bundle.schema, isolation or Isolation())


class _Kind(msgspec.Struct):
    kind: str
