"""`resident_bytes`: what a server's processes hold in memory, by the kernel's account."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

_PROC: Final = Path("/proc")
_ENGINE: Final = b"rempart.engines."
"""In the command line of an engine's process: its memory is the model's, not the gateway's."""


def resident_bytes(pid: int) -> int:
    """VmRSS of the process and all below it, engines left out. Pages that several share count once for each."""
    return sum(_resident(one) for one in processes(pid))


def processes(pid: int) -> list[int]:
    """The process and all below it, but engines and what they started."""
    children: dict[int, list[int]] = {}
    for one, parent in _parents():
        children.setdefault(parent, []).append(one)
    found, waiting = [], [pid]
    while waiting:
        one = waiting.pop()
        if one != pid and _ENGINE in _read(one, "cmdline"):
            continue
        found.append(one)
        waiting += children.get(one, [])
    return found


def _parents() -> Iterator[tuple[int, int]]:
    for path in _PROC.iterdir():
        if path.name.isdigit():
            stat = _read(int(path.name), "stat")
            if stat:
                # The name in parentheses may hold anything; the parent is the second field after it.
                yield int(path.name), int(stat.rpartition(b")")[2].split()[1])


def _resident(pid: int) -> int:
    for line in _read(pid, "status").splitlines():
        if line.startswith(b"VmRSS:"):
            return int(line.split()[1]) * 1024
    return 0


def _read(pid: int, name: str) -> bytes:
    """Empty when the process is gone."""
    try:
        return (_PROC / str(pid) / name).read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""
