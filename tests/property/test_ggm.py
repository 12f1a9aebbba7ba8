"""`rempart.ledger.keys.ggm`: leaves erased in any steps leave what a naive model says, in as few nodes as can be."""

from __future__ import annotations

import random
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rempart.errors import KeystoreError
from rempart.ledger.keys import ggm
from rempart.ledger.keys.ggm import DEPTH, LEAVES, KeyTree, Node

SEED = sha256(b"a seed").digest()
NEAR = st.integers(0, 40) | st.integers(LEAVES - 40, LEAVES - 1) | st.integers(0, LEAVES - 1)


def whole() -> KeyTree:
    return KeyTree([Node("", SEED)])


def has(tree: KeyTree, number: int) -> bool:
    try:
        return tree.leaf(number) == whole().leaf(number)
    except KeystoreError:
        return False


def naive(erased: set[int], prefix: str = "") -> list[str]:
    """Prefixes of the largest subtrees that hold no erased leaf."""
    begin, size = int(prefix.ljust(DEPTH, "0"), 2), 1 << DEPTH - len(prefix)
    inside = {number for number in erased if begin <= number < begin + size}
    if not inside:
        return [prefix]
    if len(inside) == size:
        return []
    return naive(inside, prefix + "0") + naive(inside, prefix + "1")


@given(st.lists(st.lists(NEAR, max_size=12), max_size=4), st.lists(NEAR, max_size=12))
def test_any_leaves_erased_in_any_steps_leave_what_the_model_says(steps: list[list[int]], others: list[int]) -> None:
    tree = whole()
    for step in steps:
        tree = tree.without_all(step)
    erased = {number for step in steps for number in step}
    assert sorted(node.prefix for node in tree.nodes) == sorted(naive(erased))
    for number in (*others, *erased):
        assert has(tree, number) is (number not in erased)


@given(st.lists(NEAR, max_size=12))
def test_at_once_or_one_by_one_is_the_same(numbers: list[int]) -> None:
    one_by_one = whole()
    for number in numbers:
        one_by_one = one_by_one.without(number)
    at_once = whole().without_all(numbers)
    assert sorted(one_by_one.nodes, key=lambda node: node.prefix) == sorted(at_once.nodes, key=lambda n: n.prefix)


@given(st.lists(NEAR, max_size=8))
def test_what_is_erased_already_changes_nothing(numbers: list[int]) -> None:
    tree = whole().without_all(numbers)
    assert tree.without_all(numbers) is tree
    assert tree.without_all(()) is tree


def test_a_range_that_is_erased_costs_no_more_than_its_ends() -> None:
    tree = whole().without_all(range(1_000, 900_000))
    assert len(tree.nodes) <= 2 * DEPTH
    assert (has(tree, 999), has(tree, 1_000), has(tree, 899_999), has(tree, 900_000)) == (True, False, False, True)


def test_all_leaves_erased_leave_nothing() -> None:
    tree = whole().without_all(range(LEAVES))
    assert tree.nodes == ()
    with pytest.raises(KeystoreError):
        tree.leaf(0)


@pytest.mark.parametrize("count", [1, 10, 100, 1_000, 10_000])
def test_scattered_leaves_cost_hashes_and_nodes_in_proportion(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    erased = random.Random(count).sample(range(LEAVES), count)
    hashes = 0

    def counted(data: bytes) -> object:
        nonlocal hashes
        hashes += 1
        return sha256(data)

    with monkeypatch.context() as patch:
        patch.setattr(ggm, "sha256", counted)
        tree = whole().without_all(erased)
        assert hashes <= 2 * DEPTH * count
        hashes = 0
        tree.leaf(next(number for number in range(LEAVES) if number not in set(erased)))
        assert hashes <= DEPTH
    levels = DEPTH - (count.bit_length() - 1)
    assert len(tree.nodes) <= count * levels + count
    assert not any(has(tree, number) for number in erased[:100])


def test_every_second_leaf_can_go() -> None:
    tree = whole().without_all(range(0, 20_000, 2))
    assert sum(1 << DEPTH - len(node.prefix) for node in tree.nodes) == LEAVES - 10_000
    assert [has(tree, number) for number in range(6)] == [False, True] * 3


@pytest.mark.parametrize("number", [-1, LEAVES])
def test_a_leaf_that_is_none_is_refused(number: int) -> None:
    with pytest.raises(ValueError, match="none is"):
        whole().without_all([3, number])
