from __future__ import annotations

from functools import reduce
from itertools import permutations
from operator import add

import numpy as np
import pytest

from modelyard import errors
from modelyard.errors import Conflict, ModelyardError
from modelyard.events import Callers, Failures, Mirror, Part
from modelyard.monitor.evidence import CALLERS, Blocks, Second, Seen, block, continued, of
from modelyard.rollout.guards import latency
from modelyard.types import Digest

DIGEST = Digest("sha256:" + "0" * 64)


def part(**fields: object) -> Part:
    return Part(name="m", version=1, digest=DIGEST, **fields)  # type: ignore[arg-type]


def test_only_failures_of_server_or_model_are_errors() -> None:
    failures = {code: Failures(requests=10**place, seconds=0.0) for place, code in enumerate(("model_failed", "schema_mismatch", "overloaded"))}
    seen = of(part(requests=7, failures=failures))
    assert (seen.requests, seen.errors) == (7 + 1 + 100, 1 + 100)
    assert of(part(failures={"cancelled": Failures(requests=3, seconds=0.1)})) == Seen()


def test_every_error_of_the_tree_is_on_one_side() -> None:
    def below(kind: type[ModelyardError]) -> set[str]:
        return {kind.code}.union(*map(below, kind.__subclasses__()))

    assert below(ModelyardError) - CALLERS == {
        "internal", "tampered", "digest_mismatch", "seal_invalid", "untrusted_signer", "unsupported_format", "rejected", "overloaded", "unavailable",
        "deadline_exceeded", "storage_full", "model_failed", "misconfigured",
    }  # fmt: skip
    assert errors.SchemaMismatch.code in CALLERS


def test_sums_are_exact_in_any_order() -> None:
    parts = (
        part(requests=1, latencies={3: 1}, outputs={"label": (1, 0, 0)}, mirror=Mirror(sent=2, shed=1, rows=2, latencies={4: 2})),
        part(requests=2, latencies={3: 1, 5: 1}, outputs={"label": (0, 2, 1)}),
        part(
            failures={"model_failed": Failures(requests=4, seconds=1.0)}, mirror=Mirror(sent=3, failed=1, disagreed=1, outputs={"label": (1, 1, 0)})
        ),
    )
    total = Seen(
        requests=7,
        errors=4,
        latencies={3: 2, 5: 1},
        outputs={"label": (1, 2, 1)},
        mirror=Mirror(sent=5, shed=1, failed=1, rows=2, disagreed=1, latencies={4: 2}, outputs={"label": (1, 1, 0)}),
    )
    for order in permutations(map(of, parts)):
        assert reduce(add, order, Seen()) == total


def test_callers_are_added_by_their_groups() -> None:
    parts = (
        part(callers=Callers(asked={1: 2, 9: 1}, failed={9: 1}, took={300: 1}, outputs={"a": (1, 2), "b": (5,)})),
        part(callers=Callers(asked={9: 4}, took={300: 2, 5: 1}, outputs={"a": (0, 3)})),
        part(),
    )
    for order in permutations(map(of, parts)):
        assert reduce(add, order, Seen()).callers == Callers(asked={1: 2, 9: 5}, failed={9: 1}, took={300: 3, 5: 1}, outputs={"a": (1, 5), "b": (5,)})


def test_blocks_tell_how_far_seconds_differ() -> None:
    seconds = ({3: 2, 5: 1}, {4: 4, 5: 3}, {}, {2: 7})
    total = reduce(add, map(block, seconds), Blocks())
    assert total.count == 3, "a second without answers is none"
    for bucket in range(7):
        above = [sum(count for place, count in each.items() if place >= bucket) for each in seconds]
        assert sum(value for place, value in total.squares.items() if place >= bucket) == sum(hits**2 for hits in above)
        products = sum(hits * sum(each.values()) for hits, each in zip(above, seconds, strict=True))
        assert sum(value for place, value in total.products.items() if place >= bucket) == products
    for order in permutations(map(block, seconds)):
        assert reduce(add, order, Blocks()) == total


def test_what_several_workers_count_in_a_second_is_one_block() -> None:
    one, other = part(requests=2, latencies={3: 2}), part(requests=3, latencies={3: 1, 5: 2}, mirror=Mirror(sent=1))
    seen, _ = continued(Second(), [(1.0, 0, one), (1.4, 1, other)])
    assert seen == Seen(requests=5, latencies={3: 3, 5: 2}, mirror=Mirror(sent=1), blocks=block({3: 3, 5: 2}))
    apart, _ = continued(Second(), [(1.0, 0, one), (2.0, 1, other)])
    assert apart.blocks == block({3: 2}) + block({3: 1, 5: 2}), "a version that is asked now and then has a second now and then"


def told(seconds: int, slots: int) -> list[tuple[float, int, Part]]:
    """What workers that stall together tell: each at its own time of the second, with nobody asked in some seconds."""
    rng = np.random.default_rng(0)
    found = []
    for second in range(seconds):
        slow = second % 20 == 7
        for slot in range(slots):
            count = int(rng.integers(0, 30))
            if count:
                found.append(
                    (1000 + second + slot / slots + 0.01 * rng.random(), slot, part(requests=count, latencies={600 if slow else 400: count}))
                )
    return found


@pytest.mark.parametrize("most", [1, 2, 3, 50])
def test_parts_add_up_to_the_same_in_whatever_turns_they_come(most: int) -> None:
    parts, rng = told(100, 4), np.random.default_rng(most)
    whole, _ = continued(Second(), parts)
    total, second, rest = Seen(), Second(), list(parts)
    while rest:
        turn = int(rng.integers(1, most + 1))
        more, second = continued(second, rest[:turn])
        total, rest = total + more, rest[turn:]
    assert total == whole and 95 < whole.blocks.count <= 100


def test_a_second_that_came_in_two_turns_would_make_an_absolute_bound_too_sure() -> None:
    """Where each part is a block of its own, workers that stall together count as that many stalls: the evidence against `p95<50ms` is another."""
    parts = told(400, 4)
    whole, _ = continued(Second(), parts)
    split = reduce(add, (continued(Second(), [each])[0] for each in parts))
    assert whole.latencies == split.latencies and split.blocks.count > 3 * whole.blocks.count

    def sureness(seen: Seen) -> float:
        (counts, squares, products), first = latency.filled([seen.latencies, seen.blocks.squares, seen.blocks.products])
        return latency.slower_by_blocks(counts, latency.Blocks(float(seen.blocks.count), squares, products), first, 0.97, 0.05)

    assert sureness(split) > 2 * sureness(whole) > 0


def test_outputs_in_other_bins_do_not_add_up() -> None:
    with pytest.raises(Conflict, match="bins"):
        of(part(outputs={"label": (1, 0)})) + of(part(outputs={"label": (1, 0, 0)}))
    with pytest.raises(Conflict, match="bins"):
        of(part(mirror=Mirror(outputs={"label": (1, 0)}))) + of(part(mirror=Mirror(outputs={"label": (1, 0, 0)})))
