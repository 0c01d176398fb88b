"""Training and replay data as the user has it, beside the form in which the wire would deliver it.

Hides pandas, polars, numpy, Parquet and CSV behind one `Table`: the native object (which the original model is asked with) and the
columns in the form of InferenceRequest (which the converted model is asked with). It must not know models, and must not guess: what has
no form on the wire (times, mixed objects, lists) is refused, naming the column. pandas, polars and duckdb are imported only when data of
theirs, or a file, is read.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from modelyard.errors import InvalidConfig, InvalidInput, MalformedPayload, NotFound

if TYPE_CHECKING:
    from modelyard.types import Array, Datatype, Layout, Scalar

ARRAY_INPUT = "X"
"""The one input of a model that was trained on an array."""

DTYPES: dict[Datatype, np.dtype[Any]] = {
    "BOOL": np.dtype(np.bool_),
    "INT8": np.dtype(np.int8),
    "INT16": np.dtype(np.int16),
    "INT32": np.dtype(np.int32),
    "INT64": np.dtype(np.int64),
    "UINT8": np.dtype(np.uint8),
    "UINT16": np.dtype(np.uint16),
    "UINT32": np.dtype(np.uint32),
    "UINT64": np.dtype(np.uint64),
    "FP16": np.dtype(np.float16),
    "FP32": np.dtype(np.float32),
    "FP64": np.dtype(np.float64),
    "BYTES": np.dtype(object),
}
"""The numpy dtype of each datatype on the wire (a nullable BOOL or integer travels inside as float64)."""

_DATATYPES = {dtype: datatype for datatype, dtype in DTYPES.items() if datatype != "BYTES"}
_EXACT_INTEGERS = 2**53
_INFERRED: dict[Datatype, type] = {"BOOL": bool, "INT64": int, "FP64": float, "BYTES": str}


class Kind(NamedTuple):
    """What a column's own type says: its datatype, and the values that a categorical type declares (None: not categorical)."""

    datatype: Datatype
    categories: tuple[Scalar, ...] | None = None


class Table:
    """Rows of model input, twice: as the user has them and as the wire delivers them. Values are never changed in place.

    `native` is a pandas or polars frame, an ndarray (layout `array`) or a dict of ndarrays (layout `tensors`, and frames read from a file where
    neither pandas nor polars is installed). `columns` has the form of InferenceRequest.inputs: a frame's columns are [rows, 1], an array is `X`.
    `kinds` gives each column's datatype.
    """

    __slots__ = ("columns", "kinds", "layout", "native", "rows")

    def __init__(self, native: Any, columns: dict[str, Array], kinds: dict[str, Kind], *, layout: Layout, rows: int) -> None:
        self.native = native
        self.columns = columns
        self.kinds = kinds
        self.layout = layout
        self.rows = rows

    def take(self, rows: Array) -> Table:
        """The given rows (indices), in that order."""
        index = np.asarray(rows, dtype=np.int64)
        columns = {name: column[index] for name, column in self.columns.items()}
        return Table(_take(self.native, index), columns, self.kinds, layout=self.layout, rows=len(index))

    def replace(self, column: str, value: Scalar | Array | None) -> Table:
        """The same rows with `value` (None: missing) in every row of `column`; an array of the shape of one row fills an array input.

        Raises InvalidInput when the column's own type cannot hold the value (a polars Enum, say).
        """
        wire = self.columns[column]
        columns = {**self.columns, column: _filled(wire, value)}
        return Table(_replace(self.native, column, value), columns, self.kinds, layout=self.layout, rows=self.rows)


def read(data: object, *, label: str | None = None, labels: object = None) -> tuple[Table, Array | None]:
    """`data` as a Table, and the labels: the column `label`, split off, or `labels` as given, or None.

    `data` is a pandas or polars DataFrame, a numpy array, a dict of arrays or the path of a Parquet or CSV file. Raises NotFound,
    InvalidInput naming the column that has no form on the wire, or InvalidConfig for a label that is not there.
    """
    if label is not None and labels is not None:
        raise InvalidConfig("give either the label column's name or the labels, not both", field="label")
    if isinstance(data, str | Path):
        data = read_file(Path(data))
    answers: Array | None = None
    if label is not None:
        data, answers = _split(data, label)
    elif labels is not None:
        answers = _label_array(labels)
    table = _table(data)
    if table.rows == 0:
        raise InvalidInput("the data has no rows", field="data", rule="rows")
    if answers is not None and len(answers) != table.rows:
        raise InvalidInput(f"the data has {table.rows:,} rows and {len(answers):,} labels", field="labels", rule="rows")
    return table, answers


