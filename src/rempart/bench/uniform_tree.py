"""`UniformTree`: a log of any size in which every entry is the same, of which only the tiles that are asked for exist.

A perfect subtree of a given height then has one hash, wherever it stands: a billion entries are as many hashes as the
tree is high. It is a true tree all the same: each tile, bundle, proof and root is what a log of such entries has.
"""

from __future__ import annotations

from pathlib import Path

from rempart.ledger.log import tiles
from rempart.ledger.log.checkpoint import Checkpoint, Signer
from rempart.ledger.log.merkle import fold, leaf_hash, node_hash, range_nodes


class UniformTree:
    """`log` stands for `<data>/ledger/log`."""

    def __init__(self, log: Path, size: int, entry: bytes, signer: Signer) -> None:
        self.size = size
        self._log = log
        self._entry = entry
        self._heights = [leaf_hash(entry)]
        while len(self._heights) <= size.bit_length():
            self._heights.append(node_hash(self._heights[-1], self._heights[-1]))
        log.mkdir(parents=True, exist_ok=True)
        (log / "checkpoint").write_bytes(signer.sign(Checkpoint(signer.verifier.name, size, self.root(size))))
        self.write(size - 1)

    def root(self, size: int) -> bytes:
        """Of the tree when it had so many leaves."""
        return fold([self._heights[level] for level, _ in range_nodes(0, size)])

    def write(self, index: int) -> None:
        """The tiles from that leaf to the root, and the bundle with its entry."""
        number, level = index // tiles.TILE_WIDTH, 0
        width = self._width(0, number)
        self._put(tiles.bundle_path(number, width), tiles.encode_bundle([self._entry] * width))
        while self.size >> tiles.TILE_BITS * level:
            width = self._width(level, number)  # 0: what is over this leaf has no whole node here yet
            if width:
                self._put(tiles.tile_path(level, number, width), self._heights[tiles.TILE_BITS * level] * width)
            number, level = number // tiles.TILE_WIDTH, level + 1

    def _width(self, level: int, number: int) -> int:
        return min((self.size >> tiles.TILE_BITS * level) - number * tiles.TILE_WIDTH, tiles.TILE_WIDTH)

    def _put(self, name: str, data: bytes) -> None:
        path = self._log / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
