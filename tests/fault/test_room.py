"""A disk that is full when the next segment is to be made: whoever waits is told, and what is open can be closed."""

from __future__ import annotations

import asyncio
import errno
import itertools
import os
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from rempart import limits
from rempart.errors import LedgerUnavailable
from rempart.ledger.keys.configured import open_keystore
from rempart.ledger.log.checkpoint import Verifier
from rempart.ledger.reading.verify import verify
from rempart.ledger.writing import sequencer as module
from rempart.ledger.writing.journal import ExchangeRecord, Journal
from rempart.ledger.writing.opening import open_ledger, read_vkey
from rempart.ledger.writing.sequencer import Sequencer

IDS = itertools.count(1)


class Disk:
    """Making a segment waits for `go_on`, and fails while it is `full`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.full = False
        self.go_on = threading.Event()
        self.go_on.set()
        real = module.make_spare

        def make_spare(directory: Path) -> None:
            self.go_on.wait()
            if self.full:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            real(directory)

        monkeypatch.setattr(module, "make_spare", make_spare)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    monkeypatch.setattr(limits, "segment_bytes", 2 * 1024 * 1024)
    made = Disk(monkeypatch)
    yield made
    made.go_on.set()


@pytest.fixture
async def journal(tmp_path: Path, disk: Disk) -> AsyncIterator[Journal]:
    opened = await open_ledger(tmp_path, open_keystore(tmp_path), origin="", strict=False)
    yield opened
    disk.full = False
    disk.go_on.set()
    await opened.close()


def writer(journal: Journal) -> Sequencer:
    assert isinstance(journal._sequencer, Sequencer)
    return journal._sequencer


async def begin(journal: Journal) -> ExchangeRecord:
    return await journal.open(
        f"{next(IDS):032x}", actor="a_0", role="user", key="k", subject="", people=(), retention="standard"
    )


async def ask(record: ExchangeRecord, size: int = 600) -> int:
    receipt = await record.request({"operation": "chat", "model": "m"}, b"x" * size)
    return receipt.index


async def close(record: ExchangeRecord, request: int, size: int = 600) -> None:
    await record.response({"outcome": "ok", "status": 200, "request": request}, b"y" * size)


async def fill(journal: Journal, leave: int) -> None:
    """Until this segment has no more than `leave` bytes."""
    while writer(journal)._segment.free > leave:
        record = await begin(journal)
        size = min(200_000, max(writer(journal)._segment.free - leave, 1_000))
        await close(record, await ask(record, size))


async def last_segment(journal: Journal, disk: Disk) -> None:
    """The spare becomes the segment, and the next one hangs in the making."""
    disk.go_on.clear()
    disk.full = True
    number = writer(journal)._segment.number
    while writer(journal)._segment.number == number:
        record = await begin(journal)
        await close(record, await ask(record, 200_000))


async def known_full(journal: Journal, disk: Disk) -> None:
    disk.go_on.set()
    while not writer(journal)._full:
        await asyncio.sleep(0.001)


def open_in(data: Path) -> int:
    return verify(data / "ledger", Verifier.from_vkey(read_vkey(data))).open


async def test_who_waits_for_the_next_segment_is_told_when_there_is_none(journal: Journal, disk: Disk) -> None:
    await last_segment(journal, disk)
    await fill(journal, 500_000)
    waiting = asyncio.create_task(ask(await begin(journal), 600_000))
    await asyncio.sleep(0)
    await known_full(journal, disk)
    with pytest.raises(LedgerUnavailable, match="no room"):
        await waiting


async def test_what_closes_passes_what_waits_for_room(journal: Journal, disk: Disk) -> None:
    await last_segment(journal, disk)
    record = await begin(journal)
    request = await ask(record)
    await fill(journal, 500_000)
    waiting = asyncio.create_task(ask(await begin(journal), 600_000))
    await asyncio.sleep(0)
    await close(record, request)
    assert not waiting.done()
    disk.full = False
    disk.go_on.set()
    assert await waiting > request


async def test_streams_leave_room_to_be_closed(journal: Journal, disk: Disk, tmp_path: Path) -> None:
    await last_segment(journal, disk)
    records = [await begin(journal) for _ in range(50)]
    requests = [await ask(record) for record in records]
    held: list[asyncio.Future[None]] = []
    for record in itertools.cycle(records):
        written = record.piece(b"p" * 1_000)
        if written is not None:
            held.append(asyncio.ensure_future(written))
            break
    await known_full(journal, disk)
    with pytest.raises(LedgerUnavailable):
        await held[0]
    for record, request in zip(records, requests, strict=True):
        await close(record, request, 3_000)
    assert open_in(tmp_path) == 0


async def test_requests_of_one_batch_leave_room_to_be_closed(journal: Journal, disk: Disk, tmp_path: Path) -> None:
    await last_segment(journal, disk)
    records = [await begin(journal) for _ in range(256)]
    await fill(journal, 400_000)
    asked = [asyncio.create_task(ask(record)) for record in records]
    await asyncio.sleep(0)
    await known_full(journal, disk)
    answers = await asyncio.gather(*asked, return_exceptions=True)
    taken = [(record, index) for record, index in zip(records, answers, strict=True) if isinstance(index, int)]
    assert 0 < len(taken) < len(records)
    assert all(isinstance(one, int | LedgerUnavailable) for one in answers)
    for record, request in taken:
        await close(record, request)
    assert open_in(tmp_path) == 0


async def test_a_full_disk_takes_nothing_new_and_recovers(journal: Journal, disk: Disk) -> None:
    await last_segment(journal, disk)
    await known_full(journal, disk)
    with pytest.raises(LedgerUnavailable, match="no room"):
        await begin(journal)
    disk.full = False
    while writer(journal)._full:
        await asyncio.sleep(0.01)
    record = await begin(journal)
    await close(record, await ask(record))


async def test_a_start_on_a_full_disk_says_what_it_needs(
    tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = await open_ledger(tmp_path, open_keystore(tmp_path), origin="", strict=False)
    await journal.close()
    leftover = tmp_path / "ledger" / "segments" / "spare.new"
    leftover.write_bytes(b"half")
    real = os.fsync

    def full(descriptor: int) -> None:
        if ".seg.new" in os.readlink(f"/proc/self/fd/{descriptor}"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(LedgerUnavailable, match="cannot be recovered: No space left on device"):
            await open_ledger(tmp_path, open_keystore(tmp_path), origin="", strict=False)
    assert not leftover.exists()
    await (await open_ledger(tmp_path, open_keystore(tmp_path), origin="", strict=False)).close()


async def test_a_response_that_makes_no_entry_is_closed_without_its_body(journal: Journal, tmp_path: Path) -> None:
    record = await begin(journal)
    request = await ask(record)
    with pytest.raises(LedgerUnavailable, match="cannot be recorded"):
        await record.response({"outcome": "ok", "status": 200, "request": request, "finish": ["x"] * 20_000}, b"y")
    assert open_in(tmp_path) == 0
