"""`Heart.beat`: a `heartbeat` entry each minute, also when nothing happens: the server was up, and this is what it did.

An engine is asked what it served between two looks at the counts. Only when both say the same and nothing runs can its
answer be held against the ledger exactly; else the larger number of those that run is told with it.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Final

from rempart.errors import LedgerUnavailable
from rempart.gateway.counts import Counts, flat
from rempart.gateway.ports import Journal, Others
from rempart.wire.facts import Fact
from rempart.wire.job import Served

_log: Final = logging.getLogger("rempart.gateway")
_KEYS_MAX: Final = 1_000
AskEngines = Callable[[], Awaitable[Mapping[str, Served]]]
AskEpoch = Callable[[], Awaitable[int]]


class Heart:
    """Of one gateway. `served`: engine -> what it says; those that cannot say are left out."""

    def __init__(
        self,
        journal: Journal,
        counts: Counts,
        served: AskEngines | None,
        others: Others | None = None,
        epoch: AskEpoch | None = None,
    ) -> None:
        """`others`: workers that count here too. `epoch`: of the keystore; a start looks for the newest one."""
        self._journal = journal
        self._counts = counts
        self._served = served
        self._others = others
        self._epoch = epoch
        self._began = time.monotonic()

    async def beat(self) -> None:
        """When the ledger takes nothing, the minute stays without one: that is a finding."""
        before = await self._engines()
        served = await self._served() if self._served is not None else {}
        after = await self._engines()
        for name, counts in after.items():
            if counts != before.get(name):
                counts["running"] = max(counts["running"], before.get(name, counts)["running"], 1)
        sets = list(_parts(self._counts.changed_keys()))
        facts: dict[str, Fact] = {"up_s": int(time.monotonic() - self._began), "engines": flat(after, served)}
        try:
            if self._epoch is not None:
                facts["epoch"] = await self._epoch()
            for part, keys in enumerate(sets):
                told = {**(facts if part == 0 else {}), "keys": keys, "part": part, "parts": len(sets)}
                await self._journal.event("heartbeat", told)
                self._counts.tell_keys(keys)
        except LedgerUnavailable as error:
            _log.error("no heartbeat", extra={"reason": error.message})

    async def _engines(self) -> dict[str, dict[str, int]]:
        if self._others is not None:
            await self._others.settled()
        return self._counts.engines()


def _parts(keys: Mapping[str, int]) -> Iterator[dict[str, int]]:
    """At least one; an entry has 64 KiB."""
    items = iter(keys.items())
    yield dict(itertools.islice(items, _KEYS_MAX))
    while some := dict(itertools.islice(items, _KEYS_MAX)):
        yield some
