"""`believed`: the key that a log signs with now, for whoever trusts one of its earlier keys.

    <data>/ledger/handovers/<index of the entry, 20 digits>.tlog-proof

1. Each file is a handover that holds in itself (`Handover.parse`).
2. From the trusted key they are followed, oldest first.
3. The tree under the log's own checkpoint begins with the tree that the two keys signed.

The key that is returned has still to open the checkpoint. Without handovers it is the trusted one.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from rempart.errors import LedgerCorrupt
from rempart.ledger.log.checkpoint import Checkpoint, Verifier, parse_note, read_note, signed_by
from rempart.ledger.log.consistency import check_prefix
from rempart.ledger.log.handover import Handover, followed
from rempart.ledger.log.proof import parse
from rempart.ledger.reading.prove import Proven, TileReader
from rempart.ledger.store.logfiles import is_replica, read_file

_DIRECTORY: Final = "handovers"
_NAME: Final = re.compile(r"([0-9]{20})\.tlog-proof")
_WHO: Final = "Its former key has signed"


def handover_path(ledger: Path, index: int) -> Path:
    """`ledger` is `<data>/ledger`."""
    return ledger / _DIRECTORY / f"{index:020d}.tlog-proof"


def handover_indices(ledger: Path) -> list[int]:
    """Of the entries with which a key was changed, ascending."""
    names = (_NAME.fullmatch(path.name) for path in (ledger / _DIRECTORY).glob("*.tlog-proof"))
    return sorted(int(name[1]) for name in names if name)


def handover_files(ledger: Path) -> list[tuple[Handover, bytes]]:
    """Ascending, with the bytes of each. Raises `LedgerCorrupt` when one does not hold in itself."""
    read = ((index, read_file(handover_path(ledger, index))) for index in handover_indices(ledger))
    return [(parse_handover(index, data), data) for index, data in read]


def read_handovers(ledger: Path) -> list[Handover]:
    """Ascending. Raises `LedgerCorrupt` when one does not hold in itself."""
    return [one for one, _ in handover_files(ledger)]


def parse_handover(index: int, data: bytes) -> Handover:
    """The file of the entry `index`. Raises `LedgerCorrupt`, which names it."""
    try:
        handover = Handover.parse(data)
        if handover.index != index:
            raise LedgerCorrupt("It is of another entry.")
    except LedgerCorrupt as error:
        name = handover_path(Path(), index)
        raise LedgerCorrupt(f"{error.message} ({name})", hint="Restore it from a copy of the ledger.") from error
    return handover


def proofs(ledger: Path) -> list[Proven]:
    """The same as proofs of their entries, for whoever follows them elsewhere. Raises `LedgerCorrupt`."""
    read = [parse(read_file(handover_path(ledger, index))) for index in handover_indices(ledger)]
    return [
        Proven(index=one.index, entry=one.extra, hashes=list(one.hashes), checkpoint=one.checkpoint) for one in read
    ]


def believed(ledger: Path, trusted: Verifier) -> Verifier:
    """Raises `LedgerCorrupt` unless the handovers hold and are on the beginning of this log."""
    handovers = read_handovers(ledger)
    if not handovers:
        return trusted
    head = parse_note(read_file(ledger / "log" / "checkpoint"))[1]
    if is_replica(ledger):  # what was copied before the checkpoint counts for nothing yet
        handovers = [one for one in handovers if one.head.size <= head.size]
    path = followed(trusted, handovers)
    check_beginning(ledger / "log", head, path)
    return path[-1].new if path else trusted


def check_beginning(log: Path, head: Checkpoint, handovers: list[Handover]) -> None:
    """Each is on the beginning of the tree of `head`, whose tiles lie in `log`. Raises `LedgerCorrupt`."""
    read = TileReader(log, head.size).node
    for one in handovers:
        check_prefix(one.head, head, read, _WHO)


def open_note(trusted: Verifier, handovers: list[Handover], note: bytes) -> Checkpoint:
    """What one of the keys that the log has had signed. Raises `LedgerCorrupt` when none did."""
    read = read_note(note)
    keys = [trusted, *(key for one in handovers for key in (one.new, one.old))]
    return next((key for key in keys if signed_by(key, read)), trusted).open(note)
