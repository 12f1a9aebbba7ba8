"""`compare`: whether the index says of each entry what the log says: that it is there, in its class and day, or is not.

One pass over the entries and one look into each run; bodies are decrypted only where an entry is missing, which an
erasure may explain. What words an entry has is not compared: that would be to build the index anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from pyroaring import BitMap

from rempart.ledger.log import entry as entries
from rempart.ledger.reading.entries import EntryReader
from rempart.ledger.search import manifest as manifests
from rempart.ledger.search.files import open_run
from rempart.ledger.search.manifest import Manifest, Partition
from rempart.ledger.search.postings import WINDOW, WINDOW_BITS
from rempart.ledger.search.terms import ALL, TermKeys
from rempart.ledger.search.writer import IndexWriter, Key

INDEXED: Final = frozenset({"response", "read"})
"""Types of the entries that are indexed."""
Place = tuple[Partition, int]
"""A class's bucket and a window of the log."""


def compare(directory: Path, key: Key, reader: EntryReader, readable: Callable[[int, bytes], bool]) -> Iterator[str]:
    """What does not agree, in words; at most two. Raises `IndexDamaged`, `DirectoryLocked`.

    `readable`: that entry's body can still be had.
    """
    with IndexWriter(directory, key):  # as long as no one else writes, the runs are those of the manifest
        manifest = manifests.read(directory)
        mentioned = _mentioned(directory, manifest, key)
    gaps = {gap.partition for gap in manifest.gaps}
    agreed, missing = 0, 0
    for index, entry in reader.forward(0):
        if index >= manifest.mark:
            break
        facts = entries.facts(entry)
        if facts.type not in INDEXED or not facts.body:
            continue
        partition = Partition(facts.retention, facts.bucket)
        if index & WINDOW - 1 in mentioned.get((partition, index >> WINDOW_BITS), ()):
            agreed += 1
        elif partition not in gaps and key(*_names(partition)) is not None and readable(index, entry):
            missing += 1
    if missing:
        yield f"The index did not mention {missing:,} entries of the log."
    strangers = sum(map(len, mentioned.values())) - agreed
    if strangers:
        yield f"The index mentioned {strangers:,} entries that the log has not there."


def _mentioned(directory: Path, manifest: Manifest, key: Key) -> dict[Place, BitMap]:
    found: dict[Place, BitMap] = {}
    for run in manifest.runs:
        bucket_key = key(*_names(run.partition))
        if bucket_key is None:
            continue
        keys = TermKeys(bucket_key)
        with open_run(directory, run, keys) as reading:
            ordinals = reading.find(keys.name(ALL)) or BitMap()
        place = (run.partition, run.window)
        found[place] = found.get(place, BitMap()) | ordinals
    return found


def _names(partition: Partition) -> tuple[str, str]:
    return partition.retention, partition.bucket
