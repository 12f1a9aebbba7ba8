"""`verify_chain`: a ledger, and the logs that it continues (docs/backup.md): each whole, and named by the next.

The first entry of a log that continues another states that one's origin, size and root. So the old entries are proven
by the new log's checkpoint, whatever became of the old log's key.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from rempart.errors import LedgerCorrupt
from rempart.ledger.log import entry as entries
from rempart.ledger.log.checkpoint import Verifier, parse_note
from rempart.ledger.reading.entries import EntryReader
from rempart.ledger.reading.examine import Examined, Progress, examine
from rempart.ledger.reading.faults import Fault, Sink
from rempart.ledger.reading.verify import raise_first, verify
from rempart.ledger.store.logfiles import VKEY, previous_directory, previous_logs, read_file

_RESTORE: Final = "Keep the directory as it is, and restore previous/ from a copy."


class Continued(msgspec.Struct, frozen=True):
    """What a log says of the one before it."""

    state: Mapping[str, Any] | None = None
    """Its `origin`, `size` and `root`; None when it continues none."""
    known: bool = True
    """False: the entry that says so cannot be read."""


def verify_chain(ledger: Path, verifier: Verifier, progress: Progress | None = None) -> Examined:
    """What was found in `<data>/ledger`. Raises `LedgerCorrupt` at the first thing that does not hold."""
    examined = verify(ledger, verifier, progress)
    examine_previous(ledger, continued(ledger, examined), raise_first, progress)
    return examined


def continued(ledger: Path, examined: Examined) -> Continued:
    """Raises `LedgerCorrupt`."""
    before = previous_logs(ledger)
    if examined.size + examined.beyond > 0 or not before:
        return Continued(named_by(ledger))
    # One that was restored and has not begun has no entry yet that names the old one.
    return Continued(state_of(previous_directory(ledger, before[-1])))


def examine_previous(ledger: Path, said: Continued, sink: Sink, progress: Progress | None = None) -> dict[Path, bytes]:
    """The logs that `ledger` continues; files of theirs that can be written anew. Raises what `sink` raises.

    Each is held to its own key, and to what the next one says of it.
    """
    derived: dict[Path, bytes] = {}
    for number in reversed(previous_logs(ledger)):
        where, directory = f"previous/{number}", previous_directory(ledger, number)
        try:
            verifier = Verifier.from_vkey(read_file(directory / VKEY).decode())
        except (LedgerCorrupt, UnicodeDecodeError) as error:
            _tell(sink, where, f"Its verifier key cannot be read: {error}", _RESTORE)
            said = Continued(known=False)
            continue
        below = _Below(where, sink)
        found, some = examine(directory, verifier, below, progress)
        derived |= some.files
        if said.known and said.state != {"origin": found.origin, "size": found.size, "root": found.root}:
            _tell(sink, where, f"{where} is not the log that the next one says it continues.", _RESTORE)
        try:
            said = Continued(named_by(directory))
        except LedgerCorrupt as error:
            if not below.grave:  # else why it cannot be read has been told
                _tell(sink, where, f"Which log it continues cannot be read: {error}", _RESTORE)
            said = Continued(known=False)
    if said.state is not None:
        what = f"The log continues {said.state.get('origin')}, which is not in ledger/previous."
        _tell(sink, "", what, "Restore ledger/previous from a copy.")
    return derived


def _tell(sink: Sink, where: str, what: str, remedy: str) -> None:
    sink(Fault(kind="previous", where=where, what=what, remedy=remedy))


class _Below:
    """The sink of one of them."""

    def __init__(self, where: str, sink: Sink) -> None:
        self._where = where
        self._sink = sink
        self.grave = False

    def __call__(self, fault: Fault) -> None:
        self.grave = self.grave or fault.grave
        where = f"{self._where}/{fault.where}" if fault.where else self._where
        self._sink(msgspec.structs.replace(fault, where=where))


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
