"""`rempart config`: what the configuration is, and where each value came from."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from rempart.cli.options import common, settings_of, show
from rempart.config.load import Loaded
from rempart.config.load import explain as explained
from rempart.wiring_engines import context_of


@click.group()
def config() -> None:
    """Look at the configuration."""


@config.command()
@common
def explain(data: Path | None, config_path: Path | None, as_json: bool) -> None:
    """Print each setting and where it came from.

    A model that was trained for a shorter context than context_tokens takes what it was trained for: that is told
    beside it, when the model's file can be read.
    """
    loaded = settings_of(data, config_path)
    rows = explained(loaded)
    effective = _contexts(loaded)
    if as_json:
        show([{**row._asdict(), **_if("effective", effective.get(row.name))} for row in rows])
        return
    wide = max(len(row.name) for row in rows)
    for name, value, source in rows:
        told = f"; the model takes {effective[name]}" if effective.get(name, value) != value else ""
        click.echo(f"{name:<{wide}}  {msgspec.json.encode(value).decode()}  ({source}{told})")


def _contexts(loaded: Loaded) -> dict[str, int]:
    """Setting -> the context that the embedded engine will have, where that can be told."""
    engines = [engine for engine in loaded.settings.engines if engine.kind == "embedded"]
    found = {f"engines.{engine.name}.context_tokens": context_of(engine) for engine in engines}
    return {name: tokens for name, tokens in found.items() if tokens is not None}


def _if(name: str, value: int | None) -> dict[str, int]:
    return {} if value is None else {name: value}
