"""`Backups.since`: copies of the keys that are older than an erasure, and of which nobody said that they are gone.

Every `backup` entry is read once: what was seen stands in a row of the keystore, with the index up to which it was.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import msgspec

from rempart.errors import NotFound
from rempart.ledger.keys.keystore import Keystore
from rempart.ledger.log import entry as entries
from rempart.ledger.reading.entries import EntryReader

_ROW: Final = ("seen", "backups")
_NEEDLE: Final = b'"type":"backup"'


class Backup(msgspec.Struct, frozen=True, kw_only=True):
    """One copy that may still exist."""

    backup: str
    epoch: int
    """Of the keystore when it was made."""
    with_root: bool
    """Whether the copy opens by itself."""
    time: str


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
        for _, entry in reader.forward(min(self._seen.mark, reader.count)):
            if _NEEDLE in entry:
                self._see(entries.decode(entry))
        self._seen.mark = reader.count

    def _see(self, fields: dict[str, Any]) -> None:
        id_ = str(fields["backup"])
        if fields.get("destroyed"):
            self._seen.known.pop(id_, None)
        else:
            self._seen.known[id_] = Backup(
                backup=id_,
                epoch=int(fields["epoch"]),
                with_root=bool(fields["with_root"]),
                time=str(fields["time"]),
            )

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