def timed(data: object, times: object) -> tuple[object, Array | None]:
    """`data`, and when its rows were: seconds since 1970, UTC, NaN where nobody knows; None without `times`.

    `times` is one value a row (dates of numpy, pandas or Python, ISO texts, or seconds; without a zone they are UTC), or the name of the column that
    has them, which is split off. Raises NotFound and MalformedPayload for a file, InvalidConfig for a column that is not there, InvalidInput for
    values that are no times.
    """
    if times is None:
        return data, None
    if not isinstance(times, str):
        return data, _seconds(np.asarray(times, dtype=object) if isinstance(times, list | tuple) else np.asarray(times))
    source = read_file(Path(data)) if isinstance(data, str | Path) else data
    rest, values = _split(source, times, "times")
    return rest, _seconds(values)


def _seconds(values: Array) -> Array:
    flat = values.reshape(-1)
    if flat.dtype.kind == "M":
        found = flat.astype("datetime64[us]").astype(np.int64) / 1e6
        return np.where(np.isnat(flat), np.nan, found)
    if flat.dtype.kind in "iuf":
        return np.where(np.isfinite(flat), flat, np.nan).astype(np.float64)
    try:
        return np.array([_second(value) for value in flat.tolist()], dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidInput("times are dates, ISO texts or seconds since 1970", field="times", rule="type") from error


def _second(value: Any) -> float:
    if _is_missing(value):
        return math.nan
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    if isinstance(value, datetime):
        return (value if value.tzinfo is not None else value.replace(tzinfo=UTC)).timestamp()
    if isinstance(value, date):
        return datetime(value.year, value.month, value.day, tzinfo=UTC).timestamp()
    return float(value)


def read_file(path: Path) -> Any:
    """A Parquet or CSV file as a pandas frame, else a polars frame, else a dict of columns, whichever is installed.

    A CSV is read by the library that the frame is of, since its rules for types and missing values are those that a model was trained under.
    Raises NotFound or MalformedPayload.
    """
    if not path.is_file():
        raise NotFound(f"no such data file: {path}")
    suffix = path.suffix.lower()
    if suffix not in (".parquet", ".csv"):
        raise InvalidConfig(f"{path.name}: data files are .parquet or .csv", field="data", rule="format")
    library = next((name for name in ("pandas", "polars") if find_spec(name)), None)
    try:
        if suffix == ".csv" and library == "pandas":
            import pandas

            return pandas.read_csv(path)
        if library == "polars":
            import polars

            return polars.read_csv(path) if suffix == ".csv" else polars.read_parquet(path)
        columns = _read_with_duckdb(path)
    except (InvalidInput, MemoryError):
        raise
    except Exception as error:  # each reader has an error tree of its own; all mean: not such a file
        kind = "CSV" if suffix == ".csv" else "Parquet"
        raise MalformedPayload(f"{path.name} cannot be read as {kind}", field="data", rule="format") from error
    if library is None:
        return _Columns(columns)
    import pandas as pd

    # Lists, not object arrays: pandas then infers its own type for strings, as its Parquet reader would.
    return pd.DataFrame({name: values.tolist() if values.dtype == object else values for name, values in columns.items()})


class _Columns(dict[str, "Array"]):
    """The columns of a frame that was read without pandas or polars, [rows] each."""


def _read_with_duckdb(path: Path) -> dict[str, Array]:
    import duckdb

    query = "select * from read_csv(?)" if path.suffix.lower() == ".csv" else "select * from read_parquet(?)"
    with duckdb.connect() as connection:
        found = connection.execute(query, [str(path)]).fetchnumpy()
    columns: dict[str, Array] = {}
    for name, values in found.items():
        missing = np.ma.getmaskarray(values) if isinstance(values, np.ma.MaskedArray) else np.zeros(len(values), bool)
        plain = np.ma.getdata(values)
        if missing.any():
            plain = plain.astype(object if plain.dtype.kind in "Ob" else np.float64 if plain.dtype.kind in "iuf" else plain.dtype)
            plain[missing] = None if plain.dtype == object else np.nan if plain.dtype.kind == "f" else np.datetime64("NaT")
        columns[name] = plain
    return columns


def _library(data: object) -> str:
    return type(data).__module__.partition(".")[0]


def _split(data: object, label: str, what: str = "label") -> tuple[object, Array]:
    names: Sequence[Any]
    if _library(data) in ("pandas", "polars"):
        frame: Any = data
        names = list(frame.columns)
    elif isinstance(data, Mapping):
        names = list(data)
    else:
        raise InvalidConfig(f"only a frame, a file or a dict has a {what} column; give the {what} of each row instead", field=what)
    if label not in names:
        raise InvalidConfig(f"the data has no column {label!r} to take as {what}", field=what, rule="exists")
    if isinstance(data, Mapping):
        rest = {name: values for name, values in data.items() if name != label}
        return (_Columns(rest) if isinstance(data, _Columns) else rest), _label_array(data[label])
    answers = _label_array(frame[label])
    return (frame.drop(columns=[label]) if _library(data) == "pandas" else frame.drop(label)), answers


def _label_array(labels: object) -> Array:
    array = np.asarray(labels)
    if array.dtype.kind in "US":
        array = array.astype(object)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim == 0:
        raise InvalidInput("labels are one value per row", field="labels", rule="shape")
    return array


def _table(data: object) -> Table:
    if isinstance(data, Table):
        return data
    library = _library(data)
    if library in ("pandas", "polars") and type(data).__name__ == "DataFrame":
        return _from_frame(data, _pandas_column if library == "pandas" else _polars_column)
    if isinstance(data, _Columns):
        pairs = {name: _column(name, values) for name, values in data.items()}
        columns = {name: values.reshape(-1, 1) for name, (values, _) in pairs.items()}
        kinds = {name: kind for name, (_, kind) in pairs.items()}
        return Table(dict(data), columns, kinds, layout="frame", rows=_common_rows(columns))
    if isinstance(data, Mapping):
        return _from_tensors(data)
    if isinstance(data, list):
        data = np.asarray(data)
    if isinstance(data, np.ndarray) and data.dtype.names is None:
        if data.ndim == 0:
            raise InvalidInput("the data is a single value; rows come first", field=ARRAY_INPUT, rule="shape")
        values, kind = _column(ARRAY_INPUT, data)
        return Table(data, {ARRAY_INPUT: values}, {ARRAY_INPUT: kind}, layout="array", rows=len(data))
    if hasattr(data, "tocsr"):
        raise InvalidInput("sparse matrices have no form on the wire; give the array (`.toarray()`) or the data before encoding", field="data")
    raise InvalidInput(
        f"data of type {type(data).__name__} is not supported: give a pandas or polars DataFrame, a numpy array, a dict of arrays, "
        "or the path of a Parquet or CSV file",
        field="data",
        rule="type",
    )


def _from_frame(frame: Any, convert: Any) -> Table:
    names = list(frame.columns)
    for name in names:
        if not isinstance(name, str) or not name:
            raise InvalidInput(f"column names are non-empty text; rename the column {name!r}", field=str(name), rule="name")
        if names.count(name) > 1:
            raise InvalidInput(f"the column {name!r} stands twice in the data", field=name, rule="unique")
    if not names:
        raise InvalidInput("the data has no columns", field="data", rule="columns")
    columns: dict[str, Array] = {}
    kinds: dict[str, Kind] = {}
    for name in names:
        values, kinds[name] = convert(name, frame[name])
        columns[name] = values.reshape(-1, 1)
    return Table(frame, columns, kinds, layout="frame", rows=len(frame))


def _from_tensors(data: Mapping[Any, Any]) -> Table:
    native: dict[str, Array] = {}
    columns: dict[str, Array] = {}
    kinds: dict[str, Kind] = {}
    for name, values in data.items():
        if not isinstance(name, str) or not name:
            raise InvalidInput("the names of arrays are non-empty text", field=str(name), rule="name")
        native[name] = np.asarray(values)
        if native[name].ndim == 0:
            raise InvalidInput(f"{name!r} is a single value; rows come first", field=name, rule="shape")
        columns[name], kinds[name] = _column(name, native[name])
    if not columns:
        raise InvalidInput("the data has no arrays", field="data", rule="columns")
    return Table(native, columns, kinds, layout="tensors", rows=_common_rows(columns))


def _common_rows(columns: Mapping[str, Array]) -> int:
    counts = {name: len(values) for name, values in columns.items()}
    first = next(iter(counts.values()))
    for name, count in counts.items():
        if count != first:
            raise InvalidInput(f"{name!r} has {count:,} rows, others have {first:,}", field=name, rule="rows")
    return first


def _refuse(name: str, what: str, advice: str) -> InvalidInput:
    return InvalidInput(f"the column {name!r} holds {what}, which has no form on the wire; {advice}", field=name, rule="type")


def _column(name: str, values: Array) -> tuple[Array, Kind]:
    """A numpy array in the form of InferenceRequest, and its kind."""
    if values.dtype == object:
        return _objects(name, values)
    if values.dtype.kind in "mM":
        raise _refuse(name, "times", "give numbers instead (seconds, hour of day, days since …)")
    if values.dtype.kind == "U":
        return values.astype(object), Kind("BYTES")
    if values.dtype.kind == "S":
        raise _refuse(name, "bytes", "give text")
    datatype = _DATATYPES.get(values.dtype.newbyteorder("="))
    if datatype is None:
        raise _refuse(name, f"values of type {values.dtype.name}", "give integers, floats, booleans or text")
    return np.ascontiguousarray(values, dtype=DTYPES[datatype]), Kind(datatype)


def _is_missing(value: object) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value)) or type(value).__name__ in ("NAType", "NaTType")


