"""`check_prefix`: whether a log is still the one that its witnesses cosigned, and the name of what happened (pure).

A log only grows. What was cosigned must be its beginning, for ever:

- **roll-back**: more was cosigned than the log has. An old copy was put back, or its end was cut off.
- **split-view**: another tree of the same size was cosigned. Two histories were shown.
- **truncation**: what was cosigned is no prefix. The log was cut, and other entries took their place.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from rempart.errors import LedgerCorrupt
from rempart.ledger.log.checkpoint import Checkpoint
from rempart.ledger.log.merkle import NodeReader, fold, range_nodes

HINT = "Keep this directory as it is, and see docs/operations.md: a ledger that was put back from a copy begins anew."


class Breach(StrEnum):
    """What was done to a log."""

    ROLL_BACK = "roll-back"
    SPLIT_VIEW = "split-view"
    TRUNCATION = "truncation"


class Alarm(msgspec.Struct, frozen=True):
    """What a witness would not cosign, and what it has cosigned instead."""

    kind: Breach
    witness: str
    """Its name in the policy."""
    size: int
    """Entries that it has cosigned."""

    def message(self, here: int) -> str:
        """`here`: entries of this log."""
        return describe(self.kind, f"The witness {self.witness} has cosigned", self.size, here)


def describe(kind: Breach, who: str, size: int, here: int) -> str:
    """One sentence. `who` with its verb, such as "The witness w has cosigned"."""
    match kind:
        case Breach.ROLL_BACK:
            return f"{who} {size} entries; this log has {here}: it was rolled back to a backup (roll-back)."
        case Breach.SPLIT_VIEW:
            return f"{who} another tree of {size} entries: two histories of this log exist (split-view)."
        case Breach.TRUNCATION:
            return f"{who} {size} entries that are not the first ones of this log: it was cut (truncation)."


def check_prefix(
    witnessed: Checkpoint, head: Checkpoint, read: NodeReader, who: str = "Its witnesses have cosigned"
) -> None:
    """`read` reads the tree of `head`; `who`: see `describe`. Raises `LedgerCorrupt` with the name of what happened."""
    if witnessed.origin != head.origin:
        raise LedgerCorrupt(f"The witnessed checkpoint is of {witnessed.origin}, this log is {head.origin}.", hint=HINT)
    kind: Breach | None = None
    if witnessed.size > head.size:
        kind = Breach.ROLL_BACK
    elif witnessed.size == head.size:
        kind = Breach.SPLIT_VIEW if witnessed.root != head.root else None
    elif fold([read(level, place) for level, place in range_nodes(0, witnessed.size)]) != witnessed.root:
        kind = Breach.TRUNCATION
    if kind is not None:
        raise LedgerCorrupt(describe(kind, who, witnessed.size, head.size), hint=HINT)
