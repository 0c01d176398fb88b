"""`config`: every setting, its value and where it came from."""

from __future__ import annotations

from modelyard import config as settings_of
from modelyard.cli.show import Home, Json, emit_json, table


def config(*, home: Home = None, json: Json = False) -> None:
    """Show each setting, its value and where it came from: flag, environment, settings.toml in the home, or default."""
    values = settings_of.shown(settings_of.load({"home": home}))
    if json:
        emit_json({name: {"value": value, "source": source} for name, (value, source) in values.items()})
    else:
        prefix = settings_of.PREFIX
        table(
            ["setting", "value", "source", "environment"],
            [(name, str(value), source, prefix + name.upper()) for name, (value, source) in values.items()],
        )
