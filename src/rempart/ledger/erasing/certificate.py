"""`certificate`: the entry that says what was destroyed, kept or held: counts, ground and epoch, never an identity.

| type | fields |
|---|---|
| `erasure` | `certificate`, `scope`, `ground`, `by`, `role`, `epoch`, `exchanges`, `bodies`, `others`, `kept`, `keys` |
| `expiry` | `certificate`, `class`, `bucket`, `basis`, `by`, `role`, `epoch`, `exchanges`, `bodies`, `kept` |
| `hold` | `certificate`, `hold`, `change`, `scope`, `ground`, `by`, `role`, `epoch`, `exchanges` |
| `backup` | `backup`, `epoch`, `with_root`; or `backup`, `destroyed`, `by`, `role` |
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from rempart.errors import UsageError
from rempart.ledger.erasing.pending import Pending
from rempart.ledger.reading.entries import EntryReader
from rempart.wire.facts import Fact

_GROUND: Final = re.compile(r"[A-Za-z0-9 ().,/§:-]{1,64}")
_TYPES: Final = {"erase": "erasure", "expire": "expiry", "hold": "hold", "agree": "hold", "release": "hold"}
_CHANGES: Final = {"hold": "begun", "agree": "agreed", "release": "released"}


def check_ground(ground: str) -> None:
    """Raises `UsageError`. A ground stands in the log for ever: it is a clause or a file number, and no name."""
    if not _GROUND.fullmatch(ground):
        raise UsageError(
            "A ground has 1 to 64 letters, digits, spaces and ( ) . , / § : -",
            hint='Such as "GDPR 17(1)(b)" or the number of a file; never a name.',
        )


def certificate(pending: Pending, epoch: int) -> tuple[str, dict[str, Fact]]:
    """Type and fields. `epoch`: of the keystore, from which on nothing of it can be read."""
    facts: dict[str, Fact] = {"certificate": pending.id, "by": pending.by, "role": pending.role, "epoch": epoch}
    facts |= pending.counts
    match pending.verb:
        case "erase":
            facts |= {"scope": pending.wanted.scope, "ground": pending.ground, "kept": pending.kept}
        case "expire":
            retention, bucket = pending.wanted.names
            facts |= {"class": retention, "bucket": bucket, "basis": pending.ground, "kept": pending.kept}
        case "hold" | "agree" | "release":
            change = _CHANGES[pending.verb]
            facts |= {"hold": pending.hold, "change": change, "scope": pending.wanted.scope, "ground": pending.ground}
    return _TYPES[pending.verb], facts


def is_written(ledger: Path, pending: Pending) -> bool:
    """Whether its certificate is in the log. Blocks. Raises `LedgerCorrupt`."""
    needle = f'"certificate":"{pending.id}"'.encode()
    return any(needle in entry for _, entry in EntryReader(ledger).forward(pending.first))
