"""`Retirement.due`: which closed segment may be taken apart next; `run` has it done.

The order is the order of the segments: what is left of them never has a gap.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from time import monotonic
from typing import TypeAlias

from rempart import limits
from rempart.errors import LedgerUnavailable
from rempart.ledger.writing.retire import Closed

TakeApart: TypeAlias = Callable[[Path, Closed, int, bytes], None]
"""`retire` or one that has it done: ledger, segment, entries under the checkpoint, hash of the origin."""


def retire_in_child(ledger: Path, closed: Closed, size: int, origin_hash: bytes) -> None:
    """`retire` in a short-lived process. Blocks without the interpreter's lock. Raises `LedgerUnavailable`, `OSError`.

    Python's descriptors are closed on exec, so nothing has to be closed one by one while the server waits for the fork.
    """
    numbers = [str(number) for number in (closed.number, closed.end_index, size)]
    command = [sys.executable, "-m", "rempart.ledger.writing.retire", str(ledger), *numbers]
    try:
        done = subprocess.run(
            [*command, origin_hash.hex(), str(os.getpid())],
            capture_output=True,
            stdin=subprocess.DEVNULL,
            close_fds=False,
            start_new_session=True,  # a Ctrl-C of the terminal is not for it
            text=True,
            timeout=limits.retire_s,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise LedgerUnavailable("It took too long.", hint="Look at the disk of the data directory.") from error
    if done.returncode:
        raise LedgerUnavailable(done.stderr.strip()[-500:] or f"It ended with {done.returncode}.")


class Retirement:
    """The closed segments of one sequencer. `add` and `due` on its loop, `run` in a thread."""

    def __init__(self, ledger: Path, origin_hash: bytes, closed: Iterable[Closed], take_apart: TakeApart) -> None:
        self._ledger = ledger
        self._origin_hash = origin_hash
        self._closed = deque(closed)
        self._take_apart = take_apart
        self._not_before = 0.0

    def add(self, closed: Closed) -> None:
        """The segment that has just been left."""
        self._closed.append(closed)

    def due(self, size: int, oldest_open: int) -> Closed | None:
        """`size` entries are under the checkpoint; the oldest open exchange began in the segment `oldest_open`."""
        if not self._closed or monotonic() < self._not_before:
            return None
        first = self._closed[0]
        return first if first.end_index <= size and first.number < oldest_open else None

    def run(self, closed: Closed, size: int) -> None:
        """Have it done. Raises `OSError` and `RempartError`; then it is tried again, not at once."""
        self._not_before = monotonic() + limits.retire_retry_s
        self._take_apart(self._ledger, closed, size, self._origin_hash)
        self._not_before = 0.0
        self._closed.popleft()
