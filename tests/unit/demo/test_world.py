import os
import signal
import subprocess

import pytest

from modelyard.demo.world import private_world


def test_the_home_is_fresh_and_gone_at_the_end():
    with private_world() as world:
        home = world.settings.home
        assert home.is_dir()
        assert len({world.settings.port, world.settings.control_port}) == 2
    assert not home.exists()


def test_a_kept_home_stays(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with private_world() as world:
        world.is_kept = True
    assert world.settings.home.is_dir()


def test_a_failing_story_leaves_nothing_even_if_it_was_to_be_kept():
    with pytest.raises(RuntimeError), private_world() as world:
        world.is_kept = True
        raise RuntimeError
    assert not world.settings.home.exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_story_as_an_interrupt_does(number):
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt), private_world() as world:
        os.kill(os.getpid(), number)
        signal.pause()  # never reached: the handler raises first
    assert not world.settings.home.exists()
    assert signal.getsignal(number) == before


def test_settings_of_the_caller_do_not_move_the_home(monkeypatch, tmp_path):
    monkeypatch.setenv("MODELYARD_HOME", str(tmp_path))
    monkeypatch.setenv("MODELYARD_PORT", "8080")
    monkeypatch.setenv("MODELYARD_CONTROL_URL", "https://ml.example")
    with private_world() as world:
        assert world.settings.home != tmp_path
        assert world.settings.port != 8080 and world.settings.control_url == ""


def test_the_callers_own_key_is_not_shown_to_the_private_home(monkeypatch):
    monkeypatch.setenv("MODELYARD_KEY", "my_own")
    shown = []

    def run(command, *, env, **_):
        shown.append(env["MODELYARD_KEY"])
        return subprocess.CompletedProcess(command, 0, b"{}", b"")

    with private_world() as world:
        monkeypatch.setattr("modelyard.demo.world.subprocess.run", run)
        assert world.verb("status") == {} and shown == [""]
