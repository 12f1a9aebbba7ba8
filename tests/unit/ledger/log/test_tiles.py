"""`rempart.ledger.log.tiles`: names and contents of tiles and bundles as C2SP tlog-tiles has them."""

from __future__ import annotations

import pytest

from rempart.errors import LedgerCorrupt
from rempart.ledger.log.merkle import EMPTY_ROOT, leaf_hash, root_of
from rempart.ledger.log.tiles import (
    TILE_WIDTH,
    Edge,
    bundle_path,
    decode_bundle,
    decode_tile,
    encode_bundle,
    tile_path,
    widths,
)


@pytest.mark.parametrize(
    ("number", "name"),
    [
        (0, "000"),
        (1, "001"),
        (255, "255"),
        (999, "999"),
        (1_000, "x001/000"),
        (1_234_067, "x001/x234/067"),
        (1_000_000, "x001/x000/000"),
        (10**9 + 7, "x001/x000/x000/007"),
    ],
)
def test_numbers_are_written_in_groups_of_three(number: int, name: str) -> None:
    assert tile_path(0, number) == f"tile/0/{name}"
    assert bundle_path(number) == f"tile/entries/{name}"


def test_unfinished_tiles_say_their_width() -> None:
    assert tile_path(1, 1_234_067, 8) == "tile/1/x001/x234/067.p/8"
    assert bundle_path(273, 112) == "tile/entries/273.p/112"
    assert tile_path(0, 0, 255) == "tile/0/000.p/255"
    assert tile_path(0, 0, 256) == "tile/0/000"


@pytest.mark.parametrize("width", [-1, 0, 257])
def test_no_tile_has_such_a_width(width: int) -> None:
    with pytest.raises(ValueError, match="1 to 256"):
        tile_path(0, 0, width)
    with pytest.raises(ValueError, match="1 to 256"):
        bundle_path(0, width)


def test_the_tiles_that_the_standard_gives_for_70_000_entries() -> None:
    """tlog-tiles, "Merkle tree": 273 full tiles and one of 112 on level 0, one full and one of 17, one of 1."""
    assert widths(70_000) == [112, 17, 1]
    edge = Edge()
    full = [(level, number) for _ in range(70_000) for level, number, _ in edge.add(bytes(32))]
    assert [number for level, number in full if level == 0] == list(range(273))
    assert [number for level, number in full if level == 1] == [0]
    assert [(level, number, len(row)) for level, number, row in edge.partial()] == [
        (0, 273, 112),
        (1, 1, 17),
        (2, 0, 1),
    ]


def test_the_widths_of_small_trees() -> None:
    assert [widths(size) for size in (0, 1, 255, 256, 257, 65_536)] == [[], [1], [255], [0, 1], [1, 1], [0, 0, 1]]


def test_an_edge_taken_up_again_goes_on_alike() -> None:
    hashes = [leaf_hash(b"%d" % number) for number in range(600)]
    edge = Edge()
    for hash_ in hashes[:300]:
        edge.add(hash_)
    again = Edge(edge.size, edge.rows)
    for hash_ in hashes[300:]:
        assert edge.add(hash_) == again.add(hash_)
    assert edge.root() == again.root() == root_of(hashes)


def test_an_edge_keeps_no_full_row() -> None:
    edge = Edge()
    full = [tile for number in range(TILE_WIDTH) for tile in edge.add(leaf_hash(b"%d" % number))]
    [(level, number, hashes)] = full
    assert (level, number, len(hashes)) == (0, 0, TILE_WIDTH)
    assert edge.rows == [[], [root_of(hashes)]]


def test_an_empty_edge_is_the_empty_tree() -> None:
    edge = Edge()
    assert (edge.size, edge.partial(), edge.root()) == (0, [], EMPTY_ROOT)


def test_entries_follow_their_length_in_two_bytes() -> None:
    assert encode_bundle([b"", b"a", b"bc"]) == b"\x00\x00\x00\x01a\x00\x02bc"
    assert decode_bundle(b"\x00\x00\x00\x01a\x00\x02bc", 3) == [b"", b"a", b"bc"]


def test_the_longest_entry_fits_and_a_longer_one_does_not() -> None:
    longest = bytes(65_535)
    assert decode_bundle(encode_bundle([longest]), 1) == [longest]
    with pytest.raises(OverflowError):
        encode_bundle([bytes(65_536)])


@pytest.mark.parametrize(
    ("data", "width"),
    [
        (b"", 1),
        (b"\x00", 0),
        (b"\x00", 1),
        (b"\x00\x01", 1),
        (b"\x00\x02a", 1),
        (b"\x00\x01ab", 1),
        (b"\x00\x01a", 2),
        (b"\x00\x01a\x00\x01b", 1),
        (b"\x00\x01a", -1),
    ],
)
def test_a_bundle_that_does_not_hold_whole_entries_is_refused(data: bytes, width: int) -> None:
    with pytest.raises(LedgerCorrupt):
        decode_bundle(data, width)


def test_a_tile_holds_hashes_and_nothing_else() -> None:
    hashes = [leaf_hash(b"a"), leaf_hash(b"b")]
    assert decode_tile(b"".join(hashes), 2) == hashes
    for data, width in ((b"".join(hashes), 1), (b"".join(hashes)[:-1], 2), (b"".join(hashes) + b"\x00", 2), (b"", 1)):
        with pytest.raises(LedgerCorrupt):
            decode_tile(data, width)
