"""`recover`: from what is on disk to a sequencer's starting point, after a clean stop and after a crash alike.

1. The log is read as its checkpoint signs it.
2. The valid frames of the last segment are copied to a new file, which is synced and takes its place: what was read
   back may be the page cache and not the disk.
3. Entries beyond the checkpoint are integrated by the step that every commit uses.
4. Requests without a response are found, with the pieces that were written of their answers.

Segments that were taken apart are not needed: their entries are under the checkpoint, and nothing in them is open.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec

from rempart import limits
from rempart.errors import LedgerCorrupt
from rempart.ledger.log import entry as entries
from rempart.ledger.log.checkpoint import Signer, parse_note
from rempart.ledger.log.integrate import Integrator
from rempart.ledger.log.tiles import TILE_WIDTH
from rempart.ledger.store import frames
from rempart.ledger.store.files import replace_durably
from rempart.ledger.store.logfiles import read_bundle, read_file
from rempart.ledger.store.ownership import alone
from rempart.ledger.store.segments import Segment, numbers, read_header, read_segment, segment_path
from rempart.ledger.writing.retire import Closed
from rempart.ledger.writing.sequencer import Opened, OpenExchange

_open_exchanges = msgspec.json.Decoder(list[OpenExchange])


class Lost(msgspec.Struct, frozen=True):
    """An exchange that a crash cut off."""

    index: int
    """Index of its request's entry."""
    request: dict[str, Any]
    """The fields of that entry."""
    pieces: list[bytes]
    """Sealed, in order of their sequence, from 0 without a gap."""


class Recovered(msgspec.Struct, frozen=True):
    """Where to go on, and what is to be closed first."""

    opened: Opened
    lost: list[Lost]
    last_time: str
    """Time of the last entry, or empty."""


def origin_hash(origin: str) -> bytes:
    """As in the headers of segments."""
    return sha256(origin.encode()).digest()


def recover(directory: Path, signer: Signer) -> Recovered:
    """`directory` is `<data>/ledger`. Raises `LedgerCorrupt` when something acknowledged is not there any more."""
    with alone(directory):
        return _recover(directory, signer)


def find_lost(directory: Path, exchanges: Collection[OpenExchange]) -> list[Lost]:
    """Of a log that is being written: what is known of these, which nobody goes on with. Raises `LedgerCorrupt`."""
    segments = directory / "segments"
    known = numbers(segments)
    return _lost(segments, known, list(exchanges), read_segment(segment_path(segments, known[-1])))


def _recover(directory: Path, signer: Signer) -> Recovered:
    origin = signer.verifier.name
    integrator = Integrator.open(directory / "log", signer)
    segments = directory / "segments"
    known = numbers(segments)
    if not known:
        raise LedgerCorrupt("The ledger has no segments.", hint="Restore ledger/segments from its copy.")
    last = known[-1]
    header = read_header(segments, last, origin_hash(origin))
    found = _rewrite(segment_path(segments, last))
    behind, next_index = _behind(segments, known, origin_hash(origin), integrator.head.size, found)
    if behind:
        integrator.add(integrator.head.size, behind)
    closed = [
        Closed(number, read_header(segments, number + 1, origin_hash(origin)).first_index) for number in known[:-1]
    ]
    still_open = _still_open(found, last)
    opened = Opened(
        directory=segments,
        origin=origin,
        origin_hash=origin_hash(origin),
        segment=Segment(segment_path(segments, last), header, found.end),
        next_index=next_index,
        open=still_open,
        integrator=integrator,
        closed=closed,
    )
    lost = _lost(segments, known, still_open, found)
    return Recovered(opened, lost, _last_time(directory / "log", next_index))


def _rewrite(path: Path) -> frames.Scan:
    data = path.read_bytes()
    found = frames.scan(data)
    size = max(len(data), limits.segment_bytes)
    replace_durably({path: data[: found.end] + bytes(size - found.end)})
    return found


