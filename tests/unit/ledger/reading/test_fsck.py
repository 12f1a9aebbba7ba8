"""`rempart.ledger.reading.fsck`: it names each fault, where it is, which entries it affects, and mends what it may."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from rempart import limits
from rempart.errors import LedgerCorrupt
from rempart.ledger.log.checkpoint import Checkpoint, Signer
from rempart.ledger.reading.faults import Fault
from rempart.ledger.reading.fsck import Checked, fsck
from rempart.ledger.reading.verify import verify
from rempart.ledger.store.bodies import BodyStore
from rempart.ledger.store.segments import numbers, segment_path
from rempart.ledger.writing.retire import Closed
from rempart.testing.small_ledger import NOON_S, SIGNER, SmallLedger, until

BODY_BYTES = 1_500


def never(ledger: Path, closed: Closed, size: int, origin: bytes) -> None:
    raise OSError(5, "not now")


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> SmallLedger:
    """700 entries; the first two segments were taken apart, one is closed, one grows."""
    import asyncio

    small = SmallLedger(tmp_path_factory.mktemp("sound") / "ledger")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(limits, "segment_bytes", 1 << 20)
        patch.setattr(limits, "integrate_s", 0.02)
        asyncio.run(_fill(small))
    assert len(numbers(small.path / "segments")) == 2
    return small


async def _fill(small: SmallLedger) -> None:
    async with small.run():
        while len(BodyStore(small.path / "bodies").buckets()) < 1 or _files(small) < 2:
            await small.exchange(BODY_BYTES)
    async with small.run(never):
        first = numbers(small.path / "segments")[-1]
        while numbers(small.path / "segments")[-1] == first:
            await small.exchange(BODY_BYTES)
        for _ in range(20):
            await small.exchange(BODY_BYTES)


def _files(small: SmallLedger) -> int:
    return len(list((small.path / "bodies").rglob("*.bod")))


@pytest.fixture
def ledger(sound: SmallLedger, tmp_path: Path) -> Path:
    shutil.copytree(sound.path, tmp_path / "ledger")
    return tmp_path / "ledger"


def check(ledger: Path, *, repair: bool = False) -> Checked:
    return fsck(ledger, SIGNER.verifier, repair=repair)


def grave(checked: Checked) -> list[Fault]:
    return [fault for fault in checked.faults if fault.grave]


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def test_a_sound_ledger_has_no_fault(sound: SmallLedger) -> None:
    checked = check(sound.path)
    assert checked.faults == []
    assert checked.holds
    assert checked.examined.size == len(sound.acknowledged)
    assert checked.examined.bodies == sum(bool(body) for _, body in sound.acknowledged.values())
    assert 0 < checked.examined.retired < checked.examined.size


def _partial(ledger: Path, kind: str) -> Path:
    size = check(ledger).examined.size
    return ledger / "log" / "tile" / kind / f"{size // 256:03d}.p" / str(size % 256)


def _bod(ledger: Path) -> Path:
    return sorted((ledger / "bodies").rglob("*.bod"))[0]


FILES: dict[str, tuple[Callable[[Path], Path], str]] = {
    "checkpoint": (lambda ledger: ledger / "log" / "checkpoint", "checkpoint"),
    "tile": (lambda ledger: ledger / "log" / "tile" / "0" / "001", "tile"),
    "partial tile": (lambda ledger: _partial(ledger, "0"), "tile"),
    "upper tile": (lambda ledger: next((ledger / "log" / "tile" / "1" / "000.p").iterdir()), "tile"),
    "bundle": (lambda ledger: ledger / "log" / "tile" / "entries" / "000", "bundle"),
    "partial bundle": (lambda ledger: _partial(ledger, "entries"), "bundle"),
    "closed segment": (lambda ledger: segment_path(ledger / "segments", numbers(ledger / "segments")[0]), "segment"),
    "last segment": (lambda ledger: segment_path(ledger / "segments", numbers(ledger / "segments")[1]), "segment"),
    "bodies": (_bod, "body"),
}


def _only_those_of(ledger: Path, name: str) -> Path:
    """The upper tiles keep one file of each width they had: the one that counts is the widest."""
    path = FILES[name][0](ledger)
    if name == "upper tile":
        return max(path.parent.iterdir(), key=lambda one: int(one.name))
    return path


@pytest.mark.parametrize("place", [0.0, 0.1, 0.31, 0.6])
@pytest.mark.parametrize("name", FILES)
def test_a_flipped_bit_is_named(ledger: Path, name: str, place: float) -> None:
    path = _only_those_of(ledger, name)
    used = len(path.read_bytes().rstrip(b"\0"))
    flip(path, int(used * place))
    found = grave(check(ledger))
    assert FILES[name][1] in {fault.kind for fault in found}
    assert str(path.relative_to(ledger)) in {fault.where for fault in found}
    assert all(fault.what and fault.remedy for fault in found)
    with pytest.raises(LedgerCorrupt):
        verify(ledger, SIGNER.verifier)


@pytest.mark.parametrize("name", FILES)
def test_a_removed_file_is_named(ledger: Path, name: str) -> None:
    _only_those_of(ledger, name).unlink()
    found = grave(check(ledger))
    # Without its first segment a ledger looks as if it had been taken apart, and nothing had been kept.
    assert ("body" if name == "closed segment" else FILES[name][1]) in {fault.kind for fault in found}
    with pytest.raises(LedgerCorrupt):
        verify(ledger, SIGNER.verifier)


def test_a_changed_body_names_its_entry(ledger: Path, sound: SmallLedger) -> None:
    index, body = next((index, body) for index, (_, body) in sound.acknowledged.items() if body and index > 10)
    path = _bod(ledger)
    flip(path, path.read_bytes().index(body) + 5)
    found = grave(check(ledger))
    assert (index, index) in {(fault.first, fault.last) for fault in found}


def test_all_faults_are_named_at_once(ledger: Path) -> None:
    flip(ledger / "log" / "tile" / "0" / "001", 5)
    flip(_bod(ledger), 500)
    flip(ledger / "log" / "tile" / "entries" / "000", 1_000)
    assert {fault.kind for fault in grave(check(ledger))} == {"tile", "body", "bundle"}


@pytest.mark.parametrize("name", ["tile", "partial tile", "upper tile", "partial bundle"])
@pytest.mark.parametrize("remove", [True, False])
def test_what_can_be_derived_is_written_anew_as_it_was(ledger: Path, name: str, remove: bool) -> None:
    path = _only_those_of(ledger, name)
    before = path.read_bytes()
    if remove:
        path.unlink()
    else:
        flip(path, 30)
    checked = check(ledger, repair=True)
    assert checked.holds
    assert checked.repaired == [str(path.relative_to(ledger))]
    assert path.read_bytes() == before
    assert check(ledger, repair=True).repaired == []


@pytest.mark.parametrize("name", ["bundle", "closed segment", "last segment", "bodies", "checkpoint"])
def test_what_cannot_be_derived_is_left_as_it_is(ledger: Path, name: str) -> None:
    path = _only_those_of(ledger, name)
    flip(path, 90)
    before = {one: one.read_bytes() for one in ledger.rglob("*") if one.is_file()}
    checked = check(ledger, repair=True)
    assert not checked.holds
    assert checked.repaired == []
    assert {one: one.read_bytes() for one in ledger.rglob("*") if one.is_file()} == before


def test_nothing_is_repaired_when_the_root_is_not_the_signed_one(ledger: Path) -> None:
    size = check(ledger).examined.size
    (ledger / "log" / "checkpoint").write_bytes(SIGNER.sign(Checkpoint(SIGNER.verifier.name, size, bytes(32))))
    flip(ledger / "log" / "tile" / "0" / "001", 5)
    checked = check(ledger, repair=True)
    assert "root" in {fault.kind for fault in checked.faults}
    assert checked.repaired == []


def test_another_logs_checkpoint_is_named(ledger: Path) -> None:
    other = Signer("rempart.test/other", bytes(32))
    (ledger / "log" / "checkpoint").write_bytes(other.sign(Checkpoint("rempart.test/other", 3, bytes(32))))
    assert "checkpoint" in {fault.kind for fault in grave(check(ledger))}


def test_a_file_of_bodies_that_no_entry_states_is_named(ledger: Path) -> None:
    path = _bod(ledger)
    stray = ledger / "bodies" / "standard" / "2020-01-01" / path.name
    stray.parent.mkdir()
    shutil.copy(path, stray)
    (fault,) = grave(check(ledger))
    assert (fault.kind, fault.where) == ("body", str(stray.relative_to(ledger)))


async def _small(path: Path, monkeypatch: pytest.MonkeyPatch) -> SmallLedger:
    monkeypatch.setattr(limits, "segment_bytes", 1 << 20)
    monkeypatch.setattr(limits, "integrate_s", 0.02)
    small = SmallLedger(path / "small")
    async with small.run():
        for number in range(9):
            await small.exchange(100_000, bucket=f"2026-11-2{number % 2}")
        await until(lambda: len(numbers(small.path / "segments")) == 1)
    return small


async def test_bodies_may_go_with_their_expiry_and_not_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = await _small(tmp_path, monkeypatch)
    gone = BodyStore(small.path / "bodies").unlink("standard", "2026-11-20")
    assert gone > 0
    (fault,) = grave(check(small.path))
    assert (fault.kind, fault.where) == ("body", "bodies/standard/2026-11-20")
    async with small.run():
        await small.event("expiry", **{"class": "standard", "bucket": "2026-11-21"})
        await small.event("erasure", **{"class": "standard", "bucket": "2026-11-20"})
    assert len(grave(check(small.path))) == 1
    async with small.run():
        await small.event("expiry", **{"class": "standard", "bucket": "2026-11-20"})
    checked = check(small.path)
    assert checked.holds, checked.faults
    assert checked.examined.expired > 0
    assert verify(small.path, SIGNER.verifier).expired == checked.examined.expired


async def test_an_expiry_does_not_excuse_what_came_after_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = await _small(tmp_path, monkeypatch)
    async with small.run():
        await small.event("expiry", **{"class": "standard", "bucket": "2026-11-22"})
        for _ in range(9):
            await small.exchange(100_000, bucket="2026-11-22")
        await until(lambda: len(numbers(small.path / "segments")) == 1)
    assert BodyStore(small.path / "bodies").unlink("standard", "2026-11-22") > 0
    assert [fault.kind for fault in grave(check(small.path))] == ["body"]


async def test_a_log_that_was_put_back_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = await _small(tmp_path, monkeypatch)
    shutil.copytree(small.path / "log", tmp_path / "backup")
    async with small.run():
        for _ in range(9):
            await small.exchange(100_000)
        await until(lambda: len(numbers(small.path / "segments")) == 1)
    shutil.rmtree(small.path / "log")
    shutil.copytree(tmp_path / "backup", small.path / "log")
    found = grave(check(small.path))
    assert "rollback" in {fault.kind for fault in found}
    with pytest.raises(LedgerCorrupt):
        async with small.run():
            pass


@pytest.mark.parametrize("only_checkpoint", [True, False])
async def test_a_log_that_was_put_back_is_named_though_the_segments_hold_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, only_checkpoint: bool
) -> None:
    small = await _small(tmp_path, monkeypatch)
    shutil.copytree(small.path / "log", tmp_path / "backup")
    for _ in range(2):
        async with small.run(never):
            await small.exchange()
    if only_checkpoint:
        shutil.copy(tmp_path / "backup" / "checkpoint", small.path / "log" / "checkpoint")
    else:
        shutil.rmtree(small.path / "log")
        shutil.copytree(tmp_path / "backup", small.path / "log")
    assert [fault.kind for fault in grave(check(small.path))] == ["rollback"]
    async with small.run(never):
        await small.exchange()
    assert grave(check(small.path)) == []


async def test_a_clock_that_was_set_back_is_named_and_no_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = await _small(tmp_path, monkeypatch)
    async with small.run(never):
        small.now = NOON_S - 3_600
        await small.exchange()
        await small.exchange()
    checked = check(small.path)
    assert [(fault.kind, fault.grave) for fault in checked.faults] == [("clock", False)]
    assert checked.holds


async def test_what_a_crash_left_unfinished_is_named_and_no_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = await _small(tmp_path, monkeypatch)
    (small.path / "segments" / "spare.new").write_bytes(b"0")
    half = small.path / "bodies" / "standard" / "2026-11-20" / f"{99_999:020d}.bod"
    half.with_name(half.name + ".new").write_bytes(b"0")
    half.write_bytes(b"0")
    checked = check(small.path)
    assert {fault.kind for fault in checked.faults} == {"left"}
    assert len(checked.faults) == 3
    assert checked.holds


def test_only_so_many_faults_are_told(ledger: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "faults_told_max", 1)
    flip(ledger / "log" / "tile" / "0" / "001", 5)
    flip(_bod(ledger), 500)
    checked = check(ledger)
    assert len(checked.faults) == 1
    assert checked.more >= 1
    assert not checked.holds
