"""`Clerk.add_checkpoint`: the body of a request becomes its answer; what is to be remembered is durable by then."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from rempart import limits
from rempart.errors import LedgerCorrupt, Overloaded
from rempart.ledger.log.checkpoint import NoteKey
from rempart.ledger.log.cosignature import Cosigner
from rempart.ledger.log.submission import Submission, parse
from rempart.witness.answer import Answer, Known, answer, origin_of, refusal
from rempart.witness.memory import Memory


class Clerk:
    """`trusted`: origin -> the keys of that log. Blocking, and safe for several threads."""

    def __init__(
        self,
        trusted: Mapping[str, tuple[NoteKey, ...]],
        memory: Memory,
        cosigners: Sequence[Cosigner],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._trusted = trusted
        self._memory = memory
        self._cosigners = cosigners
        self._clock = clock

    @property
    def vkeys(self) -> list[str]:
        return [one.verifier.vkey for one in self._cosigners]

    def add_checkpoint(self, body: bytes) -> Answer:
        """Raises `LedgerUnavailable` when it cannot be remembered; nothing is cosigned then."""
        try:
            submission = parse(body)
            origin = origin_of(submission)
        except LedgerCorrupt as error:
            return refusal(400, error.message)
        keys = self._trusted.get(origin)
        if keys is None:
            return self._answer(submission, None)
        with self._memory.hold(origin) as held:
            latest = held.latest
            known = Known(keys) if latest is None else Known(keys, latest.size, latest.root)
            found = self._answer(submission, known)
            if found.remember:
                held.keep(found.remember)
        return found

    def _answer(self, submission: Submission, known: Known | None) -> Answer:
        return answer(submission, known, self._cosigners, int(self._clock()))


class Desk:
    """The clerk for an event loop: a few threads, and a bound on those that wait."""

    def __init__(self, clerk: Clerk) -> None:
        self._clerk = clerk
        self._threads = ThreadPoolExecutor(limits.witness_threads, "witness")
        self.busy = 0
        """Requests that are being answered."""

    async def add_checkpoint(self, body: bytes) -> Answer:
        """Raises `LedgerUnavailable`, or `Overloaded`."""
        if self.busy >= limits.witness_requests_max:
            raise Overloaded("Too many checkpoints are being looked at.", hint="Try again.", retry_after_s=1)
        self.busy += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, self._clerk.add_checkpoint, body)
        finally:
            self.busy -= 1

    def close(self) -> None:
        """Waits for those that are being answered."""
        self._threads.shutdown()
