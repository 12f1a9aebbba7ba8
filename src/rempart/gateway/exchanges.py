"""`Exchanges.answer`: from an authenticated POST to a finished, recorded exchange."""

from __future__ import annotations

import asyncio
import os
import time
from time import perf_counter
from typing import TYPE_CHECKING

from rempart import limits
from rempart.errors import InvalidRequest, RempartError, ShuttingDown
from rempart.exchange import events as e
from rempart.exchange.machine import Exchange
from rempart.gateway.admission import Admission
from rempart.gateway.http import Budget, Request, Share
from rempart.gateway.metrics import Pace
from rempart.gateway.perform import Performer
from rempart.identity.caller import Caller
from rempart.wire.requests import OPERATIONS, Call, parse

if TYPE_CHECKING:
    from rempart.gateway.app import Gateway


def new_exchange_id(now: float) -> str:
    """32 hex digits: 12 of milliseconds since 1970, so that ids sort by time, then 20 random ones."""
    return f"{int(now * 1000):012x}{os.urandom(10).hex()}"


class Exchanges:
    """The exchanges of one gateway."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._budget = Budget(limits.bodies_bytes_max)

    async def answer(self, request: Request, caller: Caller) -> None:
        """Raises `LedgerUnavailable` when not even a refusal can be recorded."""
        began = perf_counter()
        exchange = new_exchange_id(time.time())
        request.answer_headers.append((b"x-rempart-exchange", exchange.encode()))
        share = self._budget.share()
        try:
            await self._answer(request, caller, exchange, await self._first(request, caller, share), began)
        finally:
            share.give_back()

    async def _answer(
        self, request: Request, caller: Caller, exchange: str, first: e.Asked | e.Refused, began: float
    ) -> None:
        gateway = self._gateway
        call = first.call if isinstance(first, e.Asked) else None
        record = await gateway.parts.journal.open(
            exchange,
            actor=caller.actor,
            role=caller.role,
            key=caller.key,
            subject=caller.subject,
            people=_people(request, caller, call),
            retention=gateway.policy.retention,
        )
        admission = Admission(caller, gateway.parts.meter, gateway.parts.router, gateway)
        admission.session = _text(request.header(b"x-rempart-session"))[: limits.session_chars_max]
        pace = Pace(gateway.metrics)
        performer = Performer(Exchange(exchange), request, record, admission, pace)
        performer.key = caller.key
        performer.on_dispatch = gateway.tally.dispatched
        performer.on_retry = gateway.tally.retried
        performer.deadline = asyncio.get_running_loop().time() + gateway.policy.exchange_s
        gateway.begin(performer)
        try:
            await performer.run(first)
        finally:
            gateway.end(performer)
            self._count(performer)
            self._measure(performer, admission, call, began, pace)

    async def _first(self, request: Request, caller: Caller, share: Share) -> e.Asked | e.Refused:
        received = b""
        try:
            if self._gateway.draining:
                raise ShuttingDown("The server is stopping.", hint="Send it again in a moment.", retry_after_s=5)
            received = await request.body(self._gateway.policy.body_bytes_max, share)
            if caller.trust_subject_header and len(_named(request)) > limits.subjects_named_max:
                raise InvalidRequest(
                    f"x-rempart-subject names more than {limits.subjects_named_max} people.",
                    hint="Send several requests.",
                )
            if len(received) <= limits.parse_here_bytes_max:
                return e.Asked(call=parse(request.path, received))
            return e.Asked(call=await asyncio.to_thread(parse, request.path, received))
        except RempartError as error:
            return e.Refused(error=error, operation=OPERATIONS[request.path], received=received)

    def _count(self, performer: Performer) -> None:
        tally = self._gateway.tally
        for number, engine in enumerate(performer.tried):
            tally.ended(engine, answered=False, tokens_prompt=0, tokens_completion=0, retried=number > 0)
        if performer.dispatched:
            tally.ended(
                performer.engine,
                answered=performer.recorded and performer.facts.get("outcome") == "ok",
                tokens_prompt=performer.tokens_prompt,
                tokens_completion=performer.tokens_completion,
                retried=bool(performer.tried),
            )
        if performer.recorded:
            tally.recorded(performer.key, time.time())

    def _measure(self, performer: Performer, admission: Admission, call: Call | None, began: float, pace: Pace) -> None:
        facts = performer.facts
        series = self._gateway.metrics.series(
            admission.model, call.operation if call else "", str(facts.get("outcome", "lost"))
        )
        series.requests.inc()
        series.duration.observe(perf_counter() - began)
        if pace.first:
            series.ttft.observe(pace.first - began)
        series.count(performer.tokens_prompt, performer.tokens_completion)


def _people(request: Request, caller: Caller, call: Call | None) -> tuple[str, ...]:
    """Whose data this is, besides the key's owner: whom the client names, and whom a trusted proxy names."""
    found = [call.subject] if call is not None and call.subject else []
    if caller.trust_subject_header:
        found += _named(request)[: limits.subjects_named_max]
    return tuple(dict.fromkeys(found))


def _named(request: Request) -> list[str]:
    """The header may be sent several times, and name several people between commas (RFC 9110 section 5.3)."""
    parts = b",".join(request.all(b"x-rempart-subject")).split(b",")
    return [_text(part)[: limits.subject_chars_max] for part in map(bytes.strip, parts) if part]


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")
