"""`Backup.create`: data and keys go to two places, at one moment of the ledger, while a server runs or not.

1. The data's place is brought forward like a replica; this may take long, and nothing depends on when.
2. The ledger records the backup: an entry `backup` with its id, the keystore's epoch, and whether a root leaves the
   site. A copy of keys that was not recorded is never made.
3. The data's place is brought forward again, to the checkpoint that covers that entry at least; then `state.db`.
4. The keys are copied last, so that they open every body of the data; at another epoch than the recorded one, it fails.

    <to>/ledger, <to>/state.db, <to>/rempart.toml, <to>/backup.json     brought forward each time
    <keys to>/<id>/keys/root.key, …/keystore.db, <keys to>/<id>/backup.json     one for each backup
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from rempart.errors import LedgerUnavailable, UsageError
from rempart.ledger.copying.databases import copy_database
from rempart.ledger.copying.keys import copy_keys, root_is_in_copies
from rempart.ledger.copying.replicate import Replicator, Tell
from rempart.ledger.copying.source import FolderSource
from rempart.ledger.log.checkpoint import Verifier
from rempart.ledger.store.files import make_directory, replace_durably, sync_directory
from rempart.ledger.store.ownership import own

NOTE: Final = "backup.json"
_STATE: Final = "state.db"
SETTINGS: Final = "rempart.toml"


class Recorded(msgspec.Struct, frozen=True, kw_only=True):
    """What the ledger says of the backup."""

    index: int
    """Of its entry, which a checkpoint covers."""
    epoch: int
    """Of the keystore: how often keys were destroyed."""


Record = Callable[[str, bool], Recorded]
"""(id, whether a root leaves the site) -> its entry, durable and under a checkpoint."""


class Places(msgspec.Struct, frozen=True, kw_only=True):
    """Where it goes. None: not at all."""

    data: Path | None
    keys: Path | None
    same_device: bool = False
    """The owner says that the keys may lie beside the data."""


class Made(msgspec.Struct, frozen=True, kw_only=True):
    """One backup, as `backup.json` describes it beside data and keys."""

    backup: str
    """32 hex, as in its entry."""
    index: int
    epoch: int
    with_root: bool
    origin: str
    size: int = 0
    """Entries in the data; 0 when it holds keys alone."""
    root: str = ""
    """Hex, of the tree of these entries."""
    data: str = ""
    keys: str = ""
    """Where they are."""


class Backup:
    """Of one installation; `data` is its data directory."""

    def __init__(self, data: Path, verifier: Verifier, record: Record) -> None:
        self._data = data
        self._verifier = verifier
        self._record = record

    def create(self, places: Places, tell: Tell | None = None) -> Made:
        """Raises `UsageError` at places that will not do, `KeystoreError`, `LedgerUnavailable`, `LedgerCorrupt`."""
        _check(places, self._data)
        id_ = secrets.token_hex(16)
        with_root = places.keys is not None and root_is_in_copies(self._data / "keys")
        try:
            if places.data is None:
                made = self._made(id_, with_root, self._record(id_, with_root))
            else:
                with own(places.data):
                    made = self._copy_data(places.data, id_, with_root, tell)
            if places.keys is not None:
                made = self._copy_keys(places.keys, made)
        except OSError as error:
            raise LedgerUnavailable(
                f"The backup cannot be written: {error.strerror or error}.", hint="Look at the disk it goes to."
            ) from error
        return made

    def _copy_data(self, to: Path, id_: str, with_root: bool, tell: Tell | None) -> Made:
        replicator = Replicator(FolderSource(self._data / "ledger"), to / "ledger", self._verifier)
        try:
            replicator.round(tell)
            recorded = self._record(id_, with_root)
            copied = replicator.round()
        finally:
            replicator.close()
        if copied.size <= recorded.index:
            raise LedgerUnavailable("The backup's own entry has no checkpoint yet.", hint="Try again.")
        if (self._data / _STATE).exists():
            copy_database(self._data / _STATE, to / _STATE)
        if (self._data / SETTINGS).exists():
            replace_durably({to / SETTINGS: (self._data / SETTINGS).read_bytes()})
        made = msgspec.structs.replace(
            self._made(id_, with_root, recorded), size=copied.size, root=copied.root, data=str(to)
        )
        replace_durably({to / NOTE: _note(made)})
        return made

    def _copy_keys(self, to: Path, made: Made) -> Made:
        place = to / made.backup
        making = to / f"{made.backup}.new"
        make_directory(making)
        try:
            copy_keys(self._data / "keys", making / "keys", made.epoch)
            kept = msgspec.structs.replace(made, keys=str(place))
            replace_durably({making / NOTE: _note(kept)})
            os.rename(making, place)
        except BaseException:
            shutil.rmtree(making, ignore_errors=True)
            raise
        sync_directory(to)
        return kept

    def _made(self, id_: str, with_root: bool, recorded: Recorded) -> Made:
        return Made(
            backup=id_,
            index=recorded.index,
            epoch=recorded.epoch,
            with_root=with_root,
            origin=self._verifier.name,
        )


def _note(made: Made) -> bytes:
    """Where it lies is not said: it may be moved."""
    kept = msgspec.structs.replace(made, data="", keys="")
    return msgspec.json.encode({"v": 1, **msgspec.to_builtins(kept)}) + b"\n"


def _check(places: Places, data: Path) -> None:
    if places.data is None and places.keys is None:
        raise UsageError("A backup of nothing.", hint="Give a place for the data, for the keys, or for each.")
    for place in (places.data, places.keys):
        if place is not None and _inside(place, data):
            raise UsageError(f"{place} is in the data directory.", hint="Give a place on another disk.")
    if places.keys is None or places.same_device:
        return
    others = {"the data directory": data} | ({"the data of the backup": places.data} if places.data else {})
    for name, other in others.items():
        if _device(places.keys) == _device(other):
            raise UsageError(
                f"The keys would lie on the same device as {name}: who takes one has both.",
                hint="Give --keys-to on another one, or say --same-device.",
            )


def _inside(place: Path, directory: Path) -> bool:
    return place.resolve().is_relative_to(directory.resolve())


def _device(place: Path) -> int:
    """Of the nearest directory that exists."""
    for path in (place.absolute(), *place.absolute().parents):
        if path.exists():
            return path.stat().st_dev
    raise UsageError(f"{place} is nowhere.", hint="Give a path that can be made.")
