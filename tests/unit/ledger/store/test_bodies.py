"""`rempart.ledger.store.bodies`: what goes in comes out by its index; what is damaged is told."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rempart.errors import LedgerCorrupt
from rempart.ledger.store.bodies import BodyStore, BodyWriter, body_path, first_indices
from rempart.ledger.store.frames import BodiesHeader, decode_bodies_header, encode_bodies_header

ORIGIN = bytes(range(32))
DAY = "2026-11-23"


def write(directory: Path, first: int, end: int, bodies: dict[int, bytes], day: str = DAY) -> Path:
    writer = BodyWriter(directory / "standard" / day, BodiesHeader(first, end, ORIGIN))
    for index, body in bodies.items():
        writer.add(index, body)
    writer.finish()
    writer.place()
    writer.close()
    return writer.path


def test_a_header_has_the_layout_of_the_adr() -> None:
    header = encode_bodies_header(BodiesHeader(7, 2**40, ORIGIN))
    assert len(header) == 64
    assert header[:8] == b"REMPBOD1"
    assert struct.unpack("<QQ", header[8:24]) == (7, 2**40)
    assert header[24:56] == ORIGIN
    assert decode_bodies_header(header) == BodiesHeader(7, 2**40, ORIGIN)


def test_a_segment_is_no_file_of_bodies() -> None:
    with pytest.raises(LedgerCorrupt, match="no header"):
        decode_bodies_header(b"REMPSEG1" + bytes(56))


def test_a_file_is_named_by_the_first_index_of_its_segment(tmp_path: Path) -> None:
    path = write(tmp_path, 512, 900, {600: b"body"})
    assert path.name == "00000000000000000512.bod"
    assert first_indices(path.parent) == [512]
    assert [one.name for one in path.parent.iterdir()] == [path.name]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), st.integers(0, 2**21))
def test_every_body_is_found_by_its_index(
    tmp_path_factory: pytest.TempPathFactory, steps: list[int], size: int
) -> None:
    directory = tmp_path_factory.mktemp("bodies")
    bodies = {10 * number + step: bytes([step]) * (size % (step * 100_000)) for number, step in enumerate(steps)}
    for index, body in bodies.items():
        write(directory, index // 10 * 10, index // 10 * 10 + 10, {index: body or b"-"})
    store = BodyStore(directory)
    for index in range(-1, 50):
        wanted = (bodies[index] or b"-") if index in bodies else None
        assert store.read("standard", DAY, index) == wanted
        assert store.read("standard", DAY, index) == wanted


def test_what_is_not_there_is_none(tmp_path: Path) -> None:
    write(tmp_path, 10, 20, {12: b"body"})
    store = BodyStore(tmp_path)
    assert store.read("standard", DAY, 9) is None
    assert store.read("standard", DAY, 11) is None
    assert store.read("standard", DAY, 25) is None
    assert store.read("other", DAY, 12) is None
    assert BodyStore(tmp_path / "nothing").buckets() == []


@pytest.mark.parametrize("name", ["..", "", "a/b", ".hidden"])
def test_a_name_that_leads_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(LedgerCorrupt):
        BodyStore(tmp_path).read(name, DAY, 1)
    with pytest.raises(LedgerCorrupt):
        BodyStore(tmp_path).read("standard", name, 1)


@pytest.mark.parametrize("at", [8, 70, 110, -9])
def test_damage_is_told_and_not_taken_for_absence(tmp_path: Path, at: int) -> None:
    path = write(tmp_path, 10, 20, {12: b"body" * 10, 13: b"next" * 10})
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)
    with pytest.raises(LedgerCorrupt):
        BodyStore(tmp_path).read("standard", DAY, 13)


def test_a_half_written_file_is_replaced(tmp_path: Path) -> None:
    left = body_path(tmp_path / "standard" / DAY, 10)
    left.parent.mkdir(parents=True)
    left.with_name(left.name + ".new").write_bytes(b"x" * 5_000)
    write(tmp_path, 10, 20, {12: b"body"})
    assert BodyStore(tmp_path).read("standard", DAY, 12) == b"body"
    assert [path.name for path in left.parent.iterdir()] == [left.name]


def test_a_bucket_goes_as_a_whole(tmp_path: Path) -> None:
    write(tmp_path, 10, 20, {12: b"one"})
    write(tmp_path, 20, 30, {22: b"two"})
    write(tmp_path, 20, 30, {23: b"other"}, day="2026-11-24")
    store = BodyStore(tmp_path)
    assert store.buckets() == [("standard", DAY), ("standard", "2026-11-24")]
    assert store.read("standard", DAY, 12) == b"one"
    assert store.unlink("standard", DAY) == 2
    assert store.unlink("standard", DAY) == 0
    assert store.read("standard", DAY, 12) is None
    assert store.read("standard", "2026-11-24", 23) == b"other"
