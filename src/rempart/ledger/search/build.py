"""`build`: brings the index up to the end of the log, and fills what was damaged.

Entries are pulled while the writer's lock is held, a batch at a time, and each batch is committed before the lock is
let go: an erasure in between finds every entry that was decrypted for the index in the index.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec

from rempart import limits
from rempart.ledger.search.manifest import Gap
from rempart.ledger.search.writer import IndexWriter, Key

Entry = tuple[int, Mapping[str, Any], Sequence[str]]
"""Index in the log, the entry's fields, and what was said in it; no texts when it cannot be read."""
Follow = Callable[[int], Iterator[Entry]]
"""The entries of the log from an index on, ascending without a gap, each decrypted when it is asked for."""
Progress = Callable[[int], None]
"""Gets the index that was reached."""


class Built(msgspec.Struct, frozen=True, kw_only=True):
    """What was done."""

    mark: int
    """Index of the first entry that is not in the index yet: the log's size when it was read."""
    added: int
    """Entries that were looked at, those of gaps too."""
    damaged: tuple[str, ...]
    """What was found damaged and built anew."""
    cut: int
    """Entries with too many different words, of which the first were taken."""
    keyless: int
    """Entries whose bucket's key was destroyed."""


class _Tally:
    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.added = self.cut = self.keyless = 0
        self.damaged: list[str] = []

    def take(self, writer: IndexWriter) -> None:
        self.cut += writer.cut
        self.keyless += writer.keyless
        self.damaged += writer.damaged


def build(
    directory: Path, key: Key, follow: Follow, *, check: bool = False, progress: Progress = lambda index: None
) -> Built:
    """Until the log's end; `check` first reads every run there is. Raises `OSError`, `DirectoryLocked`, and what
    `follow` raises; what was committed stays, and the next build goes on from there."""
    tally = _Tally(progress)
    if check:
        with IndexWriter(directory, key) as writer:
            writer.check()
            tally.take(writer)
    mark = _go_on(directory, key, follow, tally)
    for gap in _gaps(directory, key, tally):
        _fill(directory, key, follow, gap, tally)
    return Built(mark=mark, added=tally.added, damaged=tuple(tally.damaged), cut=tally.cut, keyless=tally.keyless)


def _go_on(directory: Path, key: Key, follow: Follow, tally: _Tally) -> int:
    """Returns the mark it reached. Another writer may go on between two batches: it begins where that one ended."""
    reached = -1
    entries: Iterator[Entry] = iter(())
    while True:
        with IndexWriter(directory, key) as writer:
            if writer.mark != reached:
                entries, reached = follow(writer.mark), writer.mark
            count = 0
            for index, fields, texts in islice(entries, limits.index_batch_entries):
                writer.add(index, fields, texts)
                reached, count = index + 1, count + 1
                if count % 1024 == 0:
                    tally.progress(reached)
            if count or writer.damaged:
                writer.commit(reached)
            tally.added += count
            tally.take(writer)
        tally.progress(reached)
        if count < limits.index_batch_entries:
            return reached


def _gaps(directory: Path, key: Key, tally: _Tally) -> tuple[Gap, ...]:
    with IndexWriter(directory, key) as writer:
        tally.take(writer)
        return writer.gaps


def _fill(directory: Path, key: Key, follow: Follow, gap: Gap, tally: _Tally) -> None:
    """In one go under the lock, in commits of a batch: what was forgotten is soon found again."""
    with IndexWriter(directory, key) as writer:
        if gap not in writer.gaps:
            return
        wanted = (gap.partition.retention, gap.partition.bucket)
        for index, fields, texts in _until(follow(gap.first), gap.stop):
            if (fields.get("class"), fields.get("bucket")) == wanted:
                writer.add(index, fields, texts)
                tally.added += 1
            if (index + 1 - gap.first) % limits.index_batch_entries == 0 and index + 1 < gap.stop:
                writer.fill(gap, index + 1)
                gap = Gap(gap.partition, index + 1, gap.stop)
                tally.progress(index + 1)
        writer.fill(gap, gap.stop)
        tally.take(writer)


def _until(entries: Iterable[Entry], stop: int) -> Iterator[Entry]:
    for entry in entries:
        if entry[0] >= stop:
            return
        yield entry
