"""`copy`: one round from a small ledger to a replica, and what must hold of it, for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from rempart.ledger.copying.replicate import Copied, Replicator
from rempart.ledger.copying.source import FolderSource
from rempart.ledger.log import entry as entries
from rempart.ledger.reading.entries import EntryReader
from rempart.ledger.reading.fsck import Checked, fsck
from rempart.testing.small_ledger import SIGNER, SmallLedger, until

DAYS: Final = ("2026-11-22", "2026-11-23")


def copy(source: Path, replica: Path) -> Copied:
    """One round."""
    replicator = Replicator(FolderSource(source), replica, SIGNER.verifier)
    try:
        return replicator.round()
    finally:
        replicator.close()


def checked(ledger: Path) -> Checked:
    return fsck(ledger, SIGNER.verifier)


def files(ledger: Path, below: str) -> dict[str, bytes]:
    """Without unfinished tiles: a source keeps those of its earlier checkpoints for a while."""
    return {
        str(path.relative_to(ledger)): path.read_bytes()
        for path in (ledger / below).rglob("*")
        if path.is_file() and ".p/" not in str(path)
    }


async def fill(small: SmallLedger, count: int = 8, body_bytes: int = 90_000) -> None:
    """Over a change of segments when there is enough of it."""
    for number in range(count):
        await small.exchange(body_bytes, bucket=DAYS[number % 2])


async def signed(small: SmallLedger) -> None:
    await until(lambda: small.sequencer.state().lag_s == 0.0)


def holds_all(small: SmallLedger, replica: Path) -> None:
    reader = EntryReader(replica)
    assert reader.count == len(small.acknowledged)
    for index, (entry, body) in small.acknowledged.items():
        assert reader.read(index) == entry
        if body:
            facts = entries.facts(entry)
            assert reader.body(index, facts.retention, facts.bucket) == body
