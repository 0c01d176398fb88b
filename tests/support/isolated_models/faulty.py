"""Models that are code and misbehave on demand: a row's first number says how. An ordinary row answers the sum of its numbers.

Package one with `isolated.package(home, "Crasher")` (tests/support/isolated.py). The numbers that misbehave lie outside the data they are packaged
with.
"""

from __future__ import annotations

import ctypes
import os
import time

import numpy as np

POISON = 666.0
"""A row that begins with it makes its model misbehave."""


def total(inputs: dict[str, np.ndarray]) -> np.ndarray:
    return inputs["X"].sum(axis=1)


def poisoned(inputs: dict[str, np.ndarray]) -> bool:
    return bool((inputs["X"][:, 0] == POISON).any())


class Plain:
    """Answers at once."""

    def predict(self, inputs):
        return total(inputs)


class Sleeper:
    """The 5 ms model: sleeps once for each batch."""

    def predict(self, inputs):
        time.sleep(0.005)
        return total(inputs)


class Slow:
    """Sleeps one second less than the largest first number of the batch says, if that is between 1 and 100."""

    def predict(self, inputs):
        longest = float(inputs["X"][:, 0].max())
        if 1 < longest < 100:
            time.sleep(longest - 1)
        return total(inputs)


class Crasher:
    """Reads address 0 on a poison row: a segmentation fault."""

    def predict(self, inputs):
        if poisoned(inputs):
            ctypes.string_at(0)
        return total(inputs)


class Exiter:
    """Ends its process on a poison row."""

    def predict(self, inputs):
        if poisoned(inputs):
            os._exit(3)
        return total(inputs)


class Hanger:
    """Sleeps for an hour on a poison row."""

    def predict(self, inputs):
        if poisoned(inputs):
            time.sleep(3600)
        return total(inputs)


class Spinner:
    """Computes for ever on a poison row and never lets go of the interpreter's lock for long."""

    def predict(self, inputs):
        while poisoned(inputs):
            sum(range(1000))
        return total(inputs)


class Eater:
    """Takes memory without end on a poison row."""

    def predict(self, inputs):
        held = []
        while poisoned(inputs):
            held.append(np.ones(1 << 22))
        return total(inputs)


class Leaker:
    """Keeps 100 kB of every batch."""

    def __init__(self):
        self.kept = []

    def predict(self, inputs):
        self.kept.append(np.ones(12_500))
        return total(inputs)


class Raiser:
    """Raises on a poison row, with the row in its text."""

    def predict(self, inputs):
        if poisoned(inputs):
            raise ValueError(f"canary-{inputs['X'][0, 0]}")
        return total(inputs)
