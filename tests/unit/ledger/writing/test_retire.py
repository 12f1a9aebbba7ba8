"""`rempart.ledger.writing.retire`: a closed segment is taken apart when nothing needs it, and only when all agrees."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from rempart import limits
from rempart.errors import LedgerCorrupt
from rempart.ledger.reading.entries import EntryReader
from rempart.ledger.reading.verify import verify
from rempart.ledger.store.bodies import BodyStore
from rempart.ledger.store.segments import numbers, read_header, segment_path
from rempart.ledger.writing.recover import origin_hash, recover
from rempart.ledger.writing.retire import Closed, main, retire
from rempart.ledger.writing.retirement import Retirement, retire_in_child
from rempart.testing.small_ledger import SIGNER, SmallLedger, until

ORIGIN = origin_hash(SIGNER.verifier.name)
BODY_BYTES = 100_000


def never(ledger: Path, closed: Closed, size: int, origin: bytes) -> None:
    raise OSError(5, "not now")


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SmallLedger:
    monkeypatch.setattr(limits, "segment_bytes", 1 << 20)
    monkeypatch.setattr(limits, "integrate_s", 0.02)
    return SmallLedger(tmp_path / "ledger")


async def two_segments(small: SmallLedger) -> Closed:
    """A ledger with a closed segment that may be taken apart."""
    async with small.run(never):
        for number in range(7):
            await small.exchange(BODY_BYTES, bucket=f"2026-11-2{number % 2}")
    return Closed(0, read_header(small.path / "segments", 1, ORIGIN).first_index)


def check_all_there(small: SmallLedger) -> None:
    reader = EntryReader(small.path)
    assert reader.count == len(small.acknowledged)
    assert dict(reader.newest_first()) == {index: entry for index, (entry, _) in small.acknowledged.items()}
    for index, (entry, body) in small.acknowledged.items():
        if body:
            bucket = (
                "2026-11-20" if b"2026-11-20" in entry else "2026-11-21" if b"2026-11-21" in entry else "2026-11-23"
            )
            assert reader.body(index, "standard", bucket) == body


async def test_a_running_server_takes_apart_what_it_has_closed(small: SmallLedger) -> None:
    async with small.run():
        for _ in range(12):
            await small.exchange(BODY_BYTES)
        await until(lambda: len(numbers(small.path / "segments")) == 1)
    assert numbers(small.path / "segments")[0] >= 2
    check_all_there(small)
    report = verify(small.path, SIGNER.verifier)
    assert report.retired > 0
    assert report.bodies == 24


async def test_in_a_process_of_its_own_it_does_the_same(small: SmallLedger, tmp_path: Path) -> None:
    closed = await two_segments(small)
    size = verify(small.path, SIGNER.verifier).size
    shutil.copytree(small.path, tmp_path / "here" / "ledger")
    retire(tmp_path / "here" / "ledger", closed, size, ORIGIN)
    retire_in_child(small.path, closed, size, ORIGIN)
    written = {path.relative_to(small.path): path.read_bytes() for path in small.path.rglob("*") if path.is_file()}
    here = tmp_path / "here" / "ledger"
    assert written == {path.relative_to(here): path.read_bytes() for path in here.rglob("*") if path.is_file()}
    check_all_there(small)


async def test_bodies_go_to_their_class_and_bucket(small: SmallLedger) -> None:
    closed = await two_segments(small)
    retire(small.path, closed, len(small.acknowledged), ORIGIN)
    assert BodyStore(small.path / "bodies").buckets() == [("standard", "2026-11-20"), ("standard", "2026-11-21")]
    assert numbers(small.path / "segments") == [1]
    check_all_there(small)


async def test_a_ledger_goes_on_without_its_first_segments(small: SmallLedger) -> None:
    closed = await two_segments(small)
    retire(small.path, closed, len(small.acknowledged), ORIGIN)
    for _ in range(2):
        async with small.run():
            await small.exchange(BODY_BYTES)
    check_all_there(small)
    assert verify(small.path, SIGNER.verifier).open == 0


async def test_a_segment_in_which_an_open_exchange_began_stays(small: SmallLedger) -> None:
    async with small.run():
        open_id = await small.exchange(BODY_BYTES, answered=False)
        for _ in range(12):
            await small.exchange(BODY_BYTES)
        await until(lambda: small.sequencer.state().tree_size == len(small.acknowledged))
        assert numbers(small.path / "segments")[0] == 0
        await small.answer(open_id, 1, BODY_BYTES)
        await until(lambda: numbers(small.path / "segments")[0] > 1)
    check_all_there(small)


async def test_what_is_not_under_the_checkpoint_stays(small: SmallLedger) -> None:
    closed = await two_segments(small)
    with pytest.raises(LedgerCorrupt, match="not under the checkpoint"):
        retire(small.path, closed, closed.end_index - 1, ORIGIN)
    assert numbers(small.path / "segments") == [0, 1]


@pytest.mark.parametrize("what", ["body", "entry", "bundle", "last"])
async def test_the_last_good_copy_of_something_is_never_destroyed(small: SmallLedger, what: str) -> None:
    closed = await two_segments(small)
    size = len(small.acknowledged)
    segment = segment_path(small.path / "segments", 0)
    data = segment.read_bytes()
    bundle = small.path / "log" / "tile" / "entries" / "000.p" / str(size)
    where = {"body": data.index(small.acknowledged[3][1]) + 70, "entry": data.index(b'"exchange"')}
    where |= {"bundle": 600, "last": data.rindex(b'"type":"response"')}
    path = bundle if what == "bundle" else segment
    damaged = bytearray(path.read_bytes())
    damaged[where[what]] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(LedgerCorrupt):
        retire(small.path, closed, size, ORIGIN)
    assert numbers(small.path / "segments") == [0, 1]
    assert [found for found in (small.path / "bodies").rglob("*") if found.is_file()] == []


async def test_a_child_whose_server_is_gone_does_nothing(small: SmallLedger) -> None:
    closed = await two_segments(small)
    arguments = [str(small.path), "0", str(closed.end_index), str(len(small.acknowledged)), ORIGIN.hex()]
    assert main([*arguments, "0"]) == 0
    assert numbers(small.path / "segments") == [0, 1]


def test_segments_go_in_their_order_and_failures_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[int] = []
    retirement = Retirement(
        tmp_path, ORIGIN, [Closed(3, 100), Closed(4, 200)], lambda _, one, *__: done.append(one.number)
    )
    assert retirement.due(99, 9) is None
    assert retirement.due(500, 3) is None
    first = retirement.due(500, 9)
    assert first == Closed(3, 100)
    retirement.run(first, 500)
    retirement.add(Closed(5, 300))
    assert retirement.due(500, 9) == Closed(4, 200)
    assert done == [3]
    failing = Retirement(tmp_path, ORIGIN, [Closed(3, 100)], never)
    with pytest.raises(OSError, match="not now"):
        failing.run(Closed(3, 100), 500)
    assert failing.due(500, 9) is None
    monkeypatch.setattr(limits, "retire_retry_s", 0.0)
    with pytest.raises(OSError, match="not now"):
        failing.run(Closed(3, 100), 500)
    assert failing.due(500, 9) == Closed(3, 100)


async def test_recovery_tells_the_time_of_the_last_entry_when_the_last_segment_is_empty(small: SmallLedger) -> None:
    await two_segments(small)
    last = max(small.acknowledged)
    assert recover(small.path, SIGNER).last_time.encode() in small.acknowledged[last][0]
