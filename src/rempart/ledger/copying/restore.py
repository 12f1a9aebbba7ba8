"""`restore`: a data directory comes back from a backup, whole or not at all.

1. Everything is copied to `<data>.restoring` beside its place, entry by entry and body by body held to the signed root,
   and then verified again as a whole. The keys must be those of this log.
2. The restored tree is held to what witnesses cosigned. When they have seen more than is here, or the owner says so, a
   *new log* begins: a new origin and a new key. Its first entry names the log it continues (origin, size, root), which
   lies beside it in `ledger/previous/<n>`, readable and verifiable as it was; so no index is ever used twice. Otherwise
   the same log goes on, and exchanges that were open in it are closed as lost at the first start.
3. `<data>.restoring` gets its name. Whatever a crash leaves before that is begun again.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from rempart.config.settings import Keys
from rempart.errors import LedgerUnavailable, UsageError
from rempart.ledger.copying.databases import copy_database
from rempart.ledger.copying.keys import ROOT, copy_keys
from rempart.ledger.copying.replicate import Replicator, Tell
from rempart.ledger.copying.source import FolderSource
from rempart.ledger.copying.tree import SourceTree
from rempart.ledger.erasing.backups import Backups, read_row
from rempart.ledger.keys.configured import open_keystore
from rempart.ledger.keys.keystore import KEY_BYTES, Keystore
from rempart.ledger.log import entry as entries
from rempart.ledger.log.checkpoint import Signer, Verifier
from rempart.ledger.log.handover import led_to
from rempart.ledger.log.integrate import Integrator
from rempart.ledger.reading.entries import EntryReader
from rempart.ledger.reading.handovers import open_note, read_handovers
from rempart.ledger.reading.previous import verify_chain
from rempart.ledger.store import frames
from rempart.ledger.store.files import make_directory, replace_durably, sync_directory
from rempart.ledger.store.logfiles import REPLICA, VKEY, is_replica, previous_directory, previous_logs, read_file
from rempart.ledger.store.segments import Segment, make_spare
from rempart.ledger.writing.log_key import signer_of
from rempart.ledger.writing.recover import origin_hash
from rempart.ledger.writing.sequencer import OpenExchange

_MARK: Final = "restoring"
_WITNESSED: Final = "witnessed/checkpoint"
_LOG_MODE: Final = 0o644


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What is wanted."""

    backup: Path
    """The data of a backup, or a replica."""
    keys: Path
    """The keys of a backup: `<keys to>/<id>`, or a `keys/` directory."""
    data: Path
    """A data directory that does not exist yet."""
    witnessed: Sequence[bytes] = ()
    """Checkpoints that were seen elsewhere: signed notes."""
    new_log: bool = False
    settings: Keys | None = None
    """How the keystore is kept, as `[keys]` says."""


class Restored(msgspec.Struct, frozen=True, kw_only=True):
    """What came back."""

    origin: str
    """Of the log that goes on, or begins."""
    vkey: str
    restored: int
    """Entries that came back."""
    root: str
    """Hex, of the tree of these entries."""
    new_log: bool
    why: str
    """Of a new log; empty when the same one goes on."""
    previous: int
    """Where the old entries are, `ledger/previous/<n>`; 0 when the same log goes on."""
    open: int
    """Exchanges without an answer: they are closed as lost at the first start, when the same log goes on."""


def restore(order: Order, tell: Tell | None = None) -> Restored:
    """Raises `UsageError`, `LedgerCorrupt` when the backup does not hold, `KeystoreError`, `LedgerUnavailable`."""
    if not is_replica(order.backup / "ledger"):
        raise UsageError(
            f"{order.backup} is no backup, nor a replica.", hint="Give the directory that 'backup create --to' made."
        )
    if order.data.exists() and (not order.data.is_dir() or any(order.data.iterdir())):
        raise UsageError(
            f"{order.data} is there already.",
            hint="Move it away, and give its ledger/witnessed/checkpoint with --checkpoint where there is one.",
        )
    try:
        return _Restoring(order).run(tell)
    except OSError as error:
        raise LedgerUnavailable(
            f"It cannot be restored: {error.strerror or error}.", hint=f"Look at the disk of {order.data}."
        ) from error


