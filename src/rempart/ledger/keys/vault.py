"""`Vault.paused`: the keystore and the keys in memory, in the process that has both, and how all stop before keys die.

Other workers have keys in memory too: each is told to pause, and says what it runs, before anything is destroyed.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Protocol, TypeVar

from rempart.ledger.keys.cache import KeyCache
from rempart.ledger.keys.keystore import Keystore
from rempart.ledger.keys.source import KeystoreThread

T = TypeVar("T")
Live = tuple[Mapping[str, Any], bytes]
"""Fields and key of an exchange that has begun and may not have its response yet."""


class Others(Protocol):
    """The other workers of this site."""

    async def pause(self) -> list[Live]:
        """None of them gives keys to an exchange any more, nor remembers one; what they run."""
        ...

    async def resume(self) -> None: ...


class _Nobody:
    async def pause(self) -> list[Live]:
        return []

    async def resume(self) -> None:
        pass


class Vault(KeyCache):
    """One per site."""

    def __init__(self, keystore: Keystore) -> None:
        self._keystore = KeystoreThread(keystore)
        super().__init__(self._keystore)
        self.others: Others = _Nobody()
        self.elsewhere: list[Live] = []
        """While it is paused: what other workers run."""

    @property
    def source(self) -> KeystoreThread:
        return self._keystore

    async def ask(self, question: Callable[[Keystore], T]) -> T:
        """Run in the keystore's thread. Raises `LedgerUnavailable` when the keystore fails."""
        return await self._keystore.ask(question)

    def close(self) -> None:
        self._keystore.close()

    @contextlib.asynccontextmanager
    async def paused(self) -> AsyncIterator[None]:
        """Who asks for the keys of an exchange waits; at the end all that is kept in memory is dropped.

        Exchanges that have their keys go on with them: each holds the one key that its bodies' keys come from, until
        its response is written. Whoever pauses has the erasure lock.
        """
        self.pause()
        try:
            self.elsewhere = await self.others.pause()
            yield
        finally:
            self.elsewhere = []
            self.resume()
            await asyncio.shield(self.others.resume())
