"""`BlockReader.read`: the 256 entries of one tile, settled among the bundle, the segments and the hash tiles.

They say the same in a sound ledger. When they do not, the leaf hashes that the tree above proves are taken: those that
lead to the hash in the tile of the next level, or to the signed root. What differs from them is the damaged one.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from hashlib import sha256
from operator import attrgetter
from pathlib import Path

import msgspec

from rempart.errors import LedgerCorrupt
from rempart.ledger.log import tiles
from rempart.ledger.log.merkle import HASH_BYTES, leaf_hash, root_of
from rempart.ledger.reading.faults import DERIVE, DISTRUST, RESTORE, Fault, Sink
from rempart.ledger.reading.recorded import Recorded
from rempart.ledger.store.logfiles import bundle_file, read_bundle, read_tile, tile_file


class Block(msgspec.Struct, frozen=True):
    """Entries that stand under one tile of level 0."""

    first: int
    entries: list[bytes | None]
    """None: lost."""
    leaves: list[bytes] | None
    """Their hashes; None when some are lost as well."""
    recorded: Sequence[Recorded | None]
    """What a segment has of each; None: nothing any more."""


class BlockReader:
    """Reads blocks in order. `derived` fills with files that can be written anew, should the tree hold."""

    def __init__(
        self, ledger: Path, size: int, root: bytes, segment_entries: Iterator[list[Recorded]], sink: Sink
    ) -> None:
        self._ledger = ledger
        self._log = ledger / "log"
        self._size = size
        self._root = root
        self._segment_entries = segment_entries
        self._ahead: list[Recorded] = []
        self._read_on()
        self._sink = sink
        self.edge = tiles.Edge()
        """The tree so far."""
        self.broken = False
        """Leaf hashes are lost, so that the tree cannot be built."""
        self.derived: dict[Path, bytes] = {}

    def blocks(self) -> Iterator[Block]:
        """All under the checkpoint; the tree grows with them."""
        for number in range(-(-self._size // tiles.TILE_WIDTH)):
            block = self._read(number)
            if block.leaves is None:
                self.broken = True
            elif not self.broken:
                self._grow(block.leaves)
            yield block
        if not self.broken:
            for level, number, hashes in self.edge.partial():
                if level:
                    self._check_tile(level, number, hashes)

    def beyond(self) -> Iterator[Recorded]:
        """What is in the segments after that."""
        yield from self._ahead
        for run in self._segment_entries:
            yield from run

    def _grow(self, leaves: list[bytes]) -> None:
        if len(leaves) == tiles.TILE_WIDTH:
            for level, number, hashes in self.edge.add_tile(leaves)[1:]:
                self._check_tile(level, number, hashes)
        else:
            for leaf in leaves:
                self.edge.add(leaf)

    def _read(self, number: int) -> Block:
        first = number * tiles.TILE_WIDTH
        width = min(tiles.TILE_WIDTH, self._size - first)
        recorded = self._recorded(first + width)
        try:
            bundle: Sequence[bytes] = read_bundle(self._log, number, width)
            tile = read_tile(self._log, 0, number, width)
        except LedgerCorrupt:
            return self._settle(number, width, recorded)
        leaves = [sha256(b"\x00" + entry).digest() for entry in bundle]
        if b"".join(leaves) == tile and all(bundle[one.index - first] == one.entry for one in recorded):
            return Block(first, list(bundle), leaves, _in_place(recorded, first, width))
        return self._settle(number, width, recorded)

    def _recorded(self, end: int) -> list[Recorded]:
        """What the segments have before `end`, and was not given yet."""
        found: list[Recorded] = []
        while self._ahead and self._ahead[-1].index < end:
            found += self._ahead
            self._read_on()
        count = bisect_left(self._ahead, end, key=attrgetter("index"))
        found += self._ahead[:count]
        self._ahead = self._ahead[count:]
        return found

    def _read_on(self) -> None:
        self._ahead = next(self._segment_entries, [])

    # When they do not agree.

    def _settle(self, number: int, width: int, found: list[Recorded]) -> Block:
        first = number * tiles.TILE_WIDTH
        recorded = {one.index: one for one in found}
        bundle, unreadable = self._try_bundle(number, width)
        tile = self._try_tile(number, width)
        of_bundle = [leaf_hash(entry) for entry in bundle]
        of_segment = {index - first: leaf_hash(one.entry) for index, one in recorded.items()}
        leaves = self._true_leaves(number, width, of_bundle, tile, of_segment)
        if leaves is None:
            self._tell_lost(number, first, first + width - 1, unreadable)
            return Block(first, [None] * width, None, _in_place(found, first, width))
        self._check_tile(0, number, leaves)
        entries: list[bytes | None] = []
        for place, leaf in enumerate(leaves):
            entry = bundle[place] if bundle and of_bundle[place] == leaf else None
            if entry is None and of_segment.get(place) == leaf:
                entry = recorded[first + place].entry
            entries.append(entry)
        if of_bundle != leaves:
            self._tell_bundle(number, entries, [of_bundle[i] != leaves[i] if bundle else True for i in range(width)])
        for place, leaf in of_segment.items():
            if leaf != leaves[place]:
                self._tell_segment(recorded[first + place])
        return Block(first, entries, leaves, _in_place(found, first, width))

    def _true_leaves(
        self, number: int, width: int, bundle: list[bytes], tile: list[bytes], segment: dict[int, bytes]
    ) -> list[bytes] | None:
        candidates: list[list[bytes]] = [one for one in (bundle, tile) if one]
        for base in (bundle, tile):
            merged = [segment.get(place) or (base[place] if base else b"") for place in range(width)]
            if all(merged) and merged not in candidates:
                candidates.append(merged)
        for one in candidates:
            if self._is_proven(number, one):
                return one
        return candidates[0] if candidates else None

    def _is_proven(self, number: int, leaves: list[bytes]) -> bool:
        if len(leaves) == tiles.TILE_WIDTH and self._size >= tiles.TILE_WIDTH:
            place = number % tiles.TILE_WIDTH
            above = number - place
            above_width = min(tiles.TILE_WIDTH, self._size // tiles.TILE_WIDTH - above)
            try:
                row = read_tile(self._log, 1, number // tiles.TILE_WIDTH, above_width)
            except LedgerCorrupt:
                return False
            return row[place * HASH_BYTES : (place + 1) * HASH_BYTES] == root_of(leaves)
        grown = tiles.Edge(self.edge.size, self.edge.rows)
        for leaf in leaves:
            grown.add(leaf)
        return not self.broken and grown.root() == self._root

    def _try_bundle(self, number: int, width: int) -> tuple[list[bytes], str]:
        try:
            return read_bundle(self._log, number, width), ""
        except LedgerCorrupt as error:
            return [], error.message

    def _try_tile(self, number: int, width: int) -> list[bytes]:
        try:
            return tiles.decode_tile(read_tile(self._log, 0, number, width), width)
        except LedgerCorrupt:
            return []

    def _check_tile(self, level: int, number: int, hashes: list[bytes]) -> None:
        expected = b"".join(hashes)
        path = tile_file(self._log, level, number, len(hashes))
        try:
            if read_tile(self._log, level, number, len(hashes)) == expected:
                return
            what = "The hashes in it are not those of the entries."
        except LedgerCorrupt as error:
            what = error.message
        self.derived[self._log / tiles.tile_path(level, number, len(hashes))] = expected
        first = number << tiles.TILE_BITS * (level + 1)
        last = min((number + 1) << tiles.TILE_BITS * (level + 1), self._size) - 1
        self._sink(Fault(kind="tile", where=self._where(path), what=what, first=first, last=last, remedy=DERIVE))

    def _tell_bundle(self, number: int, entries: list[bytes | None], bad: list[bool]) -> None:
        width, first = len(entries), number * tiles.TILE_WIDTH
        path = bundle_file(self._log, number, width)
        kept = [entry for entry in entries if entry is not None]
        if len(kept) == width:
            self.derived[self._log / tiles.bundle_path(number, width)] = tiles.encode_bundle(kept)
            places = [place for place in range(width) if bad[place]]
            what, remedy = "It is not what the segments and the tree have; the segments hold these entries.", DERIVE
        else:
            places = [place for place in range(width) if entries[place] is None]
            what = "These entries are lost: only their hashes are left, in the tree."
            remedy = RESTORE
        self._sink(
            Fault(
                kind="bundle",
                where=self._where(path),
                what=what,
                first=first + places[0],
                last=first + places[-1],
                remedy=remedy,
            )
        )

    def _tell_segment(self, one: Recorded) -> None:
        what = f"Entry {one.index} is not the one that the tree stands for."
        self._sink(Fault(kind="segment", where=one.where, what=what, first=one.index, last=one.index, remedy=DISTRUST))

    def _tell_lost(self, number: int, first: int, last: int, why: str) -> None:
        where = self._where(bundle_file(self._log, number, last - first + 1))
        what = f"These entries and their hashes are lost. {why}"
        self._sink(Fault(kind="bundle", where=where, what=what, first=first, last=last, remedy=RESTORE))

    def _where(self, path: Path) -> str:
        return str(path.relative_to(self._ledger))


def _in_place(found: list[Recorded], first: int, width: int) -> Sequence[Recorded | None]:
    if len(found) == width:
        return found
    placed: list[Recorded | None] = [None] * width
    for one in found:
        placed[one.index - first] = one
    return placed
