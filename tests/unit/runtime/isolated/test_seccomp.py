"""runtime.isolated.seccomp: the filter as a program, run here by a small machine of the test's own."""

from __future__ import annotations

import pytest

from modelyard.runtime.isolated import seccomp

ALLOW, EPERM, ENOSYS = 0x7FFF0000, 0x00050001, 0x00050026
ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
COLUMN = {"x86_64": 0, "aarch64": 1}


def judged(program: list[tuple[int, int, int, int]], *, number: int, arch: int, first: int = 0, second: int = 0) -> int:
    """What classic BPF gives for one call."""
    data, accumulator, at = {0: number, 4: arch, 16: first, 24: second}, 0, 0
    while True:
        code, yes, no, value = program[at]
        at += 1
        if code == 0x20:
            accumulator = data[value]
        elif code == 0x06:
            return value
        else:
            holds = {0x15: accumulator == value, 0x35: accumulator >= value, 0x45: bool(accumulator & value)}[code]
            at += yes if holds else no


@pytest.mark.parametrize("machine", ARCH)
def test_what_is_listed_is_denied_and_the_rest_allowed(machine: str) -> None:
    program, arch, column = seccomp.program(machine, 4321), ARCH[machine], COLUMN[machine]
    for name, numbers in seccomp._DENIED.items():
        if numbers[column] is not None:
            assert judged(program, number=numbers[column], arch=arch) == EPERM, name  # type: ignore[arg-type]
    denied = {numbers[column] for numbers in seccomp._DENIED.values()} | {seccomp._CLONE[column], seccomp._CLONE3[column]}
    denied |= {own[column] for own in seccomp._OWN_ONLY.values()}
    for number in set(range(470)) - denied:
        assert judged(program, number=number, arch=arch) == ALLOW, number


@pytest.mark.parametrize("machine", ARCH)
def test_threads_are_made_and_processes_are_not(machine: str) -> None:
    program, arch, column = seccomp.program(machine, 4321), ARCH[machine], COLUMN[machine]
    clone = seccomp._CLONE[column]
    assert judged(program, number=clone, arch=arch, first=0x3D0F00) == ALLOW  # as pthread_create asks
    assert judged(program, number=clone, arch=arch, first=0x01200011) == EPERM  # as fork asks
    assert judged(program, number=seccomp._CLONE3[column], arch=arch) == ENOSYS


@pytest.mark.parametrize("machine", ARCH)
def test_signals_go_to_itself_alone(machine: str) -> None:
    program, arch, column = seccomp.program(machine, 4321), ARCH[machine], COLUMN[machine]
    for own in seccomp._OWN_ONLY.values():
        assert judged(program, number=own[column], arch=arch, first=4321) == ALLOW
        for other in (1, 0, 4322, 0xFFFFFFFF):
            assert judged(program, number=own[column], arch=arch, first=other) == EPERM


@pytest.mark.parametrize("machine", ARCH)
def test_limits_and_cores_are_its_own_alone(machine: str) -> None:
    program, arch, column = seccomp.program(machine, 4321), ARCH[machine], COLUMN[machine]
    for own in seccomp._OWN_OR_ZERO.values():
        for itself in (0, 4321):
            assert judged(program, number=own[column], arch=arch, first=itself) == ALLOW
        for other in (1, 4322, 0xFFFFFFFF):
            assert judged(program, number=own[column], arch=arch, first=other) == EPERM


@pytest.mark.parametrize("machine", ARCH)
def test_what_hangs_on_an_argument_is_denied_for_the_listed_ones(machine: str) -> None:
    program, arch, column = seccomp.program(machine, 4321), ARCH[machine], COLUMN[machine]
    for name, (numbers, place, values) in seccomp._SOME.items():
        for value in range(0, 0xA000):
            found = judged(program, number=numbers[column], arch=arch, **{"first" if place == 16 else "second": value})
            assert found == (EPERM if value in values else ALLOW), (name, value)


def test_calls_of_another_machine_or_of_x32_are_denied() -> None:
    assert judged(seccomp.program("x86_64", 1), number=0, arch=ARCH["aarch64"]) == EPERM
    assert judged(seccomp.program("x86_64", 1), number=0x40000000 | 41, arch=ARCH["x86_64"]) == EPERM
    assert judged(seccomp.program("aarch64", 1), number=0, arch=ARCH["x86_64"]) == EPERM


def test_jumps_stay_within_a_byte() -> None:
    for machine in ARCH:
        assert all(0 <= yes < 256 and 0 <= no < 256 for _, yes, no, _ in seccomp.program(machine, 1))
