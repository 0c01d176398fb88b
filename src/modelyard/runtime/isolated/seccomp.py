"""The system calls that a model's process may not make, as a filter of the kernel.

Hides the numbers of calls per machine and the filter's form (classic BPF). Denied are sockets and io_uring (a way round the filter), other
processes (fork, exec, ptrace, their memory, signals, limits and turns at the processor), and whatever changes mounts, namespaces, keys or the
kernel, or lets the process outlive its parent. Threads are allowed. A
denied call fails with EPERM; nothing is killed, so that a library that only tries goes on. It must be installed last, and needs no privilege.
Source: Linux seccomp(2), bpf classic; asm/unistd.h of x86_64 and aarch64.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import sys

_LD, _JEQ, _JGE, _JSET, _RET = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _ARCH, _FIRST, _SECOND, _ALLOW, _ERRNO = 0, 4, 16, 24, 0x7FFF0000, 0x00050000
_EPERM, _ENOSYS = 1, 38
_CLONE_THREAD = 0x00010000
_PR_SET_SECCOMP, _MODE_FILTER = 22, 2

# name: (x86_64, aarch64); None: the machine does not have it.
_DENIED: dict[str, tuple[int | None, int | None]] = {
    "socket": (41, 198), "socketpair": (53, 199), "connect": (42, 203), "bind": (49, 200), "listen": (50, 201), "accept": (43, 202),
    "accept4": (288, 242), "io_uring_setup": (425, 425), "io_uring_enter": (426, 426), "io_uring_register": (427, 427), "fork": (57, None),
    "vfork": (58, None), "execve": (59, 221), "execveat": (322, 281), "ptrace": (101, 117), "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271), "process_madvise": (440, 440), "kcmp": (312, 272), "pidfd_open": (434, 434), "pidfd_getfd": (438, 438),
    "pidfd_send_signal": (424, 424), "tkill": (200, 130), "rt_sigqueueinfo": (129, 138), "rt_tgsigqueueinfo": (297, 240), "unshare": (272, 97),
    "setns": (308, 268), "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51), "open_tree": (428, 428),
    "move_mount": (429, 429), "fsopen": (430, 430), "fsconfig": (431, 431), "fsmount": (432, 432), "fspick": (433, 433),
    "mount_setattr": (442, 442), "bpf": (321, 280), "perf_event_open": (298, 241), "add_key": (248, 217), "request_key": (249, 218),
    "keyctl": (250, 219), "userfaultfd": (323, 282), "init_module": (175, 105), "finit_module": (313, 273), "delete_module": (176, 106),
    "kexec_load": (246, 104), "kexec_file_load": (320, 294), "reboot": (169, 142), "swapon": (167, 224), "swapoff": (168, 225),
    "open_by_handle_at": (304, 265), "name_to_handle_at": (303, 264),
    # What Landlock leaves open: modes, owners, attributes and times of files, watching folders, and what System V shares.
    "chmod": (90, None), "fchmod": (91, 52), "fchmodat": (268, 53), "fchmodat2": (452, 452), "chown": (92, None), "fchown": (93, 55),
    "lchown": (94, None), "fchownat": (260, 54), "setxattr": (188, 5), "lsetxattr": (189, 6), "fsetxattr": (190, 7), "removexattr": (197, 14),
    "lremovexattr": (198, 15), "fremovexattr": (199, 16), "setxattrat": (463, 463), "removexattrat": (466, 466), "utime": (132, None),
    "utimes": (235, None), "futimesat": (261, None), "utimensat": (280, 88), "inotify_init": (253, None), "inotify_init1": (294, 26),
    "fanotify_init": (300, 262), "shmget": (29, 194), "shmat": (30, 196), "shmctl": (31, 195), "semget": (64, 190), "msgget": (68, 186),
    "mq_open": (240, 180), "acct": (163, 89), "quotactl": (179, 60), "syslog": (103, 116),
    # What the kernel grants over every process of the same user.
    "setpriority": (141, 140), "ioprio_set": (251, 30), "sched_setparam": (142, 118), "sched_setscheduler": (144, 119), "sched_setattr": (314, 274),
    "migrate_pages": (256, 238), "move_pages": (279, 239),
}  # fmt: skip
# Signals are for this process alone: the C library raises its own.
_OWN_ONLY: dict[str, tuple[int, int]] = {"kill": (62, 129), "tgkill": (234, 131)}
# Here 0 is the caller itself (for `kill` it is the group): `getrlimit` asks so.
_OWN_OR_ZERO: dict[str, tuple[int, int]] = {"prlimit64": (302, 261), "sched_setaffinity": (203, 122)}
# name: its numbers, where the argument lies that tells, and the values that are denied.
_SOME: dict[str, tuple[tuple[int, int], int, tuple[int, ...]]] = {
    "prctl": ((157, 167), _FIRST, (1, 4)),  # PR_SET_PDEATHSIG, PR_SET_DUMPABLE
    "fcntl": ((72, 25), _SECOND, (8, 15)),  # F_SETOWN, F_SETOWN_EX: the kernel would send its owner any signal
    "ioctl": ((16, 29), _SECOND, (0x8901, 0x8902)),  # FIOSETOWN, SIOCSPGRP: the same
}
_CLONE, _CLONE3 = (56, 220), (435, 435)
_MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
_X32 = 0x40000000


def is_known() -> bool:
    """Whether this machine's calls are known here."""
    return sys.platform == "linux" and platform.machine() in _MACHINES


