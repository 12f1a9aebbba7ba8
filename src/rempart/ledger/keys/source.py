"""`KeySource`: what the keys of new exchanges come from: the keystore in its thread, or the process that has it."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeVar

import msgspec

from rempart.errors import KeystoreError, LedgerUnavailable
from rempart.ledger.keys.ggm import Node
from rempart.ledger.keys.keystore import Keystore
from rempart.ledger.keys.recalling import encode_nodes

T = TypeVar("T")


class Seed(msgspec.Struct, frozen=True):
    """Of a tree of record keys: one worker's, in one run."""

    id: str
    """32 hex digits."""
    key: bytes
    """32 bytes."""


class Person(msgspec.Struct, frozen=True):
    """Whose data is recorded."""

    pseudonym: str
    key: bytes


class KeySource(Protocol):
    """What it returned is durable, and was not destroyed when it was asked. All raise `LedgerUnavailable`."""

    async def new_seed(self) -> Seed:
        """Never the same twice."""
        ...

    async def bucket(self, retention: str, day: str) -> bytes:
        """The key of a retention class and UTC day; made when there is none."""
        ...

    async def subject(self, pseudonym: str) -> bytes:
        """Also raised when that person was erased."""
        ...

    async def person(self, identity: str) -> Person:
        """Of an identity in clear; made when it is first seen."""
        ...


class KeystoreThread:
    """The keystore's own form: one question at a time, in a thread of its own."""

    def __init__(self, keystore: Keystore) -> None:
        self._keystore = keystore
        self._thread = ThreadPoolExecutor(1, "keystore")

    async def ask(self, question: Callable[[Keystore], T]) -> T:
        """Raises `LedgerUnavailable` when the keystore fails."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, question, self._keystore)
        except KeystoreError as error:
            raise LedgerUnavailable(error.message, hint=error.hint) from error

    async def new_seed(self) -> Seed:
        seed = Seed(secrets.token_hex(16), secrets.token_bytes(32))
        row = encode_nodes([Node("", seed.key)])
        await self.ask(lambda keystore: keystore.put({("seed", seed.id): row}))
        return seed

    async def bucket(self, retention: str, day: str) -> bytes:
        return await self.ask(lambda keystore: keystore.bucket(retention, day))

    async def subject(self, pseudonym: str) -> bytes:
        return await self.ask(lambda keystore: keystore.subject_key(pseudonym))

    async def person(self, identity: str) -> Person:
        return Person(*await self.ask(lambda keystore: keystore.pseudonym("s", identity)))

    def close(self) -> None:
        self._thread.shutdown()
        self._keystore.close()
