"""Arrays on the wire: Open Inference Protocol V2 in JSON, the client's side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from modelyard.errors import SchemaMismatch
from modelyard.types import TensorSpec

if TYPE_CHECKING:
    from modelyard.types import Array


def columns(name: str, specs: tuple[TensorSpec, ...], inputs: Any) -> dict[str, Array]:
    """`inputs` (arrays or lists by name, a frame, or, of a model with one input, that alone) as an array per input. Raises SchemaMismatch."""
    import numpy as np

    if len(specs) == 1 and not (hasattr(inputs, "keys") and specs[0].name in inputs):
        return {specs[0].name: _batch(specs[0], np.asarray(inputs))}
    if not hasattr(inputs, "keys"):
        raise SchemaMismatch(f"{name} takes {', '.join(spec.name for spec in specs)}: give arrays by name, or a frame", rule="names")
    missing = [spec.name for spec in specs if spec.name not in inputs]
    if missing:
        raise SchemaMismatch(f"{name} also takes {', '.join(missing)}", field=missing[0], rule="required")
    found = {spec.name: _batch(spec, np.asarray(inputs[spec.name])) for spec in specs}
    rows = len(found[specs[0].name])
    uneven = next((each for each, array in found.items() if len(array) != rows), None)
    if uneven is not None:
        raise SchemaMismatch(f"{uneven} has {len(found[uneven]):,} rows and {specs[0].name} has {rows:,}", field=uneven, rule="rows")
    return found


def _batch(spec: TensorSpec, array: Array) -> Array:
    """A column as the schema has it: one value a row is a row of one."""
    return array.reshape(-1, 1) if array.ndim == 1 and len(spec.shape) == 2 and spec.shape[1] == 1 else array


def tensor(spec: TensorSpec, array: Array) -> dict[str, object]:
    shape = [len(array), *(-1 if size < 0 else size for size in spec.shape[1:])]
    flat = array.reshape(-1).tolist()
    if -1 in shape[1:]:
        shape = list(array.shape)
    if spec.datatype == "BYTES":
        data: list[object] = [None if item is None or item != item else str(item) for item in flat]  # noqa: PLR0124  # NaN
    elif spec.datatype == "BOOL":
        data = [None if item is None or item != item else bool(item) for item in flat]  # noqa: PLR0124
    else:
        data = flat
    # Half floats do not travel as JSON; FP32 holds them all.
    return {"name": spec.name, "shape": shape, "datatype": "FP32" if spec.datatype == "FP16" else spec.datatype, "data": data}


def array_of(output: Mapping[str, Any]) -> Array:
    import numpy as np

    data, datatype = output["data"], output["datatype"]
    if datatype == "BYTES":
        array = np.array(data, dtype=object)
    elif datatype.startswith("FP"):
        array = np.array([np.nan if item is None else item for item in data], dtype=f"float{datatype[2:]}")
    else:
        array = np.array(data, dtype="bool" if datatype == "BOOL" else datatype.lower())
    return array.reshape(output["shape"])
