"""`Administration`: what administrators change, whether a server runs or not. Each change is an entry."""

from __future__ import annotations

import secrets
import time
from typing import Any, Protocol

import msgspec

from rempart.errors import UsageError
from rempart.identity.issue import SECRET_RANDOM_BYTES, KeyOrder, check, issue
from rempart.identity.keyring import KeyRing
from rempart.identity.keys import KeyRow, KeyTable
from rempart.ledger.writing.journal import Journal
from rempart.wire.facts import Fact


class Verb(Protocol):
    """One command of the control socket."""

    async def __call__(self, args: dict[str, Any]) -> Any: ...


class Administration:
    """The keys of one site."""

    def __init__(self, journal: Journal, table: KeyTable, ring: KeyRing, pepper: bytes) -> None:
        self._journal = journal
        self._table = table
        self._ring = ring
        self._pepper = pepper

    def verbs(self) -> dict[str, Verb]:
        """By name."""
        return {"key.create": self._create, "key.list": self._list, "key.revoke": self._revoke}

    async def create_key(self, order: KeyOrder) -> tuple[str, KeyRow]:
        """The key's text, which is nowhere else, and its row. Recorded before it works."""
        check(order)
        owner = order.owner
        actor, subject = f"a_{secrets.token_hex(16)}", ""
        if owner:
            actor, _ = await self._journal.vault.ask(lambda keystore: keystore.pseudonym("a", owner))
            subject, _ = await self._journal.vault.ask(lambda keystore: keystore.pseudonym("s", owner))
        key, row = issue(
            order, actor=actor, subject=subject, random=secrets.token_bytes(SECRET_RANDOM_BYTES), now=int(time.time())
        )
        await self._journal.event("key", {**_facts(row), "change": "created"})
        mac = key.mac(self._pepper)
        self._table.put(row, mac)
        self._ring.put(row, mac)
        return key.text(), row

    async def _create(self, args: dict[str, Any]) -> dict[str, Any]:
        try:
            order = msgspec.convert(args, KeyOrder)
        except msgspec.ValidationError as error:
            raise UsageError(f"The key cannot be made: {error}.", hint="See 'rempart key create --help'.") from error
        text, row = await self.create_key(order)
        return {"key": text, **_shown(row)}

    async def _list(self, args: dict[str, Any]) -> list[dict[str, Any]]:
        return [_shown(row) for row, _ in self._table.all()]

    async def _revoke(self, args: dict[str, Any]) -> dict[str, Any]:
        """It works no more before it is recorded: a ledger that is down must not keep a stolen key alive."""
        row, mac = self._table.get(str(args.get("id", "")))
        if not row.revoked:
            row = msgspec.structs.replace(row, revoked=int(time.time()))
            self._ring.put(row, mac)
            self._table.put(row, mac)
            await self._journal.event("key", {"key": row.id, "change": "revoked"})
        return _shown(row)


def _facts(row: KeyRow) -> dict[str, Fact]:
    """What may stand in clear: no name, no owner."""
    facts: dict[str, Fact] = {"key": row.id, "role": row.role, "actor": row.actor, "expires": row.expires}
    if row.limits.requests_per_minute is not None:
        facts["requests_per_minute"] = row.limits.requests_per_minute
    if row.limits.tokens_per_day is not None:
        facts["tokens_per_day"] = row.limits.tokens_per_day
    if row.models is not None:
        facts["models"] = len(row.models)
    return facts


def _shown(row: KeyRow) -> dict[str, Any]:
    shown: dict[str, Any] = msgspec.to_builtins(row)
    del shown["actor"], shown["subject"]
    return shown