def _objects(name: str, values: Array) -> tuple[Array, Kind]:
    """Python objects: all text, all booleans or all numbers, beside missing ones; anything else is refused."""
    items = values.ravel().tolist()
    missing = np.fromiter(map(_is_missing, items), bool, len(items))
    present = [item for item, gone in zip(items, missing, strict=True) if not gone]
    found = {_python_type(item) for item in present}
    if not found:
        raise _refuse(name, "no value at all", "leave the column out, or give it a type")
    if found == {int, float}:
        found = {float}
    datatype = next((datatype for datatype, kind in _INFERRED.items() if found == {kind}), None)
    if datatype is None:
        kinds = ", ".join(sorted(kind.__name__ for kind in found))
        raise _refuse(name, f"Python objects of type {kinds}", "give the column one type: integers, floats, booleans or text")
    if datatype == "BYTES":
        array = np.empty(len(items), dtype=object)
        array[:] = [None if gone else str(item) for item, gone in zip(items, missing, strict=True)]
    else:
        array = _numbers(name, present, missing, DTYPES[datatype])
    return array.reshape(values.shape), Kind(datatype)


def _python_type(item: object) -> type:
    for numpy_type, python_type in ((np.bool_, bool), (np.integer, int), (np.floating, float), (np.str_, str)):
        if isinstance(item, numpy_type):
            return python_type
    return type(item)


