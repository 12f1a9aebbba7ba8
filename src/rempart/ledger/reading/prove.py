"""`prove`: that an entry stands in the log, from its tiles: what anyone can check with the verifier key alone.

C2SP tlog-tiles; RFC 6962 section 2.1.1. Works while a server writes: a partial tile that has just become full is read
as the full one.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec

from rempart.errors import LedgerCorrupt, NotFound
from rempart.ledger.log import tiles
from rempart.ledger.log.checkpoint import parse_note
from rempart.ledger.log.merkle import inclusion_proof, leaf_hash, root_of
from rempart.ledger.store.logfiles import read_bundle, read_file, read_grown


class Proven(msgspec.Struct, frozen=True, kw_only=True):
    """An entry and its way to the signed root."""

    index: int
    entry: bytes
    hashes: list[bytes]
    """Inclusion proof, from the leaf's sibling up."""
    checkpoint: bytes
    """The signed note that covers it, as it is."""


class TileReader:
    """Hashes of the tree of `size` leaves whose tiles lie in `log`; it keeps what it has read."""

    def __init__(self, log: Path, size: int, read: Callable[[Path, Path], bytes] | None = None) -> None:
        """`read`: a partial file, or the full one that has taken its place; without it: `read_grown`."""
        self._log = log
        self._size = size
        self._read = read or read_grown
        self._tiles: dict[tuple[int, int], list[bytes]] = {}

    def node(self, level: int, place: int) -> bytes:
        """Hash of a perfect subtree. Raises `LedgerCorrupt` when its tile is missing or damaged."""
        tile_level, within = divmod(level, tiles.TILE_BITS)
        first = place << within
        hashes = self.tile(tile_level, first // tiles.TILE_WIDTH)
        at = first % tiles.TILE_WIDTH
        found = hashes[at : at + (1 << within)]
        if len(found) != 1 << within:
            raise LedgerCorrupt(f"Tile {first // tiles.TILE_WIDTH} of level {tile_level} is too short.")
        return root_of(found)

    def tile(self, level: int, number: int) -> list[bytes]:
        """All hashes of a tile. Raises `LedgerCorrupt` when it is missing or too short."""
        found = self._tiles.get((level, number))
        if found is None:
            width = self._width(level, number)
            path = self._log / tiles.tile_path(level, number, width)
            data = self._read(path, self._log / tiles.tile_path(level, number))
            found = self._tiles[level, number] = tiles.decode_tile(data[: width * 32], width)
        return found

    def _width(self, level: int, number: int) -> int:
        whole = self._size >> tiles.TILE_BITS * level
        return min(whole - number * tiles.TILE_WIDTH, tiles.TILE_WIDTH)


class Prover:
    """Proofs of many entries under one checkpoint, each tile read once."""

    def __init__(self, log: Path, note: bytes | None = None) -> None:
        """`note`: an older checkpoint of this log, which must be known to be one; without it: the newest."""
        self._log = log
        newest = read_file(log / "checkpoint")
        self.checkpoint = newest if note is None else note
        """The signed note, as it is."""
        _, self.head = parse_note(self.checkpoint)
        # Partial tiles of an older size may be gone, and those of the newest hold all that it needs.
        self._grown = parse_note(newest)[1].size
        self._reader = TileReader(log, self._grown)

    def prove(self, index: int) -> Proven:
        """Raises `NotFound` when the checkpoint does not cover `index` (yet)."""
        size = self.head.size
        if not 0 <= index < size:
            raise NotFound(
                f"The checkpoint covers {size} entries, not entry {index}.",
                hint="A checkpoint follows an entry within a second: try again.",
            )
        number, at = divmod(index, tiles.TILE_WIDTH)
        entry = read_bundle(self._log, number, min(self._grown - number * tiles.TILE_WIDTH, tiles.TILE_WIDTH))[at]
        if self._reader.node(0, index) != leaf_hash(entry):
            raise LedgerCorrupt(
                f"Entry {index} is not the one that the tree stands for.", hint="Run rempart ledger verify."
            )
        hashes = inclusion_proof(index, size, self._reader.node)
        return Proven(index=index, entry=entry, hashes=hashes, checkpoint=self.checkpoint)

    def node(self, level: int, place: int) -> bytes:
        """Hash of a perfect subtree. Raises `LedgerCorrupt`."""
        return self._reader.node(level, place)

    def tile(self, level: int, number: int) -> list[bytes]:
        """The hashes that a tile holds in the tree under the checkpoint. Raises `LedgerCorrupt`."""
        whole = self.head.size >> tiles.TILE_BITS * level
        return self._reader.tile(level, number)[: whole - number * tiles.TILE_WIDTH]


def prove(log: Path, index: int) -> Proven:
    """`log` is `<data>/ledger/log`. Raises `NotFound` when the checkpoint does not cover `index` (yet)."""
    return Prover(log).prove(index)
