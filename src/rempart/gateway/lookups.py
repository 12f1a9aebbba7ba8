"""`Lookups`: what is read and no exchange: models, health, metrics, and what an exchange became in the ledger."""

from __future__ import annotations

import asyncio
import re
import time
from typing import TYPE_CHECKING

import msgspec

from rempart.errors import ModelNotFound, NotFound
from rempart.gateway.auditing import keys_of, told_of
from rempart.gateway.http import NO_STORE, Request
from rempart.identity.caller import Caller
from rempart.ledger.log.entry import timestamp
from rempart.ledger.writing.draft import Trace
from rempart.wire.job import Target

if TYPE_CHECKING:
    from rempart.gateway.app import Gateway

_EXCHANGE_ID = re.compile(r"[0-9a-f]{32}")
_json = msgspec.json.Encoder()


class Lookups:
    """The reads of one gateway."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def models(self, request: Request, caller: Caller) -> None:
        data = [_model(target) for target in self._gateway.parts.router.models() if caller.may_use(target.model)]
        await request.reply_json(200, _json.encode({"object": "list", "data": data}))

    async def model(self, request: Request, caller: Caller) -> None:
        name = request.path.removeprefix("/v1/models/")
        for target in self._gateway.parts.router.models():
            if target.model == name and caller.may_use(name):
                await request.reply_json(200, _json.encode(_model(target)))
                return
        raise ModelNotFound(f"There is no model {name!r} for this key.", hint="See GET /v1/models.", param="model")

    async def healthz(self, request: Request) -> None:
        """The process lives. Says nothing about whether it can serve."""
        await request.reply_json(200, b'{"status":"ok"}')

    async def readyz(self, request: Request) -> None:
        """200 when an exchange would be taken now, else 503 with the reasons."""
        reasons: dict[str, str] = {}
        failure = self._gateway.parts.journal.state().failure
        if failure:
            reasons["ledger"] = failure
        alarm = self._gateway.parts.witnessed().alarm
        if alarm:
            reasons["witnesses"] = alarm
        if self._gateway.draining:
            reasons["server"] = "draining"
        if self._gateway.full():
            reasons["server"] = "full"
        breakers = self._gateway.parts.router.figures().engines
        engines = {
            name: why or ("failed too often, and is left alone" if breakers[name].breaker == "open" else "")
            for name, why in self._gateway.parts.router.states().items()
        }
        if all(engines.values()):
            reasons.update({f"engine {name}": why for name, why in engines.items()})
        told: dict[str, object] = {"ready": not reasons}
        if self._gateway.knows_host(request):  # a probe may come under any name; only who knows ours is told why
            told |= {"reasons": reasons, "engines": {name: why or "up" for name, why in engines.items()}}
        await request.reply_json(503 if reasons else 200, _json.encode(told))

    async def metrics(self, request: Request) -> None:
        content = (b"content-type", b"text/plain; version=0.0.4; charset=utf-8")
        others = self._gateway.parts.others
        text = self._gateway.metrics.text() if others is None else await others.metrics()
        await request.reply(200, text, [content, NO_STORE])

    async def count(self, request: Request, caller: Caller) -> None:
        """How many exchanges of this key the ledger holds: whoever sent them can compare."""
        now = time.time()
        others = self._gateway.parts.others
        of_key = self._gateway.counts.of_key(caller.key, now) if others is None else await others.count_of(caller.key)
        boot, today = of_key
        told = {
            "key": caller.key,
            "boot": self._gateway.parts.boot,
            "since_boot": boot,
            "day": timestamp(now)[:10],
            "today": today,
        }
        await request.reply_json(200, _json.encode(told))

    async def exchange(self, request: Request, caller: Caller) -> None:
        """Entries of one exchange, and the checkpoint that covers them. Seen with the key that asked."""
        exchange = request.path.removeprefix("/rempart/v1/exchanges/")
        journal = self._gateway.parts.journal
        trace = await self._trace(exchange) if _EXCHANGE_ID.fullmatch(exchange) else None
        if trace is None or not (trace.key == caller.key or caller.may("read_ledger")):
            raise NotFound(
                "No recent exchange has that id, or it is not this key's.",
                hint="Older ones are shown by 'rempart ledger show ID'.",
            )
        state = journal.state()
        integrated = all(entry.index < state.tree_size for entry in trace.entries)
        entries = [
            {"index": entry.index, "type": entry.type, "leaf_hash": entry.leaf_hash.hex()} for entry in trace.entries
        ]
        body = {
            "exchange": exchange,
            "entries": entries,
            "checkpoint": {"origin": state.origin, "size": state.tree_size, "root": state.root.hex()},
            "integrated": integrated,
            **await asyncio.to_thread(keys_of, self._gateway.parts),
            "proofs": await asyncio.to_thread(self._proofs, trace) if integrated else [],
        }
        await request.reply_json(200, _json.encode(body))

    async def _trace(self, exchange: str) -> Trace | None:
        """Whichever worker had it."""
        parts = self._gateway.parts
        found = parts.journal.recent(exchange)
        return found if found is not None or parts.others is None else await parts.others.recent(exchange)

    def _proofs(self, trace: Trace) -> list[dict[str, object]]:
        """What whoever asked needs to check it without trusting this server."""
        return [told_of(self._gateway.parts.prove(entry.index)) for entry in trace.entries]


def _model(target: Target) -> dict[str, object]:
    return {"id": target.model, "object": "model", "created": target.created, "owned_by": target.engine}
