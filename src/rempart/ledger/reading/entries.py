"""`EntryReader`: entries of a ledger by index, newest first, or of one exchange, wherever they stand.

Those under the checkpoint are read from the bundles, and held to the hash tiles; those beyond it from the segments.
Bodies are in the segments, or in the files of bodies when their segment was taken apart. It reads the ledger as it was
when the reader was made; a server may go on writing.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Final, TypeAlias

from rempart import limits
from rempart.errors import LedgerCorrupt
from rempart.ledger.log import entry as entries
from rempart.ledger.log.checkpoint import parse_note
from rempart.ledger.log.merkle import leaf_hash
from rempart.ledger.log.tiles import TILE_WIDTH
from rempart.ledger.store import frames
from rempart.ledger.store.bodies import BodyStore, bodies_directory, held_directory
from rempart.ledger.store.logfiles import bundle_file, is_replica, read_bundle, read_file, read_tile
from rempart.ledger.store.segments import numbers, read_header, segment_path
from rempart.ledger.store.stream import stream, whole

_LOOKS: Final = 4
_CACHED_BUNDLES: Final = 16
_EXCHANGE: Final = re.compile(r"[0-9a-f]{32}")
_EXCHANGE_TIME_DIGITS: Final = 12
_START: Final = b'"type":"start"'
_TIME_MS_MAX: Final = 253_402_300_799_000  # 9999-12-31

Placed: TypeAlias = tuple[int, bytes]
"""Index and entry."""


class EntryReader:
    """`ledger` is `<data>/ledger`. Raises `LedgerCorrupt`. Not for several threads."""

    def __init__(self, ledger: Path, *, beyond: bool = True) -> None:
        """`beyond`: with the entries that no checkpoint covers yet, for which the last segments are read."""
        self._is_replica = is_replica(ledger)
        self._log = ledger / "log"
        self._segments = ledger / "segments"
        self._bodies = BodyStore(bodies_directory(ledger))
        self._held = BodyStore(held_directory(ledger))
        self._origin_hash = b""
        self._size = 0
        self._beyond: list[bytes] = []
        self._bundle = lru_cache(_CACHED_BUNDLES)(self._read_bundle)
        if (self._log / "checkpoint").exists():
            self._look(beyond)

    @property
    def count(self) -> int:
        """Entries in all."""
        return self._size + len(self._beyond)

    def read(self, index: int) -> bytes:
        """Raises `IndexError` when there is no such entry."""
        if not 0 <= index < self.count:
            raise IndexError(index)
        if index >= self._size:
            return self._beyond[index - self._size]
        return self._bundle(index // TILE_WIDTH)[index % TILE_WIDTH]

    def newest_first(self) -> Iterator[Placed]:
        """From the last entry back."""
        for place in reversed(range(len(self._beyond))):
            yield self._size + place, self._beyond[place]
        for number in reversed(range(-(-self._size // TILE_WIDTH))):
            bundle = self._bundle(number)
            for place in reversed(range(len(bundle))):
                yield number * TILE_WIDTH + place, bundle[place]

    def forward(self, first: int) -> Iterator[Placed]:
        """From the entry `first` on."""
        for number in range(first // TILE_WIDTH, -(-self._size // TILE_WIDTH)):
            for index, entry in enumerate(self._bundle(number), number * TILE_WIDTH):
                if index >= first:
                    yield index, entry
        skipped = max(first - self._size, 0)
        yield from enumerate(self._beyond[skipped:], self._size + skipped)

    def since(self, time: str) -> int:
        """An index in front of the first entry of that time or later; times are as in entries."""
        return self._bisect(lambda facts: facts.time >= time, 0)

    def of_exchange(self, exchange: str) -> list[Placed]:
        """Its request and its response, as far as there are.

        An id begins with milliseconds, so the request is looked for where entries have that time. Its response follows
        within the time that an exchange may take, or, after a crash, at the beginning of the next run. Only an exchange
        that is found in neither place has the whole log read: a clock may have been set back.
        """
        found: list[Placed] = []
        if not _EXCHANGE.fullmatch(exchange):
            return found
        end = self._gather(exchange, found, *self._window(exchange))
        if not found:
            self._gather(exchange, found, 0, _never)
        elif entries.facts(found[-1][1]).type == "request":
            request, entry = found[-1]
            boot = entries.facts(entry).boot
            next_run = self._bisect(lambda facts: facts.boot != boot, request // TILE_WIDTH + 1)
            self._gather(exchange, found, max(next_run, request + 1), lambda facts: _begins(facts, boot))
            if found[-1][0] == request:  # it took longer than the limits have it, or the next run crashed as it began
                self._gather(exchange, found, max(end, request) + 1, _never)
        return found

    def body(self, index: int, retention: str, bucket: str) -> bytes | None:
        """The encrypted body of an entry, or None when it is not there any more."""
        # In this order: what leaves the segments is in the files of bodies before.
        found = self._body_in_segment(index)
        if found is None:
            found = self._bodies.read(retention, bucket, index)
        return found if found is not None else self._held.read(retention, bucket, index)

    def _gather(self, exchange: str, found: list[Placed], first: int, done: Callable[[entries.Facts], bool]) -> int:
        """Add entries of the exchange from `first` on, up to its response or to where it is `done`; where it ended.

        Whether it is done is asked at each bundle and at each start of a run.
        """
        wanted = exchange.encode()
        at = first
        for at, entry in self.forward(first):
            if wanted in entry and (facts := entries.facts(entry)).exchange == exchange:
                found.append((at, entry))
                if facts.type == "response":
                    break
            if (at % TILE_WIDTH == 0 or _START in entry) and done(entries.facts(entry)):
                break
        return at

    def _window(self, exchange: str) -> tuple[int, Callable[[entries.Facts], bool]]:
        """Index from which its request may stand, and what tells that its response cannot come any more."""
        began_ms = int(exchange[:_EXCHANGE_TIME_DIGITS], 16)
        if began_ms > _TIME_MS_MAX:
            return self.count, _never
        first_s = max(began_ms / 1000 - limits.clock_margin_s, 0)
        earliest = entries.timestamp(first_s)
        latest = entries.timestamp(began_ms / 1000 + limits.exchange_s + limits.drain_s + limits.clock_margin_s)
        return self._bisect(lambda facts: facts.time >= earliest, 0), lambda facts: facts.time > latest

    def _bisect(self, reached: Callable[[entries.Facts], bool], first_bundle: int) -> int:
        """Index of the first entry of the last bundle whose first entry has not `reached` it, at least `first_bundle`.

        From there on once it is reached it stays so; the times of entries do so but for less than a margin.
        """
        low, high = first_bundle, -(-self._size // TILE_WIDTH)
        while low < high:
            middle = (low + high) // 2
            if reached(entries.facts(self._bundle(middle)[0])):
                high = middle
            else:
                low = middle + 1
        return max(low - 1, 0) * TILE_WIDTH

    def _look(self, beyond: bool) -> None:
        for _ in range(_LOOKS):
            _, checkpoint = parse_note(read_file(self._log / "checkpoint"))
            self._origin_hash, self._size = sha256(checkpoint.origin.encode()).digest(), checkpoint.size
            found = self._read_beyond() if beyond else []
            if found is not None:
                self._beyond = found
                return
        raise LedgerCorrupt(
            f"The segment that holds entry {self._size} is missing.", hint="Restore it; see 'rempart ledger fsck'."
        )

    def _read_beyond(self) -> list[bytes] | None:
        """Entries that the checkpoint does not cover; None when one was taken apart meanwhile."""
        known = numbers(self._segments)
        if self._is_replica and not known:
            return []
        wanted: list[int] = []
        try:
            for number in reversed(known):
                wanted.append(number)
                if read_header(self._segments, number, self._origin_hash).first_index <= self._size:
                    break
            else:
                return None
            beyond = [placed for number in reversed(wanted) for placed in self._entries_beyond(number)]
        except FileNotFoundError:
            return None
        for index, (found, _) in enumerate(beyond, self._size):
            if found != index:
                raise LedgerCorrupt(f"Entry {index} is missing in the segments.", hint="Run 'rempart ledger fsck'.")
        return [entry for _, entry in beyond]

    def _entries_beyond(self, number: int) -> list[Placed]:
        """Of one segment; as a server may be writing it, damage must be there at every look."""
        look = 0
        while True:
            look += 1
            with segment_path(self._segments, number).open("rb") as file:
                try:
                    return [
                        (frame.number, frame.entry)
                        for frame in whole(file.fileno())
                        if frame.kind == frames.Kind.ENTRY and frame.number >= self._size
                    ]
                except LedgerCorrupt:
                    if look == _LOOKS:
                        raise

    def _read_bundle(self, number: int) -> list[bytes]:
        width = min(self._size - number * TILE_WIDTH, TILE_WIDTH)
        bundle = read_bundle(self._log, number, width)
        if b"".join([leaf_hash(entry) for entry in bundle]) != read_tile(self._log, 0, number, width):
            raise LedgerCorrupt(
                f"The entries in {bundle_file(self._log, number, width)} are not those that their tile stands for.",
                hint="Run 'rempart ledger fsck'.",
            )
        return bundle

    def _body_in_segment(self, index: int) -> bytes | None:
        try:
            for number in reversed(numbers(self._segments)):
                if read_header(self._segments, number, self._origin_hash).first_index <= index:
                    return _body_of(segment_path(self._segments, number), index)
        except FileNotFoundError:
            return None  # taken apart meanwhile
        return None


def _never(_: entries.Facts) -> bool:
    return False


def _begins(facts: entries.Facts, boot: str) -> bool:
    """A run that is not `boot` has begun: what was open before is closed by then."""
    return facts.boot != boot and facts.type == "start"


def _body_of(segment: Path, index: int) -> bytes | None:
    descriptor = os.open(segment, os.O_RDONLY)
    try:
        of_entries = (frame for frame in stream(descriptor) if frame.kind == frames.Kind.ENTRY)
        found = next(itertools.dropwhile(lambda frame: frame.number < index, of_entries), None)
    finally:
        os.close(descriptor)
    if found is None or found.number != index:
        raise LedgerCorrupt(f"{segment} is damaged: entry {index} is not in it.", hint="Run 'rempart ledger fsck'.")
    return found.body or None
