"""errors: what a caller may rely on."""

from __future__ import annotations

from modelyard.errors import DeadlineExceeded, ModelyardError, Overloaded, Rejected, SchemaMismatch, Unavailable
from modelyard.types import Verdict


def test_an_error_names_field_and_rule() -> None:
    error = SchemaMismatch("temp is missing", field="temp", rule="required")
    assert (str(error), error.field, error.rule, error.code, error.retryable) == ("temp is missing", "temp", "required", "schema_mismatch", False)


def test_what_may_succeed_later_says_so() -> None:
    assert Overloaded("busy", retry_after_s=2.5).retry_after_s == 2.5
    assert Overloaded.retryable
    assert issubclass(DeadlineExceeded, Unavailable)
    assert DeadlineExceeded.retryable
    assert not ModelyardError.retryable


def test_a_rejection_carries_its_verdicts() -> None:
    verdict = Verdict(outcome="fail", rule="seal", evidence="no seal")
    assert Rejected("refused", verdicts=[verdict]).verdicts == (verdict,)
