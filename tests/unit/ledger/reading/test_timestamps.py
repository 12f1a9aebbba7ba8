"""`rempart.ledger.reading.timestamps`: stamps of this log hold, others are refused; packs and copies have them too."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from rempart import limits
from rempart.errors import LedgerCorrupt
from rempart.ledger.log.checkpoint import Checkpoint, Signer
from rempart.ledger.log.timestamp import Authority
from rempart.ledger.reading.pack import Written, write_pack
from rempart.ledger.reading.timestamps import check_timestamps, covering, note_path, stamped_sizes, token_path
from rempart.ledger.writing.timestamp_client import TimestampClient
from rempart.ledger.writing.timestamping import Timestamping
from rempart.testing import authority as testing
from rempart.testing.authority import serving
from rempart.testing.copies import copy, signed
from rempart.testing.small_ledger import SIGNER, SmallLedger

POLICY = f"log {SIGNER.verifier.vkey}\nquorum none\n".encode()


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> testing.Authority:
    return testing.Authority(tmp_path_factory.mktemp("tsa"))


@pytest.fixture(scope="module")
def authority(real: testing.Authority) -> Authority:
    return Authority.from_pem(real.ca_file.read_bytes())


@pytest.fixture
async def small(
    tmp_path: Path, real: testing.Authority, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[SmallLedger]:
    """Three checkpoints of it are stamped, and entries follow that are not."""
    monkeypatch.setattr(limits, "segment_bytes", 1 << 20)
    monkeypatch.setattr(limits, "integrate_s", 0.02)
    ledger = SmallLedger(tmp_path / "data" / "ledger")
    async with ledger.run(lambda *_: None), serving(real.over_http) as url:
        asking = Timestamping(ledger.path, TimestampClient(url, authority, None))
        for count in (3, 140, 2):  # over a full tile
            for _ in range(count):
                await ledger.exchange()
            await signed(ledger)
            assert await asking.round()
        await ledger.exchange()
        await signed(ledger)
        yield ledger


def test_stamps_say_since_when_at_the_latest(small: SmallLedger, authority: Authority) -> None:
    found = check_timestamps(small.path, authority)
    assert found is not None
    sizes = stamped_sizes(small.path)
    assert (found.stamps, found.first_size, found.last_size) == (3, sizes[0], sizes[-1])
    assert found.first_time <= found.last_time


def test_a_log_without_stamps_says_nothing(small: SmallLedger, authority: Authority, tmp_path: Path) -> None:
    for path in (small.path / "timestamps").iterdir():
        path.unlink()
    assert check_timestamps(small.path, authority) is None


def _swap_tokens(ledger: Path) -> None:
    first, second, _ = stamped_sizes(ledger)
    token_path(ledger, first).write_bytes(token_path(ledger, second).read_bytes())


def _rename(ledger: Path) -> None:
    first = stamped_sizes(ledger)[0]
    note_path(ledger, first).rename(note_path(ledger, first + 1))
    token_path(ledger, first).rename(token_path(ledger, first + 1))


def _lose_note(ledger: Path) -> None:
    note_path(ledger, stamped_sizes(ledger)[1]).unlink()


def _sign_by_another(ledger: Path) -> None:
    path = note_path(ledger, stamped_sizes(ledger)[0])
    forged = Checkpoint(SIGNER.verifier.name, stamped_sizes(ledger)[0], bytes(32))
    path.write_bytes(Signer(SIGNER.verifier.name, b"\2" * 32).sign(forged))


def _damage(ledger: Path) -> None:
    path = token_path(ledger, stamped_sizes(ledger)[2])
    data = bytearray(path.read_bytes())
    data[-1] ^= 1  # the signature
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("forge", "why"),
    [
        (_swap_tokens, "for other bytes"),
        (_rename, "It is of"),
        (_lose_note, "cannot be read"),
        (_sign_by_another, "for other bytes"),
        (_damage, "does not hold"),
    ],
)
def test_what_was_changed_is_named(
    small: SmallLedger, authority: Authority, forge: Callable[[Path], None], why: str
) -> None:
    forge(small.path)
    with pytest.raises(LedgerCorrupt, match=why) as raised:
        check_timestamps(small.path, authority)
    assert raised.value.hint


async def _stamped_by_the_log_itself(
    small: SmallLedger, real: testing.Authority, authority: Authority, checkpoint: Checkpoint
) -> None:
    """By one who holds the log's key and may ask the authority."""
    note = SIGNER.sign(checkpoint)
    asked = authority.ask(note)
    note_path(small.path, checkpoint.size).write_bytes(note)
    token = authority.accept(await _answer(real, asked.request), asked, note).token
    token_path(small.path, checkpoint.size).write_bytes(token)


async def _answer(real: testing.Authority, request: bytes) -> bytes:
    return (await real.over_http(request)).partition(b"\r\n\r\n")[2]


@pytest.mark.parametrize(("size", "name"), [(5, "truncation"), (100_000, "roll-back"), (0, "split-view")])
async def test_a_stamp_of_another_history_is_named(
    small: SmallLedger, real: testing.Authority, authority: Authority, size: int, name: str
) -> None:
    forged = Checkpoint(SIGNER.verifier.name, size or len(small.acknowledged), b"\7" * 32)
    await _stamped_by_the_log_itself(small, real, authority, forged)
    with pytest.raises(LedgerCorrupt, match=f"Its authority has stamped .*{name}"):
        check_timestamps(small.path, authority)


