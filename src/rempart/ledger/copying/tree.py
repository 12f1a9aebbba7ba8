"""`SourceTree.require_forward`: a source's signed tree must go on from the one that was copied before.

1. The checkpoint's signature is checked with the log's verifier key.
2. A source that has fewer entries than were copied was rolled back; one of the same size must have the same root.
3. Hashes from its tiles must lead to the root that it signs, and prove that the copied tree is a prefix of it (RFC 6962
   section 2.1.2). All this is known before a byte of a replica is written.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec

from rempart.errors import LedgerCorrupt
from rempart.ledger.copying.source import Gone, Source
from rempart.ledger.log import tiles
from rempart.ledger.log.checkpoint import Checkpoint, Verifier
from rempart.ledger.log.merkle import consistency_proof, fold, range_nodes, verify_consistency
from rempart.ledger.reading.prove import TileReader

_LOG: Final = Path("log")
_KEEP: Final = "The copy is left as it is: it proves what was signed before. Keep both, and ask who changed the log."


class SourceTree(msgspec.Struct, frozen=True):
    """The tree of a source under one checkpoint."""

    source: Source
    note: bytes
    """The signed note, as it is."""
    head: Checkpoint

    @classmethod
    def read(cls, source: Source, verifier: Verifier) -> SourceTree:
        """Raises `LedgerCorrupt` unless the log's key signed its checkpoint."""
        note = source.read("log/checkpoint")
        head = verifier.open(note)
        if head.origin != verifier.name:
            raise LedgerCorrupt("The checkpoint is of another log.", hint=_KEEP)
        return cls(source, note, head)

    def require_forward(self, size: int, root: bytes) -> None:
        """`size` and `root` (32 bytes) are of what was copied. Raises `LedgerCorrupt`, which names what is wrong."""
        head = self.head
        if head.size < size:
            raise LedgerCorrupt(
                f"Roll-back: the log has {head.size} entries, and {size} were signed before.", hint=_KEEP
            )
        if head.size == size:
            if head.root != root:
                raise self._split(size)
            return
        reader = TileReader(_LOG, head.size, self._grown)
        found = fold([reader.node(level, place) for level, place in range_nodes(0, head.size)])
        if found != head.root:
            raise LedgerCorrupt(
                "The source's tiles do not lead to the root that it signs.", hint="Run 'rempart ledger fsck' there."
            )
        try:
            verify_consistency(size, head.size, root, head.root, consistency_proof(size, head.size, reader.node))
        except LedgerCorrupt as error:
            raise self._split(size) from error

    def bundle(self, number: int) -> list[bytes]:
        """Entries of one bundle, as far as the checkpoint covers them. Raises `LedgerCorrupt`, `Gone`."""
        width = min(self.head.size - number * tiles.TILE_WIDTH, tiles.TILE_WIDTH)
        try:
            return tiles.decode_bundle(self.source.read(f"log/{tiles.bundle_path(number, width)}"), width)
        except Gone:
            if width == tiles.TILE_WIDTH:
                raise
        return tiles.decode_bundle(self.source.read(f"log/{tiles.bundle_path(number)}"), tiles.TILE_WIDTH)[:width]

    def _grown(self, partial: Path, full: Path) -> bytes:
        try:
            return self.source.read(str(partial))
        except Gone:
            if partial == full:
                raise
        return self.source.read(str(full))

    def _split(self, size: int) -> LedgerCorrupt:
        return LedgerCorrupt(
            f"Split view: this log signs another history than the one of {size} entries that was signed before.",
            hint=_KEEP,
        )
