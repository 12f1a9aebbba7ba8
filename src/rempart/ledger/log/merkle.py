"""`root_of`: Merkle trees of RFC 6962 section 2.1 over SHA-256, their proofs and their verification (pure).

A *node* is named by its level and its place in that level; only perfect subtrees are nodes: node (l, i) covers the
leaves i·2^l to (i+1)·2^l. Hashes are 32 bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Final, TypeAlias

from rempart.errors import LedgerCorrupt

HASH_BYTES: Final = 32
EMPTY_ROOT: Final = sha256(b"").digest()

NodeReader: TypeAlias = Callable[[int, int], bytes]
"""(level, place) -> hash of a perfect subtree."""


def leaf_hash(entry: bytes) -> bytes:
    """SHA-256(0x00 ‖ entry)."""
    return sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """SHA-256(0x01 ‖ left ‖ right)."""
    return sha256(b"\x01" + left + right).digest()


def root_of(hashes: Sequence[bytes]) -> bytes:
    """MTH of the hashes of neighbouring nodes of one level; of none, the empty root."""
    if not hashes:
        return EMPTY_ROOT
    row = list(hashes)
    while len(row) > 1:
        above = [sha256(b"\x01" + row[i] + row[i + 1]).digest() for i in range(0, len(row) - 1, 2)]
        if len(row) % 2:
            above.append(row[-1])  # the last one moves up as it is: this is the same tree as RFC 6962's
        row = above
    return row[0]


def range_nodes(begin: int, end: int) -> list[tuple[int, int]]:
    """The fewest nodes that cover the leaves from `begin` to before `end`, left to right."""
    nodes: list[tuple[int, int]] = []
    while begin < end:
        level = (begin & -begin).bit_length() - 1 if begin else (end - begin).bit_length() - 1
        while begin + (1 << level) > end:
            level -= 1
        nodes.append((level, begin >> level))
        begin += 1 << level
    return nodes


def fold(hashes: Sequence[bytes]) -> bytes:
    """The root above the nodes of `range_nodes(0, size)`."""
    if not hashes:
        return EMPTY_ROOT
    root = hashes[-1]
    for left in reversed(hashes[:-1]):
        root = node_hash(left, root)
    return root


def inclusion_proof(index: int, size: int, read: NodeReader) -> list[bytes]:
    """Audit path of leaf `index` in the tree of `size` leaves (RFC 6962 section 2.1.1), lowest first."""
    if not 0 <= index < size:
        raise ValueError(f"there is no leaf {index} in a tree of {size}")
    return _path(index, 0, size, read)


def _path(index: int, begin: int, end: int, read: NodeReader) -> list[bytes]:
    if end - begin == 1:
        return []
    middle = begin + (1 << (end - begin - 1).bit_length() - 1)
    if index < middle:
        return [*_path(index, begin, middle, read), _range_root(middle, end, read)]
    return [*_path(index, middle, end, read), _range_root(begin, middle, read)]


def _range_root(begin: int, end: int, read: NodeReader) -> bytes:
    return fold([read(level, place) for level, place in range_nodes(begin, end)])


def consistency_proof(old: int, new: int, read: NodeReader) -> list[bytes]:
    """Proof that the tree of `old` leaves is a prefix of the tree of `new` (RFC 6962 section 2.1.2)."""
    if not 0 <= old <= new:
        raise ValueError(f"a tree of {old} is no prefix of one of {new}")
    return [] if old in (0, new) else _subproof(old, 0, new, True, read)


def _subproof(old: int, begin: int, end: int, whole: bool, read: NodeReader) -> list[bytes]:
    if old == end:
        return [] if whole else [_range_root(begin, end, read)]
    middle = begin + (1 << (end - begin - 1).bit_length() - 1)
    if old <= middle:
        return [*_subproof(old, begin, middle, whole, read), _range_root(middle, end, read)]
    return [*_subproof(old, middle, end, False, read), _range_root(begin, middle, read)]


def verify_inclusion(index: int, size: int, leaf: bytes, proof: Sequence[bytes], root: bytes) -> None:
    """RFC 9162 section 2.1.3.2. Raises `LedgerCorrupt` when `leaf` does not stand at `index` under `root`."""
    _check_hashes(leaf, root, *proof)
    if not 0 <= index < size:
        raise LedgerCorrupt(f"Leaf {index} is not in a tree of {size}.")
    place, last, found = index, size - 1, leaf
    for hash_ in proof:
        if last == 0:
            raise LedgerCorrupt("The inclusion proof is too long.")
        if place % 2 or place == last:
            found = node_hash(hash_, found)
            while place % 2 == 0 and place:
                place, last = place >> 1, last >> 1
        else:
            found = node_hash(found, hash_)
        place, last = place >> 1, last >> 1
    if last or found != root:
        raise LedgerCorrupt(f"The inclusion proof of leaf {index} does not lead to the root.")


def verify_consistency(old: int, new: int, old_root: bytes, new_root: bytes, proof: Sequence[bytes]) -> None:
    """RFC 9162 section 2.1.4.2. Raises `LedgerCorrupt` when the old tree is not a prefix of the new one."""
    _check_hashes(old_root, new_root, *proof)
    if not 0 <= old <= new:
        raise LedgerCorrupt(f"A tree of {old} is no prefix of one of {new}.")
    if old in (0, new):
        if proof or (old == new and old_root != new_root) or (old == 0 and old_root != EMPTY_ROOT):
            raise LedgerCorrupt("The trees are not consistent.")
        return
    path = list(proof)
    if old & (old - 1) == 0:
        path.insert(0, old_root)
    if not path:
        raise LedgerCorrupt("The consistency proof is empty.")
    place, last = old - 1, new - 1
    while place % 2:
        place, last = place >> 1, last >> 1
    first = second = path[0]
    for hash_ in path[1:]:
        if last == 0:
            raise LedgerCorrupt("The consistency proof is too long.")
        if place % 2 or place == last:
            first, second = node_hash(hash_, first), node_hash(hash_, second)
            while place % 2 == 0 and place:
                place, last = place >> 1, last >> 1
        else:
            second = node_hash(second, hash_)
        place, last = place >> 1, last >> 1
    if last or first != old_root or second != new_root:
        raise LedgerCorrupt("The consistency proof does not connect the two roots.")


def _check_hashes(*hashes: bytes) -> None:
    if any(len(hash_) != HASH_BYTES for hash_ in hashes):
        raise LedgerCorrupt(f"A hash is not {HASH_BYTES} bytes long.")
