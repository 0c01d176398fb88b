"""From what a user has (a class or function, source files, trained state) to the members of a bundle that carries code.

Hides how source folders become members and how arrays and estimators become data, the same bytes on every machine. What cannot be told from its
source (a lambda, a closure, a live object) is refused, naming the way that works. It must not pickle, and must not import or run the code: a
process of its own does.
"""

from __future__ import annotations

import io
import json
import re
import types
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from modelyard.bundle import parts
from modelyard.errors import InvalidConfig, NotFound, Unconvertible, UnsupportedFormat

if TYPE_CHECKING:
    from modelyard.types import Array

SKIPPED = ("__pycache__",)
_EPOCH = (1980, 1, 1, 0, 0, 0)
_ENTRY = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")
WAY = (
    "Give a class or function that stands at the top of a module: modelyard.package(churn.Model, name=…, data=…, code=['churn.py'], "
    "files={'weights': 'weights.npz'}), where churn.Model has load(files) and predict(inputs)"
)


class Sources(NamedTuple):
    """Code as a bundle carries it: `entry` is `module:name`, `members` the bytes by path below `code/` and `files/`."""

    entry: str
    members: dict[str, bytes]


def gather(target: object, code: Sequence[str | Path], files: Mapping[str, object]) -> Sources:
    """The members for `target`, importable from `code`, whose state is `files`.

    Raises Unconvertible for what cannot be told from source, NotFound for a path, UnsupportedFormat for a member that a bundle does not carry.
    """
    entry = entry_of(target)
    members: dict[str, bytes] = {}
    if not code:
        raise Unconvertible(f"{entry} is code, and code=[…] names no source that it is importable from. {WAY}", field="code", rule="exists")
    for each in code:
        _add_source(members, Path(each))
    module = entry.partition(":")[0]
    path = parts.CODE + module.replace(".", "/")
    if f"{path}.py" not in members and f"{path}/__init__.py" not in members:
        raise Unconvertible(f"{module!r} is not among the source given in code=[…]; add its file or its package folder", field="code", rule="exists")
    for name, value in files.items():
        member, data = _file(name, value)
        if any(_stem(path) == _stem(parts.FILES + member) for path in members if path.startswith(parts.FILES)):
            raise InvalidConfig(f"two files are named {_stem(member)!r}", field="files", rule="unique")
        members[parts.FILES + member] = data
    parts.check(members)
    return Sources(entry, dict(sorted(members.items())))


def entry_of(target: object) -> str:
    """`module:name` of a class or function at the top of a module, or such a text as given. Raises Unconvertible."""
    if isinstance(target, str):
        if not _ENTRY.fullmatch(target):
            raise Unconvertible(f"code is named module:name, as in churn:Model, not {target[:80]!r}", field="model", rule="entry")
        return target
    if not isinstance(target, type | types.FunctionType):
        raise Unconvertible(
            f"a live object of {type(target).__module__}.{type(target).__qualname__} has no source. {WAY}", field="model", rule="live object"
        )
    module, name = target.__module__, target.__qualname__
    if name.endswith("<lambda>"):
        raise Unconvertible(f"a lambda has no name in a module. {WAY}", field="model", rule="lambda")
    if "." in name:
        what = "is nested in a function, so its source alone does not make it" if "<locals>" in name else "is nested in a class"
        raise Unconvertible(f"{target.__name__} {what}. {WAY}", field="model", rule="nested")
    if isinstance(target, types.FunctionType) and target.__closure__:
        raise Unconvertible(f"{name} closes over values that its source does not hold. {WAY}", field="model", rule="closure")
    if module in ("__main__", "builtins"):
        raise Unconvertible(f"{name} is defined in the script that runs; move it to a module of its own. {WAY}", field="model", rule="module")
    return f"{module}:{name}"


def _stem(name: str) -> str:
    return next((name.removesuffix(suffix) for suffix in parts.DATA if name.endswith(suffix)), name)


# Source.


