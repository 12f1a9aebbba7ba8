"""`Records`: what erasures, holds and expiries work on: one ledger and its keys, in the process that owns both."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, Protocol, TypeVar

from rempart.ledger.erasing.keeping import batches
from rempart.ledger.erasing.scan import Exchanged, Scanned, Wanted, scan
from rempart.ledger.keys.keystore import Keystore
from rempart.ledger.keys.retention import RetentionClass
from rempart.ledger.log import entry as entries
from rempart.ledger.writing.draft import LogState, Receipt
from rempart.wire.facts import Fact

T = TypeVar("T")


class Vault(Protocol):
    """The keystore's thread, and the keys of exchanges that begin."""

    async def ask(self, question: Callable[[Keystore], T]) -> T: ...

    def paused(self) -> Any:
        """A context in which no exchange begins, and after which nothing of before is in memory."""
        ...


class Journal(Protocol):
    """The ledger as it is written."""

    @property
    def vault(self) -> Vault: ...

    async def event(self, type: str, facts: Mapping[str, Fact]) -> Receipt: ...

    def live(self) -> list[tuple[Mapping[str, Any], bytes]]: ...

    def state(self) -> LogState: ...


async def _no_keys(_: str) -> int:
    return 0


class Records:
    """`lock` is the one erasure lock: whoever plans or carries out has it."""

    def __init__(
        self,
        ledger: Path,
        journal: Journal,
        classes: Mapping[str, RetentionClass],
        *,
        revoke: Callable[[str], Awaitable[int]] = _no_keys,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`ledger` is `<data>/ledger`; `revoke`: the API keys of a pseudonym stop working, and lose their names."""
        self.ledger = ledger
        self.journal = journal
        self.classes = classes
        self.revoke = revoke
        self._clock = clock
        self.lock = asyncio.Lock()

    async def ask(self, question: Callable[[Keystore], T]) -> T:
        """In the keystore's thread. Raises `LedgerUnavailable` when the keystore fails."""
        return await self.journal.vault.ask(question)

    async def ask_all(
        self, exchanges: Iterable[Exchanged], question: Callable[[Keystore, list[Exchanged]], T]
    ) -> list[T]:
        """A batch at a time, so that exchanges which begin meanwhile wait for no more than one."""
        return [await self.ask(lambda keystore, some=some: question(keystore, some)) for some in batches(exchanges)]  # type: ignore[misc]

    async def scan(self, wanted: Wanted, first: int = 0) -> Scanned:
        """In a thread. Raises `LedgerCorrupt`."""
        return await asyncio.to_thread(scan, self.ledger, wanted, first)

    @property
    def entries(self) -> int:
        """How many the log has."""
        return self.journal.state().entries

    def now(self) -> str:
        return entries.timestamp(self._clock())

    def today(self) -> date:
        return datetime.fromtimestamp(self._clock(), UTC).date()


def new_id() -> str:
    return secrets.token_hex(16)


def bodies_of(exchanges: Collection[Exchanged]) -> int:
    return sum(one.bodies for one in exchanges)
