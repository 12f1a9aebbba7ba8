"""`Timestamping.run`: the log's newest checkpoint is stamped while the server runs, and once more when it stops.

First the note that is stamped is written, then the token, each whole or not there. A crash in between leaves a note
alone, which nobody looks at. A stamp that is there is never replaced. Exchanges wait for none of this; that the
authority is away, or gives what does not hold, changes nothing but a counter and a line in the log.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from rempart import limits
from rempart.errors import RempartError
from rempart.ledger.log.checkpoint import parse_note
from rempart.ledger.log.timestamp import Stamp
from rempart.ledger.reading.timestamps import note_path, stamped_sizes, token_path
from rempart.ledger.store.files import replace_durably
from rempart.ledger.store.logfiles import read_file
from rempart.ledger.writing.draft import Timestamped
from rempart.ledger.writing.timestamp_client import TimestampClient

_log = logging.getLogger("rempart.ledger")
# As the log itself: public to whoever may read the directory.
_MODE = 0o644


class Timestamping:
    """One per log. `ledger` is `<data>/ledger`."""

    def __init__(self, ledger: Path, client: TimestampClient, clock: Callable[[], float] = time.time) -> None:
        self._ledger = ledger
        self._client = client
        self._clock = clock
        self._state = Timestamped(size=max(stamped_sizes(ledger), default=0))
        self._told = ""
        """What was last said of the authority in the log."""

    def state(self) -> Timestamped:
        return self._state

    async def run(self, every_s: float) -> None:
        """Until it is cancelled: a round at once, then one every `every_s`, sooner after one that stamped nothing."""
        while True:
            done = await self.round()
            await asyncio.sleep(every_s if done else min(every_s, limits.timestamp_retry_s))

    async def finish(self) -> None:
        """The last round, over the log's last checkpoint; then nothing more is asked."""
        await self.round()
        self._client.close()

    async def round(self) -> bool:
        """Stamp the newest checkpoint, unless it is stamped. False when there is none, or it failed, which is told."""
        try:
            note = await asyncio.to_thread(read_file, self._ledger / "log" / "checkpoint")
            size = parse_note(note)[1].size
            if not size:
                return False
            if not token_path(self._ledger, size).exists():
                stamp = await self._client.stamp(note)
                await asyncio.to_thread(_keep, self._ledger, size, note, stamp)
                self._count(size, stamp)
        except (RempartError, OSError) as error:
            self._state = msgspec.structs.replace(self._state, failures=self._state.failures + 1)
            hint = error.hint if isinstance(error, RempartError) else "Look at the disk."
            self._say(f"The log is not time-stamped: {error} {hint}".strip())
            return False
        return True

    def _count(self, size: int, stamp: Stamp) -> None:
        seconds = stamp.time.timestamp()
        stamps = self._state.stamps + 1
        self._state = msgspec.structs.replace(self._state, size=size, time=seconds, stamps=stamps)
        apart = seconds - self._clock()
        late = abs(apart) > limits.timestamp_clock_s
        self._say(f"The time-stamping authority's clock is {apart:+.0f} s from ours: set one of them." if late else "")

    def _say(self, what: str) -> None:
        """In the log, once per change; empty: all is well again."""
        if what == self._told:
            return
        self._told = what
        if what:
            _log.warning("%s", what)
        else:
            _log.info("The log is time-stamped again.")


def _keep(ledger: Path, size: int, note: bytes, stamp: Stamp) -> None:
    replace_durably({note_path(ledger, size): note}, _MODE)
    replace_durably({token_path(ledger, size): stamp.token}, _MODE)
