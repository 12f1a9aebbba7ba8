"""`Integrator.add`: entries become tiles, bundles and a signed checkpoint. The commit and the recovery use it alike.

Tiles are durable before the checkpoint that covers them. Called again with the same entries after a crash it writes
the same bytes.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from rempart.errors import LedgerCorrupt
from rempart.ledger.log import tiles
from rempart.ledger.log.checkpoint import Checkpoint, Signer
from rempart.ledger.log.merkle import leaf_hash
from rempart.ledger.store.files import replace_durably

_CHECKPOINT: Final = "checkpoint"
# What a log shows is public to whoever may read the directory; it holds no content.
_MODE: Final = 0o644
_NEWEST: Final = 512


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
        edge = read_edge(directory, checkpoint.size)
        if edge.root() != checkpoint.root:
            raise LedgerCorrupt("The tiles do not lead to the root that the checkpoint signs.")
        width = checkpoint.size % tiles.TILE_WIDTH
        bundle = []
        if width:
            path = directory / tiles.bundle_path(checkpoint.size // tiles.TILE_WIDTH, width)
            bundle = tiles.decode_bundle(_read(path), width)
            if [leaf_hash(entry) for entry in bundle] != edge.rows[0]:
                raise LedgerCorrupt("The last entry bundle is not the one that the tiles stand for.")
        _remove_forgotten_partials(directory, edge)
        return cls(directory, signer, edge, bundle)

    def sign_with(self, signer: Signer) -> None:
        """From now on, the checkpoint that is there included. Raises `OSError`; then the one before goes on signing."""
        before, self._signer = self._signer, signer
        try:
            replace_durably({self._directory / _CHECKPOINT: self._checkpoint()}, _MODE)
        except OSError:
            self._signer = before
            raise

    def reopen(self) -> Integrator:
        """As the disk has it, after `add` failed half way."""
        return Integrator.open(self._directory, self._signer)

    def add(self, first: int, entries: Sequence[bytes]) -> LogHead:
        """Append in order from index `first`, sign, and return the new head. Raises `OSError`; then open it anew."""
        if first != self._edge.size:
            raise LedgerCorrupt(f"Entry {first} cannot follow a log of {self._edge.size} entries.")
        files: dict[str, bytes] = {}
        for entry in entries:
            self._bundle.append(entry)
            for level, number, hashes in self._edge.add(leaf_hash(entry)):
                files[tiles.tile_path(level, number)] = b"".join(hashes)
                if level == 0:
                    files[tiles.bundle_path(number)] = tiles.encode_bundle(self._bundle)
                    self._bundle = []
        full = tuple(files)
        files.update(self._partial_files())
        replace_durably({self._directory / name: data for name, data in files.items()}, _MODE)
        replace_durably({self._directory / _CHECKPOINT: self._checkpoint()}, _MODE)
        for name in full:
            remove_partials(self._directory / f"{name}.p")
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


def remove_partials(directory: Path) -> None:
    """`directory` is a tile's name with `.p`. tlog-tiles: partial tiles may go once the full one exists."""
    if directory.is_dir():
        shutil.rmtree(directory)


def _remove_forgotten_partials(directory: Path, edge: tiles.Edge) -> None:
    """A crash may have come between a checkpoint and the removal of what it made superfluous: the newest full tiles."""
    for level in range(len(edge.rows)):
        full = edge.size >> tiles.TILE_BITS * (level + 1)
        for number in range(max(full - _NEWEST, 0), full):
            remove_partials(directory / f"{tiles.tile_path(level, number)}.p")
            if level == 0:
                remove_partials(directory / f"{tiles.bundle_path(number)}.p")


def read_edge(directory: Path, size: int) -> tiles.Edge:
    """The unfinished tiles of a tree of `size` leaves. Raises `LedgerCorrupt`."""
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
