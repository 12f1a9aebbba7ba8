"""`Replicator.round`: bring a replica forward to its source's checkpoint. Its steps, each durable before the next:

1. The source's checkpoint is read, and held to what was copied before (`tree`): never backwards, never sideways.
2. Entries are copied bundle by bundle; the tiles above them are derived, and must lead to the signed root.
3. Encrypted bodies are copied, each held to its entry (`bodies`).
4. Changes of the log's key are copied, once they are on the beginning of the tree (`handovers`). The checkpoint is
   written: from now on the replica holds it.
5. Time stamps that are new are copied: first the note, then its token. Whether they hold, `rempart ledger verify` says.
6. Buckets that an `expiry` entry names go here too. A bucket that is gone at the source without one is kept.

A crash between two steps leaves the replica as it was; the next round goes on from what is there. What the source has
acknowledged within the last second and not signed yet comes with the next round.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Final

import msgspec

from rempart import limits
from rempart.errors import LedgerCorrupt, LedgerUnavailable, RempartError
from rempart.ledger.copying.bodies import BodiesCopy
from rempart.ledger.copying.replica import Growth, Replica
from rempart.ledger.copying.source import Gone, Inventory, Source
from rempart.ledger.copying.tree import SourceTree
from rempart.ledger.log import entry as entries
from rempart.ledger.log.checkpoint import Verifier
from rempart.ledger.log.handover import Handover, led_to
from rempart.ledger.log.tiles import TILE_WIDTH
from rempart.ledger.reading.handovers import check_beginning, handover_path, parse_handover, read_handovers
from rempart.ledger.reading.timestamps import note_path, stamped_sizes, token_path
from rempart.ledger.store.files import replace_durably
from rempart.ledger.store.logfiles import VKEY, is_replica, previous_directory, read_bundle, read_file
from rempart.ledger.writing.recover import origin_hash

_LOOKS: Final = 8
_CACHED_BUNDLES: Final = 64
_EXPIRY: Final = b'"type":"expiry"'
_WITNESSED: Final = "witnessed/checkpoint"
_LOG_MODE: Final = 0o644


class Copied(msgspec.Struct, frozen=True, kw_only=True):
    """What one round did."""

    origin: str
    size: int
    """Entries that the replica holds."""
    root: str
    """Hex."""
    entries: int
    """New ones."""
    body_bytes: int
    """Of new bodies, with their frames."""
    expired: int
    """Files of bodies that went with their bucket."""


Tell = Callable[[int, int], None]
"""Gets entries done and entries in all."""


class Replicator:
    """One source and one replica. The caller owns the replica's directory; `ledger` is `<directory>/ledger`."""

    def __init__(self, source: Source, ledger: Path, verifier: Verifier) -> None:
        """Raises `UsageError` when something else stands in the directory."""
        self._source = source
        self._replica = Replica(ledger, verifier, [one for one, _ in self._handovers(source.inventory())])
        self._bodies = BodiesCopy(ledger, origin_hash(verifier.name))
        self._searched = False
        """What expired before this run was looked for."""

    def round(self, tell: Tell | None = None) -> Copied:
        """Raises `LedgerCorrupt` when the source is not what was signed, `LedgerUnavailable` when it cannot be read, or
        the copy cannot be written."""
        inventory = self._source.inventory()
        self._copy_previous(inventory.previous)
        return self._rounds(inventory, tell)

    def _rounds(self, inventory: Inventory, tell: Tell | None = None) -> Copied:
        failure: RempartError | None = None
        for _ in range(_LOOKS):
            try:
                return self._round(self._handovers(inventory), tell)
            except Gone as error:  # the source went on meanwhile
                failure = error
                inventory = self._source.inventory()
            except OSError as error:
                raise LedgerUnavailable(
                    f"The copy cannot be written: {error.strerror}.", hint="Look at the disk of the copy; it is kept."
                ) from error
        raise LedgerCorrupt(
            f"The source's files do not agree with its checkpoint: {failure}", hint="Run 'rempart ledger fsck' there."
        ) from failure

    def close(self) -> None:
        self._bodies.close()

    def _round(self, handovers: list[tuple[Handover, bytes]], tell: Tell | None) -> Copied:
        before = self._replica.size
        witnessed = self._witnessed()  # first: it must not be ahead of what is copied
        verifier = led_to(self._replica.verifier, [one for one, _ in handovers])
        tree = SourceTree.read(self._source, verifier)
        tree.require_forward(before, self._replica.root)
        size = tree.head.size
        expired = self._grow(tree, tell)
        inventory = self._source.inventory()
        entry_of = self._entry_reader(size)
        copied = self._bodies.take_files(self._source, inventory.bodies, size, entry_of)
        copied += self._bodies.take_segments(self._source, inventory.segments, size, entry_of)
        if size > before or not (self._replica.log / "checkpoint").exists():
            if witnessed is not None:
                replace_durably({self._replica.ledger / _WITNESSED: witnessed}, _LOG_MODE)
            self._keep_handovers(handovers, tree)
            self._replica.commit(tree.note, tree.head)
        self._keep_vkey()
        self._copy_stamps(inventory.timestamps, size)
        expired |= self._expired_before()
        gone = sum(self._bodies.forget(*name) for name in sorted(expired))
        return Copied(
            origin=tree.head.origin,
            size=size,
            root=tree.head.root.hex(),
            entries=size - before,
            body_bytes=copied,
            expired=gone,
        )

    def _grow(self, tree: SourceTree, tell: Tell | None) -> set[tuple[str, str]]:
        """Copy entries; the buckets that they expire."""
        expired: set[tuple[str, str]] = set()
        growth = self._replica.growth()
        if growth.size == tree.head.size:
            return expired
        first = growth.size
        while growth.size < tree.head.size:
            number, known = divmod(growth.size, TILE_WIDTH)
            bundle = tree.bundle(number)[known:]
            expired.update(_expired(bundle))
            growth.add(bundle)
            if tell is not None:
                tell(growth.size - first, tree.head.size - first)
        self._finish(growth, tree)
        return expired

    def _finish(self, growth: Growth, tree: SourceTree) -> None:
        if growth.root() != tree.head.root:
            raise LedgerCorrupt(
                "The source's entries do not lead to the root that it signs.", hint="Run 'rempart ledger fsck' there."
            )
        growth.finish()

    def _entry_reader(self, size: int) -> Callable[[int], bytes]:
        """Entries as they were copied, those that no checkpoint of the replica covers yet among them."""

        @lru_cache(_CACHED_BUNDLES)
        def bundle(number: int) -> list[bytes]:
            return read_bundle(self._replica.log, number, min(size - number * TILE_WIDTH, TILE_WIDTH))

        return lambda index: bundle(index // TILE_WIDTH)[index % TILE_WIDTH]

    def _expired_before(self) -> set[tuple[str, str]]:
        """Buckets that should have gone in an earlier run, which was cut off. Reads the log only when some may be."""
        if self._searched:
            return set()
        self._searched = True
        held = set(self._bodies.buckets()) - {
            (one.retention, one.bucket) for one in self._source.inventory().bodies if not one.held
        }
        if not held:
            return set()
        read = self._entry_reader(self._replica.size)
        found: set[tuple[str, str]] = set()
        for index in range(self._replica.size):
            found.update(_expired([read(index)]))
        return found & held

    def _witnessed(self) -> bytes | None:
        """What witnesses had cosigned: whoever restores this copy is told when it is older than that."""
        try:
            return self._source.read(_WITNESSED)
        except Gone:
            return None

    def _handovers(self, inventory: Inventory) -> list[tuple[Handover, bytes]]:
        """Those of the source, oldest first, and their files."""
        files = ((one, self._source.read(str(handover_path(Path(), one)))) for one in sorted(inventory.handovers))
        return [(parse_handover(index, data), data) for index, data in files]

    def _keep_handovers(self, handovers: list[tuple[Handover, bytes]], tree: SourceTree) -> None:
        """One that is there is never replaced. Their tree is the beginning of what the replica is about to hold."""
        covered = [(one, data) for one, data in handovers if one.head.size <= tree.head.size]
        check_beginning(self._replica.log, tree.head, [one for one, _ in covered])
        paths = {handover_path(self._replica.ledger, one.index): data for one, data in covered}
        replace_durably({path: data for path, data in paths.items() if not path.exists()}, _LOG_MODE)

    def _keep_vkey(self) -> None:
        """As the source names its key now, when the key that was given leads to the same one."""
        known = read_handovers(self._replica.ledger)
        if not known:
            return
        named = Verifier.from_vkey(self._source.read(VKEY).decode())
        path = self._replica.ledger / VKEY
        data = f"{named.vkey}\n".encode()
        if led_to(named, known).vkey == led_to(self._replica.verifier, known).vkey and read_file(path) != data:
            replace_durably({path: data}, _LOG_MODE)

    def _copy_stamps(self, sizes: list[int], size: int) -> None:
        """Those that the replica covers. A stamp that is there is never replaced."""
        known = set(stamped_sizes(self._replica.ledger))
        for one in sizes:
            if one > size or one in known:
                continue
            for path in (note_path(Path(), one), token_path(Path(), one)):
                try:
                    data = self._source.read(str(path), 0, limits.note_bytes_max)
                except Gone:
                    break  # half of it was taken away there: no reason to stop copying the log
                replace_durably({self._replica.ledger / path: data}, _LOG_MODE)

    def _copy_previous(self, numbers: list[int]) -> None:
        """Logs that this one continues do not change: they are copied once. They have none of their own."""
        for number in numbers:
            ledger = previous_directory(self._replica.ledger, number)
            if is_replica(ledger) and (ledger / "log" / "checkpoint").exists():
                continue
            source = self._source.previous(number)
            replicator = Replicator(source, ledger, Verifier.from_vkey(source.read(VKEY).decode(errors="replace")))
            try:
                replicator._rounds(source.inventory())
            finally:
                replicator.close()


def _expired(bundle: list[bytes]) -> set[tuple[str, str]]:
    facts = [entries.facts(entry) for entry in bundle if _EXPIRY in entry]
    return {(one.retention, one.bucket) for one in facts if one.type == "expiry"}
