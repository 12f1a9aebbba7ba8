"""`file_digest`: SHA-256 of a model file, remembered by its size and time, since weights are large."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

_CHUNK: Final = 8 * 1024 * 1024


class _Known(msgspec.Struct):
    path: str
    size: int
    mtime_ns: int
    digest: str


def file_digest(path: Path, memory: Path, progress: Callable[[int, int], None] | None = None) -> str:
    """`sha256:<hex>`. `memory` is a JSON file that may be missing; `progress` gets bytes done and bytes in all."""
    status = path.stat()
    known = _read(memory)
    name = str(path.resolve())
    for one in known:
        if (one.path, one.size, one.mtime_ns) == (name, status.st_size, status.st_mtime_ns):
            return one.digest
    digest = hashlib.sha256()
    done = 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            done += len(chunk)
            if progress is not None:
                progress(done, status.st_size)
    found = f"sha256:{digest.hexdigest()}"
    kept = [one for one in known if one.path != name]
    memory.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    memory.write_bytes(msgspec.json.encode([*kept, _Known(name, status.st_size, status.st_mtime_ns, found)]))
    return found


def _read(memory: Path) -> list[_Known]:
    try:
        return msgspec.json.decode(memory.read_bytes(), type=list[_Known])
    except (FileNotFoundError, msgspec.DecodeError):
        return []  # it is only a memory: the file is read again
