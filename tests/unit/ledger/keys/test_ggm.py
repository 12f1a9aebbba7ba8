"""`rempart.ledger.keys.ggm`: a leaf that is erased is gone for good, and no other with it."""

from __future__ import annotations

from hashlib import sha256

import pytest

from rempart.errors import KeystoreError
from rempart.ledger.keys.ggm import DEPTH, LEAVES, KeyTree, Node

SEED = sha256(b"a seed").digest()
SAMPLE = [0, 1, 2, 3, 4, 511, 512, LEAVES // 2 - 1, LEAVES // 2, LEAVES // 2 + 1, LEAVES - 2, LEAVES - 1]
OUTSIDE = [-LEAVES, -1, LEAVES, LEAVES + 1, 2 * LEAVES]


def whole() -> KeyTree:
    return KeyTree([Node("", SEED)])


def by_the_paper(number: int) -> bytes:
    """G(x) = SHA-256(0 ‖ x) ‖ SHA-256(1 ‖ x), the leaf's most significant bit first."""
    key = SEED
    for bit in f"{number:020b}":
        key = sha256(bytes([int(bit)]) + key).digest()
    return key


def test_a_seed_has_2_to_the_20_leaves() -> None:
    assert (DEPTH, LEAVES) == (20, 1_048_576)


def test_leaves_are_those_of_the_construction() -> None:
    tree = whole()
    assert [tree.leaf(number) for number in SAMPLE] == [by_the_paper(number) for number in SAMPLE]
    assert tree.leaf(0) == by_the_paper(0)  # backwards, after the path was kept for the last one


def test_leaves_in_order_are_those_asked_for_one_by_one() -> None:
    tree = whole()
    assert [tree.leaf(number) for number in range(300)] == [whole().leaf(number) for number in range(300)]


def test_leaves_are_all_different() -> None:
    tree = whole()
    assert len({tree.leaf(number) for number in range(5_000)}) == 5_000


@pytest.mark.parametrize("number", SAMPLE)
def test_an_erased_leaf_is_gone_and_all_others_remain(number: int) -> None:
    tree = whole().without(number)
    with pytest.raises(KeystoreError, match="erased"):
        tree.leaf(number)
    others = [other for other in SAMPLE if other != number]
    assert [tree.leaf(other) for other in others] == [by_the_paper(other) for other in others]


def test_many_leaves_are_erased_in_any_order() -> None:
    tree = whole()
    for number in (5, 4, LEAVES - 1, 0, 512, 7):
        tree = tree.without(number)
    for number in (5, 4, LEAVES - 1, 0, 512, 7):
        with pytest.raises(KeystoreError):
            tree.leaf(number)
    for number in (1, 2, 3, 6, 8, 511, 513, LEAVES - 2):
        assert tree.leaf(number) == by_the_paper(number)


def test_a_leaf_erased_stays_erased() -> None:
    once = whole().without(42)
    assert once.without(42) is once
    later = KeyTree(once.nodes).without(43)
    for number in (42, 43):
        with pytest.raises(KeystoreError):
            later.leaf(number)


def test_no_node_that_is_kept_lies_above_an_erased_leaf() -> None:
    tree = whole().without(42).without(1_000).without(LEAVES - 1)
    kept = [node.prefix for node in tree.nodes]
    for number in (42, 1_000, LEAVES - 1):
        assert not any(f"{number:020b}".startswith(prefix) for prefix in kept)
    assert sum(1 << DEPTH - len(prefix) for prefix in kept) == LEAVES - 3
    assert SEED not in {node.key for node in tree.nodes}


def test_the_co_path_is_the_sibling_of_each_node_on_the_way() -> None:
    [first, *_, last] = whole().without(0).nodes
    assert first == Node("1", sha256(b"\x01" + SEED).digest())
    assert last == Node("0" * 19 + "1", by_the_paper(1))
    assert len(whole().without(0).nodes) == DEPTH


def test_both_leaves_of_the_lowest_node_may_go() -> None:
    tree = whole().without(6).without(7)
    assert not any(len(node.prefix) == DEPTH for node in tree.nodes)
    assert tree.leaf(5) == by_the_paper(5)


def test_erasing_changes_no_tree_but_the_new_one() -> None:
    tree = whole()
    tree.without(3)
    assert tree.leaf(3) == by_the_paper(3)
    assert tree.nodes == (Node("", SEED),)


@pytest.mark.parametrize("number", OUTSIDE)
def test_a_leaf_outside_the_seed_cannot_be_had(number: int) -> None:
    with pytest.raises(ValueError, match="a seed has"):
        whole().leaf(number)


@pytest.mark.parametrize("number", OUTSIDE)
def test_a_leaf_outside_the_seed_cannot_be_erased(number: int) -> None:
    """Else another one goes in its place: leaf 2^20 has 21 bits, of which the first 20 name leaf 2^19."""
    with pytest.raises(ValueError, match="a seed has"):
        whole().without(number)
