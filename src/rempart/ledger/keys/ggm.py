"""`KeyTree`: 2^20 record keys from one seed, so that nothing is written per exchange and each can be erased (pure).

Source: Goldreich, Goldwasser, Micali, "How to construct random functions" (JACM 1986); the children of a node are
SHA-256(0x00 ‖ node) and SHA-256(0x01 ‖ node), the most significant bit of the leaf first. Erasing a leaf keeps the
siblings along its path, from which every other leaf can still be had, and that one cannot.
"""

from __future__ import annotations

from collections.abc import Sequence
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

    __slots__ = ("_nodes", "_path", "_path_leaf")

    def __init__(self, nodes: Sequence[Node]) -> None:
        self._nodes = tuple(nodes)
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
        bits = f"{number:0{DEPTH}b}"
        for node in self._nodes:
            if bits.startswith(node.prefix):
                return _descend(node.key, bits[len(node.prefix) :])
        raise KeystoreError(f"The record key {number} was erased.")

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
        _check(number)
        bits = f"{number:0{DEPTH}b}"
        for place, node in enumerate(self._nodes):
            if bits.startswith(node.prefix):
                kept = _co_path(node, bits)
                return KeyTree([*self._nodes[:place], *kept, *self._nodes[place + 1 :]])
        return self


def _check(number: int) -> None:
    if not 0 <= number < LEAVES:
        raise ValueError(f"a seed has {LEAVES} leaves, none is {number}")


def _descend(key: bytes, bits: str) -> bytes:
    for bit in bits:
        key = sha256((b"\x01" if bit == "1" else b"\x00") + key).digest()
    return key


def _co_path(node: Node, bits: str) -> list[Node]:
    kept: list[Node] = []
    key = node.key
    for depth in range(len(node.prefix), DEPTH):
        other = "1" if bits[depth] == "0" else "0"
        kept.append(Node(bits[:depth] + other, _descend(key, other)))
        key = _descend(key, bits[depth])
    return kept
