"""What was seen of each version in one generation of a deployment: the counts on which a rollout is judged.

Hides which failures are laid at the door of the server or its model. Pure; counts only, which merge exactly in any order. It must not judge.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeVar

import msgspec

from modelyard import errors
from modelyard.errors import Conflict, ModelyardError
from modelyard.events import Callers, Mirror, Part

K = TypeVar("K")

SECOND_S = 1.0
"""Of two workers that tell of themselves once a second each, what lies no further apart is of about the same second."""


def _codes(*kinds: type[ModelyardError]) -> frozenset[str]:
    return frozenset(code for kind in kinds for code in ({kind.code} | _codes(*kind.__subclasses__())))


CALLERS = (_codes(errors.InvalidInput, errors.NotFound, errors.Denied, errors.Conflict) - _codes(errors.Misconfigured)) | {
    "cancelled",
    "malformed_message",
}
"""Codes of failures that a caller brought about, by what it sent or by leaving. Others are the server's or the model's, also a refusal for load."""


class Blocks(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How answered requests lay together in time: of `count` blocks of about a second each what tells how far their latencies differ.

    For a block that answered n requests, t of them in bucket b or above, the sum over the blocks of t² is that of `squares` from b on, and the sum of
    n · t that of `products` from b on. `+` is exact, and in any order the same.
    """

    count: int = 0
    squares: dict[int, int] = {}
    products: dict[int, int] = {}

    def __add__(self, other: Blocks) -> Blocks:
        return Blocks(
            count=self.count + other.count,
            squares=summed(self.squares, other.squares),
            products=summed(self.products, other.products),
        )


class Seen(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Counts of one version in one generation. `+` is exact, and in any order the same.

    `requests` were answered or ended in one of `errors`, which server or model caused; those that callers caused count nowhere. `latencies` are of
    the answered ones, by bucket (`events.quantile_s`), `blocks` say how these lay together, `callers` whose they were (nothing:
    each its own); `outputs` are rows by output, in the champion's bins, missing ones last.
    """

    requests: int = 0
    errors: int = 0
    latencies: dict[int, int] = {}
    outputs: dict[str, tuple[int, ...]] = {}
    mirror: Mirror = Mirror()
    blocks: Blocks = Blocks()
    callers: Callers = Callers()

    def __add__(self, other: Seen) -> Seen:
        """Both. Raises Conflict for outputs that were counted in different bins."""
        return Seen(
            requests=self.requests + other.requests,
            errors=self.errors + other.errors,
            latencies=summed(self.latencies, other.latencies),
            outputs=_outputs(self.outputs, other.outputs),
            mirror=_mirrors(self.mirror, other.mirror),
            blocks=self.blocks + other.blocks,
            callers=_callers(self.callers, other.callers),
        )


class Second(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The block that is not over: when the first of it was told (seconds since 1970), by which slots, and the latencies so far."""

    at: float = 0.0
    slots: tuple[int, ...] = ()
    latencies: dict[int, int] = {}


def continued(second: Second, parts: Iterable[tuple[float, int, Part]]) -> tuple[Seen, Second]:
    """What these parts (when, of which slot, what) of one version add to what was seen up to `second`, and the block that is then not over.

    A block is what several workers counted in about the same second, of which each slot tells once: to a stall they are one.

    Law, held by `tests/unit/monitor/test_evidence.py`: parts in order of time add up to the same in one call or in many.
    """
    seen, before = Seen(), second
    for at, slot, part in sorted(parts, key=lambda each: each[:2]):
        if slot in second.slots or abs(at - second.at) >= SECOND_S:
            seen, before = _grown(seen, before, second), Second()
            second = Second(at=at)
        second = Second(at=second.at, slots=(*second.slots, slot), latencies=summed(second.latencies, part.latencies))
        seen += of(part)
    return _grown(seen, before, second), second


def _grown(seen: Seen, before: Second, after: Second) -> Seen:
    """With what one block has come to, where it was counted as it was `before`."""
    had, has = block(before.latencies), block(after.latencies)
    grown = Blocks(
        count=has.count - had.count,
        squares=summed(has.squares, {bucket: -count for bucket, count in had.squares.items()}),
        products=summed(has.products, {bucket: -count for bucket, count in had.products.items()}),
    )
    return msgspec.structs.replace(seen, blocks=seen.blocks + grown)


def block(latencies: Mapping[int, int]) -> Blocks:
    """The one block of these counts by bucket; nothing of none."""
    squares, products, above, total = {}, {}, 0, sum(latencies.values())
    for bucket in sorted(latencies, reverse=True):
        count = latencies[bucket]
        above += count
        squares[bucket] = count * (2 * above - count)
        products[bucket] = count * total
    return Blocks(count=1, squares=squares, products=products) if total else Blocks()


def of(part: Part) -> Seen:
    """What one part says, but for the block to which it belongs."""
    failed = sum(each.requests for code, each in part.failures.items() if code not in CALLERS)
    return Seen(
        requests=part.requests + failed,
        errors=failed,
        latencies=part.latencies,
        outputs=part.outputs,
        mirror=part.mirror or Mirror(),
        callers=part.callers or Callers(),
    )


def summed(left: Mapping[K, int], right: Mapping[K, int]) -> dict[K, int]:
    """Counts by key, added."""
    total = dict(left)
    for key, count in right.items():
        total[key] = total.get(key, 0) + count
    return total


def _outputs(left: Mapping[str, tuple[int, ...]], right: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    total = dict(left)
    for name, counts in right.items():
        had = total.get(name)
        if had is not None and len(had) != len(counts):
            raise Conflict("outputs of one generation that were counted in different bins")
        total[name] = counts if had is None else tuple(a + b for a, b in zip(had, counts, strict=True))
    return total


def _callers(left: Callers, right: Callers) -> Callers:
    return Callers(
        asked=summed(left.asked, right.asked),
        failed=summed(left.failed, right.failed),
        took=summed(left.took, right.took),
        outputs=_outputs(left.outputs, right.outputs),
    )


def _mirrors(left: Mirror, right: Mirror) -> Mirror:
    return Mirror(
        sent=left.sent + right.sent,
        shed=left.shed + right.shed,
        failed=left.failed + right.failed,
        rows=left.rows + right.rows,
        disagreed=left.disagreed + right.disagreed,
        latencies=summed(left.latencies, right.latencies),
        outputs=_outputs(left.outputs, right.outputs),
    )
