"""`encode` and `decode`: the entries of one term in one run (pure).

A run covers a window of 2^16 entries of the log, so a posting is 16 bits. Up to 64 of them are written as they are,
little-endian; more as a roaring bitmap in its portable format (RoaringFormatSpec), whose single container is never
larger than 16 bytes beyond that. So postings cost two bytes and a bounded rest, whoever they belong to: what a run
may take at most depends on how many postings and terms it has and on nothing else (`bytes_max`).
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Sequence
from struct import Struct
from typing import Final

from pyroaring import BitMap

from rempart.errors import IndexDamaged

WINDOW_BITS: Final = 16
WINDOW: Final = 1 << WINDOW_BITS
_PLAIN_MAX: Final = 64
_ROARING_BYTES: Final = 16
RECORD: Final = Struct("<QHH")
"""Name of the term, count of postings less one, bytes of the postings that follow."""


def bytes_max(terms: int, postings: int) -> int:
    """What so many records of so many postings take at most, however the postings are spread over the terms."""
    return terms * RECORD.size + 2 * postings + postings // (_PLAIN_MAX + 1) * _ROARING_BYTES


def encode(name: int, ordinals: array[int]) -> bytes:
    """A record. `ordinals`: typecode H, ascending, each once, at least one."""
    many = len(ordinals) > _PLAIN_MAX
    payload = BitMap(array("I", ordinals)).serialize() if many else _swapped(ordinals).tobytes()
    return RECORD.pack(name, len(ordinals) - 1, len(payload)) + payload


def decode(count: int, payload: bytes) -> BitMap:
    """`payload` comes out of an authenticated block: bitmaps of strangers are not read. Raises `IndexDamaged`."""
    if count > _PLAIN_MAX:
        try:
            found = BitMap.deserialize(payload)
        except (ValueError, IndexError) as error:
            raise IndexDamaged("A list of entries in the index is not one.") from error
    else:
        found = BitMap(array("I", _ordinals(payload)))
    if len(found) != count:
        raise IndexDamaged("A list of entries in the index has another length than it states.")
    return found


def without(name: int, count: int, payload: bytes, erased: BitMap) -> tuple[int, bytes]:
    """The record without these ordinals: how many are left, and its bytes; nothing when none is."""
    found = decode(count, payload) - erased
    return (len(found), encode(name, array("H", found)) if found else b"")


def merged(name: int, lists: Sequence[tuple[int, bytes]]) -> tuple[int, bytes]:
    """One record of several lists (count and payload): how many postings, and its bytes."""
    if sum(count for count, _ in lists) <= _PLAIN_MAX:
        every = {ordinal for _, payload in lists for ordinal in _ordinals(payload)}
        return len(every), encode(name, array("H", sorted(every)))
    found = BitMap()
    for count, payload in lists:
        found |= decode(count, payload)
    return len(found), encode(name, array("H", found))


def _ordinals(payload: bytes) -> array[int]:
    found = array("H")
    try:
        found.frombytes(payload)
    except ValueError as error:
        raise IndexDamaged("A list of entries in the index is cut off.") from error
    return _swapped(found)


def _swapped(ordinals: array[int]) -> array[int]:
    """Between this machine's order and little-endian."""
    if sys.byteorder == "big":
        ordinals = ordinals[:]
        ordinals.byteswap()
    return ordinals
