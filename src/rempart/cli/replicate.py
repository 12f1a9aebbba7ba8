"""`rempart ledger replicate`: an exact copy of the ledger elsewhere, which verifies by itself."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import click

from rempart import limits
from rempart.cli.installation import require_ledger
from rempart.cli.options import PathOption, common, progress, settings_of, show
from rempart.errors import LedgerCorrupt, LedgerUnavailable, UsageError
from rempart.ledger.copying.remote import RemoteSource
from rempart.ledger.copying.replicate import Copied, Replicator
from rempart.ledger.copying.source import FolderSource, Source
from rempart.ledger.log.checkpoint import Verifier
from rempart.ledger.store.logfiles import ledger_directory
from rempart.ledger.store.ownership import own
from rempart.ledger.writing.opening import read_vkey
from rempart.wiring import ledger_source

_log: Final = logging.getLogger("rempart.ledger")


@click.command(short_help="Keep a copy of the ledger elsewhere.")
@click.argument("directory", type=PathOption())
@click.option("--from", "url", help="Copy from this gateway over HTTPS [the data directory].")
@click.option("--key-file", type=PathOption(), help="File with the API key of an auditor, for --from.")
@click.option("--ca-file", type=PathOption(), help="PEM file of the authorities that may sign its certificate.")
@click.option("--vkey", help="Verifier key that you trust; needed at the first copy --from elsewhere.")
@click.option("--once/--follow", "once", default=True, help="Copy what there is [default], or go on as it grows.")
@common
def replicate(
    directory: Path,
    url: str | None,
    once: bool,
    data: Path | None,
    config_path: Path | None,
    as_json: bool,
    **remote: Path | str | None,
) -> None:
    """Bring the copy in DIRECTORY forward: log and encrypted bodies, no keys. Check it with ledger verify --data.

    It refuses to go backwards or sideways: a log that was rolled back, or signs another history, ends it with 1, and
    the copy stays as it was. It may be cut off at any moment, and goes on from there.
    """
    settings = settings_of(data, config_path).settings
    given = remote["vkey"]
    vkey = None if given is None else _given(str(given))
    source: Source
    if url is None:
        require_ledger(settings.data)
        source = FolderSource(ledger_directory(settings.data))
        verifier = vkey or Verifier.from_vkey(read_vkey(settings.data))
    else:
        source = ledger_source(url, _path(remote["key_file"]), _path(remote["ca_file"]))
        verifier = vkey or _known(directory)
    with own(directory), _replicator(source, directory, verifier) as replicator:
        _tell(_first(replicator), directory, as_json)
        while not once:
            time.sleep(limits.replica_follow_s)
            _go_on(replicator, directory, as_json)


@contextmanager
def _replicator(source: Source, directory: Path, verifier: Verifier) -> Iterator[Replicator]:
    replicator = Replicator(source, ledger_directory(directory), verifier)
    try:
        yield replicator
    finally:
        replicator.close()
        if isinstance(source, RemoteSource):
            source.close()


def _first(replicator: Replicator) -> Copied:
    with progress("Copying") as tell:
        return replicator.round(tell)


def _go_on(replicator: Replicator, directory: Path, as_json: bool) -> None:
    """A gateway that is down for a while is waited for; one that signs another history is not."""
    try:
        copied = replicator.round()
    except LedgerUnavailable as error:
        _log.warning("nothing copied", extra={"reason": error.message})
        return
    if copied.entries or copied.expired:
        _tell(copied, directory, as_json)


def _tell(copied: Copied, directory: Path, as_json: bool) -> None:
    if as_json:
        show(copied)
        sys.stdout.flush()
        return
    click.echo(
        f"{directory}: {copied.size:,} entries of {copied.origin}, {copied.entries:,} of them new, "
        f"{copied.body_bytes:,} bytes of bodies; root {copied.root}"
    )


def _known(directory: Path) -> Verifier:
    """The key that the first copy was made under: it is not taken from the other side."""
    path = ledger_directory(directory) / "log.vkey"
    if not path.exists():
        raise UsageError(
            "The first copy from a gateway needs the key of its log.",
            hint="Give --vkey KEY, as 'rempart ledger key' prints it there.",
        )
    return Verifier.from_vkey(path.read_text(errors="replace"))


def _given(vkey: str) -> Verifier:
    try:
        return Verifier.from_vkey(vkey)
    except LedgerCorrupt as error:
        raise UsageError(f"--vkey: {error.message}", hint=error.hint) from error


def _path(value: Path | str | None) -> Path | None:
    return None if value is None else Path(value)
