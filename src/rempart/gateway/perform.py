"""`Performer`: carries out the commands of one exchange and feeds back what happened.

The machine in `rempart.exchange` decides; this awaits. While the engine or the client is awaited the exchange can be
interrupted (client gone, deadline, drain). While the ledger is awaited it cannot: what has begun to be recorded is
recorded.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeVar

from rempart.errors import (
    EngineError,
    EngineRefused,
    EngineTimeout,
    EngineUnavailable,
    LedgerUnavailable,
    RempartError,
    RequestTimeout,
)
from rempart.exchange import commands as c
from rempart.exchange import events as e
from rempart.exchange.machine import Exchange
from rempart.gateway.admission import Admission
from rempart.gateway.http import Request
from rempart.gateway.metrics import Pace
from rempart.gateway.ports import Engine, Lease, Record
from rempart.routing.ask import Verdict
from rempart.wire.facts import Fact
from rempart.wire.job import Job

_log = logging.getLogger("rempart.gateway")

T = TypeVar("T")
Interruption = e.ClientLeft | e.Cut


class _Interrupted(Exception):
    """Raised where the engine or the client was awaited."""


class Performer:
    """One exchange under way. `run` returns when its response is recorded and its answer sent."""

    def __init__(self, machine: Exchange, request: Request, record: Record, admission: Admission, pace: Pace) -> None:
        self._machine = machine
        self._request = request
        self._record = record
        self._admission = admission
        self._engine: Engine | None = None
        self._task: asyncio.Task[None] | None = None
        self._interruption: Interruption | None = None
        self._failure: RempartError | None = None
        """What the engine that has it now failed with."""
        self._waiting = False
        self._pace = pace
        self.key = ""
        """Id of the key that asked."""
        self.deadline = 0.0
        """Loop time after which the exchange is cut."""
        self.facts: Mapping[str, Fact] = {}
        """What was recorded of the response."""
        self.recorded = False
        """The response is in the ledger."""
        self.dispatched = False
        """An engine had it."""
        self.tried: list[str] = []
        """Engines that had it before, and failed."""
        self.on_dispatch: Callable[[str], None] = _nobody
        """Gets the engine's name as a request is handed to it."""
        self.on_retry: Callable[[str], None] = _nobody
        """Gets the name of another engine, to which it is handed after one failed."""
        self.tokens_prompt = 0
        self.tokens_completion = 0

    @property
    def engine(self) -> str:
        """Name of the engine that it went to; empty before it is admitted."""
        return self._engine.name if self._engine is not None else ""

    @property
    def heard(self) -> float:
        """`perf_counter` of the last piece that was relayed; 0 before the first."""
        return self._pace.last

    def interrupt(self, interruption: Interruption) -> None:
        """Stop waiting for engine or client. The first interruption stands; later ones change nothing."""
        if self._interruption is not None:
            return
        self._interruption = interruption
        if self._waiting and self._task is not None:
            self._waiting = False
            self._task.cancel()

    def left(self) -> None:
        """The client closed its connection."""
        self.interrupt(e.ClientLeft())

    async def run(self, first: e.Event) -> None:
        """Walk from `first` to the end."""
        self._task = asyncio.current_task()
        self._request.when_gone(self.left)
        try:
            await self._follow(first)
        except Exception:  # the request edge: what has begun to be recorded is closed
            _log.exception("An exchange failed in a way that was not foreseen.")
            await self._follow(e.Failed(error=RempartError("Something failed here.", hint="See the server's log.")))
        finally:
            self._admission.end(Verdict.NOTHING)
            self._request.when_gone(None)

    async def _follow(self, event: e.Event | None) -> None:
        while event is not None:
            event = await self._carry_out(self._machine.receive(event))

    async def _carry_out(self, commands: Sequence[c.Command]) -> e.Event | None:
        """Perform in order. At most the last command of a sequence leads to another event."""
        event: e.Event | None = None
        for command in commands:
            event = await self._perform(command)
        return event

    async def _perform(self, command: c.Command) -> e.Event | None:
        match command:
            case c.Relay():
                return await self._relay(command)
            case c.Admit():
                return await self._admit(command)
            case c.RecordRequest():
                return await self._record_request(command)
            case c.Dispatch():
                return await self._dispatch(command)
            case c.Reroute():
                return await self._reroute(command)
            case c.RecordResponse():
                return await self._record_response(command)
            case c.Send():
                await self._send(command)
            case c.Finish():
                await self._finish(command)
            case c.Settle():
                self.tokens_prompt, self.tokens_completion = command.tokens_prompt, command.tokens_completion
                await self._admission.settle(command.tokens_prompt, command.tokens_completion)
            case c.CancelEngine():
                pass  # leaving `_dispatch` has closed the engine's connection
        return None

    async def _admit(self, command: c.Admit) -> e.Event | None:
        try:
            lease = await self._admission.admit(command.call, self._interruptible)
        except RempartError as error:
            return e.Refused(error=error, operation=command.call.operation, received=command.call.received)
        except _Interrupted:
            return self._interruption
        return self._admitted(lease)

    async def _reroute(self, command: c.Reroute) -> e.Event | None:
        assert self._engine is not None, "only what an engine had is handed to another one"
        self._admission.end(_verdict(command.error))
        try:
            lease = await self._admission.again(command.call, self._interruptible)
        except RempartError as error:
            _log.info("no other engine", extra={"engine": self._engine.name, "reason": error.message})
            return e.Unrouted()
        except _Interrupted:
            return self._interruption
        self.tried.append(self._engine.name)
        return self._admitted(lease)

    def _admitted(self, lease: Lease) -> e.Event:
        self._engine = lease.engine
        target = lease.target
        return e.Admitted(
            served_name=target.served_name,
            digest=target.digest,
            engine=target.engine,
            model=target.model,
            retries=lease.others,
        )

    async def _record_request(self, command: c.RecordRequest) -> e.Event:
        try:
            receipt = await self._record.request(command.facts, command.body)
        except LedgerUnavailable as error:
            return e.LedgerFailed(error=error)
        return e.RequestRecorded(index=receipt.index)

    async def _record_response(self, command: c.RecordResponse) -> e.Event:
        self.facts = command.facts
        self._admission.end(self._found())
        try:
            receipt = await self._record.response(command.facts, command.body)
        except LedgerUnavailable as error:
            return e.LedgerFailed(error=error)
        self.recorded = True
        return e.ResponseRecorded(index=receipt.index)

    async def _dispatch(self, command: c.Dispatch) -> e.Event | None:
        assert self._engine is not None, "the machine dispatches only what was admitted"
        self.dispatched = True
        (self.on_retry if self.tried else self.on_dispatch)(self._engine.name)
        self._failure = None
        try:
            if command.stream:
                return await self._stream(self._engine, command.job)
            return e.Answered(body=await self._interruptible(self._engine.answer(command.job)))
        except EngineError as error:
            self._failure = error
            return e.Failed(error=error)
        except _Interrupted:
            return self._interruption

    async def _stream(self, engine: Engine, job: Job) -> e.Event | None:
        batches = engine.stream(job)
        try:
            while True:
                batch = await self._interruptible(anext(batches, None))
                if batch is None:
                    return e.StreamEnded()
                event = await self._carry_out(self._machine.receive(e.Streamed(payloads=batch)))
                if event is not None:
                    return event
                if self._machine.broken is not None:
                    self._failure = self._machine.broken
                    return e.Failed(error=self._machine.broken)
        finally:
            await batches.aclose()

    async def _relay(self, command: c.Relay) -> e.Event | None:
        try:
            durable = self._record.piece(command.piece)
            if durable is not None:
                await durable
        except LedgerUnavailable as error:
            return e.LedgerFailed(error=error)
        if not self._pace.first:
            self._admission.heard()
        self._pace.mark(self._admission.model)
        if not self._request.started:
            await self._request.start_stream()
        await self._interruptible(self._request.stream(command.data, more=True))
        return None

    async def _send(self, command: c.Send) -> None:
        if self._gone():
            return
        if command.error is not None:
            await self._request.reply_error(command.error)
        else:
            await self._request.reply_json(command.status, command.body)

    async def _finish(self, command: c.Finish) -> None:
        if self._gone():
            return
        if not self._request.started:
            await self._request.start_stream()
        await self._request.stream(command.data, more=False)

    def _found(self) -> Verdict:
        """What the exchange says of the engine that had it last."""
        if self._failure is not None:
            return _verdict(self._failure)
        if self.facts.get("error") == EngineError.code:  # its answer was whole, and none
            return Verdict.FAILED
        late = isinstance(self._interruption, e.Cut) and isinstance(self._interruption.error, RequestTimeout)
        if late and not self._pace.first:
            return Verdict.GONE  # it had all the time that there is, and said nothing
        return Verdict.SERVED if self.facts.get("outcome") == "ok" else Verdict.NOTHING

    def _gone(self) -> bool:
        return isinstance(self._interruption, e.ClientLeft)

    async def _interruptible(self, awaitable: Awaitable[T]) -> T:
        """Await engine or client; raises `_Interrupted` when the exchange is interrupted meanwhile."""
        assert self._task is not None
        if self._interruption is not None:
            _discard(awaitable)
            raise _Interrupted
        self._waiting = True
        try:
            return await awaitable
        except asyncio.CancelledError:
            if self._waiting or self._task.uncancel() > 0:
                raise  # not ours: the server itself is going down
            raise _Interrupted from None
        finally:
            self._waiting = False


def _verdict(error: RempartError) -> Verdict:
    if isinstance(error, EngineUnavailable | EngineTimeout):
        return Verdict.GONE
    return Verdict.SERVED if isinstance(error, EngineRefused) else Verdict.FAILED


def _nobody(engine: str) -> None:
    """Who does not count."""


def _discard(awaitable: Awaitable[object]) -> None:
    """A coroutine that is never awaited would warn."""
    if asyncio.iscoroutine(awaitable):
        awaitable.close()
