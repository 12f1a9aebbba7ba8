"""`rempart ledger search` and `index`: exchanges are found by their words, and the index by which they are found."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from rempart import limits
from rempart.cli.installation import require_keys, require_ledger
from rempart.cli.options import PathOption, common, settings_of, show
from rempart.cli.reads import HOW, Reading, reader
from rempart.cli.telling import hit
from rempart.ledger.log.proof import encode
from rempart.ledger.reading.archive import Page
from rempart.ledger.reading.pack import proof_of
from rempart.ledger.reading.prove import Prover
from rempart.ledger.search.apart import build_apart
from rempart.ledger.search.following import index_ledger
from rempart.ledger.store.files import replace_durably
from rempart.ledger.store.logfiles import ledger_directory
from rempart.wiring import open_archive


@click.command(short_help="Find exchanges by what was said.")
@click.argument("query")
@click.option(
    "--limit", type=click.IntRange(1, limits.results_max), default=20, show_default=True, help="At most so many."
)
@click.option("--below", type=click.IntRange(0), help="Only entries before this index: what came after --limit.")
@click.option("--proofs", type=PathOption(), help="Directory to write the results' tlog-proofs to.")
@reader
@common
def search(query: str, limit: int, below: int | None, proofs: Path | None, as_json: bool, **asked: Any) -> None:
    """Find exchanges, the newest first. Words and fields must all hold, in the question or in the answer:

    refund "credit note" actor:"Ada Lovelace" model:qwen3 outcome:ok finding:iban class:standard after:2026-11-01

    An actor is the owner of a key, by name or pseudonym; before: and after: take UTC days, or hours (2026-11-01T17).
    Only with --reason and an auditor's key it is shown where the words stand, and who asked.
    """
    settings = settings_of(asked.pop("data"), asked.pop("config_path")).settings
    reading = Reading.of(settings, **asked)
    require_ledger(settings.data)
    require_keys(settings.data)
    archive = open_archive(settings)
    try:
        page = archive.search(query, limit=limit, below=below, disclosed=bool(reading.reason))
    finally:
        archive.close()
    snippets = sum(bool(one.snippet) for one in page.results)
    reading.record("search", found=len(page.results), bodies=snippets, query=query)
    if proofs is not None:
        _write_proofs(ledger_directory(settings.data) / "log", page, proofs)
    if as_json:
        show(page)
        return
    for one in page.results:
        click.echo(hit(one))
    _tell(page, bool(reading.reason))


def _write_proofs(log: Path, page: Page, to: Path) -> None:
    prover = Prover(log)
    indices = {index for one in page.results for index in (one.request, one.index) if index is not None}
    proofs = {to / f"{index}.tlog-proof": encode(proof_of(prover.prove(index))) for index in sorted(indices)}
    if proofs:
        replace_durably(proofs, 0o644)


def _tell(page: Page, disclosed: bool) -> None:
    """What a reader must know to judge the list, on stderr."""
    told = [] if page.results else ["Nothing was found."]
    if page.next is not None:
        told.append(f"There may be more: --below {page.next}")
    if page.behind:
        told.append(f"{page.behind:,} exchanges are not in the index yet.")
    if page.missing:
        told.append(f"{page.missing} days of the index were damaged and are being built anew: results are incomplete.")
    if page.unreadable:
        told.append(f"{page.unreadable} exchanges have the words, but can no longer be read to confirm the phrase.")
    if page.results and not disclosed:
        told.append(HOW)
    for text in told:
        click.echo(text, err=True)


@click.command(short_help="Bring the search index up to date.")
@click.option("--check", is_flag=True, help="Read all of it first, and build anew what is damaged.")
@click.option("--rebuild", is_flag=True, help="Destroy it first, and build it anew from the log.")
@common
def index(check: bool, rebuild: bool, data: Path | None, config_path: Path | None, as_json: bool) -> None:
    """Bring the search index up to date with the log. A running server does so by itself.

    It shows nothing of the ledger. What is damaged is told and built anew.
    """
    settings = settings_of(data, config_path).settings
    directory = settings.data
    require_ledger(directory)
    require_keys(directory)
    with click.progressbar(length=1, label="Indexing", file=sys.stderr, hidden=not sys.stderr.isatty()) as bar:

        def at(index: int) -> None:
            bar.label = f"Indexing, entry {index:,}"
            bar.update(0)

        built = build_apart(index_ledger, (str(directory), settings.keys, check, rebuild), at)
    if as_json:
        show(built)
        return
    for text in built.damaged:
        click.echo(f"built anew  {text}")
    click.echo(f"The index is up to date: {built.mark:,} entries, {built.added:,} of them looked at now.")
