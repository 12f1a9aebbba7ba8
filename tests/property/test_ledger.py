"""`rempart.ledger`: what holds of all trees, all entries, all bodies, and all bytes that might be one of them."""

from __future__ import annotations

import base64
import contextlib
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import rfc8785
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from rempart.errors import LedgerCorrupt, RempartError
from rempart.ledger.keys import body as bodies
from rempart.ledger.keys.ggm import LEAVES, KeyTree, Node
from rempart.ledger.log import entry as entries
from rempart.ledger.log import merkle, tiles
from rempart.ledger.log.checkpoint import Checkpoint, Signer, Verifier, parse_note
from rempart.ledger.log.integrate import Integrator
from rempart.ledger.store.frames import Header, decode_header, encode_header, scan

MOST = 700
LEAF_HASHES = [merkle.leaf_hash(b"%d" % number) for number in range(MOST)]
SIGNER = Signer("rempart.test/log", bytes(32))
SIZES = st.integers(min_value=0, max_value=MOST) | st.sampled_from([0, 1, 2, 255, 256, 257, 511, 512, 513])
POSITIVE = SIZES.filter(bool)


@cache
def mth(begin: int, end: int) -> bytes:
    """RFC 6962 section 2.1, said naively."""
    if begin == end:
        return merkle.EMPTY_ROOT
    if end - begin == 1:
        return LEAF_HASHES[begin]
    middle = next(1 << bits for bits in range(10, -1, -1) if 1 << bits < end - begin)
    return merkle.node_hash(mth(begin, begin + middle), mth(begin + middle, end))


def read(level: int, place: int) -> bytes:
    return mth(place << level, place + 1 << level)


# Trees.


@given(SIZES)
def test_every_way_to_a_root_gives_the_standards(size: int) -> None:
    edge = tiles.Edge()
    for hash_ in LEAF_HASHES[:size]:
        edge.add(hash_)
    nodes = [read(level, place) for level, place in merkle.range_nodes(0, size)]
    assert edge.root() == merkle.fold(nodes) == merkle.root_of(LEAF_HASHES[:size]) == mth(0, size)
    assert [len(row) for row in edge.rows][: len(tiles.widths(size))] == tiles.widths(size)


@given(SIZES, SIZES)
def test_a_range_is_covered_once_by_perfect_trees(one: int, other: int) -> None:
    begin, end = sorted((one, other))
    covered = [range(place << level, place + 1 << level) for level, place in merkle.range_nodes(begin, end)]
    assert [leaf for part in covered for leaf in part] == list(range(begin, end))
    assert len(covered) <= 2 * max(end - begin, 1).bit_length()


@given(POSITIVE, st.data())
def test_every_leaf_is_shown_to_be_in_the_tree(size: int, data: st.DataObject) -> None:
    index = data.draw(st.integers(min_value=0, max_value=size - 1))
    proof = merkle.inclusion_proof(index, size, read)
    assert len(proof) <= (size - 1).bit_length()
    merkle.verify_inclusion(index, size, LEAF_HASHES[index], proof, mth(0, size))


@given(SIZES, SIZES)
def test_every_tree_is_shown_to_be_a_prefix_of_the_larger(one: int, other: int) -> None:
    old, new = sorted((one, other))
    proof = merkle.consistency_proof(old, new, read)
    merkle.verify_consistency(old, new, mth(0, old), mth(0, new), proof)


def test_all_proofs_of_all_small_trees_hold() -> None:
    for new in range(1, 40):
        for old in range(new + 1):
            proof = merkle.consistency_proof(old, new, read)
            merkle.verify_consistency(old, new, mth(0, old), mth(0, new), proof)
        for index in range(new):
            proof = merkle.inclusion_proof(index, new, read)
            merkle.verify_inclusion(index, new, LEAF_HASHES[index], proof, mth(0, new))


def flipped(hash_: bytes, bit: int) -> bytes:
    return (int.from_bytes(hash_, "big") ^ 1 << bit).to_bytes(32, "big")


BITS = st.integers(min_value=0, max_value=255)


