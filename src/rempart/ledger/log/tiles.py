"""`tile_path` and its kin: names and contents of the files of a log (pure).

Source: C2SP tlog-tiles. A hash tile holds up to 256 hashes; tile (L, N) hash i is the node (8·L, N·256 + i). An entry
bundle holds up to 256 entries, each after its length in two bytes, big-endian.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rempart.errors import LedgerCorrupt
from rempart.ledger.log.merkle import HASH_BYTES, fold, root_of

TILE_WIDTH: Final = 256
TILE_BITS: Final = 8


def tile_path(level: int, number: int, width: int = TILE_WIDTH) -> str:
    """`tile/<L>/<N>[.p/<W>]`; `width` 1 to 256."""
    return f"tile/{level}/{_number(number)}{_partial(width)}"


def bundle_path(number: int, width: int = TILE_WIDTH) -> str:
    """`tile/entries/<N>[.p/<W>]`."""
    return f"tile/entries/{_number(number)}{_partial(width)}"


def _number(number: int) -> str:
    groups = [f"{number % 1000:03d}"]
    while number >= 1000:
        number //= 1000
        groups.append(f"x{number % 1000:03d}")
    return "/".join(reversed(groups))


def _partial(width: int) -> str:
    if not 1 <= width <= TILE_WIDTH:
        raise ValueError(f"a tile has 1 to {TILE_WIDTH} hashes, not {width}")
    return "" if width == TILE_WIDTH else f".p/{width}"


def encode_bundle(entries: Sequence[bytes]) -> bytes:
    """Entries of at most 65,535 bytes each."""
    return b"".join([len(entry).to_bytes(2, "big") + entry for entry in entries])


def decode_bundle(data: bytes, width: int) -> list[bytes]:
    """Exactly `width` entries. Raises `LedgerCorrupt`."""
    entries: list[bytes] = []
    at = 0
    while at + 2 <= len(data):
        end = at + 2 + (data[at] << 8 | data[at + 1])
        if end > len(data):
            break
        entries.append(data[at + 2 : end])
        at = end
    if at != len(data) or len(entries) != width:
        raise LedgerCorrupt(f"An entry bundle does not hold {width} whole entries.")
    return entries


def decode_tile(data: bytes, width: int) -> list[bytes]:
    """Exactly `width` hashes. Raises `LedgerCorrupt`."""
    if len(data) != width * HASH_BYTES:
        raise LedgerCorrupt(f"A tile does not hold {width} hashes.")
    return [data[at : at + HASH_BYTES] for at in range(0, len(data), HASH_BYTES)]


class Edge:
    """The right edge of a tree: of each level of tiles the hashes of the last, unfinished tile."""

    __slots__ = ("rows", "size")

    def __init__(self, size: int = 0, rows: Sequence[Sequence[bytes]] = ()) -> None:
        self.size = size
        """Leaves in the tree."""
        self.rows = [list(row) for row in rows]
        """Row L: at most 255 hashes of the nodes of level 8·L."""

    def add(self, leaf: bytes) -> list[tuple[int, int, list[bytes]]]:
        """Append a leaf hash; the tiles that it makes full, as (level, number, 256 hashes)."""
        self.size += 1
        return self._carry(leaf, 0)

    def add_tile(self, leaves: list[bytes]) -> list[tuple[int, int, list[bytes]]]:
        """Append 256 leaf hashes at once, where a tile begins."""
        if len(leaves) != TILE_WIDTH or self.size % TILE_WIDTH:
            raise ValueError(f"{TILE_WIDTH} leaves at a multiple of {TILE_WIDTH}, not {len(leaves)} at {self.size}")
        self.size += TILE_WIDTH
        if not self.rows:
            self.rows.append([])
        return [(0, self.size // TILE_WIDTH - 1, leaves), *self._carry(root_of(leaves), 1)]

    def _carry(self, hash_: bytes, level: int) -> list[tuple[int, int, list[bytes]]]:
        full: list[tuple[int, int, list[bytes]]] = []
        while True:
            if level == len(self.rows):
                self.rows.append([])
            row = self.rows[level]
            row.append(hash_)
            if len(row) < TILE_WIDTH:
                return full
            full.append((level, (self.size >> TILE_BITS * (level + 1)) - 1, row))
            hash_, self.rows[level] = root_of(row), []
            level += 1

    def partial(self) -> list[tuple[int, int, list[bytes]]]:
        """The unfinished tiles, as (level, number, hashes); none is empty."""
        return [(level, self.size >> TILE_BITS * (level + 1), list(row)) for level, row in enumerate(self.rows) if row]

    def root(self) -> bytes:
        """32 bytes."""
        nodes: list[bytes] = []
        for row in reversed(self.rows):
            at = 0
            while at < len(row):
                width = 1 << (len(row) - at).bit_length() - 1
                nodes.append(root_of(row[at : at + width]))
                at += width
        return fold(nodes)


def widths(size: int) -> list[int]:
    """Of each level the width of the unfinished tile of a tree of `size` leaves (0: none)."""
    found: list[int] = []
    while size:
        found.append(size % TILE_WIDTH)
        size >>= TILE_BITS
    return found
