"""`replace_durably`: files that are whole or not there, also after a power cut.

A rename is durable once its directory is synced; the directory is opened before the rename, so that nothing can fail
between the two but the sync itself (LWN 457667, POSIX fsync).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path


def make_directory(path: Path, mode: int = 0o700) -> None:
    """Create it with its parents, durably."""
    if path.is_dir():
        return
    make_directory(path.parent, mode)
    path.mkdir(mode=mode, exist_ok=True)
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_all(descriptor: int, data: bytes | memoryview, offset: int) -> None:
    """pwrite until all is written: the system may write less."""
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written


def replace_durably(files: Mapping[Path, bytes], mode: int = 0o600) -> None:
    """Write each file beside its place and sync it, then rename all and sync their directories."""
    directories: dict[Path, int] = {}
    try:
        for path, data in files.items():
            if path.parent not in directories:
                make_directory(path.parent)
                directories[path.parent] = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
            _write_beside(path, data, mode)
        for path in files:
            os.rename(_beside(path), path)
        for descriptor in directories.values():
            os.fsync(descriptor)
    finally:
        for descriptor in directories.values():
            os.close(descriptor)


def _beside(path: Path) -> Path:
    return path.with_name(path.name + ".new")


def _write_beside(path: Path, data: bytes, mode: int) -> None:
    descriptor = os.open(_beside(path), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    try:
        write_all(descriptor, data, 0)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
