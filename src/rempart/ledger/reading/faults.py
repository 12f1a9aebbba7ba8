"""`Fault`: one thing of a ledger that does not hold, and what to do about it (values)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias

import msgspec

RESTORE: Final = "Keep the directory as it is; restore the file from a copy, and compare the checkpoint with a witness."
DERIVE: Final = "Run 'rempart ledger fsck --repair': it can be derived from what is there."
DISTRUST: Final = "Keep the directory as it is, and compare it with a copy or a witness: this is no accident of a disk."
NOTHING: Final = "Nothing: it does no harm, and the next start clears it up."


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """What, where, which entries, what to do."""

    kind: str
    """`checkpoint`, `root`, `tile`, `bundle`, `entry`, `segment`, `body`, `exchange`, `rollback`, `clock`, `left`,
    `previous`."""
    where: str
    """File below `<data>/ledger`, or empty."""
    what: str
    first: int | None = None
    """Index of the first entry that is affected; None when none is."""
    last: int | None = None
    remedy: str
    grave: bool = True
    """False: worth knowing, and the ledger holds all the same."""


Sink: TypeAlias = Callable[[Fault], None]
"""Takes a fault; the one of `verify` raises."""
