"""`seal` and `Reading`: a run of the index as blocks of one size (pure; randomness and reads are arguments).

A run is immutable: the records of its terms (`postings`), in order of their keyed names, cut into blocks of
`limits.index_block_bytes`; a directory (for each block the first record that begins in it, and where the block lies);
and a root at place 0. All but the root lie in a random order. Each block is AES-256-GCM under the run's key, its place
as nonce and the run's identity as additional data:

    place 0:   "REMPIDX1" ‖ salt (32) ‖ sealed root
    place n:   sealed block of records, of the directory, or of zeros

How many blocks there are follows from how many terms and postings the run has (`blocks_of`), rounded as in Padmé
(PURBs, PoPETs 2019); what compression saves is filled with zeros before it is sealed. So the size of a file tells
about how much was said in all, and nothing of how often any word was.

Numbers are little-endian. Root: u32 blocks of records, u32 blocks of the directory, u32 bytes in the last block of
records, u32 zero, u64 terms, u64 postings, then for each directory block the first name (u64), then its place (u32).
Directory block: for each of its blocks the first name (u64), then the offset of that record (u16, 0xFFFF when none
begins there; the name is then the one before), then the place (u32), in three columns.
"""

from __future__ import annotations

import sys
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from struct import Struct
from typing import Final

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from pyroaring import BitMap

from rempart import limits
from rempart.errors import IndexDamaged
from rempart.ledger.search import postings

MAGIC: Final = b"REMPIDX1"
SALT_BYTES: Final = 32
BLOCK: Final = limits.index_block_bytes
_TAG: Final = 16
_PLAIN: Final = BLOCK - _TAG
_ROOT_PLAIN: Final = BLOCK - len(MAGIC) - SALT_BYTES - _TAG
_ROOT: Final = Struct("<IIIIQQ")
_NONE: Final = 0xFFFF
_ENTRY_BYTES: Final = 14
_PER_DIRECTORY: Final = _PLAIN // _ENTRY_BYTES
_DIRECTORIES_MAX: Final = (_ROOT_PLAIN - _ROOT.size) // 12

Read = Callable[[int], bytes]
"""The block at a place; fewer bytes than a block when the file ends before."""


class Stream:
    """Records in order of their names, as they are gathered for a run."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.names = array("Q")
        self.offsets = array("Q")
        self.postings = 0

    def add(self, name: int, count: int, record: bytes) -> None:
        """`name` above all before it; `count` postings in it."""
        self.names.append(name)
        self.offsets.append(len(self.data))
        self.data += record
        self.postings += count


class Shape(msgspec.Struct, frozen=True):
    """How many blocks a run has, beside its root."""

    records: int
    directory: int

    @property
    def all(self) -> int:
        return 1 + self.records + self.directory


def blocks_of(terms: int, count: int) -> Shape:
    """Of a run of so many terms and postings, whichever they are. Raises `ValueError` when no run may be so large."""
    records = padme(-(-postings.bytes_max(terms, count) // _PLAIN))
    directory = -(-records // _PER_DIRECTORY)
    if directory > _DIRECTORIES_MAX:
        raise ValueError("a run has more blocks than its root can name")
    return Shape(records, directory)


def padme(length: int) -> int:
    """Rounded up by at most 12 %, so that only O(log log length) bits of it show."""
    if length < 2:
        return length
    exponent = length.bit_length() - 1
    mask = (1 << exponent - exponent.bit_length()) - 1
    return length + mask & ~mask


def seal(stream: Stream, salt: bytes, key: bytes, identity: bytes, random: Callable[[int], bytes]) -> Iterator[bytes]:
    """The blocks in the order of their places. `key` is the run key of `salt`, which is never used twice."""
    shape = blocks_of(len(stream.names), stream.postings)
    used = -(-len(stream.data) // _PLAIN)
    weights = array("Q", random(8 * (shape.all - 1)))
    places = array("I", (1 + place for place in sorted(range(shape.all - 1), key=weights.__getitem__)))
    directory, firsts = _directory(stream, used, places)
    blocks = {places[shape.records + number]: number for number in range(len(directory))}
    records = {places[number]: number for number in range(used)}
    cipher = AESGCM(key)
    root = _root(stream, used, firsts, places[shape.records : shape.records + len(directory)])
    yield MAGIC + salt + cipher.encrypt(_nonce(0), root.ljust(_ROOT_PLAIN, b"\0"), identity)
    view = memoryview(stream.data)
    for place in range(1, shape.all):
        plain = b""
        if place in records:
            plain = bytes(view[records[place] * _PLAIN : (records[place] + 1) * _PLAIN])
        elif place in blocks:
            plain = directory[blocks[place]]
        yield cipher.encrypt(_nonce(place), plain.ljust(_PLAIN, b"\0"), identity)


def _directory(stream: Stream, used: int, places: array[int]) -> tuple[list[bytes], array[int]]:
    """The directory's blocks, and the first name of each."""
    names, offsets = array("Q"), array("H")
    for block in range(used):
        record = bisect_left(stream.offsets, block * _PLAIN)
        begins = record < len(stream.offsets) and stream.offsets[record] < (block + 1) * _PLAIN
        names.append(stream.names[record] if begins else stream.names[record - 1])
        offsets.append(stream.offsets[record] - block * _PLAIN if begins else _NONE)
    blocks = [
        _bytes(names[first : first + _PER_DIRECTORY])
        + _bytes(offsets[first : first + _PER_DIRECTORY])
        + _bytes(places[first : min(first + _PER_DIRECTORY, used)])
        for first in range(0, used, _PER_DIRECTORY)
    ]
    return blocks, names[::_PER_DIRECTORY]