def program(machine: str, pid: int) -> list[tuple[int, int, int, int]]:
    """The filter for the process `pid` as BPF instructions (code, jump if true, jump if false, value)."""
    column, arch = _MACHINES[machine]

    def load(offset: int) -> tuple[int, int, int, int]:
        return _LD, 0, 0, offset

    def give(value: int) -> tuple[int, int, int, int]:
        return _RET, 0, 0, value

    denied = give(_ERRNO | _EPERM)
    made = [load(_ARCH), (_JEQ, 1, 0, arch), denied, load(_NUMBER)]
    if machine == "x86_64":
        made += [(_JGE, 0, 1, _X32), denied]
    for numbers in _DENIED.values():
        number = numbers[column]
        if number is not None:
            made += [(_JEQ, 0, 1, number), denied]
    for own in _OWN_ONLY.values():
        made += [(_JEQ, 0, 4, own[column]), load(_FIRST), (_JEQ, 0, 1, pid), give(_ALLOW), denied]
    for own in _OWN_OR_ZERO.values():
        made += [(_JEQ, 0, 5, own[column]), load(_FIRST), (_JEQ, 1, 0, 0), (_JEQ, 0, 1, pid), give(_ALLOW), denied]
    for both, place, values in _SOME.values():
        made += [(_JEQ, 0, 2 * len(values) + 2, both[column]), load(place)]
        made += [each for value in values for each in ((_JEQ, 0, 1, value), denied)] + [give(_ALLOW)]
    made += [(_JEQ, 0, 4, _CLONE[column]), load(_FIRST), (_JSET, 0, 1, _CLONE_THREAD), give(_ALLOW), denied]
    made += [(_JEQ, 0, 1, _CLONE3[column]), give(_ERRNO | _ENOSYS)]  # the C library then asks by clone, whose flags a filter can see
    return [*made, give(_ALLOW)]


def install() -> bool:
    """Bind this process, its threads to come included, to the filter for good; False where that cannot be had. No-new-privileges must be set."""
    if not is_known():
        return False
    code = b"".join(struct.pack("<HBBI", *each) for each in program(platform.machine(), os.getpid()))
    held = ctypes.create_string_buffer(code, len(code))

    class Program(ctypes.Structure):
        _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_void_p)]

    given = Program(len(code) // 8, ctypes.addressof(held))
    return int(ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_SECCOMP, _MODE_FILTER, ctypes.byref(given), 0, 0)) == 0
