"""Twelve kinds of model on real data: every row's answer within the default tolerance, and the table that shows it."""

from __future__ import annotations

from pathlib import Path

import pytest
from benchmarks.parity_table import KINDS, Data, lines, proved

from modelyard.runtime.convert import Conversion

pytestmark = [pytest.mark.system, pytest.mark.filterwarnings("ignore::DeprecationWarning"), pytest.mark.filterwarnings("ignore::FutureWarning")]


@pytest.fixture(scope="module")
def data(shared_data: Path) -> Data:
    return Data(shared_data)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_every_row_of_real_data_is_answered_as_the_original_answers(kind, data: Data, capsys: pytest.CaptureFixture[str]) -> None:
    model, frame = kind.train(data)
    conversion: Conversion = proved(model, frame)
    parity = conversion.parity
    with capsys.disabled():
        print("\n" + list(lines(iter([(kind.name, conversion)])))[-1])
    assert parity.passed
    assert parity.rows == len(frame)
    assert all(difference.rows_over == 0 for difference in parity.outputs.values())
    assert parity.labels_differing == parity.labels_excused
    assert set(parity.batch_bits) == {"1", "2", "7", "64"}
    assert all(bits.max_abs < 1e-9 for bits in parity.batch_bits.values())


def test_there_are_twelve_kinds() -> None:
    assert len(KINDS) == 12