class _Restoring:
    def __init__(self, order: Order) -> None:
        self._order = order
        self._data = order.data.absolute()
        self._making = self._data.with_name(f"{self._data.name}.restoring")
        self._ledger = self._making / "ledger"
        self._verifier = Verifier.from_vkey(read_file(order.backup / "ledger" / VKEY).decode(errors="replace"))

    def run(self, tell: Tell | None) -> Restored:
        self._begin()
        try:
            return self._run(tell)
        except BaseException:
            # No erasure would list this copy of the keys.
            shutil.rmtree(self._making / "keys", ignore_errors=True)
            raise

    def _run(self, tell: Tell | None) -> Restored:
        self._copy(tell)
        examined = verify_chain(self._ledger, self._verifier)
        why = self._why_new_log()
        found = self._open_requests() if examined.open else []
        keystore = open_keystore(self._making, self._order.settings)
        try:
            signer = signer_of(keystore, self._ledger, self._verifier)
            number = self._put_aside() if why else 0
            if why:
                signer = self._new_signer(keystore, number)
                Integrator.open(self._ledger / "log", signer)
        finally:
            keystore.close()
        size = 0 if why else examined.size
        self._begin_segments(signer.verifier, size, [] if why else found)
        (self._ledger / REPLICA).unlink(missing_ok=True)
        sync_directory(self._ledger)
        self._place()
        return Restored(
            origin=signer.verifier.name,
            vkey=signer.verifier.vkey,
            restored=examined.size,
            root=examined.root,
            new_log=bool(why),
            why=why,
            previous=number,
            open=len(found),
        )

    def _begin(self) -> None:
        if self._making.exists():
            names = {path.name for path in self._making.iterdir()}
            if names - {f"{_MARK}.new"} and _MARK not in names:
                raise UsageError(f"{self._making} is in the way.", hint="Move it away.")
            shutil.rmtree(self._making)
        replace_durably({self._making / _MARK: b""})

    def _copy(self, tell: Tell | None) -> None:
        backup, keys = self._order.backup, self._order.keys
        replicator = Replicator(FolderSource(backup / "ledger"), self._ledger, self._verifier)
        try:
            replicator.round(tell)
        finally:
            replicator.close()
        if (backup / "state.db").exists():
            copy_database(backup / "state.db", self._making / "state.db")
        if (backup / "rempart.toml").exists():
            replace_durably({self._making / "rempart.toml": (backup / "rempart.toml").read_bytes()})
        copy_keys(keys if (keys / ROOT).exists() else keys / "keys", self._making / "keys")

    def _why_new_log(self) -> str:
        """Empty when the same log may go on. Raises `LedgerCorrupt` when a witness saw another history."""
        handovers = read_handovers(self._ledger)
        tree = SourceTree.read(FolderSource(self._ledger), led_to(self._verifier, handovers))
        own = self._ledger / _WITNESSED
        notes = [*self._order.witnessed, *([read_file(own)] if own.exists() else [])]
        seen = 0
        for note in notes:
            head = open_note(self._verifier, handovers, note)
            if head.size <= tree.head.size:
                tree.require_forward(head.size, head.root)
            seen = max(seen, head.size)
        if seen > tree.head.size:
            return f"Witnesses saw {seen} entries, {tree.head.size} came back."
        return "The owner asked for it." if self._order.new_log else ""

    def _open_requests(self) -> list[OpenExchange]:
        found: dict[str, OpenExchange] = {}
        for index, entry in EntryReader(self._ledger).forward(0):
            facts = entries.facts(entry)
            if facts.type == "request":
                found[facts.exchange] = OpenExchange(facts.exchange, index, 0)
            elif facts.type == "response":
                found.pop(facts.exchange, None)
        return list(found.values())

    def _put_aside(self) -> int:
        """The restored log becomes `previous/<n>` of one that is still to begin."""
        known = previous_logs(self._ledger)
        number = (known[-1] if known else 0) + 1
        making = self._making / "ledger.new"
        make_directory(making / "previous")
        for one in known:
            os.rename(previous_directory(self._ledger, one), previous_directory(making, one))
        if known:
            os.rmdir(self._ledger / "previous")
        os.rename(self._ledger, previous_directory(making, number))
        os.rename(making, self._ledger)
        for directory in (self._ledger / "previous", self._ledger, self._making):
            sync_directory(directory)
        return number

    def _new_signer(self, keystore: Keystore, number: int) -> Signer:
        """A new name and a new key, so that nothing it signs can be taken for the old log's."""
        base = self._verifier.name.removesuffix(f"/{number}") if number > 1 else self._verifier.name
        signer = Signer(f"{base}/{number + 1}", secrets.token_bytes(KEY_BYTES))
        copies = Backups(read_row(keystore))
        copies.read(previous_directory(self._ledger, number))
        copies.begin_again()
        begun = {("one", "log-key"): signer.seed, ("one", "log-id"): secrets.token_bytes(KEY_BYTES)}
        keystore.destroy([("one", "log-key-next")], {**begun, **copies.row()})
        replace_durably({self._ledger / VKEY: f"{signer.verifier.vkey}\n".encode()}, _LOG_MODE)
        return signer

    def _begin_segments(self, verifier: Verifier, size: int, still_open: list[OpenExchange]) -> None:
        directory = self._ledger / "segments"
        make_directory(directory)
        make_spare(directory)
        header = frames.Header(0, size, origin_hash(verifier.name))
        Segment.begin(directory, header, msgspec.json.encode(still_open)).close()

    def _place(self) -> None:
        if self._data.exists():
            os.rmdir(self._data)
        os.rename(self._making, self._data)
        sync_directory(self._data.parent)
        (self._data / _MARK).unlink()  # a crash before this leaves an empty file, which does no harm
