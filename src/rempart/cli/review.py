"""`rempart ledger review` and `reviews`: the periodic review that laws ask for, recorded where it looks."""

from __future__ import annotations

import asyncio
import html
from pathlib import Path
from typing import Any, Final

import click
import msgspec

from rempart.cli.installation import require_ledger
from rempart.cli.options import PathOption, common, settings_of, show, text_given
from rempart.errors import UsageError
from rempart.ledger.reading.review import Period, due, period, remember, reviews
from rempart.ledger.store.logfiles import ledger_directory
from rempart.wiring import administer

_PAGE: Final = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Review of the ledger</title>
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<style>body{{font:16px/1.5 system-ui,sans-serif;max-width:42rem;margin:2rem auto;padding:0 1rem;color:#1a1a1a}}
table{{border-collapse:collapse;width:100%}}th,td{{text-align:left;vertical-align:top;padding:.4rem .6rem;
border-bottom:1px solid #ccc}}th{{width:12rem;font-weight:600}}</style></head>
<body><h1>Review of the ledger</h1><table>
{rows}
</table></body></html>
"""


@click.command(short_help="Record a review of the ledger.")
@click.option("--by", required=True, help="Who reviews, recorded under a pseudonym; - reads the name.")
@click.option("--note", required=True, help="What was found and done, recorded encrypted; - reads it.")
@click.option("--html", "page", type=PathOption(), help="Write the report to this file as well, as a page.")
@common
def review(by: str, note: str, page: Path | None, data: Path | None, config_path: Path | None, as_json: bool) -> None:
    """Report what is in the ledger since the last review, and record that it was reviewed.

    Counts by outcome, gaps of 'ledger reconcile', alarms. For 45 CFR 164.308(a)(1)(ii)(D) and its like.
    """
    settings = settings_of(data, config_path).settings
    require_ledger(settings.data)
    by, note = text_given(by), text_given(note)
    ledger = ledger_directory(settings.data)
    covered = period(ledger)
    args = {"by": by, "note": note, "period": msgspec.to_builtins(covered)}
    made = asyncio.run(administer(settings, "review.record", args))
    found = reviews(ledger)
    remember(ledger, found[0].time)
    told = {**made, "due": due(ledger, found, settings.ledger.review_days), **msgspec.to_builtins(covered)}
    if page is not None:
        _write(page, _html(told, by, note))
    if as_json:
        show(told)
    else:
        click.echo("\n".join(f"{name:<16}{text}" for name, text in _rows(told, by, note)))


@click.command("reviews", short_help="List the reviews, and when the next is due.")
@common
def reviews_(data: Path | None, config_path: Path | None, as_json: bool) -> None:
    """List the reviews, newest first, and say when the next one is due."""
    settings = settings_of(data, config_path).settings
    require_ledger(settings.data)
    ledger = ledger_directory(settings.data)
    found = reviews(ledger)
    next_one = due(ledger, found, settings.ledger.review_days)
    if as_json:
        show({"reviews": found, "due": next_one})
        return
    for one in found:
        click.echo(
            f"{one.index:>8}  {one.time}  {one.by}  entries {one.first} to {one.last}  gaps: {_counts(one.gaps)}"
        )
    click.echo(f"The next review is due on {next_one}.")


def _rows(told: dict[str, Any], by: str, note: str) -> list[tuple[str, str]]:
    covered = msgspec.convert(told, Period)
    return [
        ("Review", f"entry {told['index']}, by {by} ({told['by']})"),
        ("Period", f"{covered.began} to {covered.ended}"),
        ("Entries", f"{covered.first} to {covered.last}"),
        ("Requests", f"{covered.requests:,}"),
        ("Outcomes", _counts(covered.outcomes)),
        ("Other entries", _counts(covered.events)),
        ("Gaps", _counts(covered.gaps)),
        ("Alarms", _counts(covered.alarms)),
        ("Note", note),
        ("Next due", str(told["due"])),
    ]


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in counts.items()) or "none"


def _html(told: dict[str, Any], by: str, note: str) -> str:
    rows = [
        f"<tr><th>{html.escape(name)}</th><td>{html.escape(text)}</td></tr>" for name, text in _rows(told, by, note)
    ]
    return _PAGE.format(rows="\n".join(rows))


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(
            f"{path} cannot be written: {error.strerror}.", hint="The review is recorded; see reviews."
        ) from error
