"""`KeystoreVerbs`: the keystore itself as commands of the owner: how it stands, new keys, another seal of its root.

The key that the log signs with is one of its rows, and is changed here too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from rempart.gateway.verbs import Verb
from rempart.ledger.erasing.erase import older_backups
from rempart.ledger.erasing.hold import standing
from rempart.ledger.erasing.records import Records
from rempart.ledger.keys.sealing import Sealings
from rempart.ledger.writing.log_key import LogKey
from rempart.wire.facts import Fact


class KeystoreVerbs:
    """The keystore itself: how it stands, new keys, another seal of its root. Each change is an entry."""

    def __init__(
        self,
        records: Records,
        log_key: LogKey,
        kind: Callable[[], str],
        sealings: Callable[[Mapping[str, Any]], Sealings],
    ) -> None:
        """`kind`: what seals the root now; `sealings`: `[keys]` as the command has read it -> what it asks for."""
        self._records = records
        self._log_key = log_key
        self._kind = kind
        self._sealings = sealings

    def verbs(self) -> dict[str, Verb]:
        """By name."""
        return {
            "keys.status": self._status,
            "keys.rotate": self._rotate,
            "keys.rotate-log": self._rotate_log,
            "keys.reseal": self._reseal,
        }

    async def _status(self, args: dict[str, Any]) -> Any:
        found = await standing(self._records)
        epoch = await self._records.ask(lambda keystore: keystore.epoch)
        backups = await older_backups(self._records, epoch)
        return {
            "epoch": epoch,
            "sealing": self._kind(),
            "holds": len(found),
            "backups": msgspec.to_builtins(backups),
        }

    async def _rotate(self, args: dict[str, Any]) -> Any:
        async with self._records.lock:
            epoch = await self._records.ask(lambda keystore: keystore.rotate())
            return await self._record("rotated", epoch)

    async def _rotate_log(self, args: dict[str, Any]) -> Any:
        async with self._records.lock:
            changed = await (self._log_key.finish() if args.get("finish") is True else self._log_key.begin())
            return msgspec.to_builtins(changed)

    async def _reseal(self, args: dict[str, Any]) -> Any:
        sealings = self._sealings(args)
        async with self._records.lock:
            epoch = await self._records.ask(lambda keystore: keystore.reseal(sealings))
            return await self._record("resealed", epoch)

    async def _record(self, change: str, epoch: int) -> Any:
        facts: dict[str, Fact] = {"change": change, "epoch": epoch, "sealing": self._kind()}
        receipt = await self._records.journal.event("keystore", facts)
        return {**facts, "index": receipt.index}
