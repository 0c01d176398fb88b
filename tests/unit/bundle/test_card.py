"""bundle.card: the facts, readable, and nothing of a tagged column."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from modelyard.bundle.artefact import Contents
from modelyard.bundle.card import Card, Evaluation, markdown, redacted
from modelyard.types import TensorSpec


def test_a_card_tells_the_facts(contents: Callable[..., Contents]) -> None:
    text = markdown(contents().card)
    for fact in (
        "Pipeline(ColumnTransformer, Ridge)",
        "regression",
        "double graph",
        "18 to 90.5",
        "1e-05",
        "100 rows",
        "scikit-learn",
        "3.11.7",
        "41.5",
    ):
        assert fact in text
    assert text == markdown(contents().card)


def test_a_tagged_column_shows_its_name_and_tag_only(contents: Callable[..., Contents]) -> None:
    card = contents().card
    assert "Oslo" in str(card), "the check can fail"
    assert "Oslo" not in str(redacted(card)) and "Oslo" not in markdown(redacted(card))
    assert "city" in markdown(redacted(card)) and "mask" in markdown(redacted(card))


def test_names_and_categories_cannot_break_the_layout(contents: Callable[..., Contents]) -> None:
    card = contents().card
    spec = TensorSpec(
        name="a|b\n# Title <script>", datatype="BYTES", shape=(-1, 1), categories=tuple(f"c{i}" for i in range(40)), unknown_allowed=False
    )
    evil = msgspec.structs.replace(card, schema=msgspec.structs.replace(card.schema, inputs=(spec,), classes=("[x](http://y)", 1)))
    text = markdown(evil)
    row = next(line for line in text.splitlines() if "Title" in line)
    assert row.startswith("| a\\|b \\# Title \\<script\\> | BYTES") and "c11 and 28 more; no others" in row
    assert "\n# Title" not in text and text.count("\n# ") == 0


def test_a_card_survives_its_json(contents: Callable[..., Contents]) -> None:
    card = contents().card
    assert msgspec.json.decode(msgspec.json.encode(card), type=Card) == card


def test_a_card_says_on_which_rows_quality_was_judged(contents: Callable[..., Contents]) -> None:
    card = msgspec.structs.replace(contents().card, quality={"mae": 1.5})
    assert "on the 100 rows given at packaging, on which the model may have been trained" in markdown(card)
    held = msgspec.structs.replace(card, evaluation=Evaluation(rows=2_000, digest="sha256:0"))
    assert "on 2,000 rows held out from training" in markdown(held) and "may have been trained" not in markdown(held)


def test_a_card_of_before_has_the_bytes_that_it_had(contents: Callable[..., Contents]) -> None:
    assert b"evaluation" not in msgspec.json.encode(contents().card)
