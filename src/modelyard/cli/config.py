"""`config`: every setting, its value and where it came from."""

from __future__ import annotations

import msgspec

from modelyard import config as settings_of
from modelyard.cli.show import Home, Json, emit_json, table


def config(*, home: Home = None, json: Json = False) -> None:
    """Show each setting, its value and where it came from: flag, environment, settings.toml in the home, or default."""
    settings, sources = settings_of.resolve({"home": home})
    values = {field.name: getattr(settings, field.name) for field in msgspec.structs.fields(settings)}
    if json:
        shown = {name: settings_of.without_password(value) if isinstance(value, str) else value for name, value in values.items()}
        emit_json({name: {"value": value, "source": sources[name]} for name, value in shown.items()})
    else:
        prefix = settings_of.PREFIX
        table(
            ["setting", "value", "source", "environment"],
            [(name, settings_of.without_password(value), sources[name], prefix + name.upper()) for name, value in values.items()],
        )
