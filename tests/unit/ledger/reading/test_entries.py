"""`rempart.ledger.reading.entries`: entries wherever they stand, and no more of the log read than needed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rempart import limits
from rempart.errors import LedgerCorrupt
from rempart.ledger.log import entry as entries
from rempart.ledger.log import tiles
from rempart.ledger.log.integrate import Integrator
from rempart.ledger.reading.entries import EntryReader
from rempart.ledger.store import frames
from rempart.ledger.store.segments import Segment, make_spare, segment_path
from rempart.ledger.writing.recover import origin_hash
from rempart.testing.small_ledger import NOON_S, SIGNER, SmallLedger

ORIGIN = origin_hash(SIGNER.verifier.name)


class Written:
    """A log written without a sequencer: many entries in little time, their segments taken apart."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.entries: list[bytes] = []

    def add(self, at: float, type_: str = "meter", boot: str = "0", **fields: Any) -> int:
        common = {"v": 1, "type": type_, "time": entries.timestamp(at), "boot": boot}
        self.entries.append(entries.encode({**common, **fields}))
        return len(self.entries) - 1

    def finish(self, beyond: int = 0) -> EntryReader:
        """The last `beyond` stand in the segment alone."""
        under = len(self.entries) - beyond
        Integrator.open(self.path / "log", SIGNER).add(0, self.entries[:under])
        (self.path / "segments").mkdir()
        make_spare(self.path / "segments")
        segment = Segment.begin(self.path / "segments", frames.Header(4, under, ORIGIN), b"[]")
        for index in range(under, len(self.entries)):
            segment.write(frames.encode_frame(frames.Kind.ENTRY, index, segment.durable, self.entries[index], b""))
            segment.durable = segment.end
        segment.close()
        return EntryReader(self.path)


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Written:
    monkeypatch.setattr(limits, "segment_bytes", 1 << 20)
    return Written(tmp_path)


@pytest.fixture
def read_bundles(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Numbers of the bundles that were read."""
    read: list[int] = []
    real = EntryReader._read_bundle

    def counted(self: EntryReader, number: int) -> list[bytes]:
        read.append(number)
        return real(self, number)

    monkeypatch.setattr(EntryReader, "_read_bundle", counted)
    return read


def id_at(at: float, tail: int = 7) -> str:
    return f"{int(at * 1000):012x}{tail:020x}"


def fill(log: Written, count: int, begin: float, boot: str = "0") -> float:
    for number in range(count):
        log.add(begin + number, boot=boot)
    return begin + count


@pytest.mark.parametrize("beyond", [0, 1, 5, 300])
def test_entries_are_read_across_bundles_and_segments(log: Written, beyond: int) -> None:
    fill(log, 700, NOON_S)
    reader = log.finish(beyond)
    everything = list(enumerate(log.entries))
    assert reader.count == 700
    assert list(reader.newest_first()) == everything[::-1]
    for first in (0, 1, 255, 256, 600, 699, 700):
        assert list(reader.forward(first)) == everything[first:]
    assert [reader.read(index) for index in (0, 256, 699)] == [log.entries[index] for index in (0, 256, 699)]
    for index in (-1, 700):
        with pytest.raises(IndexError):
            reader.read(index)


def test_no_ledger_has_no_entries(tmp_path: Path) -> None:
    assert list(EntryReader(tmp_path).newest_first()) == []


def test_an_exchange_is_found_without_reading_the_log(log: Written, read_bundles: list[int]) -> None:
    now = fill(log, 20_000, NOON_S)
    id_ = id_at(now)
    request = log.add(now, "request", exchange=id_)
    response = log.add(now + 2, "response", exchange=id_, request=request)
    fill(log, 20_000, now + 2)
    found = log.finish().of_exchange(id_)
    assert [index for index, _ in found] == [request, response]
    assert len(set(read_bundles)) < 15


def test_a_response_that_a_crash_made_late_is_found_in_the_next_run(log: Written, read_bundles: list[int]) -> None:
    now = fill(log, 20_000, NOON_S)
    id_ = id_at(now)
    request = log.add(now, "request", boot="0", exchange=id_)
    now = fill(log, 10_000, now)
    later = now + 40 * 86_400
    lost = log.add(later, "response", boot="1", exchange=id_, request=request, outcome="lost")
    log.add(later, "start", boot="1")
    fill(log, 20_000, later, boot="1")
    found = log.finish().of_exchange(id_)
    assert [index for index, _ in found] == [request, lost]
    assert len(set(read_bundles)) < 30


def test_a_response_later_than_any_limit_is_found(log: Written) -> None:
    id_ = id_at(NOON_S)
    request = log.add(NOON_S, "request", exchange=id_)
    now = fill(log, 5_000, NOON_S)
    response = log.add(now, "response", exchange=id_, request=request)
    log.add(now + 1, "start", boot="1")
    fill(log, 1_000, now, boot="1")
    assert [index for index, _ in log.finish().of_exchange(id_)] == [request, response]


def test_an_open_exchange_has_its_request(log: Written, read_bundles: list[int]) -> None:
    now = fill(log, 40_000, NOON_S)
    id_ = id_at(now)
    request = log.add(now, "request", exchange=id_)
    assert [index for index, _ in log.finish().of_exchange(id_)] == [request]
    assert len(set(read_bundles)) < 20


def test_an_exchange_of_a_clock_that_was_set_back_is_found(log: Written) -> None:
    fill(log, 3_000, NOON_S)
    back = NOON_S - 7 * 86_400
    id_ = id_at(back)
    request = log.add(back, "request", exchange=id_)
    response = log.add(back + 1, "response", exchange=id_, request=request)
    fill(log, 3_000, NOON_S + 3_000)
    assert [index for index, _ in log.finish().of_exchange(id_)] == [request, response]


@pytest.mark.parametrize("nonsense", ["", "f" * 32, "0" * 32, "g" * 32, "١" * 32, "0" * 31])
def test_no_exchange_is_no_entries(log: Written, nonsense: str) -> None:
    fill(log, 300, NOON_S)
    assert log.finish().of_exchange(nonsense) == []


def _flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: _flip(path / "log" / tiles.bundle_path(0), 100),
        lambda path: _flip(path / "log" / tiles.tile_path(0, 0), 100),
        lambda path: _flip(segment_path(path / "segments", 4), 120),
        lambda path: (path / "log" / tiles.bundle_path(0)).unlink(),
        lambda path: segment_path(path / "segments", 4).unlink(),
    ],
)
def test_damage_is_told(log: Written, damage: Callable[[Path], None]) -> None:
    fill(log, 300, NOON_S)
    log.finish(beyond=10)
    damage(log.path)
    with pytest.raises(LedgerCorrupt):
        list(EntryReader(log.path).newest_first())


async def test_a_body_is_read_from_wherever_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "segment_bytes", 1 << 20)
    monkeypatch.setattr(limits, "integrate_s", 0.02)
    small = SmallLedger(tmp_path / "ledger")
    async with small.run():
        for _ in range(9):
            await small.exchange(100_000)
            reader = EntryReader(small.path)
            for index, (_, body) in small.acknowledged.items():
                assert reader.body(index, "standard", "2026-11-23") == (body or None)
