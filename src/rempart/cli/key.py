"""`rempart key`: API keys are created, listed and revoked, whether a server runs or not."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from rempart.cli.options import common, settings_of, show
from rempart.identity.caller import PERMISSIONS
from rempart.wiring import administer


@click.group()
def key() -> None:
    """Create, list and revoke API keys."""


@key.command()
@click.option("--name", required=True, help="What the key is for.")
@click.option("--role", type=click.Choice(sorted(PERMISSIONS)), default="user", show_default=True)
@click.option("--owner", default="", help="Who will use it; recorded under a pseudonym.")
@click.option("--model", "models", multiple=True, help="A model it may use; repeat for more [all].")
@click.option("--requests-per-minute", type=int)
@click.option("--tokens-per-day", type=int)
@click.option("--expires-days", type=int, help="Days until it expires [never].")
@click.option(
    "--trust-subject-header", is_flag=True, help="For a trusted proxy: its x-rempart-subject names the person."
)
@common
def create(data: Path | None, config_path: Path | None, as_json: bool, **order: Any) -> None:
    """Create a key. Its text is shown now and never again."""
    models = list(order.pop("models")) or None
    made = _ask(data, config_path, "key.create", {**order, "models": models})
    if as_json:
        show(made)
        return
    click.echo(made["key"])
    click.echo(f"Key {made['id']} ({made['role']}) for {made['name']!r}. Keep it: it is not shown again.", err=True)


@key.command("list")
@common
def list_(data: Path | None, config_path: Path | None, as_json: bool) -> None:
    """List the keys, without their secrets."""
    keys = _ask(data, config_path, "key.list", {})
    if as_json:
        show(keys)
        return
    for row in keys:
        click.echo(f"{row['id']}  {row['role']:<8}{_state(row):<12}{_day(row['created'])}  {row['name']}")


@key.command()
@click.argument("id")
@common
def revoke(id: str, data: Path | None, config_path: Path | None, as_json: bool) -> None:
    """Revoke the key of that ID: it stops working within a second."""
    row = _ask(data, config_path, "key.revoke", {"id": id})
    if as_json:
        show(row)
    else:
        click.echo(f"Key {row['id']} ({row['name']!r}) is revoked.")


def _ask(data: Path | None, config_path: Path | None, verb: str, args: dict[str, Any]) -> Any:
    return asyncio.run(administer(settings_of(data, config_path).settings, verb, args))


def _state(row: dict[str, Any]) -> str:
    if row["revoked"]:
        return "revoked"
    if row["expires"] and row["expires"] <= datetime.now(UTC).timestamp():
        return "expired"
    return "valid"


def _day(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d")
