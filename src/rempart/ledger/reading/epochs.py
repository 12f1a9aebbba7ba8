"""`require_current`: keys are no older than the log says, else what was destroyed since could be read again.

The keystore counts its epoch up with each destruction of keys, and entries (`start`, `heartbeat`, `erasure`, `expiry`,
`hold`, `backup`, `keystore`) state it. An older copy of `keys/` that was put back knows nothing of what was erased
after it was made; the log does.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from rempart.errors import KeystoreError
from rempart.ledger.keys.keystore import Keystore
from rempart.ledger.log import entry as entries
from rempart.ledger.reading.entries import EntryReader
from rempart.ledger.store.logfiles import previous_directory, previous_logs

_NEEDLE: Final = b'"epoch":'
_ACCEPTED: Final = ("seen", "epoch")
_ENDED: Final = frozenset({"erasure", "expiry"})


def require_current(ledger: Path, keystore: Keystore) -> None:
    """`ledger` is `<data>/ledger`. Reads back to the newest entry that states an epoch. Raises `KeystoreError`."""
    stated = _stated(ledger)
    if keystore.epoch >= stated or keystore.get(*_ACCEPTED) == b"%d" % stated:
        return
    raise KeystoreError(
        f"These keys are of epoch {keystore.epoch}, the log was written under epoch {stated}: an older copy of keys/ "
        "was put back, and what was erased since could be read again.",
        hint="Put the newest keys/ back. If they are lost: 'rempart keys accept-older'; see docs/erasure.md.",
    )


def accept_older(ledger: Path, keystore: Keystore) -> list[int]:
    """The next start goes on with these keys; indices of the certificates of what they open again. Blocks.

    Raises `KeystoreError`, `LedgerCorrupt`.
    """
    stated = _stated(ledger)
    if keystore.epoch >= stated:
        return []
    keystore.put({_ACCEPTED: b"%d" % stated})
    undone: list[int] = []
    for index, entry in EntryReader(ledger).forward(0):
        if _NEEDLE in entry:
            fields = entries.decode(entry)
            if fields["type"] in _ENDED and int(fields["epoch"]) > keystore.epoch:
                undone.append(index)
    return undone


def _stated(ledger: Path) -> int:
    """By the newest entry that states one; of a log that has none yet, by the one it continues."""
    for _, entry in EntryReader(ledger).newest_first():
        if _NEEDLE in entry:
            epoch = entries.decode(entry).get("epoch")
            if isinstance(epoch, int):
                return epoch
    before = previous_logs(ledger)
    return _stated(previous_directory(ledger, before[-1])) if before else 0
