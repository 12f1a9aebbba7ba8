"""`verify_chain`: a ledger, and the logs that it continues (docs/backup.md): each whole, and named by the next.

The first entry of a log that continues another states that one's origin, size and root. So the old entries are proven
by the new log's checkpoint, whatever became of the old log's key.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rempart.errors import LedgerCorrupt
from rempart.ledger.log import entry as entries
from rempart.ledger.log.checkpoint import Verifier, parse_note
from rempart.ledger.reading.entries import EntryReader
from rempart.ledger.reading.examine import Examined, Progress
from rempart.ledger.reading.verify import verify
from rempart.ledger.store.logfiles import VKEY, previous_directory, previous_logs, read_file


def verify_chain(ledger: Path, verifier: Verifier, progress: Progress | None = None) -> Examined:
    """What was found in `<data>/ledger`. Raises `LedgerCorrupt` at the first thing that does not hold."""
    examined = verify(ledger, verifier, progress)
    before = previous_logs(ledger)
    begun = examined.size + examined.beyond > 0
    # One that was restored and has not begun has no entry yet that names the old one.
    named = named_by(ledger) if begun or not before else state_of(previous_directory(ledger, before[-1]))
    for number in reversed(before):
        directory = previous_directory(ledger, number)
        found = verify(directory, Verifier.from_vkey(read_file(directory / VKEY).decode()), progress)
        if named != {"origin": found.origin, "size": found.size, "root": found.root}:
            raise LedgerCorrupt(
                f"previous/{number} is not the log that the next one says it continues.",
                hint="Keep the directory as it is, and restore previous/ from a copy.",
            )
        named = named_by(directory)
    if named is not None:
        raise LedgerCorrupt(
            f"The log continues {named.get('origin')}, which is not in ledger/previous.",
            hint="Restore ledger/previous from a copy.",
        )
    return examined


def named_by(ledger: Path) -> Mapping[str, Any] | None:
    """What the first entry says that this log continues; None when it says nothing, or there is no entry."""
    reader = EntryReader(ledger)
    if not reader.count:
        return None
    named = entries.decode(reader.read(0)).get("continues")
    return named if isinstance(named, dict) else None


def state_of(ledger: Path) -> dict[str, str | int]:
    """Origin, size and root (hex) that the checkpoint of `<data>/ledger` signs, for the entry of the next log."""
    _, head = parse_note(read_file(ledger / "log" / "checkpoint"))
    return {"origin": head.origin, "size": head.size, "root": head.root.hex()}