@given(POSITIVE, st.data(), BITS)
def test_a_changed_inclusion_is_refused(size: int, data: st.DataObject, bit: int) -> None:
    index = data.draw(st.integers(min_value=0, max_value=size - 1))
    leaf, root, proof = LEAF_HASHES[index], mth(0, size), merkle.inclusion_proof(index, size, read)
    at = data.draw(st.integers(min_value=-2, max_value=len(proof) - 1))
    hashes = [
        flipped(hash_, bit) if place == at else hash_
        for place, hash_ in zip(range(-2, len(proof)), [leaf, root, *proof], strict=True)
    ]
    with pytest.raises(LedgerCorrupt):
        merkle.verify_inclusion(index, size, hashes[0], hashes[2:], hashes[1])
    other = data.draw(st.integers(min_value=-1, max_value=MOST).filter(lambda other: other != index))
    with pytest.raises(LedgerCorrupt):
        merkle.verify_inclusion(other, size, leaf, proof, root)


@given(st.integers(min_value=1, max_value=MOST), st.data(), BITS)
def test_a_changed_consistency_is_refused(old: int, data: st.DataObject, bit: int) -> None:
    new = data.draw(st.integers(min_value=old, max_value=MOST))
    proof = merkle.consistency_proof(old, new, read)
    hashes = [mth(0, old), mth(0, new), *proof]
    at = data.draw(st.integers(min_value=0, max_value=len(hashes) - 1))
    changed = [flipped(hash_, bit) if place == at else hash_ for place, hash_ in enumerate(hashes)]
    with pytest.raises(LedgerCorrupt):
        merkle.verify_consistency(old, new, changed[0], changed[1], changed[2:])
    other = data.draw(st.integers(min_value=1, max_value=MOST).filter(lambda other: other != old))
    with pytest.raises(LedgerCorrupt):
        merkle.verify_consistency(other, new, hashes[0], hashes[1], proof)


@given(POSITIVE, POSITIVE, st.data())
def test_a_path_of_another_length_than_the_sizes_is_refused(size: int, other: int, data: st.DataObject) -> None:
    """Sizes whose paths have one shape are told apart by the signature on size and root, not by the path."""
    index = data.draw(st.integers(min_value=0, max_value=size - 1))
    proof = merkle.inclusion_proof(index, size, read)
    assume(index >= other or len(merkle.inclusion_proof(index, other, read)) != len(proof))
    with pytest.raises(LedgerCorrupt):
        merkle.verify_inclusion(index, other, LEAF_HASHES[index], proof, mth(0, size))


# The log on disk.


