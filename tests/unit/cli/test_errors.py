"""What a failure looks like at the command line."""

from __future__ import annotations

import errno
import inspect
import json
from typing import Any

import pytest

from modelyard.cli.errors import EXIT, INTERRUPTED, guarded
from modelyard.errors import Forbidden, ModelyardError, NotFound, Rejected, StorageFull
from modelyard.types import Verdict


def raising(error: BaseException) -> Any:
    def verb(*, json: bool = False) -> None:
        """Fail."""
        raise error

    return guarded(verb)


def code_of(error: BaseException, **options: Any) -> int:
    with pytest.raises(SystemExit) as stopped:
        raising(error)(**options)
    assert isinstance(stopped.value.code, int)
    return stopped.value.code


def test_no_failure_exits_with_0() -> None:
    assert all(0 < code < 64 for code in EXIT.values()) and EXIT[ModelyardError] == 1


def test_a_failure_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert code_of(NotFound("no such thing")) == EXIT[NotFound]
    assert capsys.readouterr() == ("", "modelyard: no such thing\n")


def test_a_denial_says_that_it_is_of_the_key_in_the_environment(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELYARD_KEY", "my_secret")
    assert code_of(Forbidden("no role")) == 5 and code_of(NotFound("no such thing")) == 3
    assert capsys.readouterr().err.splitlines() == ["modelyard: no role (shown was what MODELYARD_KEY holds)", "modelyard: no such thing"]


def test_a_rejection_shows_the_verdicts_that_did_not_pass(capsys: pytest.CaptureFixture[str]) -> None:
    verdicts = [Verdict(outcome=outcome, rule=f"rule-{outcome}", evidence="because") for outcome in ("pass", "warn", "fail")]  # type: ignore[arg-type]
    assert code_of(Rejected("refused", verdicts=verdicts), json=True) == 7
    out, err = capsys.readouterr()
    assert err.splitlines() == ["modelyard: refused", "  warn  rule-warn: because", "  fail  rule-fail: because"]
    assert len(json.loads(out)["error"]["verdicts"]) == 3


def test_a_failure_gives_the_terminal_no_orders(capsys: pytest.CaptureFixture[str]) -> None:
    verdicts = [Verdict(outcome="fail", rule="a\x1b[2J", evidence="\x9bm")]
    code_of(Rejected("no column \x1b]0;root\x07", verdicts=verdicts))
    assert capsys.readouterr().err.splitlines() == [r"modelyard: no column \x1b]0;root\x07", r"  fail  a\x1b[2J: \x9bm"]


def test_an_interrupt_is_130_without_a_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert code_of(KeyboardInterrupt()) == INTERRUPTED
    assert "Traceback" not in capsys.readouterr().err


def test_a_full_disk_is_told_wherever_it_was_met(capsys: pytest.CaptureFixture[str]) -> None:
    assert code_of(OSError(errno.ENOSPC, "No space left on device")) == EXIT[StorageFull]
    assert "no space left" in capsys.readouterr().err


def test_what_is_a_bug_is_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError):
        raising(ZeroDivisionError())()
    with pytest.raises(OSError, match="odd"):
        raising(OSError(errno.EBADF, "odd"))()


def test_the_signature_stays_for_the_parser() -> None:
    call = raising(NotFound(""))
    assert list(inspect.signature(call).parameters) == ["json"] and call.__annotations__["json"] is bool
