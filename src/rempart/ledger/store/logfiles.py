"""`read_bundle`: bundles and tiles of the log as they are, while a server may be writing it."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from rempart.errors import LedgerCorrupt
from rempart.ledger.log import tiles
from rempart.ledger.log.merkle import HASH_BYTES

VKEY: Final = "log.vkey"
"""The verifier key of the log, below `<data>/ledger`."""
REPLICA: Final = "replica"
"""The file that says so."""


def ledger_directory(data: Path) -> Path:
    """Of a data directory."""
    return data / "ledger"


def read_bundle(log: Path, number: int, width: int) -> list[bytes]:
    """The first `width` entries. A partial bundle may just have become full, and gone. Raises `LedgerCorrupt`."""
    path, data = _grown(log / tiles.bundle_path(number, width), log / tiles.bundle_path(number))
    full = path == log / tiles.bundle_path(number)
    return tiles.decode_bundle(data, tiles.TILE_WIDTH if full else width)[:width]


def bundle_file(log: Path, number: int, width: int) -> Path:
    """Where those entries stand."""
    return _partial_or_full(log / tiles.bundle_path(number, width), log / tiles.bundle_path(number))


def read_tile(log: Path, level: int, number: int, width: int) -> bytes:
    """The first `width` hashes of a tile, as they follow each other. Raises `LedgerCorrupt`."""
    data = read_grown(log / tiles.tile_path(level, number, width), log / tiles.tile_path(level, number))
    return data[: width * HASH_BYTES]


def tile_file(log: Path, level: int, number: int, width: int) -> Path:
    """Where those hashes stand."""
    return _partial_or_full(log / tiles.tile_path(level, number, width), log / tiles.tile_path(level, number))


def read_grown(partial: Path, full: Path) -> bytes:
    """A partial file, or the full one that has taken its place. Raises `LedgerCorrupt`."""
    return _grown(partial, full)[1]


def _grown(partial: Path, full: Path) -> tuple[Path, bytes]:
    try:
        return partial, partial.read_bytes()
    except FileNotFoundError:
        return full, read_file(full)
    except OSError as error:
        raise _unreadable(partial, error) from error


def read_file(path: Path) -> bytes:
    """Raises `LedgerCorrupt`."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError) -> LedgerCorrupt:
    return LedgerCorrupt(f"{path} cannot be read: {error.strerror}.", hint="Restore it from its copy.")


def _partial_or_full(partial: Path, full: Path) -> Path:
    return partial if partial == full or partial.exists() or not full.exists() else full


def is_replica(ledger: Path) -> bool:
    """Whether `<data>/ledger` is a copy without segments (docs/backup.md): nothing writes entries there."""
    return (ledger / REPLICA).exists()


def previous_logs(ledger: Path) -> list[int]:
    """Numbers of the logs that this one continues, in `previous/<number>`, ascending."""
    return sorted(int(path.name) for path in (ledger / "previous").glob("*") if path.name.isdecimal())


def previous_directory(ledger: Path, number: int) -> Path:
    """Of one of them: a ledger of its own, without segments."""
    return ledger / "previous" / str(number)
