"""`examine`: everything of a ledger that can be derived is derived again and compared. What it does:

1. The checkpoint's signature is checked with the verifier key.
2. Every bundle, the segments and the hash tiles must have the same entries, at every level; the root must be signed.
3. Segments must hold the entries from the first of them on without a gap, beyond the checkpoint too.
4. Every encrypted body must have the SHA-256 and the length that its entry states. It is in a segment, or in the files
   of bodies when its segment was taken apart, or gone with an `expiry` entry of its class and bucket later in the log.
5. Every response must follow its request, once; requests without a response are counted as open.
6. Changes of the log's key lead from the key that is trusted to the one that signs; each has its proof.
7. Entries that no checkpoint covers must be of the last run and its last seconds: else the log was put back.

It tells each fault to a sink and goes on. What it does not do: decrypt, or know whether another tree was shown to
somebody else (that is what witnesses are for).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from rempart.errors import LedgerCorrupt
from rempart.ledger.log import entry as entries
from rempart.ledger.log import tiles
from rempart.ledger.log.checkpoint import Checkpoint, Verifier, parse_note
from rempart.ledger.log.handover import TYPE as LOG_KEY
from rempart.ledger.reading.blocks import BlockReader
from rempart.ledger.reading.faults import DISTRUST, RESTORE, Fault, Sink
from rempart.ledger.reading.handovers import believed, handover_path
from rempart.ledger.reading.pairs import Pairs
from rempart.ledger.reading.recorded import BodySource, Recorded, SegmentSource
from rempart.ledger.store.logfiles import is_replica, read_file
from rempart.ledger.writing.recover import origin_hash

_LOOKS: Final = 4


class Examined(msgspec.Struct, frozen=True, kw_only=True):
    """What was found."""

    origin: str
    size: int
    """Entries under the checkpoint."""
    root: str
    """Hex."""
    beyond: int
    """Entries that are durable and not yet under the checkpoint."""
    retired: int
    """Entries whose segment was taken apart."""
    requests: int
    open: int
    """Requests without a response: under way, or cut off by a crash and closed at the next start."""
    outcomes: dict[str, int]
    """Responses by outcome."""
    bodies: int
    """Encrypted bodies that are there and were checked."""
    expired: int
    """Bodies that are gone with their `expiry`."""
    last_time: str


class Derived(msgspec.Struct, frozen=True):
    """Files of the log that are damaged or missing, as they should be. Empty unless the signed root is reached."""

    files: dict[Path, bytes]


class Progress(msgspec.Struct, frozen=True):
    """How to look, and whom to tell how far it is."""

    with_bodies: bool = True
    tell: Callable[[int, int], None] | None = None
    """Gets entries done and entries in all."""


def examine(ledger: Path, verifier: Verifier, sink: Sink, progress: Progress | None = None) -> tuple[Examined, Derived]:
    """`ledger` is `<data>/ledger`. Raises what `sink` raises."""
    how = progress or Progress()
    checkpoint, segments = _begin(ledger, _believed(ledger, verifier, sink), how, sink)
    with segments:
        before = checkpoint.size if segments.first_index is None else segments.first_index
        with BodySource(ledger, origin_hash(checkpoint.origin), before, sink) as bodies:
            return _Examination(ledger, checkpoint, segments, bodies, sink).run(how)


def _believed(ledger: Path, trusted: Verifier, sink: Sink) -> Verifier:
    try:
        return believed(ledger, trusted)
    except LedgerCorrupt as error:
        sink(Fault(kind="handover", where="handovers", what=error.message, remedy=error.hint or RESTORE))
        return trusted


def _begin(ledger: Path, verifier: Verifier, how: Progress, sink: Sink) -> tuple[Checkpoint, SegmentSource]:
    """A checkpoint, and the segments as they were after it; a server may take some apart in between."""
    look = 0
    while True:
        look += 1
        held: list[Fault] = []
        checkpoint = _checkpoint(ledger, verifier, held.append)
        source = SegmentSource(ledger, origin_hash(checkpoint.origin), how.with_bodies, held.append)
        if (source.first_index or 0) <= checkpoint.size or look == _LOOKS:
            break
        source.close()
    source.sink = sink
    for fault in held:
        sink(fault)
    if source.first_index is None and not source.found and not is_replica(ledger):
        what = "The ledger has no segments."
        sink(Fault(kind="segment", where="segments", what=what, remedy=RESTORE))
    return checkpoint, source


def _checkpoint(ledger: Path, verifier: Verifier, sink: Sink) -> Checkpoint:
    """Without a good one: what it says, or as much as the bundles hold; then the root proves nothing."""
    try:
        note = read_file(ledger / "log" / "checkpoint")
    except LedgerCorrupt as error:
        _tell_checkpoint(error, sink)
        return Checkpoint(verifier.name, _size_on_disk(ledger / "log"), b"")
    try:
        checkpoint = verifier.open(note)
        if checkpoint.origin != verifier.name:
            raise LedgerCorrupt("The checkpoint is of another log.")
        return checkpoint
    except LedgerCorrupt as error:
        _tell_checkpoint(error, sink)
    size = _size_on_disk(ledger / "log")
    try:
        said = parse_note(note)[1]
    except LedgerCorrupt:
        return Checkpoint(verifier.name, size, b"")
    return Checkpoint(verifier.name, size, said.root if said.size == size else b"")


def _tell_checkpoint(error: LedgerCorrupt, sink: Sink) -> None:
    remedy = "Restore log/checkpoint from a copy or a witness; only the log's key can sign another."
    sink(Fault(kind="checkpoint", where="log/checkpoint", what=error.message, first=0, remedy=remedy))


def _size_on_disk(log: Path) -> int:
    """Entries that the bundles on the disk would hold."""
    full = 0
    while (log / tiles.bundle_path(full)).exists():
        full += 1
    partial = log / f"{tiles.bundle_path(full)}.p"
    widths = [int(path.name) for path in partial.glob("*") if re.fullmatch(r"[1-9][0-9]{0,2}", path.name)]
    return full * tiles.TILE_WIDTH + max(widths, default=0)


class _Missing(msgspec.Struct):
    """Bodies of one bucket that are not there."""

    ranges: list[tuple[int, int, int]]
    """First, last, how many; between two of them a body of the bucket is there."""
    apart: bool = False


class _Examination:
    def __init__(
        self, ledger: Path, checkpoint: Checkpoint, segments: SegmentSource, bodies: BodySource, sink: Sink
    ) -> None:
        self._ledger = ledger
        self._checkpoint = checkpoint
        self._sink = sink
        self._segments = segments
        self._retired = checkpoint.size if segments.first_index is None else segments.first_index
        self._bodies = bodies
        self._blocks = BlockReader(ledger, checkpoint.size, checkpoint.root, segments.entries(), sink)
        self._pairs = Pairs(checkpoint.size, sink)
        self._missing: dict[tuple[str, str], _Missing] = {}
        self._counted = 0
        self._expired = 0

    def run(self, how: Progress) -> tuple[Examined, Derived]:
        size, beyond = self._checkpoint.size, 0
        if self._retired > size:
            what = f"The checkpoint ends at entry {size}, the segments begin at {self._retired}: the log was put back."
            self._tell("rollback", "log/checkpoint", what, (size, self._retired - 1))
        for block in self._blocks.blocks():
            self._bodies.pass_by(block.first)
            for index, (entry, recorded) in enumerate(zip(block.entries, block.recorded, strict=True), block.first):
                if entry is None:
                    self._pairs.lost.add(index)
                else:
                    self._see(index, entry, recorded, how.with_bodies)
            if how.tell is not None and block.first % 8192 == 0:
                how.tell(block.first, size)
        for one in self._blocks.beyond():
            beyond += 1
            self._see(one.index, one.entry, one, how.with_bodies)
        if self._segments.first_index is not None and self._segments.next_index < size:
            what = f"The checkpoint signs {size} entries, the segments end at {self._segments.next_index}."
            self._tell("segment", "segments", what, (self._segments.next_index, size - 1))
        holds = self._check_root()
        if how.with_bodies:
            self._bodies.finish()
            for name, missing in sorted(self._missing.items()):
                self._tell_missing(*name, missing)
        return self._examined(beyond), Derived(self._blocks.derived if holds else {})

    def _see(self, index: int, entry: bytes, recorded: Recorded | None, with_bodies: bool) -> None:
        try:
            facts = entries.facts(entry)
        except LedgerCorrupt as error:
            self._pairs.lost.add(index)
            self._tell("entry", "", f"Entry {index}: {error.message}", (index, index), DISTRUST)
            return
        if with_bodies:
            self._see_body(index, facts, recorded)
        self._pairs.see(index, facts)
        if facts.type == LOG_KEY:
            self._see_handover(entry)
        if facts.type == "expiry":
            gone = self._missing.pop((facts.retention, facts.bucket), None)
            self._expired += sum(count for _, _, count in gone.ranges) if gone else 0

    def _see_handover(self, entry: bytes) -> None:
        """What a change of the key has ended with is kept for ever."""
        index = entries.decode(entry).get("handover")
        if isinstance(index, int) and not handover_path(self._ledger, index).exists():
            what = "A change of the log's key has no proof any more: who trusts the old key is not led to the new one."
            self._tell("handover", str(handover_path(Path(), index)), what, (index, index))

    def _see_body(self, index: int, facts: entries.Facts, recorded: Recorded | None) -> None:
        if recorded is None:
            if not facts.body:
                return
            if index < self._retired:
                recorded = self._bodies.take(facts.retention, facts.bucket, index)
            if recorded is None:
                self._miss(index, facts)
                return
        if recorded.body_bytes != facts.body_bytes or recorded.digest != facts.body:
            what = f"The body of entry {index} is not the one that the entry states."
            self._tell("body", recorded.where, what, (index, index))
            return
        if facts.body:
            self._counted += 1
            if self._missing and (gap := self._missing.get((facts.retention, facts.bucket))):
                gap.apart = True

    def _miss(self, index: int, facts: entries.Facts) -> None:
        missing = self._missing.setdefault((facts.retention, facts.bucket), _Missing([]))
        if missing.ranges and not missing.apart:
            first, _, count = missing.ranges[-1]
            missing.ranges[-1] = (first, index, count + 1)
        else:
            missing.ranges.append((index, index, 1))
            missing.apart = False

    def _tell_missing(self, retention: str, bucket: str, missing: _Missing) -> None:
        for first, last, count in missing.ranges:
            where = self._bodies.where(retention, bucket, first) if first < self._retired else "segments"
            what = f"{count} bodies of {retention}/{bucket} are in no segment and no file, and no entry expires them."
            self._tell("body", where, what, (first, last))

    def _check_root(self) -> bool:
        """Whether the signed root is reached."""
        if self._blocks.broken:
            self._tell("root", "log/checkpoint", "Hashes are lost, so the root cannot be computed.", None)
            return False
        if not self._checkpoint.root:
            return False  # it has been told
        if self._blocks.edge.root() == self._checkpoint.root:
            return True
        what = "The entries do not lead to the root that the checkpoint signs."
        self._tell("root", "log/checkpoint", what, (0, self._checkpoint.size - 1), DISTRUST)
        return False

    def _tell(self, kind: str, where: str, what: str, affected: tuple[int, int] | None, remedy: str = RESTORE) -> None:
        first, last = affected or (None, None)
        self._sink(Fault(kind=kind, where=where, what=what, first=first, last=last, remedy=remedy))

    def _examined(self, beyond: int) -> Examined:
        return Examined(
            origin=self._checkpoint.origin,
            size=self._checkpoint.size,
            root=self._checkpoint.root.hex(),
            beyond=beyond,
            retired=self._retired,
            requests=self._pairs.requests,
            open=len(self._pairs.open),
            outcomes=dict(sorted(self._pairs.outcomes.items())),
            bodies=self._counted,
            expired=self._expired,
            last_time=self._pairs.last_time,
        )
