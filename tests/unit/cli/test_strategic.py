"""The flags of a strategy: two verbs have them, and they say what a file says."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest

from modelyard.cli import main
from modelyard.cli.rollouts import plan
from modelyard.cli.strategic import strategic
from modelyard.cli.world import deploy
from modelyard.errors import InvalidConfig
from modelyard.rollout.written import Written


@strategic
def verb(reference: str = "", *, written: Written, json: bool = False) -> None:
    """A verb."""
    told.append((reference, written, json))


told: list[Any] = []


def say(**flags: Any) -> Written:
    told.clear()
    verb("churn", **flags)
    ((_, written, _),) = told
    assert isinstance(written, Written)
    return written


def test_both_verbs_have_the_flags_and_neither_the_argument() -> None:
    for function in (deploy, plan, verb):
        named = inspect.signature(function).parameters
        assert {"strategy", "steps", "guard", "file", "json"} <= set(named) and "written" not in named
    assert next(iter(inspect.signature(deploy).parameters)) == "reference"


def test_flags_are_read() -> None:
    written = say(strategy="canary", steps="1,100", guard=["p99<1.2x"], approve=[100], step_time="2m", strict=True, alpha=0.01)
    assert written == Written(strategy="canary", steps=(1, 100), guards=("p99<1.2x",), approve=(100,), step_time="2m", strict=True, alpha=0.01)
    assert say() == Written()


def test_a_file_is_read_and_flags_beside_it_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "deployment.toml"
    file.write_text('model = "churn"\nstrategy = "blue-green"\n')
    assert say(file=file) == Written(model="churn", strategy="blue-green")
    with pytest.raises(InvalidConfig, match="write guard there"):
        say(file=file, guard=["golden"])
    with pytest.raises(InvalidConfig, match="no strategy is called rolling"):
        say(strategy="rolling")


def test_the_command_line_knows_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--help"]) == 0
    assert "--step-requests" in capsys.readouterr().out
    assert main(["plan", "churn", "--strategy", "canary", "--guard", "speed<3"]) == 2
    assert "names no metric" in capsys.readouterr().err
    assert main(["deploy", "churn", "--strategy", "canary", "--steps", "1,50"]) == 2
    assert "end with 100" in capsys.readouterr().err
    assert main(["deploy", "--strategy", "canary"]) == 2
    assert "say what to deploy" in capsys.readouterr().err
