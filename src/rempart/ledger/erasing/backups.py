"""`Backups.since`: copies of the keys that are older than an erasure, and of which nobody said that they are gone.

Every `backup` entry is read once: what was seen stands in a row of the keystore, with the index up to which it was.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec

from rempart.errors import NotFound
from rempart.ledger.keys.keystore import Keystore
from rempart.ledger.reading.backups import Backup, stated
from rempart.ledger.reading.entries import EntryReader

_ROW: Final = ("seen", "backups")


class _Seen(msgspec.Struct):
    mark: int = 0
    known: dict[str, Backup] = {}


class Backups:
    """What the log says of copies."""

    def __init__(self, row: bytes | None) -> None:
        """`row`: as `read_row` gave it."""
        self._seen = _Seen() if row is None else msgspec.json.decode(row, type=_Seen)

    def read(self, ledger: Path) -> None:
        """Go on to the end of the log. Blocks. Raises `LedgerCorrupt`."""
        reader = EntryReader(ledger)
        for index, entry in reader.forward(min(self._seen.mark, reader.count)):
            one = stated(index, entry)
            if one is not None and one.destroyed:
                self._seen.known.pop(one.backup, None)
            elif one is not None:
                made = Backup(backup=one.backup, time=one.time, epoch=one.epoch, with_root=one.with_root)
                self._seen.known[one.backup] = made
        self._seen.mark = reader.count

    def since(self, epoch: int) -> list[Backup]:
        """Those made before the epoch, oldest first."""
        found = [one for one in self._seen.known.values() if one.epoch < epoch]
        return sorted(found, key=lambda one: (one.epoch, one.time))

    def require(self, id_: str) -> None:
        """Raises `NotFound` when no such copy is known, or it was said to be destroyed."""
        if id_ not in self._seen.known:
            raise NotFound(
                f"There is no backup {id_} that still counts.", hint="'rempart backup list' lists them; give one's id."
            )

    def begin_again(self) -> None:
        """The log that was read is to be continued by one that counts from 0."""
        self._seen.mark = 0

    def row(self) -> dict[tuple[str, str], bytes]:
        return {_ROW: msgspec.json.encode(self._seen)}


def read_row(keystore: Keystore) -> bytes | None:
    """What was seen up to now."""
    return keystore.get(*_ROW)
