"""`rempart.ledger.log.merkle`: the vectors that RFC 6962 implementations share, and what verification refuses."""

from __future__ import annotations

import pytest

from rempart.errors import LedgerCorrupt
from rempart.ledger.log import merkle

# The reference tree of RFC 6962 implementations (certificate-transparency, Trillian, transparency-dev/merkle).
LEAVES = [
    b"",
    b"\x00",
    b"\x10",
    b"\x20\x21",
    b"\x30\x31",
    b"\x40\x41\x42\x43",
    bytes(range(0x50, 0x58)),
    bytes(range(0x60, 0x70)),
]
ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
# Audit paths of that tree as (index, size, path).
PATHS = [
    (0, 1, []),
    (
        0,
        8,
        [
            "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
        ],
    ),
    (
        5,
        8,
        [
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
            "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        ],
    ),
    (2, 3, ["fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"]),
    (
        1,
        5,
        [
            "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        ],
    ),
]
CONSISTENCY = [
    (1, 1, []),
    (
        1,
        8,
        [
            "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
        ],
    ),
    (
        6,
        8,
        [
            "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
            "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        ],
    ),
    (
        2,
        5,
        [
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        ],
    ),
]
HASHES = [merkle.leaf_hash(leaf) for leaf in LEAVES]


def read(level: int, place: int) -> bytes:
    return merkle.root_of(HASHES[place << level : place + 1 << level])


def decoded(hashes: list[str]) -> list[bytes]:
    return [bytes.fromhex(hash_) for hash_ in hashes]


def root(size: int) -> bytes:
    return bytes.fromhex(ROOTS[size])


def test_the_empty_tree_has_the_hash_of_nothing() -> None:
    assert merkle.EMPTY_ROOT == merkle.root_of([]) == merkle.fold([]) == root(0)


def test_leaves_and_nodes_are_hashed_apart() -> None:
    assert merkle.leaf_hash(b"").hex() == ROOTS[1]
    assert merkle.leaf_hash(b"L123456").hex() == "395aa064aa4c29f7010acfe3f25db9485bbd4b91897b6ad7ad547639252b4d56"
    assert merkle.node_hash(b"N123", b"N456").hex() == (
        "aa217fe888e47007fa15edab33c2b492a722cb106c64667fc2b044444de66bbb"
    )


@pytest.mark.parametrize("size", range(9))
def test_roots_of_the_reference_tree(size: int) -> None:
    assert merkle.root_of(HASHES[:size]) == root(size)
    assert merkle.fold([read(level, place) for level, place in merkle.range_nodes(0, size)]) == root(size)


@pytest.mark.parametrize(("index", "size", "path"), PATHS)
def test_audit_paths_of_the_reference_tree(index: int, size: int, path: list[str]) -> None:
    assert merkle.inclusion_proof(index, size, read) == decoded(path)
    merkle.verify_inclusion(index, size, HASHES[index], decoded(path), root(size))


@pytest.mark.parametrize(("old", "new", "path"), CONSISTENCY)
def test_consistency_proofs_of_the_reference_tree(old: int, new: int, path: list[str]) -> None:
    assert merkle.consistency_proof(old, new, read) == decoded(path)
    merkle.verify_consistency(old, new, root(old), root(new), decoded(path))


def test_a_range_is_covered_by_the_fewest_nodes() -> None:
    assert merkle.range_nodes(0, 7) == [(2, 0), (1, 2), (0, 6)]
    assert merkle.range_nodes(3, 9) == [(0, 3), (2, 1), (0, 8)]
    assert merkle.range_nodes(256, 512) == [(8, 1)]
    assert merkle.range_nodes(5, 5) == []


@pytest.mark.parametrize(("index", "size"), [(-1, 8), (8, 8), (0, 0)])
def test_a_leaf_that_is_not_there_has_no_proof(index: int, size: int) -> None:
    with pytest.raises(ValueError, match="no leaf"):
        merkle.inclusion_proof(index, size, read)
    with pytest.raises(LedgerCorrupt):
        merkle.verify_inclusion(index, size, HASHES[0], [], root(1))


@pytest.mark.parametrize(("old", "new"), [(-1, 8), (5, 4)])
def test_a_tree_is_no_prefix_of_a_smaller_one(old: int, new: int) -> None:
    with pytest.raises(ValueError, match="no prefix"):
        merkle.consistency_proof(old, new, read)
    with pytest.raises(LedgerCorrupt):
        merkle.verify_consistency(old, new, root(1), root(4), [])


@pytest.mark.parametrize("index", [0, 3, 7])
def test_an_inclusion_proof_of_another_length_is_refused(index: int) -> None:
    proof = merkle.inclusion_proof(index, 8, read)
    for wrong in (proof[:-1], [*proof, HASHES[0]], [], [HASHES[0], *proof]):
        with pytest.raises(LedgerCorrupt):
            merkle.verify_inclusion(index, 8, HASHES[index], wrong, root(8))


@pytest.mark.parametrize("old", [1, 3, 4, 6])
def test_a_consistency_proof_of_another_length_is_refused(old: int) -> None:
    proof = merkle.consistency_proof(old, 8, read)
    for wrong in (proof[:-1], [*proof, HASHES[0]], []):
        with pytest.raises(LedgerCorrupt):
            merkle.verify_consistency(old, 8, root(old), root(8), wrong)


def test_an_inner_node_is_no_leaf() -> None:
    """A path that begins one level higher would show a node as a leaf of a tree of half the size."""
    proof = merkle.inclusion_proof(0, 8, read)
    merkle.verify_inclusion(0, 4, read(1, 0), proof[1:], root(8))  # only the size, which is signed, tells
    with pytest.raises(LedgerCorrupt):
        merkle.verify_inclusion(0, 8, read(1, 0), proof[1:], root(8))


def test_trees_of_the_same_size_have_one_root() -> None:
    merkle.verify_consistency(8, 8, root(8), root(8), [])
    with pytest.raises(LedgerCorrupt):
        merkle.verify_consistency(8, 8, root(7), root(8), [])
    with pytest.raises(LedgerCorrupt):
        merkle.verify_consistency(8, 8, root(8), root(8), [HASHES[0]])


def test_the_empty_tree_is_a_prefix_of_all_under_its_own_root_alone() -> None:
    merkle.verify_consistency(0, 8, root(0), root(8), [])
    with pytest.raises(LedgerCorrupt):
        merkle.verify_consistency(0, 8, root(1), root(8), [])


@pytest.mark.parametrize("length", [0, 31, 33])
def test_hashes_of_another_length_are_refused(length: int) -> None:
    bad = bytes(length)
    with pytest.raises(LedgerCorrupt, match="32 bytes"):
        merkle.verify_inclusion(0, 2, HASHES[0], [bad], root(2))
    with pytest.raises(LedgerCorrupt, match="32 bytes"):
        merkle.verify_inclusion(0, 2, bad, [HASHES[1]], root(2))
    with pytest.raises(LedgerCorrupt, match="32 bytes"):
        merkle.verify_consistency(2, 3, root(2), bad, [HASHES[2]])
