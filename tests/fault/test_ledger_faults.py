"""Every write of the ledger fails once, with and without having happened; then verification is the oracle.

After each fault the server's process is over (the sequencer stops for good), a new one recovers from the disk, and
every acknowledged entry must be there, in its place.
"""

import asyncio
import errno
import os
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rempart import limits
from rempart.errors import LedgerUnavailable, RempartError
from rempart.ledger.keys.configured import open_keystore
from rempart.ledger.log.checkpoint import Verifier
from rempart.ledger.log.merkle import leaf_hash
from rempart.ledger.reading.entries import EntryReader
from rempart.ledger.reading.examine import Examined
from rempart.ledger.reading.find import find
from rempart.ledger.reading.verify import verify
from rempart.ledger.store import segments as segments_module
from rempart.ledger.writing.journal import Journal
from rempart.ledger.writing.opening import open_ledger, read_vkey

CALLS = ("fdatasync", "pwrite", "fsync", "rename")
EXCHANGE = "0123456789abcdef" * 2


class Fault:
    """Makes the nth call of one system call fail from then on, done or not done."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, name: str, at: int, persists: bool) -> None:
        self.calls = 0
        self.happened = False
        real = getattr(os, name)

        def call(*arguments: Any) -> Any:
            self.calls += 1
            if at and self.calls >= at:
                self.happened = True
                if persists:
                    real(*arguments)
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return real(*arguments)

        monkeypatch.setattr(os, name, call)


async def _open(data: Path) -> Journal:
    return await open_ledger(data, open_keystore(data), origin="", strict=False)


async def _exchanges(journal: Journal, count: int) -> dict[int, bytes]:
    """Index -> leaf hash of what was acknowledged."""
    acknowledged: dict[int, bytes] = {}
    for _ in range(count):
        exchange = secrets.token_hex(16)
        record = await journal.open(
            exchange, actor="a_0", role="user", key="k", subject="", people=(), retention="standard"
        )
        asked = await record.request({"operation": "chat", "model": "m"}, b'{"request":1}')
        acknowledged[asked.index] = asked.leaf_hash
        durable = record.piece(b'"word"\n')
        if durable is not None:
            await durable
        answered = await record.response(
            {"operation": "chat", "outcome": "ok", "status": 200, "request": asked.index}, b'{"response":1}'
        )
        acknowledged[answered.index] = answered.leaf_hash
    return acknowledged


async def _until_it_fails(data: Path) -> dict[int, bytes]:
    acknowledged: dict[int, bytes] = {}
    try:
        journal = await _open(data)
    except (OSError, RempartError):
        return acknowledged
    try:
        for _ in range(3):
            acknowledged.update(await _exchanges(journal, 2))
            await asyncio.sleep(0.02)
    except LedgerUnavailable:
        with pytest.raises(LedgerUnavailable):
            await _exchanges(journal, 1)
    try:
        await journal.close()
    except OSError:
        return acknowledged
    return acknowledged


def _verified(data: Path) -> Examined:
    return verify(data / "ledger", Verifier.from_vkey(read_vkey(data)))


@pytest.mark.parametrize("persists", [False, True])
@pytest.mark.parametrize("at", [1, 2, 3, 5, 8, 13, 40])
@pytest.mark.parametrize("name", CALLS)
async def test_a_failed_write_loses_nothing_that_was_acknowledged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, at: int, persists: bool
) -> None:
    data = tmp_path / "data"
    monkeypatch.setattr(limits, "segment_bytes", 1 << 20)
    journal = await _open(data)
    before = await _exchanges(journal, 2)
    await journal.close()
    with monkeypatch.context() as faulty:
        Fault(faulty, name, at, persists)
        acknowledged = {**before, **await _until_it_fails(data)}
    journal = await _open(data)
    await _exchanges(journal, 1)
    await journal.close()
    report = _verified(data)
    assert report.open == 0
    assert report.size > max(acknowledged)
    _check_still_there(data, acknowledged)


def _check_still_there(data: Path, acknowledged: dict[int, bytes]) -> None:
    found = {index: leaf_hash(entry) for index, entry in EntryReader(data / "ledger").newest_first()}
    assert {index: found[index] for index in acknowledged} == acknowledged


async def test_a_full_disk_admits_nothing_and_closes_what_is_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "data"
    monkeypatch.setattr(limits, "segment_bytes", 1 << 20)
    journal = await _open(data)
    record = await journal.open(
        EXCHANGE, actor="a_0", role="user", key="k", subject="", people=(), retention="standard"
    )
    asked = await record.request({"operation": "chat"}, b"{}")
    _fill_the_disk(monkeypatch)
    with pytest.raises(LedgerUnavailable, match="room"):
        await _fill_the_ledger(journal)
    with pytest.raises(LedgerUnavailable):
        await journal.open("f" * 32, actor="a", role="user", key="k", subject="", people=(), retention="standard")
    assert "room" in journal.state().failure
    closing = {"outcome": "ok", "status": 200, "request": asked.index}
    with pytest.raises(LedgerUnavailable):
        await record.response(closing, bytes(1 << 19))  # its body finds no room; the exchange is closed without it
    await journal.close()
    monkeypatch.undo()
    assert _verified(data).outcomes["failed"] == 1
    assert _verified(data).open <= 1  # the one that could not even be begun
    journal = await _open(data)
    await _exchanges(journal, 1)
    await journal.close()


def _fill_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(segments_module, "_fill", full)


async def _fill_the_ledger(journal: Journal) -> None:
    for number in range(1000):
        record = await journal.open(
            f"{number:032x}", actor="a", role="user", key="k", subject="", people=(), retention="standard"
        )
        asked = await record.request({"operation": "chat"}, bytes(50_000))
        await record.response({"outcome": "ok", "status": 200, "request": asked.index}, b"{}")
        await asyncio.sleep(0.05)


async def test_what_a_crash_cut_off_is_closed_as_lost_with_what_was_written(tmp_path: Path) -> None:
    data = tmp_path / "data"
    journal = await _open(data)
    record = await journal.open(
        EXCHANGE, actor="a_0", role="user", key="k", subject="", people=("a person",), retention="standard"
    )
    await record.request({"operation": "chat", "model": "m"}, b'{"request":1}')
    for word in (b'"Nothing "\n', b'"is "\n', b'"lost."\n'):
        record.piece(word)
    # No close: as after `kill -9`, what was written is in the page cache.
    again = await _open(data)
    await again.close()
    entries = find(data / "ledger", EXCHANGE, open_keystore(data))
    assert entries[-1].entry["outcome"] == "lost"
    assert entries[-1].entry["request"] == entries[0].index
    assert entries[-1].body["response"]["choices"][0]["message"]["content"] == "Nothing is lost."
    assert _verified(data).open == 0


@pytest.mark.parametrize("damage", ["checkpoint", "tile", "bundle", "segment", "body", "missing"])
async def test_damage_is_found(tmp_path: Path, damage: str) -> None:
    data = tmp_path / "data"
    journal = await _open(data)
    await _exchanges(journal, 150)
    await journal.close()
    _verified(data)
    _DAMAGE[damage](data / "ledger")
    with pytest.raises(RempartError):
        _verified(data)


def _flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


_DAMAGE: dict[str, Callable[[Path], None]] = {
    "checkpoint": lambda ledger: _flip(ledger / "log" / "checkpoint", 30),
    "tile": lambda ledger: _flip(ledger / "log" / "tile" / "0" / "000", 1000),
    "bundle": lambda ledger: _flip(ledger / "log" / "tile" / "entries" / "000", 1000),
    "segment": lambda ledger: _flip(ledger / "segments" / "0000000000.seg", 400),
    "body": lambda ledger: _flip(ledger / "segments" / "0000000000.seg", 20_000),
    "missing": lambda ledger: (ledger / "segments" / "0000000000.seg").unlink(),
}


async def test_a_ledger_that_vanished_is_not_begun_anew(tmp_path: Path) -> None:
    data = tmp_path / "data"
    await (await _open(data)).close()
    shutil.rmtree(data / "ledger")
    with pytest.raises(RempartError, match="gone"):
        await _open(data)
