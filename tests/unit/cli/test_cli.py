"""The verb table: complete, loaded when called, each verb with --json and one-line failures."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys

import pytest

from modelyard import cli
from modelyard.cli import VERBS, load, main


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_has_json_help_and_a_line_in_the_table(verb: str) -> None:
    function = load(VERBS[verb].place)
    assert "json" in inspect.signature(function).parameters
    assert function.__doc__
    line = VERBS[verb].line
    assert line.endswith(".") and len(line) < 80 and VERBS[verb].heading


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_shows_its_help(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([verb, "--help"]) == 0
    out, err = capsys.readouterr()
    assert f"modelyard {verb}" in out and "--json" in out and err == ""


@pytest.mark.parametrize("given", [[], ["--help"], ["-h"], ["help"]])
def test_help_names_every_verb(given: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(given) == 0
    out = capsys.readouterr().out
    assert all(f"  {verb} " in out and described.line in out for verb, described in VERBS.items())


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    from modelyard import __version__

    assert main(["--version"]) == 0 and capsys.readouterr().out == f"modelyard {__version__}\n"


def test_an_unknown_verb_is_answered_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["delpoy"]) == 2
    assert capsys.readouterr().err == "modelyard: no such verb: delpoy; did you mean `modelyard deploy`?\n"
    assert main(["xyzzy"]) == 2
    assert "--help" in capsys.readouterr().err


@pytest.mark.parametrize("given", [["deploy"], ["deploy", "a", "b"], ["models", "--nope"], ["package", "x", "--name"], ["trust", "borrow"]])
def test_wrong_usage_is_2(given: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(given) == 2
    assert capsys.readouterr().err


def test_help_loads_no_verb() -> None:
    code = (
        "import sys; from modelyard.cli import main; main(['--help']); "
        "print([m for m in sys.modules if m.partition('.')[0] in ('modelyard', 'typer', 'rich')])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.splitlines()[-1] == "['modelyard', 'modelyard.cli']"


def test_a_failure_is_one_line_and_json_beside_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["versions", "nope", "--json"]) == 3
    out, err = capsys.readouterr()
    assert len(err.splitlines()) == 1 and err.startswith("modelyard: no model is called")
    assert json.loads(out)["error"]["code"] == "not_found"


def test_an_empty_home_is_no_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []
    assert main(["models"]) == 0
    assert "modelyard package" in capsys.readouterr().out


def test_the_program_is_named_as_installed() -> None:
    assert cli.PROGRAM == "modelyard"
