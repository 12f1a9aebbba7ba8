"""`Slots`: one number of each worker, in memory that all of them share: how many exchanges it runs.

Each writes its own and reads all: eight aligned bytes are written at once. Who counts itself first and then looks at
the sum cannot pass a limit together with another.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from typing import Final

_BYTES: Final = 8


class Slots:
    """`number` is this worker's."""

    def __init__(self, descriptor: int, number: int) -> None:
        """The descriptor stays the caller's."""
        self._memory = mmap.mmap(descriptor, os.fstat(descriptor).st_size)
        self._counts = memoryview(self._memory).cast("Q")
        self._number = number

    def put(self, count: int) -> None:
        self._counts[self._number] = count

    def clear(self, number: int) -> None:
        """That worker is gone."""
        self._counts[number] = 0

    def total(self) -> int:
        return sum(self._counts)

    def close(self) -> None:
        self._counts.release()
        self._memory.close()


def new_slots(workers: int) -> int:
    """A descriptor of such memory, which no path leads to."""
    with tempfile.TemporaryFile() as file:
        file.truncate(workers * _BYTES)
        return os.dup(file.fileno())
