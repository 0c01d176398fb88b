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

KINDS = {"onnx": "modelyard.runtime.onnx:Onnx"}


def open(bundle: Bundle) -> Runtime:  # noqa: A001 - the room's verb, always written runtime.open
    """The Runtime for a verified bundle. Raises UnsupportedFormat for a kind that this release does not run."""
    try:
        kind = msgspec.json.decode(bundle.read("runtime"), type=_Kind).kind
        module, _, name = KINDS[kind].partition(":")
        binding = msgspec.json.decode(bundle.read("runtime"), type=Binding)
    except (KeyError, msgspec.MsgspecError) as error:
        raise UnsupportedFormat(f"this release runs models of kind {', '.join(sorted(KINDS))}; the bundle holds another") from error
    runtime: Runtime = getattr(import_module(module), name)(bundle.read("model"), binding, bundle.schema)
    return runtime


class _Kind(msgspec.Struct):
    kind: str
