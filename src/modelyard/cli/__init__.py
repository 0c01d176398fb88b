"""The command line: one literal table of verbs, each loaded when it is called.

Hides how arguments are parsed (typer) and how results and errors are shown (rich). It must stay thin: what a verb does lies in
`ControlPlane`, in the control process or in the data plane. `--help` reads the table alone and loads no verb.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any, NamedTuple

PROGRAM = "modelyard"


class Verb(NamedTuple):
    """Where a verb's function is ("module:function"), what it does in one line, and under which heading it stands."""

    place: str
    line: str
    heading: str


VERBS: dict[str, Verb] = {
    "package": Verb("modelyard.cli.package:package", "Turn a trained model into a proven, sealed, registered bundle.", "From a model to a bundle"),
    "inspect": Verb("modelyard.cli.bundles:inspect", "Show what a bundle holds: schema, proof, lock, members.", "From a model to a bundle"),
    "verify": Verb(
        "modelyard.cli.bundles:verify", "Check seal, every byte, the golden records and the lock, here and now.", "From a model to a bundle"
    ),
    "export": Verb("modelyard.cli.bundles:export", "Write a bundle to a folder or .tar that other homes can import.", "From a model to a bundle"),
    "import": Verb("modelyard.cli.bundles:import_", "Register a bundle from a folder or .tar whose signer you trust.", "From a model to a bundle"),
    "trust": Verb("modelyard.cli.bundles:trust", "Add, list or remove the keys of signers that this home trusts.", "From a model to a bundle"),
    "models": Verb("modelyard.cli.models:models", "List the models of this home.", "Registry"),
    "versions": Verb("modelyard.cli.models:versions", "List the versions of a model.", "Registry"),
    "alias": Verb("modelyard.cli.models:alias", "Point an alias such as champion at a version.", "Registry"),
    "delete": Verb("modelyard.cli.models:delete", "Remove a version that nothing uses.", "Registry"),
    "gc": Verb("modelyard.cli.models:gc", "Free the space of what no version needs.", "Registry"),
    "up": Verb("modelyard.cli.host:up", "Start control and data plane for this home.", "The running world"),
    "down": Verb("modelyard.cli.host:down", "Drain and stop them.", "The running world"),
    "deploy": Verb("modelyard.cli.world:deploy", "Put a version behind a name, after its gates.", "The running world"),
    "plan": Verb("modelyard.cli.rollouts:plan", "Show what a deploy would do, or why it would be refused.", "The running world"),
    "promote": Verb("modelyard.cli.rollouts:promote", "Skip to a rollout's last step.", "The running world"),
    "pause": Verb("modelyard.cli.rollouts:pause", "Keep a rollout at its step.", "The running world"),
    "resume": Verb("modelyard.cli.rollouts:resume", "Let a paused rollout go on.", "The running world"),
    "abort": Verb("modelyard.cli.rollouts:abort", "End a rollout: back to what served before.", "The running world"),
    "approve": Verb("modelyard.cli.rollouts:approve", "Let a step of somebody else's rollout be entered.", "The running world"),
    "labels": Verb("modelyard.cli.labels:labels", "Give true answers of predictions, or show what became of them.", "The running world"),
    "monitor": Verb("modelyard.cli.monitor:monitor", "Show how a deployment does, or say how it is watched.", "The running world"),
    "alerts": Verb("modelyard.cli.alerts:alerts", "Show what fires and who is told; silence it; test a route.", "The running world"),
    "history": Verb("modelyard.cli.rollouts:history", "Show who did what to a deployment, and why.", "The running world"),
    "undeploy": Verb("modelyard.cli.world:undeploy", "Take a name out of service.", "The running world"),
    "rollback": Verb("modelyard.cli.world:rollback", "Go back to what served before.", "The running world"),
    "status": Verb("modelyard.cli.world:status", "Show deployments, workers, traffic, latency and shift.", "The running world"),
    "predict": Verb("modelyard.cli.predict:predict", "Ask a deployed model about the rows of a file.", "The running world"),
    "serve": Verb("modelyard.cli.serve:serve", "Serve bundles by the data plane alone, without a control process.", "The running world"),
    "keys": Verb("modelyard.cli.keys:keys", "Make, list and revoke access keys.", "The running world"),
    "audit": Verb("modelyard.cli.audit:audit", "List what was done and denied, and check that the record of it is whole.", "The running world"),
    "backup": Verb("modelyard.cli.copies:backup", "Copy the home's records to a file, also while it is up.", "More"),
    "restore": Verb("modelyard.cli.copies:restore", "Go back to such a copy.", "More"),
    "config": Verb("modelyard.cli.config:config", "Show each setting, its value and where it came from.", "More"),
    "demo": Verb("modelyard.cli.demo:demo", "Train, package, deploy and watch a model on real data.", "More"),
}

PARTS: dict[str, dict[str, str]] = {
    "monitor": {
        "backtest": "modelyard.cli.backtest:backtest",
        "report": "modelyard.cli.report:report",
        "rules": "modelyard.cli.monitoring:rules",
        "dashboard": "modelyard.cli.monitoring:dashboard",
    },
}
"""What a verb can do beside, by its second word: "module:function". A thing of that name is asked for as `modelyard VERB -- NAME`."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code; the console script's entry."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or given[0] in ("--help", "-h", "help"):
        _help()
        return 0
    if given[0] in ("--version", "-V"):
        from modelyard import __version__

        print(f"{PROGRAM} {__version__}")
        return 0
    verb = given[0]
    if verb not in VERBS:
        _unknown(verb)
        return 2
    part = PARTS.get(verb, {}).get(given[1] if len(given) > 1 else "")
    if part is not None:
        return run(f"{verb} {given[1]}", load(part), given[2:])
    return run(verb, load(VERBS[verb].place), given[1:])


def load(place: str) -> Any:
    """The function at "module:function"."""
    module, _, function = place.partition(":")
    return getattr(import_module(module), function)


def run(verb: str, function: Any, arguments: Sequence[str]) -> int:
    """Parse `arguments` by the signature of `function`, call it, and turn what it raises into one line and an exit code."""
    import typer

    from modelyard.cli.errors import guarded

    application = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich")
    application.command()(guarded(function))
    try:
        application(list(arguments), prog_name=f"{PROGRAM} {verb}")
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    return 0


def _help() -> None:
    width = max(map(len, VERBS))
    print(f"Usage: {PROGRAM} VERB [ARGUMENTS]\n\nTakes a trained model to production and keeps it healthy there.")
    heading = ""
    for name, verb in VERBS.items():
        if verb.heading != heading:
            heading = verb.heading
            print(f"\n{heading}")
        print(f"  {name:<{width}}  {verb.line}")
    print(f"\n`{PROGRAM} VERB --help` tells more; every verb has --json. `{PROGRAM} --version` names the release.")


def _unknown(verb: str) -> None:
    from difflib import get_close_matches

    near = get_close_matches(verb, VERBS, n=1)
    hint = f"did you mean `{PROGRAM} {near[0]}`?" if near else f"`{PROGRAM} --help` lists them."
    print(f"{PROGRAM}: no such verb: {verb}; {hint}", file=sys.stderr)