def _root(stream: Stream, used: int, firsts: array[int], places: array[int]) -> bytes:
    last = len(stream.data) - (used - 1) * _PLAIN if used else 0
    head = _ROOT.pack(used, len(places), last, 0, len(stream.names), stream.postings)
    return head + _bytes(firsts) + _bytes(places)


def _nonce(place: int) -> bytes:
    return place.to_bytes(12, "little")


def _bytes(column: array[int]) -> bytes:
    if sys.byteorder == "big":
        column = column[:]
        column.byteswap()
    return column.tobytes()


def _column(kind: str, data: bytes) -> array[int]:
    found = array(kind)
    found.frombytes(data)
    if sys.byteorder == "big":
        found.byteswap()
    return found


class _Directory:
    """Columns of one directory block."""

    __slots__ = ("names", "offsets", "places")

    def __init__(self, plain: bytes, blocks: int) -> None:
        self.names = _column("Q", plain[: 8 * blocks])
        self.offsets = _column("H", plain[8 * blocks : 10 * blocks])
        self.places = _column("I", plain[10 * blocks : 14 * blocks])


class Reading:
    """One run, read. Every method raises `IndexDamaged` at a block that is not the one that was sealed."""

    def __init__(self, read: Read, run_key: Callable[[bytes], bytes], identity: bytes) -> None:
        """`run_key` gives the key of a salt."""
        self._read = read
        self._identity = identity
        head = read(0)
        if len(head) != BLOCK or not head.startswith(MAGIC):
            raise _damaged(0)
        begin = len(MAGIC) + SALT_BYTES
        self._cipher = AESGCM(run_key(head[len(MAGIC) : begin]))
        root = self._decrypt(0, head[begin:])
        self._used, directories, self._last, _, self.terms, self.postings = _ROOT.unpack_from(root)
        if not self._used:
            raise IndexDamaged("A run of the index is empty.")
        places = _ROOT.size + 8 * directories
        self._firsts = _column("Q", root[_ROOT.size : places])
        self._places = _column("I", root[places : places + 4 * directories])
        self._directories: dict[int, _Directory] = {}

    def find(self, name: int) -> BitMap | None:
        """The ordinals of a term, None when no entry of this run has it."""
        place = self._first_place(name)
        if place is None:
            return None
        block, offset = place
        data = self._block(block)
        unpack, size = postings.RECORD.unpack_from, postings.RECORD.size
        while True:
            while offset + size > len(data):
                block += 1
                if block == self._used:
                    return None
                data += self._block(block)
            found, count, length = unpack(data, offset)
            if found >= name:
                break
            offset += size + length
        if found != name:
            return None
        begin = offset + size
        while begin + length > len(data):
            block += 1
            data += self._block(block)
        return postings.decode(count + 1, data[begin : begin + length])

    def records(self) -> Iterator[tuple[int, int, bytes]]:
        """All in order: name, how many postings, the postings."""
        data, block, terms = b"", 0, 0
        size = postings.RECORD.size
        while data or block < self._used:
            offset = 0
            while offset + size <= len(data):
                name, less, length = postings.RECORD.unpack_from(data, offset)
                if offset + size + length > len(data):
                    break
                yield name, less + 1, data[offset + size : offset + size + length]
                offset, terms = offset + size + length, terms + 1
            data = data[offset:]
            if block < self._used:
                data, block = data + self._block(block), block + 1
            elif data:
                raise IndexDamaged("A run of the index ends within a record.")
        if terms != self.terms:
            raise IndexDamaged("A run of the index has another number of terms than it states.")

    def _first_place(self, name: int) -> tuple[int, int] | None:
        """The block from which on a term must be looked for, and the offset of a record in it."""
        number = bisect_right(self._firsts, name) - 1
        if number < 0:
            return None
        inner = bisect_right(self._directory(number).names, name) - 1
        while self._directory(number).offsets[inner] == _NONE:
            inner -= 1
            if inner < 0:
                number, inner = number - 1, _PER_DIRECTORY - 1
        return number * _PER_DIRECTORY + inner, self._directory(number).offsets[inner]

    def _directory(self, number: int) -> _Directory:
        found = self._directories.get(number)
        if found is None:
            place = self._places[number]
            blocks = min(_PER_DIRECTORY, self._used - number * _PER_DIRECTORY)
            plain = self._decrypt(place, self._read(place))
            self._directories[number] = found = _Directory(plain, blocks)
        return found

    def _block(self, block: int) -> bytes:
        """A block of records, without the zeros after the last."""
        if block >= self._used:
            raise IndexDamaged("A run of the index ends within a record.")
        place = self._directory(block // _PER_DIRECTORY).places[block % _PER_DIRECTORY]
        plain = self._decrypt(place, self._read(place))
        return plain[: self._last] if block == self._used - 1 else plain

    def _decrypt(self, place: int, sealed: bytes) -> bytes:
        try:
            return self._cipher.decrypt(_nonce(place), sealed, self._identity)
        except (InvalidTag, ValueError) as error:
            raise _damaged(place) from error


def _damaged(place: int) -> IndexDamaged:
    return IndexDamaged(f"Block {place} of a run of the index does not open under its key.")
