"""`verify`: the whole ledger of a data directory, checked without any secret. What it does:

1. The checkpoint's signature is checked with the verifier key.
2. Every entry bundle is read; its entries' leaf hashes must be those of the hash tiles, at every level.
3. The tree they make must have the root that the checkpoint signs.
4. The segments must hold the same entries in the same order, and those that came after the checkpoint.
5. Every encrypted body must have the SHA-256 and the length that its entry states.
6. Every response must follow its request, once; requests without a response are counted as open.

What it does not do: decrypt, or know whether another tree was shown to somebody else (that is what witnesses are for).
It raises `LedgerCorrupt` at the first thing that does not hold; it never returns False.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path

import msgspec

from rempart.errors import LedgerCorrupt
from rempart.ledger.log import entry as entries
from rempart.ledger.log import tiles
from rempart.ledger.log.checkpoint import Verifier
from rempart.ledger.log.merkle import leaf_hash
from rempart.ledger.store import frames
from rempart.ledger.store.segments import numbers, read_header, segment_path
from rempart.ledger.writing.recover import origin_hash, read_segment


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What holds."""

    origin: str
    size: int
    """Entries under the checkpoint."""
    root: str
    """Hex."""
    beyond: int
    """Entries that are durable and not yet under the checkpoint."""
    requests: int
    open: int
    """Requests without a response: under way, or cut off by a crash and closed at the next start."""
    outcomes: dict[str, int]
    """Responses by outcome."""
    last_time: str


class _Pairs:
    """Requests and their responses."""

    def __init__(self) -> None:
        self.open: dict[str, int] = {}
        self.requests = 0
        self.outcomes: Counter[str] = Counter()
        self.last_time = ""

    def see(self, index: int, facts: entries.Facts) -> None:
        self.last_time = facts.time
        if facts.type == "request":
            if facts.exchange in self.open:
                raise LedgerCorrupt(f"Entry {index} is a second request of its exchange.")
            self.open[facts.exchange] = index
            self.requests += 1
        elif facts.type == "response":
            if facts.request is not None and self.open.pop(facts.exchange, None) != facts.request:
                raise LedgerCorrupt(f"Entry {index} answers a request that is not there, or was answered before.")
            self.outcomes[facts.outcome] += 1


def verify(ledger: Path, verifier: Verifier, progress: Callable[[int, int], None] | None = None) -> Report:
    """`ledger` is `<data>/ledger`. `progress` gets entries done and entries in all. Raises `LedgerCorrupt`."""
    log = ledger / "log"
    checkpoint = verifier.open(_read(log / "checkpoint"))
    if checkpoint.origin != verifier.name:
        raise LedgerCorrupt("The checkpoint is of another log.")
    pairs = _Pairs()
    edge = tiles.Edge()
    signed = _log_entries(log, checkpoint.size)
    count = 0
    for entry in _segment_entries(ledger / "segments", origin_hash(checkpoint.origin), pairs):
        if count < checkpoint.size:
            if next(signed) != entry:
                raise LedgerCorrupt(f"Entry {count} of the log is not the one in the segments.")
            for level, number, hashes in edge.add(leaf_hash(entry)):
                _check_tile(log, level, number, hashes)
        count += 1
        if progress is not None and count % 8192 == 0:
            progress(count, max(count, checkpoint.size))
    if count < checkpoint.size:
        raise LedgerCorrupt(f"The checkpoint signs {checkpoint.size} entries, the segments hold {count}.")
    for level, number, hashes in edge.partial():
        _check_tile(log, level, number, hashes)
    if edge.root() != checkpoint.root:
        raise LedgerCorrupt("The entries do not lead to the root that the checkpoint signs.")
    return Report(
        origin=checkpoint.origin,
        size=checkpoint.size,
        root=checkpoint.root.hex(),
        beyond=count - checkpoint.size,
        requests=pairs.requests,
        open=len(pairs.open),
        outcomes=dict(sorted(pairs.outcomes.items())),
        last_time=pairs.last_time,
    )


def _log_entries(log: Path, size: int) -> Iterator[bytes]:
    for number in range(size // tiles.TILE_WIDTH):
        yield from tiles.decode_bundle(_read(log / tiles.bundle_path(number)), tiles.TILE_WIDTH)
    rest = size % tiles.TILE_WIDTH
    if rest:
        yield from _partial_bundle(log, size // tiles.TILE_WIDTH, rest)


def _partial_bundle(log: Path, number: int, width: int) -> list[bytes]:
    """While a server runs, a partial bundle may just have become full."""
    path = log / tiles.bundle_path(number, width)
    if path.exists():
        return tiles.decode_bundle(_read(path), width)
    return tiles.decode_bundle(_read(log / tiles.bundle_path(number)), tiles.TILE_WIDTH)[:width]


def _check_tile(log: Path, level: int, number: int, hashes: list[bytes]) -> None:
    path = log / tiles.tile_path(level, number, len(hashes))
    if len(hashes) < tiles.TILE_WIDTH and not path.exists():
        path = log / tiles.tile_path(level, number)
    expected = b"".join(hashes)
    if _read(path)[: len(expected)] != expected:
        raise LedgerCorrupt(f"The hashes in {path} are not those of the entries.")


def _segment_entries(segments: Path, origin: bytes, pairs: _Pairs) -> Iterator[bytes]:
    """Entries in order, each checked against its body and its exchange."""
    index = 0
    for number in numbers(segments):
        header = read_header(segments, number, origin)
        if header.first_index != index:
            raise LedgerCorrupt(f"Segment {number} begins at entry {header.first_index}, not at {index}.")
        for frame in read_segment(segment_path(segments, number)).frames:
            if frame.kind != frames.Kind.ENTRY:
                continue
            if frame.number != index:
                raise LedgerCorrupt(f"Entry {index} is missing in segment {number}.")
            facts = entries.facts(frame.entry)
            if facts.body_bytes != len(frame.body) or (frame.body and sha256(frame.body).hexdigest() != facts.body):
                raise LedgerCorrupt(f"The body of entry {index} is not the one that the entry states.")
            pairs.see(index, facts)
            yield frame.entry
            index += 1


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise LedgerCorrupt(f"{path} cannot be read: {error.strerror}.", hint="Restore it from its copy.") from error
