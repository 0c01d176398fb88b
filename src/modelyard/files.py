"""The one path primitive: files that are replaced whole or not at all, and names that cannot leave their folder.

Hides how a file is made durable (written beside, fsynced, renamed, folder fsynced) and how an operating-system
failure becomes an error of ours. It must not know what the files hold.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from pathlib import Path

from modelyard.errors import InvalidInput, Misconfigured, ModelyardError, NotFound, PayloadTooLarge, StorageFull, Unavailable


def write_atomically(path: Path, data: bytes, *, mode: int = 0o644, durable: bool = True) -> None:
    """Replace `path` by `data` so that a reader, or a crash at any moment, sees the old bytes or the new, never a part.

    Without `durable` that holds for a crash of the process; after a loss of power the file may be short or gone (a disk is not waited for).
    Raises StorageFull when the disk is full, InvalidConfig when the folder is not writable; leaves no temporary file.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(descriptor, view) :]
            if durable:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.replace(temporary, path)
        if durable:
            sync_folder(path.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise translate(error, path) from error
    except BaseException:  # Ctrl-C, say
        temporary.unlink(missing_ok=True)
        raise


def remove_leftovers(path: Path) -> None:
    """Remove what writers of `path` that were killed left beside it. For its one writer: another's file might be on its way."""
    for temporary in path.parent.glob(f".{path.name}.*.tmp"):
        temporary.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make renames in `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_limited(path: Path, limit_bytes: int) -> bytes:
    """The bytes of the regular file `path`; a link, a device or more than `limit_bytes` is refused.

    Raises NotFound, PayloadTooLarge or InvalidConfig.
    """
    return _read(path, limit_bytes)[0]


def read_believed(path: Path, limit_bytes: int, *, field: str) -> bytes:
    """As `read_limited`, of a file that lets people in, so that nobody but its owner may be able to change it; it may be reached by a link, as what a
    cluster mounts is. `field` is the setting that names it."""
    data, mode = _read(Path(os.path.realpath(path)), limit_bytes)
    if mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise Misconfigured(f"{path} can be changed by other users; run: chmod go-w {path}", field=field, rule="mode")
    return data


def _read(path: Path, limit_bytes: int) -> tuple[bytes, int]:
    """What is in the regular file `path`, and the mode that it had when it was opened."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise translate(error, path) from error
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise Misconfigured(f"{path.name} is not a regular file")
    with os.fdopen(descriptor, "rb") as file:
        if status.st_size > limit_bytes:
            raise PayloadTooLarge(f"{path.name} has {status.st_size:,} bytes; the limit is {limit_bytes:,}")
        return file.read(limit_bytes + 1), status.st_mode


def inside(folder: Path, name: str) -> Path:
    """`name` (one segment or several, with `/`) inside `folder`: nothing that leaves it, and nothing reached by a link. It need not exist.

    `folder` itself may be reached by links: resolve it first where that matters. Raises InvalidInput.
    """
    segments = name.split("/")
    if not all(segment not in ("", ".", "..") and "\0" not in segment and "\\" not in segment for segment in segments):
        raise InvalidInput("a name inside a folder has no empty segment, '.', '..', backslash or NUL", field="path", rule="inside")
    path = folder
    for segment in segments:
        path = path / segment
        try:
            is_link = stat.S_ISLNK(path.lstat().st_mode)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:  # too long for this system, or not ours to look at
            raise InvalidInput("the name cannot be looked up", field="path", rule="inside") from error
        if is_link:
            raise InvalidInput("the path leads through a link, which is not followed", field="path", rule="link")
    return path


def make_folder(path: Path, *, mode: int = 0o700) -> Path:
    """`path` as an existing, writable folder. Raises Misconfigured (one line, naming it) or StorageFull."""
    try:
        path.mkdir(mode=mode, parents=True, exist_ok=True)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise Misconfigured(f"the folder {path} cannot be made ({error.strerror}); set MODELYARD_HOME to one that is writable") from error
        raise translate(error, path) from error
    if not os.access(path, os.W_OK | os.X_OK):
        raise Misconfigured(f"the folder {path} is not writable; set MODELYARD_HOME to one that is")
    return path


def translate(error: OSError, path: Path) -> ModelyardError:
    """The error of ours for what the operating system said about `path`."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return StorageFull(f"no space left for {path.name}; nothing was kept of it. Free some space and try again")
    if error.errno == errno.ENOENT:
        return NotFound(f"no such file: {path}")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.ELOOP):
        return Misconfigured(f"{path}: {error.strerror or 'not usable'}")
    return Unavailable(f"{path.name}: {error.strerror or 'input/output error'}")
