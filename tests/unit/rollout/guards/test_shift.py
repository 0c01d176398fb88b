"""The distance of the candidate's outputs from the champion's."""

from __future__ import annotations

import numpy as np
import pytest
from judging import Counted, Mirrored, sticky, stratum

from modelyard.events import Callers
from modelyard.rollout.guards import judge, parse

ALPHA = 0.0125


def outputs(counts) -> dict[str, tuple[int, ...]]:
    return {"score": tuple(int(count) for count in counts)}


def seen(counts, *, rows_of_each: int = 1) -> Counted:
    return Counted(requests=int(sum(counts)) // rows_of_each, outputs=outputs(counts))


EVEN = np.array([1000] * 10 + [0])
TILTED = np.array([400, 500, 600, 800, 1000, 1000, 1200, 1400, 1500, 1600, 0])


def test_a_shifted_distribution_fails_and_an_equal_one_passes() -> None:
    shifted = judge(parse("prediction_shift<0.1"), [stratum(seen(TILTED), seen(EVEN))], alpha=ALPHA)
    assert shifted.outcome == "fail"
    assert shifted.numbers["estimate"] == pytest.approx(0.17, abs=0.01)  # the largest difference of the cumulated shares
    alike = judge(parse("prediction_shift<0.1"), [stratum(seen(EVEN), seen(EVEN))], alpha=ALPHA)
    assert (alike.outcome, alike.numbers["estimate"], alike.numbers["holds"]) == ("pass", 0.0, 1.0)


def test_a_shift_the_other_way_and_one_of_a_single_bin_count_too() -> None:
    assert judge(parse("prediction_shift<0.1"), [stratum(seen(TILTED[:-1][::-1]), seen(EVEN[:-1]))], alpha=ALPHA).outcome == "fail"
    swapped = EVEN + np.array([0, 0, 0, 2500, -400, 0, 0, 0, 0, 0, 0])
    assert judge(parse("prediction_shift<0.1"), [stratum(seen(swapped), seen(EVEN))], alpha=ALPHA).outcome == "fail"


def test_rows_of_one_request_do_not_count_as_evidence_each() -> None:
    one, hundred = (stratum(seen(TILTED * 10, rows_of_each=each), seen(EVEN * 10, rows_of_each=each)) for each in (1, 2000))
    assert judge(parse("prediction_shift<0.1"), [one], alpha=ALPHA).outcome == "fail"
    assert judge(parse("prediction_shift<0.1"), [hundred], alpha=ALPHA).outcome == "unknown"


def test_bins_that_do_not_match_or_are_missing_say_nothing() -> None:
    for candidate in (seen(EVEN[:5]), Counted(requests=100), seen(EVEN * 0)):
        verdict = judge(parse("prediction_shift<0.1"), [stratum(candidate, seen(EVEN))], alpha=ALPHA)
        assert verdict.outcome == "unknown"
        assert "holds" not in verdict.numbers


def test_a_shadow_is_judged_by_its_mirrored_requests() -> None:
    candidate = Counted(mirror=Mirrored(sent=10_000, outputs=outputs(TILTED)))
    assert judge(parse("prediction_shift<0.1"), [stratum(candidate, seen(EVEN), is_shadow=True)], alpha=ALPHA).outcome == "fail"


def test_where_callers_keep_to_a_version_a_few_who_ask_much_are_no_shift() -> None:
    """The control: of the same counts, taken for independent requests, it is one. And what shifts for all of them is found."""
    few, champion = sticky([(0, 3000, 0)] * 2 + [(60, 40, 0)] * 50), sticky([(60, 40, 0)] * 64)
    guard = parse("prediction_shift<0.1")
    verdict = judge(guard, [stratum(few, champion)], alpha=ALPHA)
    assert (verdict.outcome, verdict.numbers["estimate"] > 0.3) == ("unknown", True)
    assert judge(guard, [stratum(*(each._replace(callers=Callers()) for each in (few, champion)))], alpha=ALPHA).outcome == "fail"
    assert judge(guard, [stratum(sticky([(20, 80, 0)] * 64), champion)], alpha=ALPHA).outcome == "fail"
    assert judge(guard, [stratum(sticky([(60, 40, 0)] * 64), champion)], alpha=ALPHA).outcome == "pass"
    assert judge(guard, [stratum(sticky([(0, 900, 0)] * 9), champion)], alpha=ALPHA).outcome == "unknown", "nine callers are few"
