"""Shuts a model's process in: limits, no network, no other processes, no files but its own and Python's.

Hides the kernel's means: resource limits, network and mount namespaces, Landlock, seccomp, a user of its own. It runs in the child before a line
of the model's code, when the process still has one thread. It must hold or say so: `enter` gives what was had, and refuses to go on in strong mode
when the network or the files stay open.
Sources: Linux namespaces(7), landlock(7) (ABI 1 to 7), capabilities(7), prctl(2).
"""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import signal
import stat
import sys
from collections.abc import Iterable
from typing import NamedTuple

from modelyard.runtime.isolated import seccomp

FILE_BYTES = 64 << 20
SCRATCH_BYTES = 64 << 20
OPEN_FILES = 64
THREADS = 64

_NEWNS, _NEWIPC, _NEWUSER, _NEWNET = 0x00020000, 0x08000000, 0x10000000, 0x40000000
_MS_NOSUID, _MS_NODEV, _MS_REC, _MS_PRIVATE = 2, 4, 0x4000, 0x40000
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 1, 4, 24, 38
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same on every machine that has them
_CAP_VERSION_3 = 0x20080522
_LAST_CAP = 63

# Landlock's rights over files by the ABI that brought them; the first three groups are reading.
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_READ = _EXECUTE | _READ_FILE | _READ_DIR
_FILES = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 5: (1 << 16) - 1}
_TCP, _SCOPED = 3, 3  # bind and connect (ABI 4); abstract sockets and signals (ABI 6)


class Means(NamedTuple):
    """What holds the process in, by what it holds: empty where nothing does."""

    network: str
    files: str
    calls: str
    user: str

    @property
    def is_strong(self) -> bool:
        """Whether it can reach neither the network nor the files of others."""
        return bool(self.network and self.files)


def enter(scratch: str, *, memory_bytes: int, user: int, parent: int, weak: bool) -> Means:
    """Shut this process in for good; `scratch` is the one folder it may write, `user` the id it takes where it may choose one (0: keep).

    Raises PermissionError naming what is missing unless `weak`. Ends the process when its parent is gone.
    """
    if sys.platform != "linux":
        os.chdir(scratch)
        _limit(memory_bytes, own_user=False)
        means = Means("", "", "", "")
    else:
        has_namespaces, may_mount = _namespaces()
        if may_mount:
            _own_scratch(scratch)
        os.chdir(scratch)
        libc = _libc()
        libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        ruleset, abi = _landlock(scratch)
        is_user = _take_user(user, scratch)
        _limit(memory_bytes, own_user=is_user or has_namespaces == "user namespace")
        _drop_capabilities()
        has_landlock = ruleset >= 0 and libc.syscall(_RESTRICT_SELF, ruleset, 0) == 0
        if ruleset >= 0:
            os.close(ruleset)
        libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
        libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)  # a change of user takes it back: hence after it
        has_seccomp = seccomp.install()
        means = Means(
            network=has_namespaces or ("seccomp" if has_seccomp else ""),
            files=f"landlock {abi}" if has_landlock else "user" if is_user else "",
            calls="seccomp" if has_seccomp else "",
            user=str(user) if is_user else "",
        )
    if os.getppid() != parent:
        os._exit(1)
    if not means.is_strong and not weak:
        lacking = " and ".join(
            what
            for what, had in (("the network (namespaces, seccomp)", means.network), ("files (Landlock, or a start as root)", means.files))
            if not had
        )
        raise PermissionError(f"this machine cannot shut {lacking} off from a model's own code")
    return means


def readable() -> list[str]:
    """The folders that Python and its libraries are read from."""
    prefixes = {sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix}
    system = ("/usr", "/lib", "/lib64", "/bin", "/etc/ld.so.cache", "/etc/localtime", "/etc/ssl/openssl.cnf", "/opt/intel")
    devices = ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom", "/dev/full")
    kernel = ("/proc/cpuinfo", "/proc/meminfo", "/proc/filesystems", "/sys/devices/system/cpu", "/proc/sys/vm/overcommit_memory", "/sys/kernel/mm")
    wanted = [path for path in (*sorted(prefixes), *sys.path, *system, *devices, *kernel) if path and os.path.exists(path)]  # noqa: PTH110
    return [path for path in dict.fromkeys(map(os.path.realpath, wanted)) if path != "/"]


