"""`backups`: the backups that a ledger records, newest first."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec

from rempart.errors import LedgerCorrupt
from rempart.ledger.log import entry as entries
from rempart.ledger.reading.entries import EntryReader
from rempart.ledger.store.logfiles import previous_directory, previous_logs

_BACKUP: Final = b'"type":"backup"'


class Backup(msgspec.Struct, frozen=True, kw_only=True):
    """One of them."""

    backup: str
    """32 hex."""
    time: str
    epoch: int = 0
    """Of the keystore then: at a later epoch, what was destroyed since is still in it."""
    with_root: bool = False
    """It opens by itself, or with a passphrase."""


class Listed(Backup, frozen=True, kw_only=True):
    """One of them, where it stands."""

    log: str
    index: int
    destroyed: bool = False
    """Somebody stated, in a later entry, that no copy of it exists any more."""


def backups(ledger: Path) -> list[Listed]:
    """Of this log and of those that it continues; `ledger` is `<data>/ledger`. Raises `LedgerCorrupt`."""
    found: list[Listed] = []
    destroyed: set[str] = set()
    for directory in (ledger, *(previous_directory(ledger, one) for one in reversed(previous_logs(ledger)))):
        for index, entry in EntryReader(directory).newest_first():
            one = stated(index, entry)
            if one is not None and one.destroyed:
                destroyed.add(one.backup)
            elif one is not None:
                found.append(msgspec.structs.replace(one, destroyed=one.backup in destroyed))
    return found


def stated(index: int, entry: bytes) -> Listed | None:
    """What an entry says of a backup: that it was made, or with `destroyed` that it exists no more; None: nothing.

    Raises `LedgerCorrupt`.
    """
    if _BACKUP not in entry or (fields := entries.decode(entry))["type"] != "backup":
        return None
    try:
        return msgspec.convert({**fields, "index": index}, Listed)
    except msgspec.ValidationError as error:
        raise LedgerCorrupt(f"Entry {index} tells of a backup what no gateway writes: {error}.") from error
