"""`rempart key`: API keys are created, listed and revoked, whether a server runs or not."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import click

from rempart.cli import installation
from rempart.cli.options import common, settings_of, show, text_given
from rempart.identity.caller import PERMISSIONS
from rempart.wiring import administer, list_keys

_HEADS: Final = ("ID", "ROLE", "STATE", "CREATED", "EXPIRES", "REQ/MIN", "TOKENS/DAY", "MODELS", "OWNER", "NAME")
_ALL_MODELS: Final = "all"


@click.group()
def key() -> None:
    """Create, list and revoke API keys."""


@key.command(short_help="Create a key.")
@click.option("--name", required=True, help="What the key is for.")
@click.option("--role", type=click.Choice(sorted(PERMISSIONS)), default="user", show_default=True)
@click.option("--owner", default="", help="Who will use it, recorded under a pseudonym; - reads the name.")
@click.option("--model", "models", multiple=True, help="A model it may use; repeat for more [all].")
@click.option("--requests-per-minute", type=int, help="Requests it may send in each minute of the clock [no limit].")
@click.option(
    "--tokens-per-day", type=int, help="Tokens it may use in each UTC day, of prompts and answers together [no limit]."
)
@click.option("--expires-days", type=int, help="Days until it expires [never].")
@click.option(
    "--trust-subject-header", is_flag=True, help="For a trusted proxy: its x-rempart-subject names the person."
)
@common
def create(data: Path | None, config_path: Path | None, as_json: bool, **order: Any) -> None:
    """Create a key. Its text is shown now and never again."""
    settings = settings_of(data, config_path).settings
    models = list(order.pop("models")) or None
    order["owner"] = text_given(order["owner"])
    new = not installation.exists(settings.data)
    made = asyncio.run(administer(settings, "key.create", {**order, "models": models}))
    if new:
        click.echo(f"This is a new data directory: {settings.data}", err=True)
    for warning in made.get("warnings", []):
        click.echo(f"Warning: {warning}", err=True)
    if as_json:
        show(made)
        return
    click.echo(made["key"])
    click.echo(f"Key {made['id']} ({made['role']}) for {made['name']!r}. Keep it: it is not shown again.", err=True)


@key.command("list")
@common
def list_(data: Path | None, config_path: Path | None, as_json: bool) -> None:
    """List the keys, without their secrets.

    OWNER is the pseudonym under which the ledger names whoever has the key.
    """
    settings = settings_of(data, config_path).settings
    installation.require(settings.data)
    keys = asyncio.run(list_keys(settings))
    if as_json:
        show(keys)
        return
    for line in _table([_HEADS, *map(_cells, keys)]):
        click.echo(line)


@key.command(short_help="Revoke a key.")
@click.argument("id")
@common
def revoke(id: str, data: Path | None, config_path: Path | None, as_json: bool) -> None:
    """Revoke the key of that ID: it stops working within a second."""
    settings = settings_of(data, config_path).settings
    installation.require(settings.data)
    row = asyncio.run(administer(settings, "key.revoke", {"id": id}))
    if as_json:
        show(row)
    else:
        click.echo(f"Key {row['id']} ({row['name']!r}) is revoked.")


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    limits = row["limits"]
    return (
        row["id"],
        row["role"],
        _state(row),
        _day(row["created"]),
        _day(row["expires"]) if row["expires"] else "never",
        _limit(limits["requests_per_minute"]),
        _limit(limits["tokens_per_day"]),
        _ALL_MODELS if row["models"] is None else ",".join(row["models"]),
        row["actor"],
        row["name"],
    )


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    wide = [max(len(row[column]) for row in rows) for column in range(len(_HEADS))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, wide, strict=True)).rstrip() for row in rows]


def _limit(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"


def _state(row: dict[str, Any]) -> str:
    if row["revoked"]:
        return "revoked"
    if row["expires"] and row["expires"] <= datetime.now(UTC).timestamp():
        return "expired"
    return "valid"


def _day(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d")
