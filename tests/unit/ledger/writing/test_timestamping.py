"""`rempart.ledger.writing.timestamping`: a real log, OpenSSL's authority on loopback, and ones that misbehave."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from hashlib import sha256
from pathlib import Path

import pytest

from rempart import limits
from rempart.ledger.log.checkpoint import Checkpoint
from rempart.ledger.log.merkle import EMPTY_ROOT
from rempart.ledger.log.timestamp import Authority
from rempart.ledger.reading.timestamps import (
    check_timestamps,
    note_path,
    read_authority,
    read_kept,
    stamped_sizes,
    token_path,
)
from rempart.ledger.writing import timestamping
from rempart.ledger.writing.timestamp_client import TimestampClient
from rempart.ledger.writing.timestamping import Timestamping
from rempart.testing import authority as testing
from rempart.testing.authority import http, serving
from rempart.testing.copies import signed
from rempart.testing.small_ledger import SIGNER, SmallLedger

Over = Callable[[bytes], Awaitable[bytes]]


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> testing.Authority:
    return testing.Authority(tmp_path_factory.mktemp("tsa"))


@pytest.fixture
async def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[SmallLedger]:
    """It runs, and has a checkpoint."""
    monkeypatch.setattr(limits, "segment_bytes", 1 << 20)
    monkeypatch.setattr(limits, "integrate_s", 0.02)
    ledger = SmallLedger(tmp_path / "ledger")
    async with ledger.run(lambda *_: None):
        await signed(ledger)
        yield ledger


def stamping(small: SmallLedger, url: str, real: testing.Authority) -> Timestamping:
    return Timestamping(small.path, TimestampClient(url, read_authority(real.ca_file), None))


async def grown(small: SmallLedger) -> int:
    """Entries under a checkpoint that is new."""
    await small.exchange()
    await signed(small)
    return len(small.acknowledged)


async def test_the_newest_checkpoint_is_stamped_once(small: SmallLedger, real: testing.Authority) -> None:
    async with serving(real.over_http) as url:
        asking = stamping(small, url, real)
        sizes = []
        for _ in range(3):
            sizes.append(await grown(small))
            assert await asking.round()
            assert await asking.round()  # nothing is new
    assert stamped_sizes(small.path) == sizes
    state = asking.state()
    assert (state.size, state.stamps, state.failures) == (sizes[-1], 3, 0)
    found = check_timestamps(small.path, read_authority(real.ca_file))
    assert found is not None
    assert (found.stamps, found.first_size, found.last_size) == (3, sizes[0], sizes[-1])
    assert found.last_time.timestamp() == state.time


async def test_what_is_stamped_is_the_hash_of_the_signed_notes_bytes(
    small: SmallLedger, real: testing.Authority
) -> None:
    async with serving(real.over_http) as url:
        assert await stamping(small, url, real).round()
    (size,) = stamped_sizes(small.path)
    kept = read_kept(small.path, size)
    assert sha256(kept.note).digest() in real.asked[-1]
    assert SIGNER.verifier.open(kept.note).size == size


async def test_a_run_stamps_at_once_and_again_and_the_last_round_at_the_end(
    small: SmallLedger, real: testing.Authority
) -> None:
    async with serving(real.over_http) as url:
        asking = stamping(small, url, real)
        running = asyncio.create_task(asking.run(0.02))
        async with asyncio.timeout(60):
            for count in (1, 2):
                while asking.state().stamps < count:
                    await asyncio.sleep(0.01)
                await grown(small)
        running.cancel()
        await asyncio.wait({running})
        size = await grown(small)
        await asking.finish()
        assert asking.state().size == size


async def silence(request: bytes) -> bytes:
    await asyncio.Event().wait()
    return b""


def always(answer: bytes) -> Over:
    async def over(request: bytes) -> bytes:
        return answer

    return over


async def _of_other_bytes(small: SmallLedger, real: testing.Authority) -> Over:
    async def over(request: bytes) -> bytes:
        note = (small.path / "log" / "checkpoint").read_bytes()
        other = request.replace(sha256(note).digest(), sha256(b"other").digest())
        return await real.over_http(other)

    return over


async def _played_back(small: SmallLedger, real: testing.Authority) -> Over:
    note = (small.path / "log" / "checkpoint").read_bytes()
    request = Authority.from_pem(real.ca_file.read_bytes()).ask(note).request
    return always(await real.over_http(request))


async def _of_another_authority(small: SmallLedger, real: testing.Authority) -> Over:
    return testing.Authority(small.path.parent / "other").over_http


_FAULTS: dict[str, tuple[Over, str]] = {
    "garbage": (always(http(b"\x30\x82garbage")), "does not hold"),
    "empty": (always(http(b"")), "does not hold"),
    "too long": (always(http(bytes(limits.timestamp_bytes_max + 1))), "too large"),
    "a page": (always(http(b"<html>", b"text/html")), "answers 200 with text/html"),
    "an error": (always(http(b"no", status=503)), "answers 503"),
    "elsewhere": (always(b"HTTP/1.1 302 X\r\nLocation: http://127.0.0.1/\r\nContent-Length: 0\r\n\r\n"), "answers 302"),
    "no HTTP": (always(b"\x15\x03\x01"), "does not speak HTTP"),
    "hangs up": (always(b""), "closed its connection"),
    "slow": (silence, "is silent"),
}
_MADE: dict[str, tuple[Callable[[SmallLedger, testing.Authority], Awaitable[Over]], str]] = {
    "wrong imprint": (_of_other_bytes, "for other bytes"),
    "wrong nonce": (_played_back, "Nonce mismatch"),
    "wrong authority": (_of_another_authority, "does not hold"),
}


@pytest.mark.parametrize("fault", [*_FAULTS, *_MADE])
async def test_what_does_not_hold_is_counted_told_and_not_kept(
    small: SmallLedger,
    real: testing.Authority,
    fault: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(limits, "timestamp_ask_s", 0.2 if fault == "slow" else 20.0)
    if fault in _MADE:
        make, why = _MADE[fault]
        over = await make(small, real)
    else:
        over, why = _FAULTS[fault]
    with caplog.at_level(logging.INFO):
        async with serving(over) as url:
            asking = stamping(small, url, real)
            assert not await asking.round()
            assert not await asking.round()
        assert asking.state().failures == 2
        assert stamped_sizes(small.path) == []
        warnings = [one.getMessage() for one in caplog.records if one.levelno == logging.WARNING]
        assert len(warnings) == 1  # once, though it failed twice
        assert why in warnings[0]
    await small.exchange()  # the ledger goes on


async def test_an_authority_whose_certificate_has_expired_stamps_nothing(
    small: SmallLedger, caplog: pytest.LogCaptureFixture
) -> None:
    expired = testing.Authority(small.path.parent / "expired", testing.Shape(upto_days=-1))
    async with serving(expired.over_http) as url:
        assert not await stamping(small, url, expired).round()
    assert "certificate has expired" in caplog.text
    assert stamped_sizes(small.path) == []


async def test_an_authority_that_is_away_is_asked_again_and_its_return_is_told(
    small: SmallLedger, real: testing.Authority, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "timestamp_retry_s", 0.01)
    answers: list[Over] = [always(http(b"", status=503)), always(http(b"", status=503)), real.over_http]

    async def over(request: bytes) -> bytes:
        return await (answers.pop(0) if len(answers) > 1 else answers[0])(request)

    with caplog.at_level(logging.INFO):
        async with serving(over) as url:
            asking = stamping(small, url, real)
            running = asyncio.create_task(asking.run(3_600.0))
            async with asyncio.timeout(60):
                while not asking.state().stamps:
                    await asyncio.sleep(0.01)
            running.cancel()
            await asyncio.wait({running})
    assert asking.state().failures == 2
    assert "The log is time-stamped again." in caplog.messages


async def test_a_clock_that_is_far_off_is_told_and_the_stamp_is_kept(
    small: SmallLedger, real: testing.Authority, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(real.over_http) as url:
        client = TimestampClient(url, read_authority(real.ca_file), None)
        assert await Timestamping(small.path, client, clock=lambda: 0.0).round()
    assert "clock is +" in caplog.text
    assert len(stamped_sizes(small.path)) == 1


@pytest.mark.parametrize("broken", [0, 1], ids=["before the note", "before the token"])
async def test_a_crash_leaves_no_half_of_a_stamp(
    small: SmallLedger, real: testing.Authority, broken: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk refuses at each of the two writes; the next round makes it whole."""
    writes: list[object] = []
    write = timestamping.replace_durably

    def refuse(files: object, mode: int) -> None:
        writes.append(files)
        if len(writes) == broken + 1:
            raise OSError(28, "No space left on device")
        write(files, mode)  # type: ignore[arg-type]

    monkeypatch.setattr(timestamping, "replace_durably", refuse)
    async with serving(real.over_http) as url:
        asking = stamping(small, url, real)
        assert not await asking.round()
        assert stamped_sizes(small.path) == []
        assert check_timestamps(small.path, read_authority(real.ca_file)) is None
        assert await asking.round()
    found = check_timestamps(small.path, read_authority(real.ca_file))
    assert found is not None
    assert found.stamps == 1


