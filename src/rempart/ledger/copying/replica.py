"""`Replica`: a copy of a ledger on another disk: its log and its encrypted bodies, no segments, no keys.

`<directory>/ledger` is laid out as any ledger's, so that whatever reads one reads the copy. What it lacks are segments:
bodies that are still in a segment at the source stand in files of bodies that grow. The checkpoint is written last, so
a copy that was interrupted is a whole copy of what it was before.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

import msgspec

from rempart.errors import LedgerCorrupt, UsageError
from rempart.ledger.log import tiles
from rempart.ledger.log.checkpoint import Checkpoint, Verifier
from rempart.ledger.log.handover import Handover, led_to
from rempart.ledger.log.integrate import read_edge, remove_partials
from rempart.ledger.log.merkle import EMPTY_ROOT, leaf_hash
from rempart.ledger.reading.handovers import open_note, read_handovers
from rempart.ledger.store.files import replace_durably
from rempart.ledger.store.logfiles import REPLICA, VKEY, is_replica, read_bundle, read_file

_LOG_MODE: Final = 0o644
_FLUSH_FILES: Final = 128


class Replica:
    """`ledger` is `<directory>/ledger`, made when it is missing. The caller owns the directory."""

    def __init__(self, ledger: Path, verifier: Verifier, handovers: Sequence[Handover] = ()) -> None:
        """`handovers`: the changes of the log's key that its source has.

        Raises `UsageError` when something else stands there, `LedgerCorrupt` when it is damaged.
        """
        self.ledger = ledger
        self.log = ledger / "log"
        self.verifier = verifier
        _begin(ledger, verifier, handovers)
        checkpoint = self._checkpoint()
        self.size = checkpoint.size
        """Entries that were copied."""
        self.root = checkpoint.root
        edge = read_edge(self.log, self.size)
        if edge.root() != self.root:
            raise LedgerCorrupt(
                "The copy's tiles do not lead to the root of its checkpoint.",
                hint="Run 'rempart ledger fsck --repair' on the copy, or begin another.",
            )

    def growth(self) -> Growth:
        """Where its tree goes on."""
        number, width = divmod(self.size, tiles.TILE_WIDTH)
        bundle = read_bundle(self.log, number, width) if width else []
        return Growth(self.log, read_edge(self.log, self.size), bundle)

    def commit(self, note: bytes, head: Checkpoint) -> None:
        """Everything that the note covers is durable: from now on the copy holds it."""
        before = self.size
        replace_durably({self.log / "checkpoint": note}, _LOG_MODE)
        self.size, self.root = head.size, head.root
        for level in range(len(tiles.widths(head.size))):
            number = before >> tiles.TILE_BITS * (level + 1)
            if number < head.size >> tiles.TILE_BITS * (level + 1):
                remove_partials(self.log / f"{tiles.tile_path(level, number)}.p")
                if level == 0:
                    remove_partials(self.log / f"{tiles.bundle_path(number)}.p")

    def _checkpoint(self) -> Checkpoint:
        path = self.log / "checkpoint"
        if not path.exists():
            return Checkpoint(self.verifier.name, 0, EMPTY_ROOT)
        return open_note(self.verifier, read_handovers(self.ledger), read_file(path))


class Growth:
    """A tree of tiles and bundles beyond a checkpoint."""

    def __init__(self, log: Path, edge: tiles.Edge, bundle: list[bytes]) -> None:
        self._log = log
        self._edge = edge
        self._bundle = bundle
        self._files: dict[Path, bytes] = {}

    @property
    def size(self) -> int:
        return self._edge.size

    def root(self) -> bytes:
        """32 bytes."""
        return self._edge.root()

    def add(self, entries: Iterable[bytes]) -> None:
        """In order; what becomes full is written, and durable by `finish`."""
        for entry in entries:
            self._bundle.append(entry)
            for level, number, hashes in self._edge.add(leaf_hash(entry)):
                self._files[self._log / tiles.tile_path(level, number)] = b"".join(hashes)
                if level == 0:
                    self._files[self._log / tiles.bundle_path(number)] = tiles.encode_bundle(self._bundle)
                    self._bundle = []
        if len(self._files) >= _FLUSH_FILES:
            self._flush()

    def finish(self) -> None:
        """The unfinished tiles and bundle."""
        for level, number, hashes in self._edge.partial():
            self._files[self._log / tiles.tile_path(level, number, len(hashes))] = b"".join(hashes)
        if self._bundle:
            path = tiles.bundle_path(self._edge.size // tiles.TILE_WIDTH, len(self._bundle))
            self._files[self._log / path] = tiles.encode_bundle(self._bundle)
        self._flush()

    def _flush(self) -> None:
        replace_durably(self._files, _LOG_MODE)
        self._files = {}


def _begin(ledger: Path, verifier: Verifier, handovers: Sequence[Handover]) -> None:
    """The mark comes first: a directory that bears it is nobody's to write entries to."""
    if not is_replica(ledger):
        if ledger.exists() and any(path.name != f"{REPLICA}.new" for path in ledger.iterdir()):
            raise UsageError(
                f"{ledger} is a ledger of its own, or something else, and no copy.",
                hint="Give a directory that does not exist yet, or one that holds a copy.",
            )
        replace_durably({ledger / REPLICA: msgspec.json.encode({"v": 1}) + b"\n"}, _LOG_MODE)
    path = ledger / VKEY
    if not path.exists():
        replace_durably({path: f"{verifier.vkey}\n".encode()}, _LOG_MODE)
        return
    known = Verifier.from_vkey(read_file(path).decode())
    if led_to(known, handovers).vkey != led_to(verifier, handovers).vkey:
        raise UsageError(
            f"{ledger} is a copy of {known.name}, under another key.", hint="Copy each log to a directory of its own."
        )