def _numbers(name: str, present: Sequence[Any] | Array, missing: Array, dtype: np.dtype[Any]) -> Array:
    """The present values among the missing ones: in their dtype, or in float64 with NaN where a value is missing."""
    try:
        solid = np.asarray(present, dtype=dtype)
    except OverflowError as error:
        raise _refuse(name, "integers beyond 64 bits", "give them as text") from error
    if not missing.any():
        return solid
    if dtype.kind in "iu" and len(solid) and max(abs(int(solid.max())), abs(int(solid.min()))) > _EXACT_INTEGERS:
        raise _refuse(name, "missing values beside integers above 2^53", "give them as text")
    array = np.full(len(missing), np.nan, dtype=dtype if dtype.kind == "f" else np.float64)
    array[~missing] = solid
    return array


def _pandas_column(name: str, series: Any) -> tuple[Array, Kind]:
    dtype = series.dtype
    if dtype.name == "category":
        return _categorical(name, series.cat.codes.to_numpy(), _column(name, np.asarray(series.cat.categories.to_numpy())))
    if isinstance(dtype, np.dtype):
        return _column(name, series.to_numpy())
    missing = series.isna().to_numpy()
    if dtype.type is str or "string" in str(dtype).lower():
        array = series.to_numpy(dtype=object, copy=True)
        array[missing] = None
        return array, Kind("BYTES")
    numpy_dtype = getattr(dtype, "numpy_dtype", None)
    if type(dtype).__name__ == "SparseDtype":
        return _column(name, series.to_numpy())
    if not isinstance(numpy_dtype, np.dtype) or numpy_dtype not in _DATATYPES:
        raise _refuse(name, f"values of type {dtype}", "give integers, floats, booleans, text or categories")
    present = series[~missing].to_numpy(dtype=numpy_dtype)
    return _numbers(name, present, missing, numpy_dtype), Kind(_DATATYPES[numpy_dtype])


