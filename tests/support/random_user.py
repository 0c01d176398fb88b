"""A start as a hardened container makes it (OpenShift, KServe): a user id that no one knows, group 0, no capability, little that may be written.

Hides the namespace that lets such a user reach an interpreter that lies in a folder of root's, and that makes the rest read-only. Needs root.
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

USER = 1_234_567
ROOT = Path(__file__).parents[2]
_NEEDED = [Path(sys.base_prefix), ROOT, Path(sys.prefix)]
_SETUP = r"""
set -e
user=$1 hidden=$2 needed=$3 models=$4 writable=$5
shift 5
if [ -n "$hidden" ]; then
  mount -t tmpfs nothing /mnt
  for path in $needed; do mkdir -p "/mnt$path"; mount --bind "$path" "/mnt$path"; done
  mount -t tmpfs -o mode=755 nothing "$hidden"
  for path in $needed; do mkdir -p "$path"; mount --bind "/mnt$path" "$path"; umount "/mnt$path"; done
  umount /mnt
fi
if [ -n "$models" ]; then
  mount -t tmpfs -o mode=755 nothing /mnt
  mkdir /mnt/models
  mount --bind "$models" /mnt/models
fi
if [ -n "$writable" ]; then
  for path in $writable; do mount --bind "$path" "$path"; done
  for path in / ${hidden:-/} /tmp /var/tmp /dev/shm; do ! mountpoint -q "$path" || mount -o remount,ro,bind "$path"; done
fi
cd /
exec setpriv --reuid $user --regid 0 --clear-groups --no-new-privs -- "$@"
"""


def _hidden() -> Path | None:
    """The first folder on the way to the interpreter or the checkout that others may not pass."""
    for needed in _NEEDED:
        for folder in (*reversed(needed.parents), needed):
            if not folder.stat().st_mode & stat.S_IXOTH:
                return folder
    return None


def start(
    command: Sequence[str], variables: Mapping[str, str], *, models: Path | None = None, writable: Sequence[Path] = (), **more: Any
) -> subprocess.Popen[bytes]:
    """`command` as that user, with no environment but `variables`; the process has the pid of what is given.

    `models` is what it finds as /mnt/models; with `writable`, all but these folders may only be read.
    """
    hidden = _hidden()
    needed = [path for path in _NEEDED if hidden is not None and path.is_relative_to(hidden)]
    given = [str(USER), str(hidden or ""), " ".join(map(str, needed)), str(models or ""), " ".join(map(str, writable))]
    environment = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", **variables}
    return subprocess.Popen(["unshare", "-m", "bash", "-c", _SETUP, "setup", *given, *command], env=environment, **more)


def run(command: Sequence[str], variables: Mapping[str, str], **more: Any) -> subprocess.CompletedProcess[str]:
    """The same, to its end."""
    process = start(command, variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, **more)
    try:
        out, errors = process.communicate(timeout=120)
    finally:
        process.kill()
    return subprocess.CompletedProcess(list(command), process.returncode, out.decode(), errors.decode())


@contextmanager
def folder(mode: int, component: Callable[[str], str], lacks: Callable[[str], NoReturn], *commands: str) -> Iterator[Path]:
    """A folder that this user reaches, which those of pytest are not; `lacks` says what such a start needs and is not here."""
    if os.geteuid() != 0:
        lacks("a start as root")
    for command in ("setpriv", "unshare", *commands):
        component(command)
    made = Path(tempfile.mkdtemp(prefix="modelyard-tests-"))
    made.chmod(mode)
    try:
        if run(["true"], {}).returncode != 0:
            lacks("mount namespaces")
        yield made
    finally:
        shutil.rmtree(made)
