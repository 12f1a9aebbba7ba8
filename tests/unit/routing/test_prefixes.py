"""`rempart.routing.prefixes`: what is remembered of prompts, of whom, and how much of it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rempart import limits
from rempart.routing.prefixes import Match, PrefixTree, blocks, root_of

SIZE = limits.prefix_block_bytes
ROOT = root_of(b"secret", "a")
paths = st.lists(st.sampled_from([b"x" * SIZE, b"y" * SIZE]), max_size=6).map(b"".join)


def path(text: bytes, tenant: str = "a") -> list[bytes]:
    return blocks(root_of(b"secret", tenant), text)


def test_a_rest_that_is_no_whole_block_has_no_hash() -> None:
    assert [len(blocks(ROOT, b"x" * count)) for count in (0, SIZE - 1, SIZE, 2 * SIZE + 1)] == [0, 0, 1, 2]


def test_only_the_beginning_of_a_prompt_is_looked_at() -> None:
    assert len(blocks(ROOT, b"x" * SIZE * (limits.prefix_blocks_max + 9))) == limits.prefix_blocks_max


def test_a_hash_covers_all_before_it() -> None:
    one, two = path(b"x" * SIZE + b"z" * SIZE), path(b"y" * SIZE + b"z" * SIZE)
    assert not set(one) & set(two)


def test_the_longest_beginning_is_found_and_who_holds_it() -> None:
    tree = PrefixTree(100)
    tree.put(path(b"x" * SIZE * 2), 0b01)
    tree.put(path(b"x" * SIZE * 3), 0b10)
    assert tree.match(path(b"x" * SIZE * 4), 0b11) == Match(3, 0b10)
    assert tree.match(path(b"x" * SIZE * 4), 0b01) == Match(2, 0b01)
    assert tree.match(path(b"y" * SIZE), 0b11) == Match(0, 0)


@given(paths, paths)
def test_no_tenants_prompt_is_found_by_another(one: bytes, two: bytes) -> None:
    tree = PrefixTree(100)
    tree.put(path(one, "a"), 1)
    assert tree.match(path(two, "b"), 1) == Match(0, 0)


def test_other_secrets_make_other_hashes() -> None:
    assert root_of(b"one", "a") != root_of(b"two", "a")


@given(st.lists(st.tuples(paths, st.sampled_from([1, 2, 4])), max_size=40), st.integers(min_value=6, max_value=12))
def test_it_is_bounded_and_keeps_whole_paths(puts: list[tuple[bytes, int]], nodes_max: int) -> None:
    tree = PrefixTree(nodes_max)
    for text, holder in puts:
        tree.put(path(text), holder)
        assert len(tree) <= nodes_max
        if text:  # what was put last is there, whole
            assert tree.match(path(text), holder) == Match(len(path(text)), holder)
    # Of each node that is left, all that stands before it is left: forgetting begins at the leaves.
    for text, _ in puts:
        known = [bool(tree._nodes.get(node)) for node in path(text)]
        assert known == sorted(known, reverse=True)


def test_what_was_used_long_ago_is_forgotten_first() -> None:
    tree = PrefixTree(4)
    old, new = path(b"x" * SIZE * 2), path(b"y" * SIZE * 2)
    tree.put(old, 1)
    tree.put(new, 1)
    tree.put(old, 1)
    tree.put(path(b"z" * SIZE), 1)
    assert tree.match(old, 1).depth == 2
    assert tree.match(new, 1).depth == 1
