"""bundle.lock: the versions of what a model needs, and what differs elsewhere."""

from __future__ import annotations

from importlib.metadata import version
from platform import python_version

import msgspec
import pytest

from modelyard.bundle.lock import Lock, difference, here, take
from modelyard.errors import InvalidInput


def test_a_lock_names_versions_in_normal_form_whatever_the_order() -> None:
    lock = take(["numpy", "import_linter", "NumPy"])
    assert lock == take(["Import.Linter", "numpy"])
    assert lock.packages == {"import-linter": version("import-linter"), "numpy": version("numpy")}
    assert list(lock.packages) == sorted(lock.packages) and lock.python == python_version()


def test_a_distribution_that_is_not_here_cannot_be_locked() -> None:
    with pytest.raises(InvalidInput, match="no-such-thing"):
        take(["numpy", "no-such-thing"])


def test_the_same_environment_passes_and_each_difference_warns_by_name() -> None:
    lock = take(["numpy", "msgspec"])
    same = difference(lock, here(lock))
    assert (same.outcome, same.numbers) == ("pass", {"differing": 0.0})
    other = Lock(python="3.9.1", packages={**lock.packages, "numpy": "1.0", "gone": "2.0"})
    verdict = difference(other, here(other))
    assert verdict.outcome == "warn" and verdict.numbers == {"differing": 3.0}
    assert "numpy 1.0 is" in verdict.evidence and "gone 2.0 is absent here" in verdict.evidence and "python 3.9.1" in verdict.evidence
    assert "msgspec" not in verdict.evidence
    assert msgspec.json.decode(msgspec.json.encode(lock), type=Lock) == lock
