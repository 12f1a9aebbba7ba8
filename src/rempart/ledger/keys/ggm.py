"""`KeyTree`: 2^20 record keys from one seed, so that nothing is written per exchange and each can be erased (pure).

Source: Goldreich, Goldwasser, Micali, "How to construct random functions" (JACM 1986); the children of a node are
SHA-256(0x00 ‖ node) and SHA-256(0x01 ‖ node), the most significant bit of the leaf first. Erasing a leaf keeps the
siblings along its path, from which every other leaf can still be had, and that one cannot.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from hashlib import sha256
from typing import Final

import msgspec

from rempart import limits
from rempart.errors import KeystoreError

DEPTH: Final = limits.seed_leaves_bits
LEAVES: Final = 1 << DEPTH


class Node(msgspec.Struct, frozen=True):
    """A node that is kept: `prefix` is its path in bits, as text of 0 and 1."""

    prefix: str
    key: bytes


class KeyTree:
    """Leaves of one seed, fast when asked for in order."""

    __slots__ = ("_begins", "_nodes", "_path", "_path_leaf", "_sorted")

    def __init__(self, nodes: Sequence[Node]) -> None:
        self._nodes = tuple(nodes)
        self._sorted = sorted(self._nodes, key=_begin)
        self._begins = [_begin(node) for node in self._sorted]
        self._path: list[bytes] = []
        self._path_leaf = -1

    @property
    def nodes(self) -> tuple[Node, ...]:
        return self._nodes

    def leaf(self, number: int) -> bytes:
        """32 bytes. Raises `KeystoreError` when that leaf was erased."""
        _check(number)
        if len(self._nodes) == 1 and not self._nodes[0].prefix:
            return self._along(number)
        place = bisect_right(self._begins, number) - 1
        bits = f"{number:0{DEPTH}b}"
        if place < 0 or not bits.startswith(self._sorted[place].prefix):
            raise KeystoreError(f"The record key {number} was erased.")
        node = self._sorted[place]
        return _descend(node.key, bits[len(node.prefix) :])

    def _along(self, number: int) -> bytes:
        """Keeps the path to the last leaf: its neighbour shares nearly all of it."""
        shared = DEPTH - (number ^ self._path_leaf).bit_length() if self._path_leaf >= 0 else 0
        path = self._path[: shared + 1] or [self._nodes[0].key]
        for depth in range(len(path) - 1, DEPTH):
            bit = number >> (DEPTH - 1 - depth) & 1
            path.append(sha256((b"\x01" if bit else b"\x00") + path[-1]).digest())
        self._path, self._path_leaf = path, number
        return path[-1]

    def without(self, number: int) -> KeyTree:
        """The tree from which that leaf cannot be had any more; itself when it is gone already."""
        return self.without_all((number,))

    def without_all(self, numbers: Iterable[int]) -> KeyTree:
        """The same for many leaves at once, in one walk: at most 20 hashes and 19 nodes for each of them.

        Nodes are as few as can be: a subtree that keeps all its leaves is one of them, one that keeps none is none.
        """
        erased = sorted(set(numbers))
        for number in erased:
            _check(number)
        kept: list[Node] = []
        for node in self._nodes:
            kept += _keep(node, erased)
        return self if len(kept) == len(self._nodes) and kept == list(self._nodes) else KeyTree(kept)


def _check(number: int) -> None:
    if not 0 <= number < LEAVES:
        raise ValueError(f"a seed has {LEAVES} leaves, none is {number}")


def _descend(key: bytes, bits: str) -> bytes:
    for bit in bits:
        key = sha256((b"\x01" if bit == "1" else b"\x00") + key).digest()
    return key


def _begin(node: Node) -> int:
    """Its first leaf."""
    return int(node.prefix.ljust(DEPTH, "0"), 2)


def _keep(top: Node, erased: Sequence[int]) -> list[Node]:
    """What remains of a subtree, its largest parts first; `erased` is sorted."""
    kept: list[Node] = []
    ahead = [(top, _begin(top), 0, len(erased))]
    while ahead:
        node, begin, low, high = ahead.pop()
        size = 1 << DEPTH - len(node.prefix)
        low, high = bisect_left(erased, begin, low, high), bisect_left(erased, begin + size, low, high)
        if low == high:
            kept.append(node)
        elif high - low < size:
            half = begin + size // 2
            left = Node(node.prefix + "0", _descend(node.key, "0"))
            right = Node(node.prefix + "1", _descend(node.key, "1"))
            ahead += [(right, half, low, high), (left, begin, low, high)]
    return sorted(kept, key=lambda node: len(node.prefix))
