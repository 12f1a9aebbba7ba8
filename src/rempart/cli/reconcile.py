"""`rempart ledger reconcile`: is what the ledger holds all that was done?"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Final

import click
import msgspec

from rempart.cli.installation import require_ledger
from rempart.cli.options import common, settings_of, show
from rempart.cli.telling import counted
from rempart.errors import UsageError
from rempart.ledger.reading.reconcile import COUNTS, EngineRow, Reconciled
from rempart.ledger.reading.reconcile import reconcile as reconcile_ledger
from rempart.ledger.store.logfiles import ledger_directory

_SINCE: Final = re.compile(r"[0-9]{4}(-[0-9]{2}){0,2}|[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]{2,15}Z?")


@click.command(short_help="Hold the ledger to what was counted beside it.")
@click.option("--since", default="", help="Leave out runs that ended before this UTC day or time [all].")
@common
def reconcile(since: str, data: Path | None, config_path: Path | None, as_json: bool) -> None:
    """Compare, for each engine and run of the server, what is recorded, what was counted, and what engines say.

    Exits with 1 when anything is missing: an engine that served more than the ledger holds, minutes without a
    heartbeat, a clock that jumped.
    """
    if since and not _SINCE.fullmatch(since):
        raise UsageError(f"--since {since!r} is no day or time.", hint="Such as 2026-11-23, or 2026-11-23T17:00:00Z.")
    directory = settings_of(data, config_path).settings.data
    require_ledger(directory)
    found = reconcile_ledger(ledger_directory(directory), since)
    if as_json:
        show({"holds": found.holds, **msgspec.to_builtins(found)})
    else:
        _tell(found)
    sys.exit(0 if found.holds else 1)


def _tell(found: Reconciled) -> None:
    for row in found.engines:
        _tell_row(row)
    for gap in found.gaps:
        click.echo(f"GAP  {gap.kind}  entry {gap.index}, run {gap.boot[:8]}\n  {gap.what}")
    if found.more:
        click.echo(f"... and {found.more:,} more.")
    verdict = "Nothing is missing" if found.holds else "Something is MISSING"
    click.echo(f"{verdict}: {counted(found.boots, 'run')} of the server, {counted(found.heartbeats, 'heartbeat')}.")


def _tell_row(row: EngineRow) -> None:
    click.echo(f"run {row.boot[:8]}  engine {row.engine}")
    click.echo(f"  {'':<22}{'RECORDED':>12}{'COUNTED':>12}{'ENGINE SAYS':>13}{'ALLOWED':>9}")
    for name in COUNTS:
        kind = name.removeprefix("tokens_") if name.startswith("tokens_") else ""
        says = f"{row.served[kind]:,}" if kind and row.served is not None else "-"
        allowed = f"{row.allowance[kind]:,}" if kind else "-"
        label = name.replace("_", " of ") if kind else name
        click.echo(f"  {label:<22}{row.recorded[name]:>12,}{row.counted[name]:>12,}{says:>13}{allowed:>9}")
    if row.served is not None and not row.compared:
        click.echo("  never idle at a heartbeat: what the engine says could not be compared")
