"""monitor.estimate.coding: columns as small numbers, and rows outside the reference."""

from __future__ import annotations

import numpy as np
import pytest

from modelyard.monitor.estimate import coding
from modelyard.monitor.estimate.coding import Column

NUMBER = Column(role="input", source="x")
TEXT = Column(role="input", source="city")


def texts(*values: str | None) -> np.ndarray:
    return np.array(values, dtype=object)


def code(column: Column, values: np.ndarray) -> tuple[list[int], list[bool]]:
    codes, outside = coding.code([column], {column.source: values}, {}, len(values))
    return codes[0].tolist(), outside.tolist()


def test_few_distinct_numbers_have_a_code_each() -> None:
    column = coding.learn_number(NUMBER, np.array([1.0, 2.0, 2.0, 7.0]))
    assert code(column, np.array([1.0, 2.0, 7.0, 1.4, 5.0])) == ([1, 2, 3, 1, 3], [False] * 5)
    assert column.size == 4


def test_many_numbers_are_cut_at_quantiles() -> None:
    values = np.random.default_rng(0).normal(size=10_000)
    column = coding.learn_number(NUMBER, values)
    counts = np.bincount(code(column, values)[0], minlength=column.size)
    assert counts[0] == 0 and counts.max() < 10_000 / 40 and 40 < column.size <= coding.CODES + 1


def test_a_thin_tail_has_codes_of_its_own() -> None:
    values = np.concatenate([np.random.default_rng(0).uniform(18, 40, 10_000), np.full(5_000, 40.0), [60.0, 85.0]])
    column = coding.learn_number(NUMBER, values)
    assert len(set(code(column, np.array([40.0, 60.0, 85.0]))[0])) == 3


def test_what_the_reference_never_had_lies_outside() -> None:
    column = coding.learn_number(NUMBER, np.array([0.0, 1.0] * 50))
    assert code(column, np.array([1.04, 1.06, -1.0, np.nan, np.inf]))[1] == [False, True, True, True, True]
    nullable = coding.learn_number(NUMBER, np.array([0.0, 1.0, np.nan]))
    assert code(nullable, np.array([np.nan])) == ([0], [False])


def test_categories_are_ordered_by_what_is_to_be_explained() -> None:
    values = texts(*["Oslo"] * 10, *["Turku"] * 10, *["Riga"] * 10)
    column = coding.learn_category(TEXT, values, np.repeat([0.3, -0.3, 0.0], 10))
    assert column.categories == ("Turku", "Riga", "Oslo")
    assert code(column, texts("Oslo", "Bergen", None)) == ([3, 0, 0], [False, True, True])


def test_rare_categories_share_a_code_beside_which_an_unseen_one_is_nothing_new() -> None:
    values = texts(*["Oslo"] * 50, "Turku", "Riga")
    column = coding.learn_category(TEXT, values, np.zeros(52))
    assert column.categories == ("Oslo",)
    assert code(column, texts("Turku", "Bergen")) == ([0, 0], [False, False])


def test_a_category_is_the_same_whatever_type_it_came_in() -> None:
    column = coding.learn_category(TEXT, np.array([1.0, 2.0] * 10), np.tile([0.0, 1.0], 10))
    assert code(column, np.array([1, 2]))[0] == code(column, np.array([1, 2], dtype=object))[0] == [1, 2]


def test_a_tensor_that_did_not_come_is_missing() -> None:
    column = coding.learn_number(NUMBER, np.array([0.0, 1.0]))
    codes, outside = coding.code([column], {}, {}, 3)
    assert codes.tolist() == [[0, 0, 0]] and outside.all()


@pytest.mark.parametrize("values", [np.array([np.nan, np.nan]), np.array([3.0, 3.0]), np.array([-1.7e308, 1.7e308])])
def test_odd_columns_are_coded(values: np.ndarray) -> None:
    column = coding.learn_number(NUMBER, values)
    codes, _ = code(column, values)
    assert max(codes) < column.size


def test_an_element_of_an_array_is_picked() -> None:
    column = Column(role="input", source="X", element=1, edges=(0.5,), high=1.0)
    assert coding.code([column], {"X": np.array([[9.0, 0.0], [9.0, 1.0]])}, {}, 2)[0].tolist() == [[1, 2]]
