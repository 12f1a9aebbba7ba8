"""`Index`: finds entries, the newest first. What it does:

1. It reads the manifest, and of the runs leaves out those of other classes and of days out of range.
2. Window by window from the newest, it looks each term up in each run, and keeps the entries that have them all.
3. A phrase's candidates are confirmed by their texts, decrypted by a function that it was given; what cannot be read
   is no result.
4. It stops at the limit, so that a common word costs no more than a rare one, and after so many candidates for a
   phrase; the answer then says from where to go on.

A run is opened, asked and closed: memory does not grow with the index. When a run went away meanwhile because a writer
replaced it, the search begins again on the new state. A damaged run raises `IndexDamaged`: what is incomplete is not
passed off as an answer. What is known to be missing is counted in the answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from pathlib import Path

import msgspec
from pyroaring import BitMap

from rempart import limits
from rempart.errors import IndexDamaged, LedgerUnavailable
from rempart.ledger.search import manifest as manifests
from rempart.ledger.search.blocks import Reading
from rempart.ledger.search.files import open_run
from rempart.ledger.search.manifest import Manifest, Partition, Run
from rempart.ledger.search.postings import WINDOW_BITS
from rempart.ledger.search.query import Query
from rempart.ledger.search.terms import ALL, TermKeys, field_term, span, time_terms
from rempart.ledger.search.words import words

Texts = Callable[[int], Sequence[str] | None]
"""What was said in an entry, decrypted; None when it cannot be read any more."""


class Results(msgspec.Struct, frozen=True, kw_only=True):
    """What was found."""

    entries: tuple[int, ...]
    """Indexes in the log, the newest first."""
    next: int | None
    """Entries from this one down were not looked at, since a limit was reached: ask again `below` it. None: all."""
    mark: int
    """Index of the first entry that is not in the index yet."""
    destroyed: int
    """Partitions whose key is gone: nothing of them can be found."""
    missing: int
    """Partitions that were damaged and are not whole again yet."""
    unreadable: int
    """Candidates for a phrase that cannot be read any more."""


class _Tally:
    """What is counted while searching."""

    def __init__(self) -> None:
        self.destroyed: set[Partition] = set()
        self.candidates = 0
        self.unreadable = 0


class Index:
    """Reads `<data>/ledger/index`, while a writer may be at work. Holds no file open between searches."""

    def __init__(self, directory: Path, key: Callable[[str, str], bytes | None]) -> None:
        """`key` gives the key of a class's bucket, None when it was destroyed."""
        self._directory = directory
        self._key = key

    def search(self, query: Query, *, limit: int, texts: Texts, below: int | None = None) -> Results:
        """At most `limit` entries, one at least, with indexes under `below`. Raises `IndexDamaged`."""
        limit = max(1, min(limit, limits.results_max))
        manifest = manifests.read(self._directory)
        for _ in range(limits.index_snapshots_max):
            try:
                return _Search(self._directory, self._key, query, texts).run(manifest, limit, below)
            except IndexDamaged:
                seen, manifest = manifest, manifests.read(self._directory)
                if manifest.generation == seen.generation:
                    raise
        raise LedgerUnavailable("The search index changes faster than it can be read.", hint="Try again.")


class _Search:
    """One search on one state of the index."""

    def __init__(self, directory: Path, key: Callable[[str, str], bytes | None], query: Query, texts: Texts) -> None:
        self._directory = directory
        self._key = key
        self._query = query
        self._texts = texts
        self._phrases = [f" {' '.join(phrase)} " for phrase in query.phrases]
        self._keys: dict[Partition, TermKeys | None] = {}
        self._tally = _Tally()

    def run(self, manifest: Manifest, limit: int, below: int | None) -> Results:
        found: list[int] = []
        for index in self._candidates(manifest, below):
            if len(found) == limit or self._tally.candidates == limits.phrase_candidates_max:
                return self._results(manifest, found, index + 1)
            if self._confirmed(index):
                found.append(index)
        return self._results(manifest, found, None)

    def _candidates(self, manifest: Manifest, below: int | None) -> Iterator[int]:
        """Entries that have all terms, the newest first."""
        wanted = (
            run
            for run in reversed(manifest.runs)
            if self._in_range(run.partition) and (below is None or run.first < below)
        )
        for window, runs in groupby(wanted, key=lambda run: run.window):
            for ordinal in reversed(self._window(runs).to_array()):
                index = window << WINDOW_BITS | ordinal
                if below is None or index < below:
                    yield index

    def _results(self, manifest: Manifest, found: list[int], next_: int | None) -> Results:
        return Results(
            entries=tuple(found),
            next=next_,
            mark=manifest.mark,
            destroyed=len(self._tally.destroyed),
            missing=len({gap.partition for gap in manifest.gaps if self._in_range(gap.partition)}),
            unreadable=self._tally.unreadable,
        )

    def _in_range(self, partition: Partition) -> bool:
        query = self._query
        if query.classes and partition.retention not in query.classes:
            return False
        first, last = span(partition.bucket)
        return (query.after is None or query.after < last) and (query.before is None or query.before > first)

    def _window(self, runs: Iterator[Run]) -> BitMap:
        found = BitMap()
        for run in runs:
            keys = self._term_keys(run.partition)
            if keys is not None:
                with open_run(self._directory, run, keys) as reading:
                    found |= self._matches(reading, keys, run.partition)
        return found

    def _matches(self, reading: Reading, keys: TermKeys, partition: Partition) -> BitMap:
        """Ordinals of the run's entries that have all terms."""
        found: BitMap | None = None
        for alternatives in self._terms(partition):
            having = BitMap()
            for term in alternatives:
                having |= reading.find(keys.name(term)) or BitMap()
            found = having if found is None else found & having
            if not found:
                return BitMap()
        return found if found is not None else BitMap()

    def _terms(self, partition: Partition) -> Iterator[list[str]]:
        """An entry must have one of each list."""
        query = self._query
        for word in query.all_words:
            yield [word]
        for name, values in query.fields:
            yield [field_term(name, value) for value in values]
        times = time_terms(partition.bucket, query.after, query.before)
        if times is not None:
            yield times
        if not query.all_words and not query.fields:
            yield [ALL]

    def _confirmed(self, index: int) -> bool:
        if not self._phrases:
            return True
        self._tally.candidates += 1
        texts = self._texts(index)
        if texts is None:
            self._tally.unreadable += 1
            return False
        lines = [f" {' '.join(words(text))} " for text in texts]
        return all(any(phrase in line for line in lines) for phrase in self._phrases)

    def _term_keys(self, partition: Partition) -> TermKeys | None:
        if partition not in self._keys:
            key = self._key(partition.retention, partition.bucket)
            self._keys[partition] = None if key is None else TermKeys(key)
            if key is None:
                self._tally.destroyed.add(partition)
        return self._keys[partition]
