"""What a plan says of a strategy before anything is done."""

from __future__ import annotations

import pytest

from modelyard.control import planned
from modelyard.rollout.strategies import UNASKED_SHARE, complete, steps
from modelyard.targets.base import Strategy


def test_guards_share_what_may_be_spent_and_golden_takes_no_part() -> None:
    found = planned.guards(complete(Strategy(kind="canary", guards=("error_rate<0.5%", "golden", "disagreement<3%"))))
    assert [(each.guard, each.needs, each.decides) for each in found] == [
        ("error_rate<0.5%", "live", False),
        ("golden", "golden", False),
        ("disagreement<3%", "mirror", False),
    ]
    assert [each.alpha for each in found] == pytest.approx([0.0245, 0.0, 0.0245])


def test_a_shadow_is_judged_by_what_is_mirrored() -> None:
    told = planned.guards(complete(Strategy(kind="shadow", guards=("error_rate<1%", "disagreement<3%", "golden"))))
    assert [each.needs for each in told] == ["mirror", "mirror", "golden"]


def test_an_experiments_metric_is_the_last_guard_and_decides() -> None:
    found = planned.guards(complete(Strategy(kind="ab", metric="accuracy", sticky="header:x", guards=("error_rate<1%",))))
    assert [each.decides for each in found] == [False, True] and found[-1].needs == "labels"
    assert sum(each.alpha for each in found) == pytest.approx(0.05 * (1 - UNASKED_SHARE))


def test_what_a_person_should_know_is_said() -> None:
    assert "no guard judges it" in planned.notes(complete(Strategy(kind="canary")), name="churn")[0]
    assert planned.notes(complete(Strategy(kind="canary", guards=("error_rate<1%",))), name="churn") == ()
    assert planned.notes(complete(Strategy()), name="churn") == ()
    (sticky,) = planned.notes(complete(Strategy(kind="ab", metric="p50", sticky="header:x-user")), name="churn")
    assert sticky.startswith("callers count here, by header:x-user, not their requests")
    assert planned.notes(complete(Strategy(kind="canary", guards=("golden",), sticky="field:user")), name="churn") == ()
    (labels,) = planned.notes(complete(Strategy(kind="canary", guards=("auc>=champion-0.01",))), name="churn")
    assert "modelyard labels churn" in labels
    approved = complete(Strategy(kind="canary", guards=("golden",), steps=steps((50, 100), approvals=(100,))))
    assert "modelyard approve churn" in planned.notes(approved, name="churn")[0]
    assert "modelyard promote churn" in planned.notes(complete(Strategy(kind="shadow", guards=("golden",))), name="churn")[0]
    assert planned.notes(complete(Strategy(kind="shadow", guards=("golden",), promote=True)), name="churn") == ()
