from __future__ import annotations

from functools import reduce
from itertools import permutations
from operator import add

import pytest

from modelyard import errors
from modelyard.errors import Conflict, ModelyardError
from modelyard.events import Callers, Failures, Mirror, Part
from modelyard.monitor.evidence import CALLERS, Blocks, Seen, block, of, of_second
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
    parts = (part(callers=Callers(asked={1: 2, 9: 1}, failed={9: 1})), part(callers=Callers(asked={9: 4})), part())
    for order in permutations(map(of, parts)):
        assert reduce(add, order, Seen()).callers == Callers(asked={1: 2, 9: 5}, failed={9: 1})


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
    assert of_second([one, other]) == Seen(requests=5, latencies={3: 3, 5: 2}, mirror=Mirror(sent=1), blocks=block({3: 3, 5: 2}))


def test_outputs_in_other_bins_do_not_add_up() -> None:
    with pytest.raises(Conflict, match="bins"):
        of(part(outputs={"label": (1, 0)})) + of(part(outputs={"label": (1, 0, 0)}))
    with pytest.raises(Conflict, match="bins"):
        of(part(mirror=Mirror(outputs={"label": (1, 0)}))) + of(part(mirror=Mirror(outputs={"label": (1, 0, 0)})))
