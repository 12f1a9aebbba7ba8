"""`retire`: take a closed segment apart (ADR 0003, "Bodies"): its bodies go to files of their own, then it is unlinked.

Contract: the caller knows that all its entries are under the checkpoint and that no exchange that is open began in it
or before. Each step is durable before the next, and all of them may be done again after a crash:

1. The segment is streamed: every entry must be the one that its bundle holds, every body the one that its entry states.
   So the last good copy of something is never destroyed. A body goes to the file of its class and bucket, beside it.
2. The files are synced, renamed to their places, and their directories synced.
3. The segment is unlinked, and its directory synced.

It is run in a process of its own, `python -m rempart.ledger.writing.retire` (0.05 s to start, then 0.3 s for a full
segment on one core), at low priority. In a thread of the server, decoding 40,000 frames would take the interpreter's
lock from the event loop for 5 ms at a time, every 7 s at 3,000 exchanges/s. To copy ranges inside the kernel would
not help: every frame gets a new header and checksum, and most bodies are smaller than the cost of a system call.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path

import msgspec

from rempart.errors import LedgerCorrupt, RempartError
from rempart.ledger.log import entry as entries
from rempart.ledger.log.tiles import TILE_WIDTH
from rempart.ledger.store import frames
from rempart.ledger.store.bodies import BodyWriter, bodies_directory, bucket_directory
from rempart.ledger.store.files import sync_directory
from rempart.ledger.store.logfiles import read_bundle
from rempart.ledger.store.ownership import alone
from rempart.ledger.store.segments import read_header, segment_path
from rempart.ledger.store.stream import stream


class Closed(msgspec.Struct, frozen=True):
    """A segment that does not grow any more."""

    number: int
    end_index: int
    """One past the index of its last entry: the first index of the next segment."""


def retire(ledger: Path, closed: Closed, size: int, origin_hash: bytes) -> None:
    """`ledger` is `<data>/ledger`; `size` entries are under the checkpoint. Blocks; raises `OSError`.

    Raises `LedgerCorrupt` when segment, bundles and bodies do not agree; then the segment stays.
    """
    if closed.end_index > size:
        raise LedgerCorrupt(f"Segment {closed.number} is not under the checkpoint yet.")
    segments = ledger / "segments"
    header = read_header(segments, closed.number, origin_hash)
    bodies = frames.BodiesHeader(header.first_index, closed.end_index, origin_hash)
    path = segment_path(segments, closed.number)
    writers: dict[tuple[str, str], BodyWriter] = {}
    descriptor = os.open(path, os.O_RDONLY)
    try:
        for index, facts, body in _entries(descriptor, ledger / "log", bodies, size):
            if body:
                name = (facts.retention, facts.bucket)
                if name not in writers:
                    directory = bucket_directory(bodies_directory(ledger), *name)
                    writers[name] = BodyWriter(directory, bodies)
                writers[name].add(index, body)
        for writer in writers.values():
            writer.finish()
        for writer in writers.values():
            writer.place()
    except (OSError, LedgerCorrupt):
        for writer in writers.values():
            writer.discard()
        raise
    finally:
        os.close(descriptor)
        for writer in writers.values():
            writer.close()
    os.unlink(path)
    sync_directory(segments)


def _entries(
    descriptor: int, log: Path, bounds: frames.BodiesHeader, size: int
) -> Iterator[tuple[int, entries.Facts, bytes]]:
    """Index, facts and body of each entry, checked. Raises `LedgerCorrupt`."""
    index = bounds.first_index
    bundle: list[bytes] = []
    for frame in stream(descriptor):
        if frame.kind != frames.Kind.ENTRY:
            continue
        if frame.number != index or index >= bounds.end_index:
            raise _disagree(index, "is not where it should be in its segment")
        if not bundle or index % TILE_WIDTH == 0:
            first = index - index % TILE_WIDTH
            bundle = read_bundle(log, index // TILE_WIDTH, min(size - first, TILE_WIDTH))
        if bundle[index % TILE_WIDTH] != frame.entry:
            raise _disagree(index, "is not the same in its bundle and in its segment")
        facts = entries.facts(frame.entry)
        if len(frame.body) != facts.body_bytes or (frame.body and sha256(frame.body).hexdigest() != facts.body):
            raise _disagree(index, "has not the body that it states")
        yield index, facts, frame.body
        index += 1
    if index != bounds.end_index:
        raise _disagree(index, "is missing in its segment")


def _disagree(index: int, what: str) -> LedgerCorrupt:
    return LedgerCorrupt(f"Entry {index} {what}.", hint="Run 'rempart ledger fsck'; the segment is kept as it is.")


def main(arguments: Sequence[str]) -> int:
    """`<ledger> <number> <end index> <size> <origin hash> <pid of the server>`: `retire`, for as long as it lives."""
    ledger, number, end_index, size, origin_hash, server = arguments
    try:
        with alone(Path(ledger)):
            if os.getppid() != int(server):
                return 0  # it was killed, and the next one may have begun
            retire(Path(ledger), Closed(int(number), int(end_index)), int(size), bytes.fromhex(origin_hash))
    except (OSError, RempartError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    os.nice(10)  # the server's own work goes first
    sys.exit(main(sys.argv[1:]))
