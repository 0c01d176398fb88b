"""What may be asked of an explainer."""

from __future__ import annotations

from modelyard.explain.base import Wanted


def test_by_default_the_main_number_of_the_answer_is_wanted() -> None:
    assert Wanted() == (None, None, 0)
