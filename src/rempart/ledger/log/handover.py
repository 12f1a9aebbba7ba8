"""`Handover.parse`: a log changes its key, and whoever trusts the old one is led to the new one (pure).

A handover is a C2SP tlog-proof of the entry of type `log-key` that names both keys, and it is kept for ever. Only the
old key has to be believed beforehand; with the old key destroyed, no one can make another.

1. The checkpoint in the proof is signed by the old key and by the new one.
2. The entry stands in the tree that they signed.
3. The entry says that this old key hands over to this new key.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from rempart.errors import LedgerCorrupt
from rempart.ledger.log import entry as entries
from rempart.ledger.log.checkpoint import Checkpoint, Verifier
from rempart.ledger.log.merkle import leaf_hash, verify_inclusion
from rempart.ledger.log.proof import parse

TYPE: Final = "log-key"
BEGUN: Final = "begun"
ENDED: Final = "ended"


class Handover(msgspec.Struct, frozen=True):
    """From one key to the next. It holds in itself; whether `old` is to be believed is for the reader."""

    index: int
    """Of the entry."""
    old: Verifier
    new: Verifier
    head: Checkpoint
    """What both have signed: it must be the beginning of the log."""

    @classmethod
    def parse(cls, data: bytes) -> Handover:
        """Raises `LedgerCorrupt` unless all three steps hold."""
        proof = parse(data)
        fields = entries.decode(proof.extra)
        if (fields.get("type"), fields.get("change")) != (TYPE, BEGUN):
            raise LedgerCorrupt("The entry of the handover is of another kind.")
        old, new = (Verifier.from_vkey(str(fields.get(name))) for name in ("old", "new"))
        head = old.open(proof.checkpoint)
        new.open(proof.checkpoint)
        if not old.name == new.name == head.origin:
            raise LedgerCorrupt("The handover is of another log.")
        verify_inclusion(proof.index, head.size, leaf_hash(proof.extra), proof.hashes, head.root)
        return cls(proof.index, old, new, head)


def followed(trusted: Verifier, handovers: Sequence[Handover]) -> list[Handover]:
    """Those that lead on from `trusted`, in the order of the log."""
    found: list[Handover] = []
    for one in sorted(handovers, key=lambda one: one.index):
        if one.old.vkey == (found[-1].new if found else trusted).vkey:
            found.append(one)
    return found


def led_to(trusted: Verifier, handovers: Sequence[Handover]) -> Verifier:
    """The key that whoever believes `trusted` is to believe now."""
    found = followed(trusted, handovers)
    return found[-1].new if found else trusted