def _behind(segments: Path, known: list[int], origin: bytes, size: int, last: frames.Scan) -> tuple[list[bytes], int]:
    """Entries from index `size` on, and the next index. Raises `LedgerCorrupt` at a gap."""
    wanted: list[int] = []
    for number in reversed(known):
        wanted.append(number)
        if read_header(segments, number, origin).first_index <= size:
            break
    behind: list[bytes] = []
    next_index = read_header(segments, wanted[-1], origin).first_index
    if next_index > size:
        raise LedgerCorrupt(f"The segment that holds entry {size} is missing.", hint="Restore it from its copy.")
    for number in reversed(wanted):
        scan = last if number == known[-1] else read_segment(segment_path(segments, number))
        for frame in _entries(scan):
            if frame.number != next_index:
                raise LedgerCorrupt(f"Entry {next_index} is missing in segment {number}.")
            if next_index >= size:
                behind.append(frame.entry)
            next_index += 1
    if next_index < size:
        raise LedgerCorrupt(
            f"The checkpoint signs {size} entries, the segments end at {next_index}.",
            hint="Restore ledger/segments from its copy.",
        )
    return behind, next_index


def _entries(scan: frames.Scan) -> Iterator[frames.Frame]:
    return (frame for frame in scan.frames if frame.kind == frames.Kind.ENTRY)


def _still_open(last: frames.Scan, number: int) -> list[OpenExchange]:
    found: dict[str, OpenExchange] = {}
    for frame in last.frames:
        if frame.kind == frames.Kind.OPEN:
            found = {one.exchange: one for one in _open_exchanges.decode(frame.body)}
        elif frame.kind == frames.Kind.ENTRY:
            facts = entries.facts(frame.entry)
            if facts.type == "request":
                found[facts.exchange] = OpenExchange(facts.exchange, frame.number, number)
            elif facts.type == "response":
                found.pop(facts.exchange, None)
    return list(found.values())


def _lost(segments: Path, known: list[int], still_open: list[OpenExchange], last: frames.Scan) -> list[Lost]:
    if not still_open:
        return []
    oldest = min(one.segment for one in still_open)
    if oldest < known[0]:
        raise LedgerCorrupt(f"Segment {oldest}, where an open exchange began, is missing.", hint="Restore it.")
    wanted = {bytes.fromhex(one.exchange): one for one in still_open}
    requests: dict[int, dict[str, Any]] = {}
    pieces: dict[str, dict[int, bytes]] = {one.exchange: {} for one in still_open}
    indices = {one.request for one in still_open}
    for number in range(oldest, known[-1] + 1):
        scan = last if number == known[-1] else read_segment(segment_path(segments, number))
        for frame in scan.frames:
            if frame.kind == frames.Kind.PIECE and frame.entry in wanted:
                pieces[wanted[frame.entry].exchange][frame.number] = frame.body
            elif frame.kind == frames.Kind.ENTRY and frame.number in indices:
                requests[frame.number] = entries.decode(frame.entry)
    for index in indices - requests.keys():  # a restored ledger has no segment of what came before (docs/backup.md)
        requests[index] = entries.decode(_from_log(segments.parent / "log", index))
    return [Lost(one.request, requests[one.request], _in_order(pieces[one.exchange])) for one in still_open]


def _from_log(log: Path, index: int) -> bytes:
    """An entry that is under the checkpoint."""
    _, head = parse_note(read_file(log / "checkpoint"))
    number = index // TILE_WIDTH
    return read_bundle(log, number, min(head.size - number * TILE_WIDTH, TILE_WIDTH))[index % TILE_WIDTH]


def _in_order(pieces: dict[int, bytes]) -> list[bytes]:
    found: list[bytes] = []
    while len(found) in pieces:
        found.append(pieces[len(found)])
    return found


def _last_time(log: Path, size: int) -> str:
    """All entries are under the checkpoint by now; a segment may hold none."""
    if not size:
        return ""
    last = size - 1
    return entries.facts(read_bundle(log, last // TILE_WIDTH, last % TILE_WIDTH + 1)[-1]).time
