"""registry.references: the ways to name a bundle."""

from __future__ import annotations

import pytest

from modelyard.errors import InvalidInput
from modelyard.registry.references import Reference, is_file, parse, parse_alias


def test_each_way_is_read() -> None:
    digest = "sha256:" + "ab" * 32
    assert parse("churn") == Reference("churn")
    assert parse("churn:3") == Reference("churn", version=3)
    assert parse("churn@champion") == Reference("churn", alias="champion")
    assert parse(f"churn@{digest}") == Reference("churn", digest=digest)
    assert parse("churn@sha256:abababab") == Reference("churn", digest="sha256:abababab")


@pytest.mark.parametrize(
    "ref",
    [
        "",
        ":3",
        "churn:",
        "churn:0",
        "churn:-1",
        "churn:03x",
        "churn:٣",
        "churn:9999999999",
        "churn@",
        "churn@3",
        "churn@Champion",
        "churn@sha256:abc",
        "Churn",
        "a b",
        "a@b@c",
    ],
)
def test_anything_else_is_refused(ref: str) -> None:
    with pytest.raises(InvalidInput):
        parse(ref)


def test_paths_are_told_from_names() -> None:
    assert all(map(is_file, ("./churn", "../a", "/a", "a/b", "churn.tar", "~/x", ".")))
    assert not any(map(is_file, ("churn", "churn:3", "churn@champion", "churn.v2", "churn@sha256:" + "ab" * 32)))


def test_an_alias_is_no_number() -> None:
    assert parse_alias("champion") == "champion"
    for text in ("", "3", "a b", "-a", "sha256:ab"):
        with pytest.raises(InvalidInput):
            parse_alias(text)