def keep_apart(closed: str) -> None:
    """Raise PermissionError where the folder `closed` lies in one that Python is read from: what holds this process in would leave it readable."""
    where = os.path.realpath(closed) if closed else ""
    if any(f"{where}/".startswith(f"{path}/") for path in readable()):
        raise PermissionError(
            "the home lies in a folder that Python is read from (an environment, a project installed in place), which code may read"
        )


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _limit(memory_bytes: int, *, own_user: bool) -> None:
    wanted = [("RLIMIT_CORE", 0), ("RLIMIT_FSIZE", FILE_BYTES), ("RLIMIT_NOFILE", OPEN_FILES), ("RLIMIT_AS", memory_bytes), ("RLIMIT_MEMLOCK", 0)]
    if own_user:  # else it would count every process of the user that started us
        wanted.append(("RLIMIT_NPROC", THREADS))
    for name, value in wanted:
        if value or name != "RLIMIT_AS":
            try:
                _, hard = resource.getrlimit(getattr(resource, name))
                kept = value if hard == resource.RLIM_INFINITY else min(value, hard)
                resource.setrlimit(getattr(resource, name), (kept, kept))
            except (AttributeError, ValueError, OSError):
                continue  # a limit that this system does not have (RLIMIT_AS on macOS)


def _namespaces() -> tuple[str, bool]:
    """A network, mount and IPC namespace of its own: how they were had (or an empty string), and whether what it mounts there can be used."""
    libc = _libc()
    flags = _NEWNET | _NEWNS | _NEWIPC
    if libc.unshare(flags) == 0:
        return "network namespace", True
    user, group = os.getuid(), os.getgid()
    if libc.unshare(flags | _NEWUSER) != 0:
        return ("network namespace" if libc.unshare(_NEWNET) == 0 else ""), False
    try:
        for name, text in (("setgroups", b"deny"), ("uid_map", b"%d %d 1" % (user, user)), ("gid_map", b"%d %d 1" % (group, group))):
            descriptor = os.open(f"/proc/self/{name}", os.O_WRONLY)
            os.write(descriptor, text)
            os.close(descriptor)
    except OSError:
        return "user namespace", False  # with unmapped ids nothing could be written to what it mounts
    return "user namespace", True


def _own_scratch(scratch: str) -> None:
    """A small file system in memory over the scratch folder, which vanishes with the process; without it the folder itself is used."""
    libc = _libc()
    if libc.mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE, None) == 0:
        options = f"size={SCRATCH_BYTES},nr_inodes=4096,mode=0777".encode()
        libc.mount(b"tmpfs", scratch.encode(), b"tmpfs", _MS_NOSUID | _MS_NODEV, options)


def _landlock(scratch: str) -> tuple[int, int]:
    """A ruleset that lets Python be read and the scratch folder be written, and the kernel's ABI; -1 where there is no Landlock.

    Its folders are opened here, before the process changes its user; it binds only once it is entered.
    """
    libc = _libc()
    abi = int(libc.syscall(_CREATE_RULESET, None, 0, 1))
    if abi < 1:
        return -1, 0
    rights = _FILES[max(version for version in _FILES if version <= abi)]
    fields = [rights] + ([_TCP] if abi >= 4 else []) + ([_SCOPED] if abi >= 6 else [])
    attributes = (ctypes.c_uint64 * len(fields))(*fields)
    ruleset = int(libc.syscall(_CREATE_RULESET, attributes, ctypes.sizeof(attributes), 0))
    if ruleset < 0:
        return -1, abi
    for path in readable():
        _allow(libc, ruleset, path, _READ if os.path.isdir(path) else _EXECUTE | _READ_FILE)  # noqa: PTH112
    for path in ("/dev/null", "/dev/zero", "/dev/full"):
        _allow(libc, ruleset, path, _READ_FILE | _WRITE_FILE)
    _allow(libc, ruleset, scratch, rights)
    return ruleset, abi


class _Beneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = [("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32)]


def _allow(libc: ctypes.CDLL, ruleset: int, path: str, rights: int) -> None:
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        libc.syscall(_ADD_RULE, ruleset, 1, ctypes.byref(_Beneath(rights, descriptor)), 0)
    finally:
        os.close(descriptor)


def _take_user(user: int, scratch: str) -> bool:
    """Become a user that owns nothing here; False where this process may not choose, or could then not read its own Python."""
    if not user or os.geteuid() != 0 or not _readable_by_all(readable()):
        return False
    try:
        os.chown(scratch, user, user)
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EINVAL):  # EINVAL: the id is not mapped in this container
            raise
        return False
    return True


def _readable_by_all(paths: Iterable[str]) -> bool:
    """Whether any user can read these folders and what leads to them."""
    for path in paths:
        parts = path.rstrip("/").split("/")
        for depth in range(2, len(parts) + 1):
            here = "/".join(parts[:depth])
            mode = os.stat(here).st_mode  # noqa: PTH116
            if not mode & (stat.S_IXOTH if stat.S_ISDIR(mode) else stat.S_IROTH):
                return False
    return True


def _drop_capabilities() -> None:
    libc = _libc()
    for capability in range(_LAST_CAP + 1):
        libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)
    header = (ctypes.c_uint32 * 2)(_CAP_VERSION_3, 0)
    libc.capset(header, (ctypes.c_uint32 * 6)())
