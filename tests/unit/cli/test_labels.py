"""Labels are read from the forms in which people have them."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pytest

from modelyard.cli.labels import read
from modelyard.errors import InvalidInput


def test_csv_parquet_and_json_lines_say_the_same(tmp_path: Path) -> None:
    csv, lines, parquet = (tmp_path / f"labels.{form}" for form in ("csv", "jsonl", "parquet"))
    csv.write_text("prediction_id,label,other\na,1,x\nb,0,y\na/1,1,z\nc,,w\n")
    lines.write_text('{"id": "a", "truth": 1}\n{"id": "b", "truth": 0.0}\n{"id": "a/1", "truth": 1}\n{"id": "c", "truth": null}\n')
    with duckdb.connect() as connection:
        connection.execute(f"COPY (SELECT * FROM read_csv_auto('{csv}')) TO '{parquet}' (FORMAT parquet)")
    assert read(csv) == read(lines) == read(parquet) == ({"a": 1, "b": 0, "a/1": 1}, {})


def test_texts_numbers_and_truth_values_keep_their_kind(tmp_path: Path) -> None:
    for written, expected in (("yes", "yes"), ("1.5", 1.5), ("True", "True"), ("2024-01-02", "2024-01-02"), ("007", "007"), ("-3", -3)):
        path = tmp_path / "labels.csv"
        path.write_text(f"prediction_id,label\na,{written}\n")
        assert read(path).truths == {"a": expected}
    path = tmp_path / "labels.parquet"
    with duckdb.connect() as connection:
        connection.execute(f"COPY (SELECT 'a' AS ID, 1.25::DECIMAL(9, 2) AS Label) TO '{path}' (FORMAT parquet)")
    assert read(path).truths == {"a": 1.25}


def test_since_when_a_label_is_known_is_read_in_each_form(tmp_path: Path) -> None:
    csv, parquet = tmp_path / "labels.csv", tmp_path / "labels.parquet"
    csv.write_text("id,label,known_at\na,1,2026-01-02T00:00:00+01:00\nb,0,1767312000\nc,1,\nd,1,2026-01-02 00:00:00\n")
    assert read(csv).known_at == {"a": 1767308400.0, "b": 1767312000.0, "d": 1767312000.0} and len(read(csv).truths) == 4
    with duckdb.connect() as connection:
        connection.execute(f"COPY (SELECT 'a' AS id, 1 AS label, TIMESTAMP '2026-01-02 00:00:00' AS known_at) TO '{parquet}' (FORMAT parquet)")
    assert read(parquet).known_at == {"a": 1767312000.0}


@pytest.mark.parametrize(
    ("name", "text", "rule"),
    [
        ("labels.txt", "a", "form"),
        ("missing.csv", None, "path"),
        ("labels.csv", "id,answer\na,1\n", "columns"),
        ("labels.parquet", "no", "form"),
        ("labels.csv", "id,label,known_at\na,1,soon\n", "known_at"),
    ],
)
def test_what_is_no_table_of_labels_is_refused(tmp_path: Path, name: str, text: str | None, rule: str) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(InvalidInput) as raised:
        read(tmp_path / name)
    assert raised.value.rule == rule
