"""Labels are read from the forms in which people have them."""

from __future__ import annotations

import contextlib
from pathlib import Path

import duckdb
import pytest

from modelyard.cli import labels, main
from modelyard.cli.labels import read
from modelyard.client.answers import Account, Received
from modelyard.errors import InvalidInput


def test_csv_parquet_and_json_lines_say_the_same(tmp_path: Path) -> None:
    csv, lines, parquet = (tmp_path / f"labels.{form}" for form in ("csv", "jsonl", "parquet"))
    csv.write_text("prediction_id,label,other\na,1,x\nb,0,y\na/1,1,z\nc,,w\n")
    lines.write_text('{"id": "a", "truth": 1}\n{"id": "b", "truth": 0.0}\n{"id": "a/1", "truth": 1}\n{"id": "c", "truth": null}\n')
    with duckdb.connect() as connection:
        connection.execute(f"COPY (SELECT * FROM read_csv_auto('{csv}')) TO '{parquet}' (FORMAT parquet)")
    assert read(csv) == read(lines) == read(parquet) == ([("a", 1, None), ("b", 0, None), ("a/1", 1, None)], 1)


def test_texts_numbers_and_truth_values_keep_their_kind(tmp_path: Path) -> None:
    for written, expected in (("yes", "yes"), ("1.5", 1.5), ("True", "True"), ("2024-01-02", "2024-01-02"), ("007", "007"), ("-3", -3)):
        path = tmp_path / "labels.csv"
        path.write_text(f"prediction_id,label\na,{written}\n")
        assert read(path).labels == [("a", expected, None)]
    path = tmp_path / "labels.parquet"
    with duckdb.connect() as connection:
        connection.execute(f"COPY (SELECT 'a' AS ID, 1.25::DECIMAL(9, 2) AS Label) TO '{path}' (FORMAT parquet)")
    assert read(path).labels == [("a", 1.25, None)]


def test_since_when_a_label_is_known_is_read_in_each_form(tmp_path: Path) -> None:
    csv, parquet = tmp_path / "labels.csv", tmp_path / "labels.parquet"
    csv.write_text("id,label,known_at\na,1,2026-01-02T00:00:00+01:00\nb,0,1767312000\nc,1,\nd,1,2026-01-02 00:00:00\n")
    assert [at for _, _, at in read(csv).labels] == [1767308400.0, 1767312000.0, None, 1767312000.0]
    with duckdb.connect() as connection:
        connection.execute(f"COPY (SELECT 'a' AS id, 1 AS label, TIMESTAMP '2026-01-02 00:00:00' AS known_at) TO '{parquet}' (FORMAT parquet)")
    assert read(parquet).labels == [("a", 1, 1767312000.0)]


def test_what_one_file_says_twice_of_an_id_comes_in_its_order_and_what_says_nothing_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("prediction_id,label,known_at\na,1,1767312000\na,2,\na,2,\n,5,\nb,,\n")
    assert read(path) == ([("a", 1, 1767312000.0), ("a", 2, None), ("a", 2, None)], 2)


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


def test_what_became_of_labels_is_told_with_ids_of_what_needs_a_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given: list[tuple[object, ...]] = []

    class Fake:
        def give_labels(self, name: str, labels: object) -> Received:
            given.append((name, labels))
            return Received(new=1, same=2, changed=3, outdated=4, future=5)

        def labels(self, name: str) -> Account:
            named = {"unknown": ("u1", "u2", "u3"), "future": ("f1",)}
            return Account(
                labels=20, matched=12, unsampled=5, unknown=3, predictions=40, received=Received(), late=2, mistyped=1, conflicting=3, named=named
            )

    monkeypatch.setattr(labels, "connect", lambda settings: contextlib.nullcontext(Fake()))
    path = tmp_path / "labels.csv"
    path.write_text("id,label,known_at\na,1,5\nb,no,\nc,,\n")
    assert main(["labels", "line", "--file", str(path)]) == 0
    told = capsys.readouterr().out
    assert given == [("line", [("a", 1, 5.0), ("b", "no", None)])] and "left out: 1 rows" in told
    for part in (
        "taken: 1 new",
        "kept as earlier: 4, known before",
        "refused: 5, dated in the future",
        "12 matched, 3 of no prediction",
        "5 are unsampled",
        "2 came after the day",
        "3 ids have had",
    ):
        assert part in told
    assert "1 are no answer" in told and "unknown: u1, u2, u3 …" in told and "future: f1\n" in told
    assert main(["labels", "line", "--json"]) == 0 and '"conflicting":3' in capsys.readouterr().out.replace(" ", "")
