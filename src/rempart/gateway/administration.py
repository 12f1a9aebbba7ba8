"""`Administration`: what administrators change, whether a server runs or not. Each change is an entry."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Collection
from functools import partial
from typing import Any

import msgspec

from rempart.errors import SharedStateUnavailable
from rempart.gateway.backups import record_backup
from rempart.gateway.reviews import record_review
from rempart.gateway.verbs import Verb, converted
from rempart.identity.caller import Caller
from rempart.identity.issue import SECRET_RANDOM_BYTES, KeyOrder, check, issue
from rempart.identity.keyring import KeyRing
from rempart.identity.keys import KeyRow, Keys
from rempart.ipc.asking import Asking
from rempart.ledger.writing.journal import Journal
from rempart.wire.facts import Fact

_log = logging.getLogger("rempart.gateway")
_NAMELESS = "erased"
Spread = Callable[[KeyRow, bytes], Awaitable[None]]


async def _to_nobody(row: KeyRow, mac: bytes) -> None:
    """This process is the only one that has the keys."""


class Administration:
    """The keys of one site."""

    def __init__(
        self,
        journal: Journal,
        table: Asking[Keys],
        ring: KeyRing,
        models: Callable[[], Collection[str] | None] = lambda: None,
    ) -> None:
        """`models`: names that are served here; None when that cannot be told."""
        self.spread: Spread = _to_nobody
        """Every other worker has that row, and its MAC, when it returns."""
        self.others: dict[str, Verb] = {}
        """Commands of other rooms, by name."""
        self._journal = journal
        self._table = table
        self._ring = ring
        self._models = models

    def verbs(self) -> dict[str, Verb]:
        """By name."""
        return {
            "key.create": self._create,
            "key.list": self._list,
            "key.revoke": self._revoke,
            "backup.record": partial(record_backup, self._journal),
            "review.record": partial(record_review, self._journal),
            **self.others,
        }

    async def revoke_all(self, pseudonym: str) -> int:
        """The keys of an owner who is erased: they stop working and lose their names; how many there are."""
        found = [row.id for row, _ in self._ring.rows() if pseudonym in (row.actor, row.subject)]
        for id_ in found:
            await self._end(id_, forget=True)
        return len(found)

    def authenticate(self, text: str) -> Caller:
        """Who has that key. Raises `Unauthenticated`."""
        return self._ring.authenticate(text, time.time())

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
        mac = key.mac(self._ring.pepper)
        await self._table.ask(lambda table: table.put(row, mac, owner))
        await self._put(row, mac)
        _log.info("key created", extra={"key": row.id, "role": row.role})
        return key.text(), row

    async def _create(self, args: dict[str, Any]) -> dict[str, Any]:
        order = converted(args, KeyOrder, "The key cannot be made", "See 'rempart key create --help'.")
        warnings = self._warnings(order)
        text, row = await self.create_key(order)
        return {"key": text, **shown(row), "warnings": warnings}

    def _warnings(self, order: KeyOrder) -> list[str]:
        """What may be meant, and is more often a slip."""
        found: list[str] = []
        served = self._models()
        for model in order.models or ():
            if served is not None and model not in served:
                found.append(f"No engine here serves a model {model!r} now; there are: {', '.join(sorted(served))}.")
        if any(row.name == order.name and not row.revoked for row, _ in self._ring.rows()):
            found.append(f"There is a key of the name {order.name!r} already; both are valid.")
        return found

    async def _list(self, args: dict[str, Any]) -> list[dict[str, Any]]:
        return [shown(row) for row, _ in self._ring.rows()]

    async def _revoke(self, args: dict[str, Any]) -> dict[str, Any]:
        return shown(await self._end(str(args.get("id", "")), forget=False))

    async def _end(self, id_: str, *, forget: bool) -> KeyRow:
        """It works no more before it is recorded: a ledger that is down must not keep a stolen key alive. Nor must a
        database that is: it ends here first. `forget`: its name and owner go too."""
        now, newly = int(time.time()), False

        def ended(row: KeyRow) -> KeyRow:
            named = _NAMELESS if forget else row.name
            return msgspec.structs.replace(row, revoked=row.revoked or now, name=named)

        def ending(row: KeyRow) -> KeyRow:
            nonlocal newly
            newly = not row.revoked
            return ended(row)

        known = self._ring.get(id_)
        if known is not None:
            await self._put(ended(known[0]), known[1])
        try:
            row, mac = await self._table.ask(lambda table: table.change(id_, ending, forget=forget))
        except SharedStateUnavailable as error:
            raise SharedStateUnavailable(
                f"The key works no more here, but other gateways do not know it: {error.message}",
                hint="Repeat it as soon as PostgreSQL answers, and before this gateway is started again.",
            ) from error
        if known is None:
            await self._put(row, mac)
        if newly:
            _log.info("key revoked", extra={"key": id_})
            await self._journal.event("key", {"key": id_, "change": "revoked"})
        found = self._ring.get(id_)
        return row if found is None else found[0]

    async def _put(self, row: KeyRow, mac: bytes) -> None:
        self._ring.put(row, mac)
        await self.spread(row, mac)


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


def shown(row: KeyRow) -> dict[str, Any]:
    """As administrators see it: no secret; `actor` is how the ledger names whose key it is."""
    found: dict[str, Any] = msgspec.to_builtins(row)
    return found
