"""Postings and blocks: what is read is what was sealed, and sizes say nothing of single words."""

import os
import random
from array import array

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyroaring import BitMap

from rempart.errors import IndexDamaged
from rempart.ledger.search import blocks, postings

KEY = bytes(range(32))


def sealed(terms: dict[int, set[int]]) -> tuple[blocks.Stream, list[bytes]]:
    stream = blocks.Stream()
    for name in sorted(terms):
        ordinals = array("H", sorted(terms[name]))
        stream.add(name, len(ordinals), postings.encode(name, ordinals))
    return stream, list(blocks.seal(stream, bytes(32), KEY, b"here", os.urandom))


def reading(file: list[bytes], identity: bytes = b"here") -> blocks.Reading:
    return blocks.Reading(lambda place: file[place] if place < len(file) else b"", lambda salt: KEY, identity)


LISTS = st.sets(st.integers(0, 65535), min_size=1, max_size=200)
TERMS = st.dictionaries(st.integers(0, 2**64 - 1), LISTS, min_size=1, max_size=60)


@settings(max_examples=40, deadline=None)
@given(TERMS, st.integers(0, 2**64 - 1))
def test_every_term_is_found_with_its_entries_and_no_other_is(terms: dict[int, set[int]], other: int) -> None:
    _, file = sealed(terms)
    run = reading(file)
    for name, ordinals in terms.items():
        assert run.find(name) == BitMap(ordinals)
    if other not in terms:
        assert run.find(other) is None
    assert [(name, postings.decode(count, payload)) for name, count, payload in run.records()] == [
        (name, BitMap(terms[name])) for name in sorted(terms)
    ]


def test_a_run_of_several_directories_with_lists_longer_than_a_block_is_read() -> None:
    draw = random.Random(1)
    dense = {draw.getrandbits(64): set(draw.sample(range(65536), 30_000)) for _ in range(150)}
    sparse = {draw.getrandbits(64): {draw.randrange(65536)} for _ in range(3000)}
    _, file = sealed(terms := {**dense, **sparse})
    run = reading(file)
    assert len(run._places) > 1
    assert all(run.find(name) == BitMap(ordinals) for name, ordinals in terms.items())
    assert all(run.find(draw.getrandbits(64)) is None for _ in range(500))
    assert run.find(0) is None
    assert run.find(2**64 - 1) is None


@settings(max_examples=60, deadline=None)
@given(st.lists(LISTS | st.integers(1, 65536).map(lambda n: set(range(n))), min_size=1, max_size=6))
def test_lists_never_take_more_than_their_count_says(lists: list[set[int]]) -> None:
    encoded = [postings.encode(number, array("H", sorted(one))) for number, one in enumerate(lists)]
    assert sum(map(len, encoded)) <= postings.bytes_max(len(lists), sum(map(len, lists)))


def test_files_of_equally_many_terms_and_postings_have_one_size_however_they_are_spread() -> None:
    even = {name: set(range(100)) for name in range(200)}
    skewed = {0: set(range(65536 // 4)), **{name: {name} for name in range(1, 199)}}
    skewed[199] = set(range(20_000 - 16_384 - 198))
    worst = {name: set(range(0, 200, 2)) for name in range(200)}
    sizes = {len(sealed(terms)[1]) for terms in (even, skewed, worst)}
    assert len(sizes) == 1
    assert all(len(block) == blocks.BLOCK for block in sealed(skewed)[1])


def test_blocks_lie_in_another_order_each_time() -> None:
    terms = {name << 50: set(range(0, 65536, 7)) for name in range(1, 40)}
    places = [tuple(reading(sealed(terms)[1])._directory(0).places) for _ in range(2)]
    assert places[0] != places[1]
    assert sorted(places[0]) != list(places[0])


def test_padding_is_at_most_an_eighth_and_never_less() -> None:
    for length in range(2, 5000):
        assert length <= blocks.padme(length) <= length * 1.125
    assert [blocks.padme(length) for length in (0, 1, 9, 100, 1000)] == [0, 1, 10, 104, 1024]


def test_every_block_that_is_changed_or_moved_is_noticed() -> None:
    terms = {name << 50: set(range(0, 3000, 2)) for name in range(1, 20)}
    _, file = sealed(terms)
    assert reading(file).terms == 19
    with pytest.raises(IndexDamaged):
        reading(file, b"elsewhere")
    run = reading(file)
    used = {0, *run._places, *run._directory(0).places}
    for place in sorted(used):
        changed = list(file)
        changed[place] = bytes([changed[place][0] ^ 1]) + changed[place][1:]
        with pytest.raises(IndexDamaged):
            list(reading(changed).records())
    swapped = list(file)
    one, other = sorted(used)[1:3]
    swapped[one], swapped[other] = swapped[other], swapped[one]
    with pytest.raises(IndexDamaged):
        list(reading(swapped).records())
    with pytest.raises(IndexDamaged):
        list(reading(file[: max(used)]).records())


@given(st.integers(1, 64), st.binary(max_size=200))
def test_a_short_list_is_decoded_or_damaged(count: int, payload: bytes) -> None:
    try:
        found = postings.decode(count, payload)
    except IndexDamaged:
        return
    assert len(found) == count


def test_a_run_that_would_be_too_large_is_refused() -> None:
    with pytest.raises(ValueError, match="more blocks"):
        blocks.blocks_of(10, 10**9)
