"""`verify`: the whole ledger of a data directory, checked without any secret; the first fault raises."""

from __future__ import annotations

from pathlib import Path

from rempart.errors import LedgerCorrupt
from rempart.ledger.log.checkpoint import Verifier
from rempart.ledger.reading.examine import Examined, Progress, examine
from rempart.ledger.reading.faults import Fault


def verify(ledger: Path, verifier: Verifier, progress: Progress | None = None) -> Examined:
    """`ledger` is `<data>/ledger`. Raises `LedgerCorrupt` at the first thing that does not hold."""
    return examine(ledger, verifier, raise_first, progress)[0]


def raise_first(fault: Fault) -> None:
    """A sink: raises `LedgerCorrupt` at what is grave."""
    if fault.grave:
        where = f" ({fault.where})" if fault.where else ""
        raise LedgerCorrupt(f"{fault.what}{where}", hint=f"{fault.remedy} 'rempart ledger fsck' names all faults.")