def _add_source(members: dict[str, bytes], path: Path) -> None:
    if path.is_symlink():
        raise InvalidConfig(f"{path.name} is a link; name the file or folder itself", field="code", rule="link")
    if path.is_file():
        _add(members, path.name, path)
        return
    if not path.is_dir():
        raise NotFound(f"no such source: {path}")
    folder = path.resolve()
    root = folder.parent if (folder / "__init__.py").is_file() else folder
    for file in sorted(folder.rglob("*")):
        relative = file.relative_to(root)
        if any(part in SKIPPED or part.startswith(".") for part in relative.parts) or file.suffix == ".pyc":
            continue
        if file.is_symlink():
            raise InvalidConfig(f"{relative} is a link; a bundle carries files alone", field="code", rule="link")
        if file.is_file():
            _add(members, relative.as_posix(), file)
    if not any(member.endswith(".py") for member in members):
        raise NotFound(f"{path} has no .py file")


def _add(members: dict[str, bytes], name: str, file: Path) -> None:
    member = parts.CODE + name
    if member in members:
        raise InvalidConfig(f"two sources in code=[…] are named {name}", field="code", rule="unique")
    if file.stat().st_size > parts.CODE_LIMIT_BYTES:
        raise UnsupportedFormat(f"{name} is larger than code may be; trained state goes into files, as data", field=name, rule="size")
    members[member] = file.read_bytes().replace(b"\r\n", b"\n")  # the same text on every machine


# State.


def _file(name: str, value: object) -> tuple[str, bytes]:
    if not name:
        raise InvalidConfig("files has names", field="files", rule="name")
    if isinstance(value, str | Path):
        path = Path(value)
        if not path.is_file():
            raise NotFound(f"no such file: {path}")
        data = path.read_bytes()
        return _named(name, path.suffix.lower()), data
    if isinstance(value, np.ndarray):
        return _named(name, ".npz"), npz({"arr_0": value})
    if isinstance(value, Mapping) and value and all(isinstance(each, np.ndarray) for each in value.values()):
        return _named(name, ".npz"), npz(dict(value))
    if any(base.__module__.partition(".")[0] == "sklearn" for base in type(value).__mro__):
        return _named(name, ".skops"), skops(value)
    raise UnsupportedFormat(
        f"files[{name!r}] is a {type(value).__module__}.{type(value).__qualname__}; a path, an array, a dictionary of arrays or a scikit-learn "
        "estimator becomes data (torch: save the state_dict with safetensors)",
        field="files",
        rule="format",
    )


def _named(name: str, suffix: str) -> str:
    return name if suffix and name.endswith(suffix) else name + suffix


def npz(arrays: Mapping[str, Array]) -> bytes:
    """`arrays` as numpy.savez writes them, without the time. Raises UnsupportedFormat for arrays of Python objects."""
    entries = []
    for name, array in arrays.items():
        if array.dtype.hasobject:
            raise UnsupportedFormat(f"the array {name!r} holds Python objects; give numbers, or texts as JSON", field="files", rule="format")
        file = io.BytesIO()
        np.lib.format.write_array(file, np.ascontiguousarray(array), allow_pickle=False)
        entries.append((f"{name}.npy", file.getvalue()))
    return _archive(entries)


def skops(estimator: Any) -> bytes:
    """`estimator` as skops.io.dumps writes it, but for times and the addresses of objects, which are numbered as they come."""
    import skops.io

    with zipfile.ZipFile(io.BytesIO(skops.io.dumps(estimator))) as archive:
        held = {entry: archive.read(entry) for entry in archive.namelist()}
    schema = held.pop("schema.json").decode()
    numbers: dict[str, str] = {}

    def numbered(found: re.Match[str]) -> str:
        return found[1] + numbers.setdefault(found[2], str(len(numbers) + 1)) + found[3]

    schema = re.sub(r'("__id__": ?)(\d+)()', numbered, schema)
    schema = re.sub(r'("file": ?")(\d+)(\.)', numbered, schema)
    entries = [(re.sub(r"^()(\d+)(\.)", numbered, name), data) for name, data in held.items()]
    entries.append(("schema.json", json.dumps(json.loads(schema), indent=1, sort_keys=True).encode()))
    return _archive(sorted(entries))


def _archive(entries: Sequence[tuple[str, bytes]]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, data in entries:
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.create_system = 3
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, data)
    return file.getvalue()
