"""`Room.chosen`: which of those that wait are written into what is left of a segment.

Until there is a next segment, so much is left as closes the exchanges that are open: what begins must leave that for
itself as well, and what closes passes what must wait.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Final, NamedTuple

from rempart import limits
from rempart.ledger.store import frames
from rempart.ledger.writing.draft import Receipt

# A commit is at most this much of the page cache at once.
_COMMIT_BYTES: Final = 8 * 1024 * 1024


class Waiting(NamedTuple):
    """An entry to be written, and who waits for it."""

    entry: bytes
    body: bytes
    opens: str
    closes: str
    future: asyncio.Future[Receipt]

    @property
    def size(self) -> int:
        return frames.frame_bytes(len(self.entry), len(self.body))


class Piece(NamedTuple):
    """A piece that found no room, and who waits for it."""

    frame: bytes
    future: asyncio.Future[None]


class Room(NamedTuple):
    """What is left."""

    free: int
    """Bytes of the segment."""
    spare: bool
    """The next segment is ready."""
    open: int
    """Exchanges whose response is still to be written."""

    def kept(self, opening: int = 0) -> int:
        return 0 if self.spare else (self.open + opening) * limits.reserve_bytes_per_exchange

    def takes_piece(self, frame: bytes) -> bool:
        return self.free >= len(frame) + self.kept()

    def takes_when_full(self, one: Waiting, before: Iterable[Waiting]) -> bool:
        """Nothing begins on a full disk; what closes stands in nobody's way but that of others that close."""
        if one.opens:
            return False
        queued = sum(other.size for other in before if other.closes or not one.closes)
        return self.free >= queued + one.size + (0 if one.closes else self.kept())

    def chosen(self, waiting: Iterable[Waiting]) -> list[Waiting]:
        """In order."""
        found: list[Waiting] = []
        total = opened = 0
        for one in waiting:
            if len(found) == limits.commit_records_max or total > _COMMIT_BYTES:
                break
            opening = bool(one.opens)
            if total + one.size + (0 if one.closes else self.kept(opened + opening)) <= self.free:
                found.append(one)
                total += one.size
                opened += opening
            elif self.spare:
                break
        return found
