"""`rempart.ledger.writing.log_key`: a log changes its key; who trusts the old one is led to the new one, and a crash
leaves nothing that the next start does not finish."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from rempart import limits
from rempart.errors import ConfigError, KeystoreError, LedgerCorrupt, RempartError, UsageError
from rempart.ledger.copying.replicate import Replicator
from rempart.ledger.copying.source import FolderSource
from rempart.ledger.keys.rootfile import RootFile
from rempart.ledger.keys.sqlite_rows import SqliteRows
from rempart.ledger.log import entry as entries
from rempart.ledger.log.checkpoint import Checkpoint, Signer, Verifier, parse_note, with_signatures
from rempart.ledger.log.cosignature import Cosigner
from rempart.ledger.log.handover import Handover, led_to
from rempart.ledger.log.merkle import leaf_hash
from rempart.ledger.log.policy import Policy
from rempart.ledger.log.proof import TlogProof, encode, parse
from rempart.ledger.reading.fsck import fsck
from rempart.ledger.reading.handovers import believed, handover_indices, handover_path, read_handovers
from rempart.ledger.reading.pack import write_pack
from rempart.ledger.reading.verify import verify
from rempart.ledger.reading.witnessed import witnessed_path
from rempart.ledger.store.files import replace_durably
from rempart.ledger.writing import log_key
from rempart.ledger.writing.journal import Journal
from rempart.ledger.writing.log_key import LogKey
from rempart.ledger.writing.opening import read_vkey
from rempart.ledger.writing.sequencer import Sequencer
from rempart.testing.small_site import SmallSite


def of(site: SmallSite, policy: Callable[[], Policy | None] = lambda: None) -> LogKey:
    return LogKey(site.ledger, site.journal, policy)


def key(site: SmallSite) -> Verifier:
    return Verifier.from_vkey(read_vkey(site.path))


def signed_by(site: SmallSite, vkey: str) -> bool:
    try:
        Verifier.from_vkey(vkey).open((site.ledger / "log" / "checkpoint").read_bytes())
    except LedgerCorrupt:
        return False
    return True


async def covered(site: SmallSite) -> None:
    while site.journal.state().tree_size < site.journal.state().entries:
        await asyncio.sleep(0.01)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "segment_bytes", 1 << 20)
    monkeypatch.setattr(limits, "integrate_s", 0.1)


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[SmallSite]:
    async with SmallSite(tmp_path / "data").run() as made:
        await made.exchange("fever")
        yield made


async def test_first_both_sign_then_the_new_one_alone(site: SmallSite) -> None:
    old = key(site)
    begun = await of(site).begin()
    assert (begun.change, begun.old) == ("begun", old.vkey)
    await site.exchange("meanwhile")
    await covered(site)
    assert signed_by(site, begun.old)
    assert signed_by(site, begun.new)
    assert key(site).vkey == old.vkey

    ended = await of(site).finish()
    assert (ended.change, ended.old, ended.new) == ("ended", begun.old, begun.new)
    await site.exchange("afterwards")
    await covered(site)
    assert not signed_by(site, begun.old)
    assert key(site).vkey == begun.new
    for trusted in (old, Verifier.from_vkey(begun.new)):
        verify(site.ledger, trusted)
    assert [one["change"] for one in site.entries("log-key")] == ["begun", "ended"]


async def test_the_first_key_leads_over_several_changes_and_no_other_key_does(site: SmallSite) -> None:
    first = key(site)
    for _ in range(3):
        await of(site).begin()
        await of(site).finish()
        await site.exchange("cough")
    await covered(site)
    handovers = read_handovers(site.ledger)
    assert len(handovers) == 3
    assert led_to(first, handovers).vkey == key(site).vkey
    assert led_to(Signer(first.name, bytes(32)).verifier, handovers).vkey != key(site).vkey
    verify(site.ledger, first)
    with pytest.raises(LedgerCorrupt, match="not signed by"):
        verify(site.ledger, Signer(first.name, bytes(32)).verifier)


async def test_a_change_goes_on_over_a_restart(tmp_path: Path) -> None:
    site = SmallSite(tmp_path / "data")
    async with site.run():
        old = key(site)
        begun = await of(site).begin()
    async with site.run():
        await of(site).resume()
        await site.exchange("fever")
        await covered(site)
        assert signed_by(site, begun.old)
        assert signed_by(site, begun.new)
        await of(site).finish()
    async with site.run():
        await of(site).resume()
        await site.exchange("cough")
    verify(site.ledger, old)
    assert len(site.entries("log-key")) == 2
    assert site.check()


async def test_the_old_key_opens_nothing_any_more(tmp_path: Path) -> None:
    site = SmallSite(tmp_path / "data")
    async with site.run():
        secret = await site.journal.vault.ask(lambda keystore: keystore.one("log-key"))
        await of(site).begin()
        await of(site).finish()
        assert await site.journal.vault.ask(lambda keystore: keystore.get("one", "log-key-next")) is None
        assert await site.journal.vault.ask(lambda keystore: keystore.one("log-key")) != secret


async def test_out_of_turn(site: SmallSite) -> None:
    with pytest.raises(UsageError, match="not changing") as raised:
        await of(site).finish()
    assert "rotate-log" in raised.value.hint
    await of(site).begin()
    with pytest.raises(UsageError, match="already"):
        await of(site).begin()
    await of(site).finish()
    with pytest.raises(UsageError, match="not changing"):
        await of(site).finish()


async def test_witnesses_must_have_cosigned_under_the_new_key(site: SmallSite) -> None:
    witness = Signer("w.example/w", bytes(32))
    cosigned = f"witness w {_cosigner_vkey()} http://127.0.0.1:1\nquorum w\n"
    old = key(site)
    begun = await of(site).begin()
    await covered(site)
    note = (site.ledger / "log" / "checkpoint").read_bytes()
    with pytest.raises(ConfigError, match="does not name") as raised:
        await of(site, lambda: Policy.parse(f"log {old.vkey}\n{cosigned}".encode())).finish()
    assert begun.new in raised.value.hint
    both = Policy.parse(f"log {old.vkey}\nlog {begun.new}\n{cosigned}".encode())
    with pytest.raises(UsageError, match="witnesses have not"):
        await of(site, lambda: both).finish()
    head = parse_note(note)[0]
    replace_durably({witnessed_path(site.ledger): old_alone(note, old)})
    with pytest.raises(UsageError, match="witnesses have not"):
        await of(site, lambda: both).finish()
    replace_durably({witnessed_path(site.ledger): with_signatures(note, [witness.line(head)])})
    await of(site, lambda: both).finish()


def _cosigner_vkey() -> str:
    return Cosigner("w.example/w", bytes(32)).verifier.vkey


def old_alone(note: bytes, old: Verifier) -> bytes:
    text, lines = note.split(b"\n\n")
    (line,) = (one for one in lines.splitlines() if base64.b64decode(one.split()[2])[:4] == old.key_id)
    return text + b"\n\n" + line + b"\n"


async def test_keys_from_before_are_refused(tmp_path: Path) -> None:
    site = SmallSite(tmp_path / "data")
    async with site.run():
        await site.exchange("fever")
    shutil.copytree(site.path / "keys", tmp_path / "keys")
    async with site.run():
        await of(site).begin()
        await of(site).finish()
    shutil.rmtree(site.path / "keys")
    shutil.copytree(tmp_path / "keys", site.path / "keys")
    with pytest.raises(KeystoreError, match="not those of the log") as raised:
        async with site.run():
            pass
    assert "last change of the log's key" in raised.value.hint


async def test_keys_from_just_before_the_end_go_on(tmp_path: Path) -> None:
    """A backup copies them and the ledger one after the other."""
    site = SmallSite(tmp_path / "data")
    async with site.run():
        begun = await of(site).begin()
    shutil.copytree(site.path / "keys", tmp_path / "keys")
    async with site.run():
        await of(site).finish()
    shutil.rmtree(site.path / "keys")
    shutil.copytree(tmp_path / "keys", site.path / "keys")
    async with site.run():
        await of(site).resume()
        await site.exchange("fever")
        await covered(site)
        assert signed_by(site, begun.new)
        assert not signed_by(site, begun.old)
    assert site.check()


STEPS: list[tuple[Any, str, Exception]] = [
    (SqliteRows, "put", KeystoreError("The disk failed.")),
    (SqliteRows, "rewrite", KeystoreError("The disk failed.")),
    (RootFile, "stage", KeystoreError("The disk failed.")),
    (RootFile, "promote", KeystoreError("The disk failed.")),
    (log_key, "replace_durably", OSError(5, "The disk failed.")),
]
ASYNC_STEPS: list[tuple[Any, str]] = [(Journal, "event"), (Sequencer, "sign_with")]


class Steps:
    """Counts what changes something durable; from one of them on none succeeds."""

    def __init__(self, patch: pytest.MonkeyPatch, at: int, done: bool) -> None:
        self.count, self._at, self._done = 0, at, done
        for owner, name, error in STEPS:
            patch.setattr(owner, name, self._wrap(getattr(owner, name), error))
        for owner, name in ASYNC_STEPS:
            patch.setattr(owner, name, self._wrap_async(getattr(owner, name)))

    def _judge(self) -> tuple[bool, bool]:
        """(it is carried out, it fails)."""
        self.count += 1
        fails = self.count >= self._at
        return not fails or (self._done and self.count == self._at), fails

    def _wrap(self, real: Any, error: Exception) -> Any:
        def call(*arguments: Any, **named: Any) -> Any:
            carried_out, fails = self._judge()
            found = real(*arguments, **named) if carried_out else None
            if fails:
                raise error
            return found

        return call

    def _wrap_async(self, real: Any) -> Any:
        async def call(*arguments: Any) -> Any:
            carried_out, fails = self._judge()
            found = await real(*arguments) if carried_out else None
            if fails:
                raise KeystoreError("The disk failed.")
            return found

        return call


@pytest.mark.parametrize("done", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("verb", ["begin", "finish"])
async def test_a_crash_at_any_step_is_finished_at_the_next_start(
    tmp_path: Path, verb: str, done: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    template = SmallSite(tmp_path / "template")
    async with template.run():
        await template.exchange("fever")
        old = key(template)
        if verb == "finish":
            await of(template).begin()
    at, reached = 0, True
    while reached:
        at += 1
        site = SmallSite(tmp_path / f"{at}")
        shutil.copytree(template.path, site.path)
        async with site.run():
            with monkeypatch.context() as patch:
                steps = Steps(patch, at, done)
                with contextlib.suppress(RempartError, OSError):  # the crash: what it left is looked at below
                    await getattr(of(site), verb)()
                reached = steps.count >= at
        await _goes_on(site, old)
    assert at > 4


async def _goes_on(site: SmallSite, old: Verifier) -> None:
    async with site.run():
        await of(site).resume()
        await site.exchange("afterwards")
        await covered(site)
        verify(site.ledger, old)
        if key(site).vkey == old.vkey:
            if not handover_indices(site.ledger):  # the crash came before anything
                await of(site).begin()
            await of(site).finish()
        await covered(site)
        assert not signed_by(site, old.vkey)
        verify(site.ledger, old)
        verify(site.ledger, key(site))
    site.check()


async def changed(site: SmallSite) -> tuple[Verifier, Handover]:
    """A log that has changed its key; its old one."""
    old = key(site)
    await of(site).begin()
    await of(site).finish()
    await site.exchange("afterwards")
    await covered(site)
    return old, read_handovers(site.ledger)[0]


def _of_another_key(path: Path) -> None:
    proof = parse(path.read_bytes())
    fields = entries.decode(proof.extra)
    fields["new"] = Signer(fields["old"].split("+")[0], bytes(32)).verifier.vkey
    path.write_bytes(encode(type(proof)(proof.index, proof.hashes, proof.checkpoint, entries.encode(fields))))


def _of_one_signature(path: Path) -> None:
    head, note = path.read_bytes().split(b"\n\n", 1)
    path.write_bytes(head + b"\n\n" + note[: note.rindex(b"\xe2\x80\x94")])


def _of_another_place(path: Path) -> None:
    path.rename(path.with_name(f"{0:020d}.tlog-proof"))


def _damaged(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _of_another_entry(path: Path) -> None:
    proof = parse(path.read_bytes())
    fields = {**entries.decode(proof.extra), "change": "ended"}
    path.write_bytes(encode(type(proof)(proof.index, proof.hashes, proof.checkpoint, entries.encode(fields))))


@pytest.mark.parametrize(
    "forge", [_of_another_key, _of_one_signature, _of_another_place, _damaged, _of_another_entry, Path.unlink]
)
async def test_a_forged_handover_is_named(site: SmallSite, forge: Callable[[Path], None]) -> None:
    old, handover = await changed(site)
    forge(handover_path(site.ledger, handover.index))
    checked = fsck(site.ledger, key(site))
    assert {fault.kind for fault in checked.faults if fault.grave} == {"handover"}
    with pytest.raises(LedgerCorrupt):
        verify(site.ledger, old)


async def test_a_handover_of_another_history_is_named(site: SmallSite) -> None:
    """The old key was stolen, and signed another log that hands over to the thief."""
    stolen = Signer(key(site).name, await site.journal.vault.ask(lambda keystore: keystore.one("log-key")))
    old, handover = await changed(site)
    thief = Signer(old.name, b"\1" * 32)
    names = {"old": old.vkey, "new": thief.verifier.vkey}
    entry = entries.encode({"v": 1, "type": "log-key", "change": "begun", **names})
    note = Signer(old.name, stolen.seed, thief).sign(Checkpoint(old.name, 1, leaf_hash(entry)))
    forged = handover_path(site.ledger, 0)
    forged.write_bytes(encode(TlogProof(0, (), note, entry)))
    assert Handover.parse(forged.read_bytes()).new.vkey == thief.verifier.vkey
    with pytest.raises(LedgerCorrupt, match="truncation"):
        believed(site.ledger, old)
    forged.unlink()
    assert believed(site.ledger, old).vkey == handover.new.vkey


async def test_a_copy_follows(site: SmallSite, tmp_path: Path) -> None:
    copy = tmp_path / "copy" / "ledger"
    old = key(site)

    def round_(trusted: Verifier = old) -> None:
        replicator = Replicator(FolderSource(site.ledger), copy, trusted)
        try:
            replicator.round()
        finally:
            replicator.close()
        verify(copy, trusted)

    await covered(site)
    round_()
    begun = await of(site).begin()
    await covered(site)
    round_()
    assert (copy / "log.vkey").read_text().strip() == old.vkey
    await of(site).finish()
    await site.exchange("afterwards")
    await covered(site)
    round_()
    assert (copy / "log.vkey").read_text().strip() == begun.new
    round_(Verifier.from_vkey(begun.new))
    for trusted in (old, Verifier.from_vkey(begun.new)):
        assert fsck(copy, trusted).holds


async def test_a_copy_that_missed_the_change_follows_too(site: SmallSite, tmp_path: Path) -> None:
    copy = tmp_path / "copy" / "ledger"
    await covered(site)
    old = key(site)
    for _ in range(2):
        replicator = Replicator(FolderSource(site.ledger), copy, old)
        try:
            replicator.round()
        finally:
            replicator.close()
        await changed(site)
    with pytest.raises(UsageError, match="another key"):
        Replicator(FolderSource(site.ledger), copy, Signer(old.name, bytes(32)).verifier)


async def test_a_pack_leads_on_who_trusts_the_old_key(site: SmallSite, tmp_path: Path) -> None:
    old, handover = await changed(site)
    written = tmp_path / "pack"
    policy = f"log {key(site).vkey}\nquorum none\n".encode()
    write_pack(site.ledger / "log", [0, 1], written, policy=policy, disclosed={})
    for vkey in (old.vkey, key(site).vkey):
        assert _verified(written, vkey)["holds"]
    assert not _verified(written, Signer(old.name, bytes(32)).verifier.vkey)["holds"]
    path = written / "handovers" / f"{handover.index}.tlog-proof"
    for forge in (_of_another_key, _of_one_signature, _of_another_entry):
        kept = path.read_bytes()
        forge(path)
        assert not _verified(written, old.vkey)["holds"]
        path.write_bytes(kept)
    (written / "handovers" / f"{handover.index}.consistency").write_text("")
    assert not _verified(written, old.vkey)["holds"]


def _verified(pack: Path, vkey: str) -> dict[str, Any]:
    command = [sys.executable, "-I", str(pack / "verify.py"), "--vkey", vkey, "--json", str(pack)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found: dict[str, Any] = json.loads(done.stdout)
    return found
