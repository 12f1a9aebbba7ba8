"""`clear`: the bodies of a bucket whose time is over leave the disk; those that a hold keeps stand apart from then on.

A segment that is taken apart later writes bodies of an expired bucket out again: what is done here may be done again,
and is, each day. Bodies that still stand in a segment stay until it is taken apart; no key opens them.
"""

from __future__ import annotations

import os
from bisect import bisect_left
from collections.abc import Collection
from pathlib import Path

from rempart.ledger.log import entry as entries
from rempart.ledger.reading.entries import EntryReader
from rempart.ledger.store.bodies import (
    BodyStore,
    BodyWriter,
    bodies_directory,
    body_path,
    bucket_directory,
    first_indices,
    held_directory,
    read_bodies_header,
)
from rempart.ledger.store.files import sync_directory
from rempart.ledger.store.frames import BodiesHeader, Kind
from rempart.ledger.store.ownership import alone
from rempart.ledger.store.stream import stream


def clear(ledger: Path, retention: str, bucket: str, held: Collection[int]) -> int:
    """Files that were unlinked. `held`: indices of the entries whose bodies are kept. Blocks; again is no error.

    What is kept is durable in its new place before it leaves the old one. Raises `OSError`, `LedgerCorrupt`.
    """
    with alone(ledger):
        source = bucket_directory(bodies_directory(ledger), retention, bucket)
        apart = bucket_directory(held_directory(ledger), retention, bucket)
        wanted = sorted(held)
        for first in first_indices(source) if wanted else ():
            _copy(body_path(source, first), apart, first, wanted)
        return BodyStore(bodies_directory(ledger)).unlink(retention, bucket)


def prune(ledger: Path, held: Collection[str]) -> int:
    """Bodies kept apart of exchanges that are not among `held` (ids) any more are removed; how many. Blocks."""
    removed = 0
    store = BodyStore(held_directory(ledger))
    reader = EntryReader(ledger)
    with alone(ledger):
        for retention, bucket in store.buckets():
            directory = bucket_directory(held_directory(ledger), retention, bucket)
            for first in first_indices(directory):
                removed += _prune(body_path(directory, first), first, reader, held)
            if not first_indices(directory):
                store.unlink(retention, bucket)
    return removed


def held_buckets(ledger: Path) -> list[tuple[str, str]]:
    """(class, bucket) of those that have bodies kept apart."""
    return BodyStore(held_directory(ledger)).buckets()


def _copy(path: Path, directory: Path, first: int, wanted: list[int]) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        header = read_bodies_header(descriptor, first)
        some = set(wanted[bisect_left(wanted, first) : bisect_left(wanted, header.end_index)])
        if some:
            _write(descriptor, directory, header, some)
    finally:
        os.close(descriptor)


def _prune(path: Path, first: int, reader: EntryReader, held: Collection[str]) -> int:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        header = read_bodies_header(descriptor, first)
        indices = [frame.number for frame in stream(descriptor) if frame.kind == Kind.BODY]
        left = {index for index in indices if entries.facts(reader.read(index)).exchange in held}
        if left and len(left) < len(indices):
            _write(descriptor, path.parent, header, left)
    finally:
        os.close(descriptor)
    if not left:
        os.unlink(path)
        sync_directory(path.parent)
    return len(indices) - len(left)


def _write(descriptor: int, directory: Path, header: BodiesHeader, wanted: Collection[int]) -> None:
    """Those bodies of a file as a file of the same name elsewhere, or in its own place."""
    writer = BodyWriter(directory, header)
    try:
        for frame in stream(descriptor):
            if frame.kind == Kind.BODY and frame.number in wanted:
                writer.add(frame.number, frame.body)
        writer.finish()
        writer.place()
    finally:
        writer.close()
