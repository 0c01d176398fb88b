"""Mail, by a real SMTP server in this process: STARTTLS, a password, two forms of one text, and refusals of every kind."""

from __future__ import annotations

import socket
import ssl
from pathlib import Path
from typing import Any

import pytest
from certificates import Authority
from receivers import mailbox, notification

from modelyard.errors import DeadlineExceeded, InvalidConfig, Unavailable
from modelyard.monitor.alerts.routes import smtp
from modelyard.monitor.alerts.routes.smtp import Smtp, message

PLAIN: dict[str, Any] = {
    "host": "127.0.0.1",
    "from": "Modelyard <yard@example.org>",
    "to": ["ann@example.org", "bob@example.org"],
    "security": "none",
}


def test_both_forms_reach_everybody_in_one_thread(tmp_path: Path) -> None:
    with mailbox() as box:
        route = Smtp("mail", PLAIN | {"port": box.port}, tmp_path)
        assert route.send(notification()) == "it took the mail for 2 of 2 addresses"
        route.send(notification(kind="repeat", at=notification().at + 60))
    first, second = box.mails
    assert first["subject"] == "[page] churn: drift:age" and first["from"] == "Modelyard <yard@example.org>"
    assert first["to"] == "ann@example.org, bob@example.org" and box.envelopes[0].rcpt_tos == ["ann@example.org", "bob@example.org"]
    assert first["auto-submitted"] == "auto-generated" and first["date"] and first["message-id"] != second["message-id"]
    assert first["references"] == second["references"]
    plain, html = first.get_body(("plain",)), first.get_body(("html",))
    assert plain is not None and "what to do: Look at how age moved." in plain.get_content()
    assert html is not None and "<td>Look at how age moved.</td>" in html.get_content()


@pytest.fixture
def context(tmp_path: Path) -> tuple[ssl.SSLContext, Path]:
    authority = Authority(tmp_path)
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(*authority.server("mail"))
    return made, authority.path


def secured(tmp_path: Path, authority: Path, password: str, **more: Any) -> dict[str, Any]:
    (tmp_path / "password").write_text(password)
    (tmp_path / "password").chmod(0o600)
    return PLAIN | {"security": "starttls", "user": "yard", "password_file": "password", "ca_file": str(authority)} | more


def test_a_password_goes_over_tls(tmp_path: Path, context: tuple[ssl.SSLContext, Path]) -> None:
    with mailbox(context=context[0], users={"yard": "hush"}) as box:
        Smtp("mail", secured(tmp_path, context[1], "hush", port=box.port), tmp_path).send(notification())
        assert len(box.mails) == 1
        with pytest.raises(InvalidConfig, match="user and password"):
            Smtp("mail", secured(tmp_path, context[1], "wrong", port=box.port), tmp_path).send(notification())
        with pytest.raises(Unavailable, match="trusted"):
            Smtp("mail", secured(tmp_path, context[1], "hush", port=box.port, ca_file=""), tmp_path).send(notification())
        assert len(box.mails) == 1


def test_nothing_is_sent_in_the_clear_where_tls_is_asked_for(tmp_path: Path) -> None:
    with mailbox() as box:
        with pytest.raises(InvalidConfig, match="security"):
            Smtp("mail", PLAIN | {"security": "starttls", "port": box.port}, tmp_path).send(notification())
        assert not box.mails


@pytest.mark.parametrize(("says", "error"), [("550 no", InvalidConfig), ("451 later", Unavailable)])
def test_a_refusal_is_for_good_or_for_now(tmp_path: Path, says: str, error: type[Exception]) -> None:
    with mailbox() as box:
        box.says = says
        with pytest.raises(error, match=says[:3]):
            Smtp("mail", PLAIN | {"port": box.port}, tmp_path).send(notification())


def test_one_refused_address_costs_the_others_nothing(tmp_path: Path) -> None:
    with mailbox() as box:
        box.refuses = {"bob@example.org": "550 unknown"}
        route = Smtp("mail", PLAIN | {"port": box.port}, tmp_path)
        assert route.send(notification()) == "it took the mail for 1 of 2 addresses"
        box.refuses = {"bob@example.org": "550 unknown", "ann@example.org": "550 unknown"}
        with pytest.raises(InvalidConfig, match="every address"):
            route.send(notification())
        box.refuses["ann@example.org"] = "450 busy"
        with pytest.raises(Unavailable):
            route.send(notification())


def test_who_is_not_there_or_says_nothing_is_unavailable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        with pytest.raises(Unavailable):
            Smtp("mail", PLAIN | {"port": bound.getsockname()[1]}, tmp_path).send(notification())
    monkeypatch.setattr(smtp, "TIMEOUT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(DeadlineExceeded):
        Smtp("mail", PLAIN | {"port": silent.getsockname()[1]}, tmp_path).send(notification())


def test_a_subject_is_one_line_whatever_the_rule_says() -> None:
    from receivers import alert

    mail = message("mail", notification(firing=(alert(rule="drift:x\r\nBcc: evil@example.org"),)), sender="a@b", to=("c@d",))
    assert mail["bcc"] is None and "\n" not in mail["subject"]


@pytest.mark.parametrize(("security", "port"), [("starttls", 587), ("tls", 465), ("none", 25)])
def test_ports_by_security(tmp_path: Path, security: str, port: int) -> None:
    assert Smtp("mail", PLAIN | {"security": security}, tmp_path).target == f"ann@example.org and 1 more, by 127.0.0.1:{port}"
