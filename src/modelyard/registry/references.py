"""References: how a user names a bundle (`churn`, `churn:3`, `churn@champion`, `churn@sha256:…`, or a path).

Hides the grammar. Pure: it looks nothing up, not even whether a file exists.
"""

from __future__ import annotations

import re

import msgspec

from modelyard.errors import InvalidInput
from modelyard.types import parse_name

_ALIAS = re.compile(r"[a-z]([a-z0-9._-]{0,61}[a-z0-9])?")
_DIGEST = re.compile(r"sha256:[0-9a-f]{8,64}")


class Reference(msgspec.Struct, frozen=True):
    """A name and at most one of version, alias and (the beginning of) a digest."""

    name: str
    version: int | None = None
    alias: str | None = None
    digest: str | None = None


def is_file(ref: str) -> bool:
    """Whether `ref` is a path: it has a slash, begins with a dot or `~`, or ends in `.tar`. Write `./churn` for a folder beside you."""
    return "/" in ref or ref.startswith((".", "~")) or ref.endswith(".tar")


def parse(ref: str) -> Reference:
    """`ref` as a Reference. Raises InvalidInput."""
    name, at, rest = ref.partition("@")
    if at:
        parse_name(name)
        return Reference(name, digest=rest) if _DIGEST.fullmatch(rest) else Reference(name, alias=parse_alias(rest))
    name, colon, number = ref.partition(":")
    parse_name(name)
    if not colon:
        return Reference(name)
    if not (number.isascii() and number.isdigit() and len(number) <= 9 and int(number) > 0):
        raise InvalidInput("a version is written NAME:3", field="reference", rule="version")
    return Reference(name, version=int(number))


def parse_alias(text: str) -> str:
    """`text` as an alias: like a name, beginning with a letter. Raises InvalidInput."""
    if not _ALIAS.fullmatch(text):
        raise InvalidInput(
            "an alias has 1 to 63 of a-z, 0-9, '.', '_' and '-', beginning with a letter; a digest is written sha256: and at least 8 hex digits",
            field="alias",
            rule="alias",
        )
    return text