@settings(deadline=None, max_examples=12, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.integers(min_value=0, max_value=300), min_size=1, max_size=3))
def test_the_tiles_on_disk_lead_to_the_signed_root(counts: list[int]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        log, size = Integrator.open(Path(directory), SIGNER), 0
        for count in counts:
            log.add(size, [b"%d" % number for number in range(size, min(size + count, MOST))])
            size = min(size + count, MOST)
        head = SIGNER.verifier.open((Path(directory) / "checkpoint").read_bytes())
        hashes: list[bytes] = []
        found: list[bytes] = []
        for number in range(-(-size // tiles.TILE_WIDTH)):
            width = min(tiles.TILE_WIDTH, size - number * tiles.TILE_WIDTH)
            hashes += tiles.decode_tile((Path(directory) / tiles.tile_path(0, number, width)).read_bytes(), width)
            found += tiles.decode_bundle((Path(directory) / tiles.bundle_path(number, width)).read_bytes(), width)
    assert found == [b"%d" % number for number in range(size)]
    assert hashes == LEAF_HASHES[:size]
    assert (head.size, head.root) == (size, mth(0, size))


@given(st.lists(st.binary(max_size=300), max_size=20))
def test_bundles_are_read_back_and_at_no_other_width(data: list[bytes]) -> None:
    bundle = tiles.encode_bundle(data)
    assert tiles.decode_bundle(bundle, len(data)) == data
    for width in (len(data) - 1, len(data) + 1):
        with pytest.raises(LedgerCorrupt):
            tiles.decode_bundle(bundle, width)


# Entries.

INTEGERS = st.integers(min_value=-(2**53) + 1, max_value=2**53 - 1)
KEYS = st.text(st.characters(max_codepoint=127), max_size=8)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
VALUES = st.recursive(
    st.booleans() | INTEGERS | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=15,
)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text() | st.integers(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(KEYS, VALUES, max_size=8))
def test_an_entry_is_written_as_rfc_8785_has_it(fields: dict[str, Any]) -> None:
    entries.check(fields)
    written = entries.encode({**fields, "v": 1})
    assert written == rfc8785.dumps({**fields, "v": 1})
    assert entries.decode(written) == {**fields, "v": 1}


@given(ANYTHING)
@example({1: 2})
@example("\ud800")
@example(2**53)
def test_whatever_is_admitted_is_canonical(value: Any) -> None:
    try:
        entries.check(value)
    except ValueError:
        return
    assert entries.encode({"x": value}) == rfc8785.dumps({"x": value})


# Bodies and keys.

KEYS_32 = st.binary(min_size=32, max_size=32)
IDS = st.binary(min_size=16, max_size=16)


@given(KEYS_32, IDS, st.binary(max_size=500), st.binary(min_size=44, max_size=44), st.integers(min_value=0))
def test_what_is_sealed_opens_and_not_when_it_is_changed(
    key: bytes, exchange: bytes, content: bytes, random: bytes, bit: int
) -> None:
    sealed = bodies.seal(key, exchange, bodies.REQUEST, content, random)
    assert bodies.unseal(key, exchange, bodies.REQUEST, sealed.body, sealed.commitment).content == content
    changed = bytearray(sealed.body)
    changed[bit // 8 % len(changed)] ^= 1 << bit % 8
    with pytest.raises(LedgerCorrupt):
        bodies.unseal(key, exchange, bodies.REQUEST, bytes(changed), sealed.commitment)


@given(KEYS_32, st.lists(st.integers(min_value=0, max_value=63), max_size=12), st.integers(min_value=0, max_value=63))
def test_erased_leaves_are_gone_and_no_others(seed: bytes, erased: list[int], high: int) -> None:
    offset = high * (LEAVES // 64)
    whole = KeyTree([Node("", seed)])
    tree = whole
    for number in erased:
        tree = tree.without(offset + number)
    for number in range(64):
        if number in erased:
            with pytest.raises(RempartError):
                tree.leaf(offset + number)
        else:
            assert tree.leaf(offset + number) == whole.leaf(offset + number)


# Parsers.

HEADER = encode_header(Header(1, 2, bytes(32)))
CHECKPOINT = SIGNER.sign(Checkpoint("rempart.test/log", 3, bytes(32)))
LINES = st.lists(
    st.sampled_from(["rempart.test/log", "3", base64.b64encode(bytes(32)).decode(), "", "— rempart.test/log AAAA"])
    | st.text(max_size=20),
    max_size=8,
).map(lambda lines: "\n".join(lines).encode(errors="surrogatepass"))
JSON = st.binary().map(lambda inner: b'{"a":"' + inner + b'","v":1}')
PARSERS: list[Callable[[bytes], object]] = [
    decode_header,
    scan,
    lambda data: tiles.decode_bundle(data, 2),
    lambda data: tiles.decode_tile(data, 1),
    parse_note,
    SIGNER.verifier.open,
    lambda data: Verifier.from_vkey(data.decode("utf-8", "surrogateescape")),
    entries.decode,
    entries.facts,
]


@pytest.mark.parametrize("parser", PARSERS)
@given(st.binary() | LINES | JSON | st.binary().map(HEADER.__add__) | st.binary().map(CHECKPOINT.__add__))
@example(b'{"a":"\xff","v":1}')
@example(b'{"a":' + b"[" * 2_000)
@example(b"r+00000000+AR")
@example("\ud800+00000000+".encode(errors="surrogatepass") + base64.b64encode(b"\x01" + bytes(32)))
def test_any_bytes_are_understood_or_refused(parser: Callable[[bytes], object], data: bytes) -> None:
    with contextlib.suppress(RempartError):
        parser(data)
