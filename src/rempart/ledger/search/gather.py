"""`Gathered`: postings in memory until they are written as runs, and streams out of them and out of other runs."""

from __future__ import annotations

import heapq
from array import array
from collections.abc import Collection, Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Final

from pyroaring import BitMap

from rempart.ledger.search import postings
from rempart.ledger.search.blocks import Reading, Stream
from rempart.ledger.search.manifest import Partition
from rempart.ledger.search.postings import WINDOW, WINDOW_BITS
from rempart.ledger.search.terms import TermKeys

_TERM_BYTES: Final = 200
"""A string, an array and their places in a table, about."""
_POSTING_BYTES: Final = 3

Terms = dict[str, "array[int]"]
"""Term -> ordinals, typecode H, ascending."""


class Gathered:
    """By partition and window. `bytes` depends on how many terms and postings there are, not on which."""

    def __init__(self) -> None:
        self._terms: dict[tuple[Partition, int], Terms] = {}
        self.bytes = 0

    def __bool__(self) -> bool:
        return bool(self._terms)

    def add(self, partition: Partition, index: int, terms: Collection[str]) -> None:
        """Entries come in ascending order."""
        place = partition, index >> WINDOW_BITS
        known = self._terms.get(place)
        if known is None:
            self._terms[place] = known = {}
        before, ordinal = len(known), index & WINDOW - 1
        for term in terms:
            try:
                known[term].append(ordinal)
            except KeyError:
                known[term] = array("H", (ordinal,))
        self.bytes += (len(known) - before) * _TERM_BYTES + len(terms) * _POSTING_BYTES

    def drain(self) -> Iterator[tuple[Partition, int, Terms]]:
        """Takes out all: partition, window, terms."""
        while self._terms:
            (partition, window), terms = self._terms.popitem()
            yield partition, window, terms
        self.bytes = 0


def stream_of(terms: Terms, keys: TermKeys) -> Stream:
    name, named = keys.namer(), dict[int, "array[int]"]()
    for term, ordinals in terms.items():
        number = name(term)
        if number in named:  # two terms of one name
            ordinals = array("H", sorted({*named[number], *ordinals}))
        named[number] = ordinals
    stream, encode = Stream(), postings.encode
    for number in sorted(named):
        ordinals = named[number]
        stream.add(number, len(ordinals), encode(number, ordinals))
    return stream


def merged(readings: Sequence[Reading]) -> Stream:
    """One run out of several of the same partition and window. Raises `IndexDamaged`."""
    stream = Stream()
    every = heapq.merge(*(reading.records() for reading in readings), key=itemgetter(0))
    for name, group in groupby(every, key=itemgetter(0)):
        stream.add(name, *postings.merged(name, [(count, payload) for _, count, payload in group]))
    return stream


def without(reading: Reading, erased: BitMap) -> Stream:
    """The run without what it says of these ordinals. Raises `IndexDamaged`."""
    stream = Stream()
    for name, count, payload in reading.records():
        left, record = postings.without(name, count, payload, erased)
        if left:
            stream.add(name, left, record)
    return stream