def test_for_each_entry_the_earliest_stamp_and_the_newest_of_all(small: SmallLedger) -> None:
    first, second, third = stamped_sizes(small.path)
    size = len(small.acknowledged)

    def sizes(*indices: int, upto: int = size) -> list[int]:
        return [kept.size for kept in covering(small.path, indices, upto)]

    assert sizes(0) == sizes(first - 1) == [first, third]
    assert sizes(first) == [second, third]
    assert sizes(0, first, third - 1) == [first, second, third]
    assert sizes(third) == []  # not stamped yet
    assert sizes(0, upto=second) == [first, second]


def _pack(small: SmallLedger, to: Path, *indices: int) -> Written:
    return write_pack(small.path / "log", indices, to, policy=POLICY, disclosed={})


def _verify(pack: Path, *arguments: str) -> tuple[int, dict[str, Any]]:
    command = [sys.executable, "-I", str(pack / "verify.py"), "--vkey", SIGNER.verifier.vkey, "--json", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def test_a_pack_takes_its_stamps_along_and_its_own_verifier_checks_them(
    small: SmallLedger, real: testing.Authority, tmp_path: Path
) -> None:
    first, _, third = stamped_sizes(small.path)
    written = _pack(small, tmp_path / "pack", 1, 2)
    assert written.timestamps == 2
    status, told = _verify(tmp_path / "pack", "--timestamp-ca", str(real.ca_file))
    assert status == 0
    assert told["timestamps"]["unchecked"] == ""
    assert [one["entries"] for one in told["timestamps"]["stamps"]] == [first, third]


def test_without_the_authoritys_certificates_it_says_that_nobody_checked(small: SmallLedger, tmp_path: Path) -> None:
    _pack(small, tmp_path / "pack", 1)
    status, told = _verify(tmp_path / "pack")
    assert status == 0
    assert told["timestamps"]["unchecked"] == "give --timestamp-ca with the authority's certificates"
    command = [sys.executable, "-I", str(tmp_path / "pack" / "verify.py"), "--vkey", SIGNER.verifier.vkey]
    assert "NOT CHECKED" in subprocess.run(command, capture_output=True, text=True, check=False).stdout


def test_entries_that_no_stamp_covers_are_packed_without_one(small: SmallLedger, tmp_path: Path) -> None:
    written = _pack(small, tmp_path / "pack", len(small.acknowledged) - 1)
    assert written.timestamps == 0
    assert "--timestamp-ca" not in (tmp_path / "pack" / "README.txt").read_text()
    assert _verify(tmp_path / "pack")[1]["timestamps"] == {"stamps": [], "unchecked": ""}


def _of(pack: Path, ending: str) -> Path:
    return min((pack / "timestamps").glob(f"*.{ending}"), key=lambda path: int(path.stem))


def _other_token(pack: Path) -> None:
    tokens = sorted((pack / "timestamps").glob("*.tst"), key=lambda path: int(path.stem))
    tokens[0].write_bytes(tokens[1].read_bytes())


def _other_signer(pack: Path) -> None:
    size = int(_of(pack, "checkpoint").stem)
    forged = Checkpoint(SIGNER.verifier.name, size, bytes(32))
    _of(pack, "checkpoint").write_bytes(Signer(SIGNER.verifier.name, b"\2" * 32).sign(forged))


def _other_root(pack: Path) -> None:
    size = int(_of(pack, "checkpoint").stem)
    _of(pack, "checkpoint").write_bytes(SIGNER.sign(Checkpoint(SIGNER.verifier.name, size, bytes(32))))


def _no_proof(pack: Path) -> None:
    _of(pack, "consistency").write_bytes(b"")


def _longer_proof(pack: Path) -> None:
    path = _of(pack, "consistency")
    path.write_bytes(path.read_bytes() * 2)


def _broken_signature(pack: Path) -> None:
    data = bytearray(_of(pack, "tst").read_bytes())
    data[-1] ^= 1
    _of(pack, "tst").write_bytes(data)


@pytest.mark.parametrize(
    ("forge", "why"),
    [
        (_other_token, "for other bytes"),
        (_other_signer, "not the first ones"),
        (_other_root, "not the first ones"),
        (_no_proof, "cannot be read|not the first ones"),
        (_longer_proof, "too long|not the first ones"),
        (_broken_signature, "signature does not hold"),
    ],
)
def test_a_forged_stamp_in_a_pack_is_seen(
    small: SmallLedger, real: testing.Authority, tmp_path: Path, forge: Callable[[Path], None], why: str
) -> None:
    _pack(small, tmp_path / "pack", 1)
    forge(tmp_path / "pack")
    status, told = _verify(tmp_path / "pack", "--timestamp-ca", str(real.ca_file))
    assert status == 1
    assert any(one in told["error"] for one in why.split("|")), told


def test_a_copy_has_the_stamps_too(small: SmallLedger, authority: Authority, tmp_path: Path) -> None:
    replica = tmp_path / "copy" / "ledger"
    copy(small.path, replica)
    assert stamped_sizes(replica) == stamped_sizes(small.path)
    found = check_timestamps(replica, authority)
    assert found == check_timestamps(small.path, authority)


def test_half_a_stamp_at_the_source_does_not_stop_the_copy(small: SmallLedger, tmp_path: Path) -> None:
    first, second, third = stamped_sizes(small.path)
    note_path(small.path, second).unlink()
    copy(small.path, tmp_path / "copy" / "ledger")
    assert stamped_sizes(tmp_path / "copy" / "ledger") == [first, third]
