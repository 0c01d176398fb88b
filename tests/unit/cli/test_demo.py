import importlib.util
import json

from modelyard.cli import main


def test_it_says_what_is_missing_and_how_to_get_it(monkeypatch, capsys):
    find = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *rest: None if name == "sklearn" else find(name, *rest))
    assert main(["demo"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert "lacks sklearn" in said.err
    assert "pip install" in said.err
    assert len(said.err.splitlines()) == 1


def test_a_failure_is_json_too(monkeypatch, capsys):
    monkeypatch.setattr("importlib.util.find_spec", lambda *_: None)
    assert main(["demo", "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "invalid_config"


def test_its_help_tells_how_to_keep_the_endpoint(capsys):
    assert main(["demo", "--help"]) == 0
    assert "--keep" in capsys.readouterr().out
