import io

import pytest
from rich.console import Console

from modelyard.demo.telling import Teller


def drawn(teller):
    return teller._made.file.getvalue()


@pytest.fixture(params=[False, True], ids=["pipe", "terminal"])
def teller(request):
    teller = Teller()
    teller._made = Console(file=io.StringIO(), width=80, force_terminal=request.param, highlight=False)
    return teller


def test_steps_are_numbered_and_say_what_they_found(teller):
    with teller.step("Train") as step:
        step.progress("growing trees", 0.5)
        step.done("a forest", "of 100 trees")
    with teller.step("Package") as step:
        step.done("sealed")
    text = drawn(teller)
    assert "Train" in text
    assert "a forest" in text
    assert "of 100 trees" in text
    assert text.index("a forest") < text.index("sealed")


def test_a_step_that_fails_leaves_no_line_of_success(teller):
    with pytest.raises(OSError, match="no"), teller.step("Train") as step:
        step.done("a forest")
        raise OSError("no")
    assert "a forest" not in drawn(teller)


def test_quiet_draws_nothing(capsys):
    teller = Teller(quiet=True)
    with teller.step("Train") as step:
        step.progress("growing", 0.1)
        step.done("a forest")
    teller.say("hello")
    assert capsys.readouterr().out == ""
