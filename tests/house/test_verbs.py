"""Every verb of the command line is an operation of the control API, or has none for a reason that decision 34 gives."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelyard.cli import PARTS, VERBS
from modelyard.console.routes import OPERATIONS

OPERATIONS_OF: dict[str, tuple[str, ...]] = {
    "inspect": ("inspect",),
    "verify": ("verify",),
    "export": ("export_bundle",),
    "import": ("import_bundle", "import_version"),
    "trust": ("list_trusted", "trust", "distrust"),
    "models": ("list_models",),
    "versions": ("list_versions",),
    "alias": ("set_alias", "remove_alias"),
    "delete": ("delete_version",),
    "gc": ("gc",),
    "deploy": ("deploy", "get_deployment"),
    "plan": ("plan",),
    "promote": ("promote",),
    "pause": ("pause",),
    "resume": ("resume",),
    "abort": ("abort",),
    "approve": ("approve",),
    "labels": ("give_labels", "labels"),
    "monitor": ("monitor", "get_monitor_settings", "set_monitor_settings"),
    "alerts": ("list_alerts", "silence", "unsilence", "test_route"),
    "history": ("history",),
    "undeploy": ("undeploy",),
    "rollback": ("rollback",),
    "status": ("get_status", "list_deployments"),
    "keys": ("list_keys", "create_key", "revoke_key"),
    "audit": ("list_audit", "verify_audit"),
    "config": ("get_config",),
    "monitor report": ("monitor",),
}
WITHOUT = ("package", "up", "down", "serve", "demo", "predict", "backup", "restore", "monitor backtest", "monitor rules", "monitor dashboard")
OF_NO_VERB = {"get_openapi", "get_data_plane", "metrics", "observe"}
"""What programs ask for, and people do not."""


def verbs() -> set[str]:
    return {*VERBS, *(f"{verb} {part}" for verb, parts in PARTS.items() for part in parts)}


def test_every_verb_is_an_operation_or_has_none_on_purpose() -> None:
    assert verbs() == {*OPERATIONS_OF, *WITHOUT} and not OPERATIONS_OF.keys() & set(WITHOUT)


def test_every_operation_is_of_a_verb() -> None:
    assert {each.name for each in OPERATIONS} == {name for names in OPERATIONS_OF.values() for name in names} | OF_NO_VERB


@pytest.mark.parametrize("verb", WITHOUT)
def test_the_decision_names_what_has_no_route(verb: str) -> None:
    text = (Path(__file__).parents[2] / "docs" / "decisions" / "0034-operations-are-values.md").read_text("utf-8")
    assert f"`{verb}`" in text