async def test_a_stamp_that_is_there_is_not_replaced(small: SmallLedger, real: testing.Authority) -> None:
    async with serving(real.over_http) as url:
        assert await stamping(small, url, real).round()
        (size,) = stamped_sizes(small.path)
        before = (note_path(small.path, size).read_bytes(), token_path(small.path, size).read_bytes())
        asked = len(real.asked)
        assert await stamping(small, url, real).round()
    assert (note_path(small.path, size).read_bytes(), token_path(small.path, size).read_bytes()) == before
    assert len(real.asked) == asked


async def test_a_log_that_has_just_begun_is_asked_about_again_soon(
    tmp_path: Path, real: testing.Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its first checkpoint covers nothing: that is no failure, and no reason to wait an hour."""
    monkeypatch.setattr(limits, "timestamp_retry_s", 0.01)
    note = tmp_path / "log" / "checkpoint"
    note.parent.mkdir()
    note.write_bytes(SIGNER.sign(Checkpoint(SIGNER.verifier.name, 0, EMPTY_ROOT)))
    async with serving(real.over_http) as url:
        asking = Timestamping(tmp_path, TimestampClient(url, read_authority(real.ca_file), None))
        assert not await asking.round()
        assert asking.state().failures == 0
        running = asyncio.create_task(asking.run(3_600.0))
        note.write_bytes(SIGNER.sign(Checkpoint(SIGNER.verifier.name, 1, bytes(32))))
        async with asyncio.timeout(60):
            while not asking.state().stamps:
                await asyncio.sleep(0.01)
        running.cancel()
        await asyncio.wait({running})
    assert stamped_sizes(tmp_path) == [1]
