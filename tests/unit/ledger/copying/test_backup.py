"""`Backup.create` and `restore`: what was answered before comes back, under the same log or a new one."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import msgspec
import pytest

from rempart import limits
from rempart.errors import KeystoreChanged, KeystoreError, LedgerCorrupt, UsageError
from rempart.ledger.copying.backup import Made, Places
from rempart.ledger.copying.restore import Order, Restored, restore
from rempart.ledger.keys.configured import open_keystore
from rempart.ledger.log import entry as entries
from rempart.ledger.log.checkpoint import Checkpoint, Signer
from rempart.ledger.reading.backups import backups
from rempart.ledger.reading.entries import EntryReader
from rempart.ledger.reading.examine import Examined
from rempart.ledger.reading.fsck import fsck
from rempart.ledger.reading.previous import verify_chain
from rempart.ledger.writing.journal import Journal
from rempart.testing.backed_up import Installation


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Installation:
    monkeypatch.setattr(limits, "segment_bytes", 1 << 20)
    monkeypatch.setattr(limits, "integrate_s", 0.02)
    return Installation(tmp_path / "data")


def places(tmp_path: Path) -> Places:
    return Places(data=tmp_path / "backup", keys=tmp_path / "keys", same_device=True)


async def filled(site: Installation, journal: Journal, count: int = 5) -> None:
    for _ in range(count):
        await site.exchange(journal)


async def made(site: Installation, tmp_path: Path, *, open_too: bool = False) -> Made:
    async with site.open() as journal:
        await filled(site, journal)
        if open_too:
            await site.exchange(journal, answered=False)
        return await site.back_up(journal, places(tmp_path))


def back(made: Made, to: Path, **how: object) -> tuple[Installation, Restored]:
    order = Order(backup=Path(made.data), keys=Path(made.keys), data=to, **how)  # type: ignore[arg-type]
    return Installation(to), restore(order)


def verified(site: Installation) -> Examined:
    assert fsck(site.ledger, site.verifier).faults == []
    return verify_chain(site.ledger, site.verifier)


async def test_data_and_keys_lie_apart_and_the_entry_says_so(site: Installation, tmp_path: Path) -> None:
    backup = await made(site, tmp_path)
    assert backup.with_root
    assert not (tmp_path / "backup" / "keys").exists()
    assert (tmp_path / "keys" / backup.backup / "keys" / "root.key").stat().st_mode & 0o777 == 0o600
    fields = entries.decode(EntryReader(site.ledger).read(backup.index))
    facts = {name: fields[name] for name in fields.keys() - {"v", "log", "boot", "worker", "type", "time"}}
    assert facts == {"backup": backup.backup, "epoch": backup.epoch, "with_root": True}
    for path in (tmp_path / "backup" / "backup.json", tmp_path / "keys" / backup.backup / "backup.json"):
        assert msgspec.json.decode(path.read_bytes())["backup"] == backup.backup
    (listed,) = backups(site.ledger)
    assert (listed.backup, listed.epoch, listed.with_root, listed.index) == (
        *(backup.backup, backup.epoch, True, backup.index),
    )


async def test_everything_answered_before_comes_back_and_the_same_log_goes_on(
    site: Installation, tmp_path: Path
) -> None:
    backup = await made(site, tmp_path)
    answered = dict(site.answered)
    restored, told = back(backup, tmp_path / "restored")
    assert (told.new_log, told.restored, told.origin) == (False, backup.size, backup.origin)
    for exchange, said in answered.items():
        assert restored.read(exchange) == said
    assert verified(restored).size == backup.size
    async with restored.open() as journal:
        await filled(restored, journal, 300)
    examined = verified(restored)
    assert examined.size == backup.size + 601
    assert restored.verifier.vkey == site.verifier.vkey
    for exchange, said in {**answered, **restored.answered}.items():
        assert restored.read(exchange) == said


async def test_exchanges_that_were_open_are_closed_as_lost(site: Installation, tmp_path: Path) -> None:
    backup = await made(site, tmp_path, open_too=True)
    restored, told = back(backup, tmp_path / "restored")
    assert told.open == 1
    async with restored.open():
        pass
    examined = verified(restored)
    assert (examined.open, examined.outcomes["lost"]) == (0, 1)


async def test_a_backup_is_brought_forward_and_its_keys_are_kept_one_by_one(site: Installation, tmp_path: Path) -> None:
    first = await made(site, tmp_path)
    second = await made(site, tmp_path)
    assert second.size > first.size
    assert sorted(path.name for path in (tmp_path / "keys").iterdir()) == sorted([first.backup, second.backup])
    assert [one.backup for one in backups(site.ledger)] == [second.backup, first.backup]
    restored, _ = back(second, tmp_path / "restored")
    for exchange, said in site.answered.items():
        assert restored.read(exchange) == said


async def test_a_backup_that_is_stated_to_be_destroyed_is_listed_as_that(site: Installation, tmp_path: Path) -> None:
    backup = await made(site, tmp_path)
    async with site.open() as journal:
        await journal.event("backup", {"backup": backup.backup, "destroyed": True})
    (listed,) = backups(site.ledger)
    assert (listed.backup, listed.destroyed) == (backup.backup, True)


async def test_while_exchanges_run_it_is_consistent(site: Installation, tmp_path: Path) -> None:
    async with site.open() as journal:
        stop = asyncio.Event()

        async def load() -> None:
            while not stop.is_set():
                await site.exchange(journal)

        loading = [asyncio.create_task(load()) for _ in range(4)]
        await asyncio.sleep(0.2)
        before = dict(site.answered)
        backup = await site.back_up(journal, places(tmp_path))
        stop.set()
        await asyncio.gather(*loading)
    restored, _ = back(backup, tmp_path / "restored")
    assert before
    for exchange, said in before.items():
        assert restored.read(exchange) == said
    assert verified(restored).bodies > 2 * len(before) - 1


async def test_when_a_witness_saw_more_a_new_log_begins_beside_the_old(site: Installation, tmp_path: Path) -> None:
    backup = await made(site, tmp_path)
    answered = dict(site.answered)
    async with site.open() as journal:
        await filled(site, journal, 3)
    seen = (site.ledger / "log" / "checkpoint").read_bytes()
    restored, told = back(backup, tmp_path / "restored", witnessed=[seen])
    assert (told.new_log, told.previous) == (True, 1)
    assert told.origin == f"{backup.origin}/2"
    assert told.vkey != site.verifier.vkey
    verified(restored)
    async with restored.open(origin=backup.origin) as journal:
        await filled(restored, journal, 2)
    first = entries.decode(EntryReader(restored.ledger).read(0))
    assert first["type"] == "start"
    assert first["continues"] == {"origin": backup.origin, "size": backup.size, "root": backup.root}
    assert first["log"] != entries.decode(EntryReader(site.ledger).read(0))["log"]
    verified(restored)
    assert verify_chain(restored.ledger / "previous" / "1", site.verifier).size == backup.size
    for exchange, said in {**answered, **restored.answered}.items():
        assert restored.read(exchange) == said


async def test_a_witnessed_checkpoint_in_the_backup_counts(site: Installation, tmp_path: Path) -> None:
    backup = await made(site, tmp_path)
    ledger = tmp_path / "backup" / "ledger"
    (ledger / "witnessed").mkdir()
    shutil.copy(ledger / "log" / "checkpoint", ledger / "witnessed" / "checkpoint")
    assert not back(backup, tmp_path / "one")[1].new_log
    async with site.open() as journal:
        await filled(site, journal, 3)
    shutil.copy(site.ledger / "log" / "checkpoint", ledger / "witnessed" / "checkpoint")
    assert back(backup, tmp_path / "two")[1].new_log


async def test_a_witness_that_saw_another_history_stops_it(site: Installation, tmp_path: Path) -> None:
    backup = await made(site, tmp_path)
    keystore = open_keystore(site.data)
    signer = Signer(backup.origin, keystore.one("log-key"))
    keystore.close()
    seen = signer.sign(Checkpoint(backup.origin, backup.size - 1, bytes(32)))
    with pytest.raises(LedgerCorrupt, match="Split view"):
        back(backup, tmp_path / "restored", witnessed=[seen])
    assert not (tmp_path / "restored").exists()


async def test_the_owner_may_ask_for_a_new_log_and_each_continues_the_one_before(
    site: Installation, tmp_path: Path
) -> None:
    backup = await made(site, tmp_path)
    second, told = back(backup, tmp_path / "second", new_log=True)
    async with second.open() as journal:
        await filled(second, journal, 3)
        later = await second.back_up(
            journal, Places(data=tmp_path / "backup2", keys=tmp_path / "keys2", same_device=True)
        )
    third, told = back(later, tmp_path / "third", new_log=True)
    assert (told.previous, told.origin) == (2, f"{backup.origin}/3")
    async with third.open():
        pass
    verified(third)
    for exchange, said in {**site.answered, **second.answered}.items():
        assert third.read(exchange) == said
    shutil.rmtree(third.ledger / "previous" / "1" / "log")
    with pytest.raises(LedgerCorrupt):
        verify_chain(third.ledger, third.verifier)


async def test_a_previous_log_that_is_another_or_gone_is_told(site: Installation, tmp_path: Path) -> None:
    backup = await made(site, tmp_path)
    restored, _ = back(backup, tmp_path / "restored", new_log=True)
    async with restored.open():
        pass
    shutil.move(restored.ledger / "previous" / "1", tmp_path / "aside")
    with pytest.raises(LedgerCorrupt, match="not in ledger/previous"):
        verify_chain(restored.ledger, restored.verifier)
    assert [fault.kind for fault in fsck(restored.ledger, restored.verifier).faults] == ["previous"]
    other = Installation(tmp_path / "other")
    async with other.open():
        pass
    shutil.copytree(other.ledger, restored.ledger / "previous" / "1")
    with pytest.raises(LedgerCorrupt, match="not the log that the next one"):
        verify_chain(restored.ledger, restored.verifier)
    assert [fault.where for fault in fsck(restored.ledger, restored.verifier).faults] == ["previous/1"]


async def test_fsck_names_and_mends_what_is_wrong_with_a_log_that_is_continued(
    site: Installation, tmp_path: Path
) -> None:
    backup = await made(site, tmp_path)
    restored, _ = back(backup, tmp_path / "restored", new_log=True)
    async with restored.open():
        pass
    assert fsck(restored.ledger, restored.verifier).faults == []
    before = restored.ledger / "previous" / "1"
    (tile,) = (before / "log" / "tile" / "0" / "000.p").iterdir()
    data = bytearray(tile.read_bytes())
    data[40] ^= 1
    tile.write_bytes(data)
    name = str(tile.relative_to(restored.ledger))
    with pytest.raises(LedgerCorrupt, match="previous/1/log/tile"):
        verify_chain(restored.ledger, restored.verifier)
    (fault,) = fsck(restored.ledger, restored.verifier).faults
    assert (fault.kind, fault.where) == ("tile", name)
    mended = fsck(restored.ledger, restored.verifier, repair=True)
    assert (mended.holds, mended.repaired) == (True, [name])
    (before / "log.vkey").unlink()
    (fault,) = fsck(restored.ledger, restored.verifier).faults
    assert (fault.kind, fault.where) == ("previous", "previous/1")


async def test_keys_of_another_installation_are_refused(site: Installation, tmp_path: Path) -> None:
    backup = await made(site, tmp_path)
    other = Installation(tmp_path / "other")
    async with other.open():
        pass
    with pytest.raises(KeystoreError, match="not those of the log"):
        back(msgspec.structs.replace(backup, keys=str(other.data)), tmp_path / "restored")
    assert not (tmp_path / "restored").exists()


async def test_a_backup_that_was_changed_is_refused(site: Installation, tmp_path: Path) -> None:
    backup = await made(site, tmp_path)
    (path,) = (tmp_path / "backup" / "ledger" / "bodies").glob("*/*/*.bod")
    data = bytearray(path.read_bytes())
    data[200] ^= 1
    path.write_bytes(data)
    with pytest.raises(LedgerCorrupt):
        back(backup, tmp_path / "restored")
    assert not (tmp_path / "restored").exists()


async def test_what_is_there_is_not_overwritten(site: Installation, tmp_path: Path) -> None:
    backup = await made(site, tmp_path)
    with pytest.raises(UsageError, match="is there already"):
        back(backup, site.data)
    (tmp_path / "restored.restoring").mkdir()
    (tmp_path / "restored.restoring" / "mine").write_text("mine")
    with pytest.raises(UsageError, match="in the way"):
        back(backup, tmp_path / "restored")
    with pytest.raises(UsageError, match="no backup"):
        back(msgspec.structs.replace(backup, data=str(site.data)), tmp_path / "other")


async def test_keys_on_the_device_of_the_data_are_refused_unless_it_is_said(site: Installation, tmp_path: Path) -> None:
    async with site.open() as journal:
        for wanted in (
            Places(data=tmp_path / "backup", keys=tmp_path / "keys"),
            Places(data=None, keys=tmp_path / "keys"),
            Places(data=site.data / "backup", keys=None),
            Places(data=None, keys=None),
        ):
            with pytest.raises(UsageError):
                await site.back_up(journal, wanted)
        assert backups(site.ledger) == []
        without = await site.back_up(journal, Places(data=tmp_path / "backup", keys=None))
        alone = await site.back_up(journal, Places(data=None, keys=tmp_path / "keys", same_device=True))
    assert (without.with_root, without.keys) == (False, "")
    assert (alone.with_root, alone.data) == (True, "")
    assert sorted(path.name for path in (tmp_path / "keys" / alone.backup).iterdir()) == ["backup.json", "keys"]


async def test_keys_that_are_destroyed_meanwhile_are_not_copied_as_of_before(
    site: Installation, tmp_path: Path
) -> None:
    async with site.open() as journal:
        await filled(site, journal, 1)
        before = backups(site.ledger)
        real = journal.event

        async def event(type: str, facts: object) -> object:
            receipt = await real(type, facts)  # type: ignore[arg-type]
            await journal.vault.ask(lambda keystore: keystore.destroy([("subject", "s_0")]))
            return receipt

        journal.event = event  # type: ignore[method-assign, assignment]
        with pytest.raises(KeystoreChanged, match="meanwhile"):
            await site.back_up(journal, places(tmp_path))
    assert before == []
    assert list((tmp_path / "keys").iterdir()) == []
