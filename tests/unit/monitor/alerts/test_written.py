"""alerts.toml: strict, by name, read again when it changes, and a slip of the pen silences nobody."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from modelyard.errors import InvalidConfig
from modelyard.monitor.alerts import routes
from modelyard.monitor.alerts.written import Routes, read

ROOT = Path(__file__).parents[4]
TOLD = re.findall(r"^```toml\n(.*?)^```$", (ROOT / "docs/alerts.md").read_text("utf-8"), re.MULTILINE | re.DOTALL)

WHOLE = """
[routes.oncall]
kind = "webhook"
url = "https://pager.example/hook"
secret_file = "pager.secret"

[routes.mail]
kind = "smtp"
host = "mail.example"
from = "Modelyard <modelyard@example.org>"
to = ["ann@example.org", "bob@example.org"]
user = "modelyard"
password_env = "MODELYARD_SECRET_MAIL"
severities = ["page", "report"]

[routes.team]
kind = "slack"
url_file = "slack.url"
severities = ["report"]

[routes.am]
kind = "alertmanager"
url = "http://127.0.0.1:9093"
labels = {team = "risk"}

[routes.phone]
kind = "apprise"
url_env = "MODELYARD_SECRET_PHONE"
"""


def test_every_kind_of_route(tmp_path: Path) -> None:
    path = tmp_path / "alerts.toml"
    path.write_text(WHOLE)
    found = read(path)
    assert {name: route.kind for name, route in found.items()} == {
        "oncall": "webhook",
        "mail": "smtp",
        "team": "slack",
        "am": "alertmanager",
        "phone": "apprise",
    }
    assert {route.kind for route in found.values()} == set(routes.KINDS)
    assert {name: route.severities for name, route in found.items()} == {
        "oncall": ("page",),
        "mail": ("page", "report"),
        "team": ("report",),
        "am": ("page", "report"),
        "phone": ("page",),
    }
    assert {name for name, route in found.items() if route.forgets} == {"am"}
    assert {name: route.target for name, route in found.items()} == {
        "oncall": "https://pager.example/…",
        "mail": "ann@example.org and 1 more, by mail.example:587",
        "team": "the URL in slack.url",
        "am": "http://127.0.0.1:9093/…",
        "phone": "the URL in $MODELYARD_SECRET_PHONE",
    }


def test_the_file_in_the_docs_says_what_it_shows(tmp_path: Path) -> None:
    (told,) = TOLD
    (tmp_path / "alerts.toml").write_text(told)
    assert {name: route.target for name, route in read(tmp_path / "alerts.toml").items()}.keys() == {"oncall", "mail", "team", "am", "phone"}


def test_no_file_is_no_routes(tmp_path: Path) -> None:
    assert read(tmp_path / "alerts.toml") == {}


@pytest.mark.parametrize(
    ("written", "says"),
    [
        ("routes = 1", "tables"),
        ("[other]", "tables"),
        ("[routes.a]", "kind is one of webhook, smtp"),
        ("[routes.a]\nkind = 'pigeon'", "kind is one of"),
        ("[routes]\na = 1", "is a table"),
        ("[routes.A]\nkind = 'slack'", "name"),
        ("[routes.a]\nkind = 'webhook'", "say where its url lies"),
        ("[routes.a]\nkind = 'webhook'\nurl = 'ftp://x'", "http or https"),
        ("[routes.a]\nkind = 'webhook'\nurl = 'http://u:p@x/'", "password"),
        ("[routes.a]\nkind = 'webhook'\nurl = 'http://x/'\nurll = 'y'", "has no urll; it may have"),
        ("[routes.a]\nkind = 'webhook'\nurl = 'http://x/'\nseverities = ['loud']", "severities"),
        ("[routes.a]\nkind = 'webhook'\nurl = 'http://x/'\nseverities = []", "takes no severity"),
        ("[routes.a]\nkind = 'webhook'\nurl = 'http://x/'\nsecret_env = 'HOME'", "MODELYARD_SECRET_"),
        ("[routes.a]\nkind = 'slack'\nurl = 'https://hooks.slack.com/services/x'", "has no url"),
        ("[routes.a]\nkind = 'apprise'", "say where its url lies"),
        ("[routes.a]\nkind = 'smtp'\nhost = 'h'\nfrom = 'a@b'\nto = []", "1 to 100"),
        ("[routes.a]\nkind = 'smtp'\nhost = 'h'\nfrom = 'a'\nto = ['a@b']", "from has an address"),
        ("[routes.a]\nkind = 'smtp'\nhost = 'h'\nfrom = 'a@b'\nto = [\"a@b\\r\\nBcc: c@d\"]", "to has an address"),
        ("[routes.a]\nkind = 'smtp'\nhost = 'h'\nfrom = 'a@b'\nto = ['a@b']\nuser = 'u'", "goes with a password"),
        ("[routes.a]\nkind = 'smtp'\nhost = 'h'\nfrom = 'a@b'\nto = ['a@b']\nuser = 'u'\npassword_file = 'p'\nsecurity = 'none'", "TLS alone"),
        ("[routes.a]\nkind = 'smtp'\nhost = 'h'\nfrom = 'a@b'\nto = ['a@b']\nport = 99999", "port"),
        ("[routes.a\n", "TOML"),
        ('x = "\\ud800"', "TOML"),
    ],
)
def test_what_does_not_fit_is_said_by_name(tmp_path: Path, written: str, says: str) -> None:
    path = tmp_path / "alerts.toml"
    path.write_text(written)
    with pytest.raises(InvalidConfig, match=says):
        read(path)


def test_a_file_that_anybody_may_change_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "alerts.toml"
    path.write_text(WHOLE)
    path.chmod(0o666)
    with pytest.raises(InvalidConfig, match="changed by other users"):
        read(path)
    path.chmod(0o664)
    assert len(read(path)) == 5


def test_too_many_routes_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "alerts.toml"
    path.write_text("\n".join(f"[routes.r{at}]\nkind='webhook'\nurl='http://x/'" for at in range(101)))
    with pytest.raises(InvalidConfig, match="at most"):
        read(path)


def test_a_changed_file_is_read_again_and_a_broken_one_leaves_what_was(tmp_path: Path) -> None:
    path = tmp_path / "alerts.toml"
    known = Routes(path)
    assert known() == {} and known.trouble == ""
    path.write_text(WHOLE)
    assert set(known()) == {"oncall", "mail", "team", "am", "phone"}
    before = known()
    assert known() is before, "read once"
    path.write_text("[routes.oncall]\nkind = 'pigeon'")
    assert set(known()) == set(before) and "kind" in known.trouble
    path.write_text(WHOLE)
    path.chmod(0o666)
    assert known() and "changed by other users" in known.trouble
    path.chmod(0o600)
    assert known() and known.trouble == "", "mended by its mode alone"
    os.remove(path)
    assert known() == {} and known.trouble == ""


def test_a_relative_file_lies_beside_the_settings(tmp_path: Path) -> None:
    (tmp_path / "pager.secret").write_text("hush")
    (tmp_path / "pager.secret").chmod(0o600)
    path = tmp_path / "alerts.toml"
    path.write_text(WHOLE)
    secret = read(path)["oncall"]._secret  # type: ignore[attr-defined]
    assert secret.read() == "hush"


def test_what_is_nested_too_deep_is_no_toml(tmp_path: Path) -> None:
    path = tmp_path / "alerts.toml"
    path.write_text("a = " + "[" * 30_000)
    with pytest.raises(InvalidConfig, match="cannot be read as TOML"):
        read(path)
