"""`rempart backup`: data and keys are copied apart, listed, and come back."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import click
import msgspec

from rempart.cli.installation import require_ledger
from rempart.cli.options import PathOption, common, progress, settings_of, show
from rempart.config.settings import Settings
from rempart.errors import UsageError
from rempart.ledger.copying import restore as restoring
from rempart.ledger.copying.backup import SETTINGS, Backup, Made, Places, Record, Recorded
from rempart.ledger.copying.restore import Restored
from rempart.ledger.log.checkpoint import Verifier
from rempart.ledger.reading.backups import backups
from rempart.ledger.store.logfiles import ledger_directory
from rempart.ledger.writing.opening import read_vkey
from rempart.wiring import administer


@click.group()
def backup() -> None:
    """Copy data and keys, apart, and bring them back."""


@backup.command(short_help="Back up data and keys, to two places.")
@click.option("--to", type=PathOption(), required=True, help="Directory of the data; brought forward when it is one.")
@click.option(
    "--keys-to", type=PathOption(), help="Directory of the keys, on another device: one of each backup in it."
)
@click.option("--without-keys", is_flag=True, help="The data alone.")
@click.option("--keys-only", is_flag=True, help="The keys alone: --to is their directory.")
@click.option("--same-device", is_flag=True, help="The keys may lie on the device of the data.")
@common
def create(
    to: Path,
    keys_to: Path | None,
    data: Path | None,
    config_path: Path | None,
    as_json: bool,
    **how: bool,
) -> None:
    """Back up the ledger, the API keys and the settings to one place, and the keys that open what was said to another.

    Works while a server runs; everything that was answered before it began is in it. It is recorded in the ledger: keys
    that are destroyed later are still in the copies from before.
    """
    settings = settings_of(data, config_path).settings
    require_ledger(settings.data)
    places = _places(to, keys_to, **how)
    maker = Backup(settings.data, Verifier.from_vkey(read_vkey(settings.data)), _record(settings))
    with progress("Copying") as tell:
        made = maker.create(places, tell)
    if as_json:
        show(made)
    else:
        _tell_made(made)


@backup.command("list")
@common
def list_(data: Path | None, config_path: Path | None, as_json: bool) -> None:
    """List the backups that the ledger records, newest first.

    EPOCH counts how often keys were destroyed: a copy of keys of an earlier epoch still holds what was destroyed since.
    """
    settings = settings_of(data, config_path).settings
    require_ledger(settings.data)
    found = backups(ledger_directory(settings.data))
    if as_json:
        show(found)
        return
    if not found:
        click.echo("No backup is recorded.", err=True)
        return
    click.echo(f"{'BACKUP':<32}  {'TIME':<27}  {'EPOCH':>5}  {'ROOT':<4}  ENTRY")
    for one in found:
        root = "yes" if one.with_root else "no"
        state = ", destroyed" if one.destroyed else ""
        click.echo(f"{one.backup}  {one.time:<27}  {one.epoch:>5}  {root:<4}  {one.index}{state}")


@backup.command(short_help="Bring a backup back to a new data directory.")
@click.argument("source", metavar="FROM", type=PathOption())
@click.option("--keys", type=PathOption(), required=True, help="The keys of a backup: the directory with its id.")
@click.option(
    "--checkpoint", "checkpoints", type=PathOption(), multiple=True, help="A checkpoint that was seen elsewhere."
)
@click.option("--new-log", is_flag=True, help="Begin a new log that continues the old one.")
@common
def restore(source: Path, keys: Path, data: Path | None, as_json: bool, **said: Any) -> None:
    """Bring the backup FROM back to the data directory, which must not exist yet.

    Everything is verified. When a checkpoint that was seen elsewhere is ahead of what came back, a new log begins, so
    that no index is used twice; the old entries stay beside it.
    """
    beside = source / SETTINGS
    settings = settings_of(data, said["config_path"] or (beside if beside.exists() else None)).settings
    if said["config_path"] is None and settings.keys.pkcs11_library is not None:
        raise UsageError(
            f"{beside} names a library that would be loaded, and nobody signed that file.",
            hint="Look at it, or at a copy of your own, and give it with --config.",
        )
    order = restoring.Order(
        backup=source,
        keys=keys,
        data=settings.data,
        settings=settings.keys,
        witnessed=[_read(path) for path in said["checkpoints"]],
        new_log=said["new_log"],
    )
    with progress("Restoring") as tell:
        restored = restoring.restore(order, tell)
    if as_json:
        show(restored)
    else:
        _tell_restored(restored, settings.data)


def _places(to: Path, keys_to: Path | None, *, without_keys: bool, keys_only: bool, same_device: bool) -> Places:
    if sum((keys_to is not None, without_keys, keys_only)) != 1:
        raise UsageError(
            "It is not clear what happens to the keys.",
            hint="Give one of --keys-to DIRECTORY, --without-keys and --keys-only.",
        )
    if keys_only:
        return Places(data=None, keys=to, same_device=same_device)
    return Places(data=to, keys=keys_to, same_device=same_device)


def _record(settings: Settings) -> Record:
    def record(id_: str, with_root: bool) -> Recorded:
        told = asyncio.run(administer(settings, "backup.record", {"backup": id_, "with_root": with_root}))
        return msgspec.convert(told, Recorded)

    return record


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}.", hint="Check --checkpoint.") from error


def _tell_made(made: Made) -> None:
    click.echo(f"Backup {made.backup}, entry {made.index} of the ledger, epoch {made.epoch} of the keys.")
    if made.data:
        click.echo(f"  data   {made.data}: {made.size:,} entries, root {made.root}")
    if made.keys:
        click.echo(f"  keys   {made.keys}")
        click.echo("Keep them apart: together they open everything that was said.")


def _tell_restored(restored: Restored, data: Path) -> None:
    click.echo(f"{data}: {restored.restored:,} entries came back, root {restored.root}")
    click.echo("ATTENTION  What was erased since that backup can be read again: erase it again.")
    if restored.new_log:
        click.echo(f"A new log begins: {restored.why}")
        click.echo(f"  the old one   ledger/previous/{restored.previous}, readable and verifiable as it was")
        click.echo(f"  origin        {restored.origin}")
        click.echo(f"  verifier key  {restored.vkey}")
        click.echo("Give the new verifier key to your auditors and witnesses.")
        return
    if restored.open:
        click.echo(f"{restored.open:,} exchanges were open; they are closed as lost at the first start.")
    click.echo(
        f"ATTENTION  The same log goes on at entry {restored.restored}. If anybody has seen later entries of it, "
        "restore again with --new-log."
    )