def _polars_column(name: str, series: Any) -> tuple[Array, Kind]:
    import polars as pl

    dtype = series.dtype
    if dtype in (pl.String, pl.Categorical, pl.Enum):
        texts = np.array(series.cast(pl.String).to_list(), dtype=object)
        return texts, Kind("BYTES", tuple(dtype.categories.to_list()) if dtype == pl.Enum else None)
    if dtype != pl.Boolean and not (dtype.is_numeric() and not dtype.is_decimal()):
        raise _refuse(name, f"values of type {dtype}", "give integers, floats, booleans, text or categories")
    missing = series.is_null().to_numpy()
    present = series.drop_nulls().to_numpy()
    datatype = _DATATYPES.get(present.dtype)
    if datatype is None:
        raise _refuse(name, f"values of type {dtype}", "give integers, floats, booleans, text or categories")
    return _numbers(name, present, missing, present.dtype), Kind(datatype)


def _categorical(name: str, codes: Array, categories: tuple[Array, Kind]) -> tuple[Array, Kind]:
    values, kind = categories
    missing = codes < 0
    declared = tuple(values.tolist())
    if kind.datatype == "BYTES":
        array = np.full(len(codes), None, dtype=object)
        array[~missing] = values[codes[~missing]]
    else:
        array = _numbers(name, values[codes[~missing]], missing, values.dtype)
    return array, Kind(kind.datatype, declared)


def _take(native: Any, index: Array) -> Any:
    if isinstance(native, dict):
        return {name: values[index] for name, values in native.items()}
    return native.iloc[index] if _library(native) == "pandas" else native[index]


def _filled(wire: Array, value: Scalar | Array | None) -> Array:
    if value is None and wire.dtype.kind in "biu":
        return np.full(wire.shape, np.nan)
    filled = np.empty_like(wire)
    filled[...] = np.nan if value is None and wire.dtype != object else value
    return filled


def _replace(native: Any, column: str, value: Scalar | Array | None) -> Any:
    if isinstance(native, np.ndarray):
        return _filled(native, value)
    if isinstance(native, dict):
        return {**native, column: _filled(native[column], value)}
    rows = len(native)
    if _library(native) == "polars":
        import polars as pl

        dtype = native.schema[column]
        try:
            return native.with_columns(pl.Series(column, [value] * rows, dtype=dtype))
        except (pl.exceptions.PolarsError, TypeError) as error:
            raise InvalidInput(f"the type of the column {column!r} cannot hold the value", field=column, rule="type") from error
    return native.assign(**{column: _pandas_constant(native[column], value)})


def _pandas_constant(series: Any, value: Any) -> Any:
    import pandas as pd

    dtype = series.dtype
    if dtype.name == "category":
        known = series.cat.categories
        extended = known if value is None or value in known else known.append(pd.Index([value]))
        return pd.Series(pd.Categorical([value] * len(series), categories=extended, ordered=dtype.ordered), index=series.index)
    if isinstance(dtype, np.dtype) and dtype.kind in "biuf":
        target = np.float64 if value is None and dtype.kind != "f" else dtype
        return pd.Series(np.full(len(series), math.nan if value is None else value, dtype=target), index=series.index)
    return pd.Series([value] * len(series), index=series.index, dtype=dtype)


def common(values: Iterable[Any]) -> Any:
    """The commonest value that is not missing, the smallest among equals (as text); None when there is none."""
    counts: dict[Any, int] = {}
    for value in values:
        if not _is_missing(value):
            counts[value] = counts.get(value, 0) + 1
    return min(counts, key=lambda value: (-counts[value], str(value)), default=None)
