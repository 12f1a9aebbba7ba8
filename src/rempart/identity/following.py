"""`Following.follow`: API keys as the database has them, within a second, and how long they are believed without it.

A notification wakes it; a question every quarter of a second is the net below that. While the database does not answer,
keys are believed for `believed_s` after it last did, then none is (fail closed): one of them may have been revoked.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Coroutine
from typing import Any, Protocol

import msgspec

from rempart import limits
from rempart.errors import KeystoreError, LedgerUnavailable, SharedStateUnavailable
from rempart.identity.keyring import KeyRing
from rempart.identity.keys import KeyRow
from rempart.identity.postgres_keys import News, PostgresKeys, Stored
from rempart.ipc.asking import Asking

_log = logging.getLogger("rempart.identity")


class Leases(Protocol):
    """What this gateway was lent of limits."""

    def set_clock(self, lenders_now: float, steady: float) -> None: ...
    def recalled(self, keys: Collection[str]) -> None: ...
    async def flush(self) -> None: ...


class Started(msgspec.Struct, frozen=True, kw_only=True):
    """What the ring holds at first."""

    version: int
    asked: float
    """Steady seconds, before the database was asked for it."""
    believed_s: float


Local = Callable[[Stored], Awaitable[KeyRow]]
"""The row with this gateway's own pseudonyms. Raises `LedgerUnavailable`."""


async def _to_nobody(row: KeyRow, mac: bytes) -> None:
    """This process is the only one that has the keys."""


def _nothing() -> None:
    """Nothing runs yet."""


async def _nobody() -> None:
    """Nobody else has a connection."""


class Following:
    """Of one gateway."""

    def __init__(self, keys: Asking[PostgresKeys], ring: KeyRing, local: Local, leases: Leases, started: Started):
        self.spread: Callable[[KeyRow, bytes], Coroutine[Any, Any, None]] = _to_nobody
        """Every other worker has that row, and its MAC, when it returns."""
        self.changed: Callable[[], None] = _nothing
        """A key may have been revoked: what runs with it is cut."""
        self.back: Callable[[], Awaitable[None]] = _nobody
        """The database answers again: connections that others have to it are stale. Raises `SharedStateUnavailable`."""
        self._keys = keys
        self._ring = ring
        self._local = local
        self._leases = leases
        self._version = started.version
        self._believed_s = started.believed_s
        self._away = False
        self._spreading = asyncio.TaskGroup()
        ring.believed_until = started.asked + started.believed_s

    async def follow(self) -> None:
        """Until it is cancelled."""
        async with asyncio.TaskGroup() as self._spreading:
            while True:
                try:
                    await self._look()
                except (SharedStateUnavailable, KeystoreError, LedgerUnavailable) as error:
                    self._fail(error.message)
                    await asyncio.sleep(limits.shared_poll_s)
                else:
                    await self._flush()

    async def _look(self) -> None:
        version = self._version
        news = await self._keys.ask(lambda keys: keys.news(version, limits.shared_poll_s))
        if news.version < version:  # the database was put back to an earlier state
            news = await self._keys.ask(lambda keys: keys.news(0, 0))
        await self._take(news)
        self._ring.believed_until = news.asked + self._believed_s
        self._leases.set_clock(news.database_now, time.monotonic())  # behind, if anything: no span ends early
        if news.recalled:
            self._leases.recalled(news.recalled)
        if self._away:
            await self.back()
            _log.warning("shared state is back")
            self._away = False

    async def _flush(self) -> None:
        try:
            await self._leases.flush()
        except SharedStateUnavailable as error:
            _log.warning("limits are settled later", extra={"why": error.message})

    async def _take(self, news: News) -> None:
        """Who is revoked is so first: that needs no keystore."""
        for one in sorted(news.rows, key=lambda one: not one.row.revoked):
            row = self._revoked(one.row) if one.row.revoked else await self._local(one)
            if self._ring.get(row.id) == (row, one.mac):
                continue  # it was changed here
            self._ring.put(row, one.mac)
            self.changed()
            # In the order of their sending; a worker that hangs holds up no later revocation, and is ended by itself.
            self._spreading.create_task(self.spread(row, one.mac))
            _log.info("key learnt", extra={"key": row.id, "revoked": bool(row.revoked)})
        self._version = news.version

    def _revoked(self, row: KeyRow) -> KeyRow:
        """Under the pseudonyms that it had here."""
        known = self._ring.get(row.id)
        return row if known is None else msgspec.structs.replace(row, actor=known[0].actor, subject=known[0].subject)

    def _fail(self, why: str) -> None:
        if not self._away:
            _log.error("shared state is away", extra={"why": why, "believed_s": self._believed_s})
        self._away = True
