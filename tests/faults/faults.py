"""The list of faults: number and name -> where it stands. A fault's module is loaded when it is run."""

from __future__ import annotations

from importlib import import_module

from tests.faults.judge import Fault

FAULTS = {
    "01-killed-worker": "tests.faults.f01_killed_worker",
    "02-segfault": "tests.faults.f02_segfault",
    "03-hang": "tests.faults.f03_hang",
    "04-memory": "tests.faults.f04_memory",
    "05-leak": "tests.faults.f05_leak",
    "06-drain": "tests.faults.f06_drain",
    "07-hot-swap": "tests.faults.f07_hot_swap",
    "08-bad-version": "tests.faults.f08_bad_version",
    "09-killed-controller": "tests.faults.f09_killed_controller",
    "10-power": "tests.faults.f10_power",
    "11-killed-import": "tests.faults.f11_killed_import",
    "12-full-disk": "tests.faults.f12_full_disk",
    "13-locked": "tests.faults.f13_locked",
    "14-damaged": "tests.faults.f14_damaged",
    "15-store-away": "tests.faults.f15_store_away",
    "16-sync-fails": "tests.faults.f16_sync_fails",
    "17-clock": "tests.faults.f17_clock",
    "18-many-writers": "tests.faults.f18_many_writers",
    "19-overload": "tests.faults.f19_overload",
    "20-retries": "tests.faults.f20_retries",
    "21-too-late": "tests.faults.f21_too_late",
    "22-neighbour": "tests.faults.f22_neighbour",
    "23-slow-readers": "tests.faults.f23_slow_readers",
    "24-slowloris": "tests.faults.f24_slowloris",
    "25-overflow": "tests.faults.f25_overflow",
    "26-smuggling": "tests.faults.f26_smuggling",
    "27-bodies": "tests.faults.f27_bodies",
    "28-tensors": "tests.faults.f28_tensors",
    "29-grpc": "tests.faults.f29_grpc",
    "30-tls": "tests.faults.f30_tls",
}


def load(name: str) -> Fault:
    """The fault of that name."""
    fault: Fault = import_module(FAULTS[name]).FAULT
    assert fault.label == name
    return fault
