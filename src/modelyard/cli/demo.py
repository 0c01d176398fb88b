"""`demo`: one real model's whole way, told on the terminal. It must not touch any home but the demo's own."""

from __future__ import annotations

from typing import Annotated

import typer

from modelyard.cli.show import Json, emit_json


def demo(
    *,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the endpoint running at the end; the summary says how to stop it.")] = False,
    json: Json = False,
) -> None:
    """Train a real model, package, deploy, watch and replace it, in about two minutes.

    A forest that forecasts hourly bike rentals is trained on the first half of 2011, packaged with a proof that nothing changed, and served
    through the eighteen months that followed. Then a challenger earns the traffic as a canary, and a bad version is sent
    back by itself. Everything happens in a temporary home on free ports of this machine.
    """
    from modelyard.demo.report import tell
    from modelyard.demo.story import run
    from modelyard.demo.telling import Teller

    teller = Teller(quiet=json)
    report = run(teller, keep=keep)
    if json:
        emit_json(report)
    else:
        tell(report, teller)
