"""`Integrator.add`: entries become tiles, bundles and a signed checkpoint. The commit and the recovery use it alike.

Tiles are durable before the checkpoint that covers them. Called again with the same entries after a crash it writes
the same bytes.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from rempart.errors import LedgerCorrupt
from rempart.ledger import tiles
from rempart.ledger.checkpoint import Checkpoint, Signer
from rempart.ledger.files import replace_durably
from rempart.ledger.merkle import leaf_hash

_CHECKPOINT: Final = "checkpoint"
# What a log shows is public to whoever may read the directory; it holds no content.
_MODE: Final = 0o644


class LogHead(msgspec.Struct, frozen=True):
    """Size and root under the last signed checkpoint."""

    size: int
    root: bytes


class Integrator:
    """The writer of `<data>/ledger/log/`. One at a time; blocking, so it runs in a thread of its own."""

    def __init__(self, directory: Path, signer: Signer, edge: tiles.Edge, bundle: list[bytes]) -> None:
        self._directory = directory
        self._signer = signer
        self._edge = edge
        self._bundle = bundle
        self._partials: set[str] = set()
        self.head = LogHead(edge.size, edge.root())

    @classmethod
    def open(cls, directory: Path, signer: Signer) -> Integrator:
        """The log as its checkpoint signs it; a new one gets the checkpoint of the empty tree.

        Raises `LedgerCorrupt` when tiles and checkpoint do not agree.
        """
        path = directory / _CHECKPOINT
        if not path.exists():
            new = cls(directory, signer, tiles.Edge(), [])
            replace_durably({path: new._checkpoint()}, _MODE)
            return new
        checkpoint = signer.verifier.open(path.read_bytes())
        if checkpoint.origin != signer.verifier.name:
            raise LedgerCorrupt("The checkpoint is of another log.")
        edge = _read_edge(directory, checkpoint.size)
        if edge.root() != checkpoint.root:
            raise LedgerCorrupt("The tiles do not lead to the root that the checkpoint signs.")
        width = checkpoint.size % tiles.TILE_WIDTH
        bundle = []
        if width:
            path = directory / tiles.bundle_path(checkpoint.size // tiles.TILE_WIDTH, width)
            bundle = tiles.decode_bundle(_read(path), width)
        opened = cls(directory, signer, edge, bundle)
        opened._partials = set(opened._partial_files())
        return opened

    def add(self, entries: Sequence[bytes]) -> LogHead:
        """Append in order, sign, and return the new head. Raises `OSError`; then open it anew."""
        files: dict[str, bytes] = {}
        for entry in entries:
            self._bundle.append(entry)
            for level, number, hashes in self._edge.add(leaf_hash(entry)):
                files[tiles.tile_path(level, number)] = b"".join(hashes)
                if level == 0:
                    files[tiles.bundle_path(number)] = tiles.encode_bundle(self._bundle)
                    self._bundle = []
        partials = self._partial_files()
        files.update(partials)
        replace_durably({self._directory / name: data for name, data in files.items()}, _MODE)
        replace_durably({self._directory / _CHECKPOINT: self._checkpoint()}, _MODE)
        self._forget(self._partials - set(partials))
        self._partials = set(partials)
        self.head = LogHead(self._edge.size, self._edge.root())
        return self.head

    def _partial_files(self) -> dict[str, bytes]:
        files = {
            tiles.tile_path(level, number, len(hashes)): b"".join(hashes)
            for level, number, hashes in self._edge.partial()
        }
        if self._bundle:
            number = self._edge.size // tiles.TILE_WIDTH
            files[tiles.bundle_path(number, len(self._bundle))] = tiles.encode_bundle(self._bundle)
        return files

    def _checkpoint(self) -> bytes:
        return self._signer.sign(Checkpoint(self._signer.verifier.name, self._edge.size, self._edge.root()))

    def _forget(self, partials: set[str]) -> None:
        """Partial tiles that a checkpoint of this process replaced; others would be found by a reader of theirs."""
        for name in partials:
            path = self._directory / name
            path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # not empty: a newer partial of the same tile lives there
                os.rmdir(path.parent)


def _read_edge(directory: Path, size: int) -> tiles.Edge:
    rows: list[list[bytes]] = []
    for level, width in enumerate(tiles.widths(size)):
        number = size >> tiles.TILE_BITS * (level + 1)
        row: list[bytes] = []
        if width:
            row = tiles.decode_tile(_read(directory / tiles.tile_path(level, number, width)), width)
        rows.append(row)
    return tiles.Edge(size, rows)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise LedgerCorrupt(f"A file of the log is missing: {path}.", hint="Restore it from its copy.") from error
