"""Laws of the traffic plan: any valid plan survives its file, and its digests are loaded once each."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given
from hypothesis import strategies as st

from modelyard.types import Digest, HostPlan, Placement, TrafficPlan, read_plan, write_plan

digests = st.integers(0, 20).map(lambda number: Digest(f"sha256:{number:064x}"))


@st.composite
def plans(draw: st.DrawFn) -> TrafficPlan:
    weighted = draw(st.lists(digests, min_size=1, max_size=4, unique=True))
    cuts = sorted(draw(st.lists(st.integers(1, 99), min_size=len(weighted) - 1, max_size=len(weighted) - 1, unique=True)))
    weights = {digest: high - low for digest, low, high in zip(weighted, [0, *cuts], [*cuts, 100], strict=True)}
    hold = tuple(draw(st.lists(digests, max_size=3)))
    shadows = draw(st.dictionaries(digests, st.floats(0, 1, exclude_min=True), max_size=2))
    champion = draw(st.none() | digests)
    named = {*weights, *hold, *shadows} | ({champion} if champion else set())
    return TrafficPlan(
        name="m",
        generation=draw(st.integers(1, 9)),
        weights=weights,
        versions={digest: number for number, digest in enumerate(named, 1)},
        hold=hold,
        shadows=shadows,
        sticky=draw(st.sampled_from([None, "header:x-user", "field:age"])),
        champion=champion,
    )


@given(plans(), st.integers(0, 2**53))
def test_read_write_is_identity(plan: TrafficPlan, sequence: int) -> None:
    host = HostPlan(sequence=sequence, plans=(plan,), placements={digest: Placement(blobs="/b", index=digest) for digest in plan.digests})
    with TemporaryDirectory() as folder:
        write_plan(Path(folder) / "plan.json", host)
        assert read_plan(Path(folder) / "plan.json") == host


@given(plans())
def test_each_digest_is_named_once(plan: TrafficPlan) -> None:
    assert len(set(plan.digests)) == len(plan.digests)
    assert set(plan.digests) == set(plan.versions)
