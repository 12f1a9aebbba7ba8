"""`backups`: the backups that a ledger records, newest first."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec

from rempart.ledger.log import entry as entries
from rempart.ledger.reading.entries import EntryReader
from rempart.ledger.store.logfiles import previous_directory, previous_logs

_BACKUP: Final = b'"type":"backup"'


class Listed(msgspec.Struct, frozen=True, kw_only=True):
    """One of them."""

    backup: str
    """32 hex."""
    time: str
    epoch: int
    """Of the keystore then: at a later epoch, what was destroyed since is still in it."""
    with_root: bool
    """It opens by itself, or with a passphrase."""
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
            if _BACKUP in entry and (fields := entries.decode(entry))["type"] == "backup":
                if fields.get("destroyed"):
                    destroyed.add(str(fields["backup"]))
                    continue
                gone = fields["backup"] in destroyed
                found.append(msgspec.convert({**fields, "index": index, "destroyed": gone}, Listed))
    return found
