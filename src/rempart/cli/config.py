"""`rempart config`: what the configuration is, and where each value came from."""

from __future__ import annotations

from pathlib import Path

import click

from rempart.cli.options import common, settings_of, show
from rempart.config.load import explain as explained


@click.group()
def config() -> None:
    """Look at the configuration."""


@config.command()
@common
def explain(data: Path | None, config_path: Path | None, as_json: bool) -> None:
    """Print each setting, its value, and where it came from."""
    rows = explained(settings_of(data, config_path))
    if as_json:
        show([{"name": name, "value": value, "source": source} for name, value, source in rows])
        return
    wide = max(len(name) for name, _, _ in rows)
    for name, value, source in rows:
        click.echo(f"{name:<{wide}}  {value}  ({source})")
