"""`Exchange.receive`: one prompt and its completion, from the request to the last byte (pure: events in, commands out).

The laws that the order of the commands keeps:
1. The request is durable before it is dispatched.
2. Each piece of a stream is written before it is relayed.
3. The response is durable before the last event of the answer is sent.
4. However it ends (refused, failed, cancelled, cut), it ends in one response entry, and is settled once.
5. When the ledger cannot record, the client gets an error and no answer.
6. It is handed to another engine only while nothing of an answer was relayed; each engine that had it is recorded.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from enum import Enum, auto
from typing import Any, Final

import msgspec

from rempart import limits
from rempart.errors import EngineError, EngineRefused, RempartError
from rempart.exchange import commands as c
from rempart.exchange import events as e
from rempart.wire.answers import Usage, parse_answer, renamed
from rempart.wire.assemble import Assembler
from rempart.wire.errors import error_body
from rempart.wire.facts import Fact
from rempart.wire.job import Job
from rempart.wire.requests import BYTES_A_TOKEN, Call, engine_body
from rempart.wire.sse import DONE, frame


class State(Enum):
    """Where an exchange stands; each waits for the events that the table below names."""

    NEW = auto()
    ADMITTING = auto()
    RECORDING_REQUEST = auto()
    RUNNING = auto()
    REROUTING = auto()
    RECORDING_RESPONSE = auto()
    DONE = auto()


_ENDS: Final = (State.RECORDING_RESPONSE,)

TRANSITIONS: Final[Mapping[State, Mapping[type[e.Event], tuple[State, ...]]]] = {
    State.NEW: {e.Asked: (State.ADMITTING,), e.Refused: _ENDS},
    State.ADMITTING: {
        e.Admitted: (State.RECORDING_REQUEST,),
        e.Refused: _ENDS,
        e.Failed: _ENDS,
        e.ClientLeft: _ENDS,
        e.Cut: _ENDS,
    },
    State.RECORDING_REQUEST: {
        e.RequestRecorded: (State.RUNNING,),
        e.LedgerFailed: (State.DONE,),
        e.Failed: _ENDS,
    },
    State.RUNNING: {
        e.Streamed: (State.RUNNING,),
        e.Answered: (*_ENDS, State.REROUTING),
        e.StreamEnded: _ENDS,
        e.Failed: (*_ENDS, State.REROUTING),
        e.ClientLeft: _ENDS,
        e.Cut: _ENDS,
        e.LedgerFailed: _ENDS,
    },
    State.REROUTING: {
        e.Admitted: (State.RUNNING,),
        e.Unrouted: _ENDS,
        e.Failed: _ENDS,
        e.ClientLeft: _ENDS,
        e.Cut: _ENDS,
    },
    State.RECORDING_RESPONSE: {e.ResponseRecorded: (State.DONE,), e.LedgerFailed: (State.DONE,)},
    State.DONE: {},
}

_STATUS_CLIENT_LEFT: Final = 499
_STATUS_BUSY: Final = 429
_json = msgspec.json.Encoder()


class Exchange:
    """One exchange. Commands are to be carried out in order; only the last of a list leads to a next event."""

    def __init__(self, exchange_id: str) -> None:
        self.id = exchange_id
        self.state = State.NEW
        self._call: Call | None = None
        self._admitted: e.Admitted | None = None
        self._model = ""
        """The one that answers."""
        self._tried: list[str] = []
        """Engines that had it before, in order."""
        self._failure: EngineError | None = None
        """What the last of them failed with."""
        self._request: int | None = None
        self._assembler: Assembler | None = None
        self._relayed = False
        self._tokens = (0, 0)
        self._engine_counted = False
        self._last: c.Command = c.Send()
        self.broken: RempartError | None = None
        """What the stream broke off with: once what came before it is relayed, the next event is `Failed` with it."""

    def receive(self, event: e.Event) -> list[c.Command]:
        """Raises `RuntimeError` when the event cannot happen in this state: a fault in the performer."""
        allowed = TRANSITIONS[self.state].get(type(event))
        if self.broken is not None and isinstance(event, e.Streamed | e.StreamEnded):
            allowed = None
        if allowed is None:
            raise RuntimeError(f"{type(event).__name__} cannot happen to an exchange that is {self.state.name}")
        commands = self._handle(event)
        if self.state not in allowed:
            raise RuntimeError(f"{type(event).__name__} must not lead to {self.state.name}")
        return commands

    def _handle(self, event: e.Event) -> list[c.Command]:
        match event:
            case e.Streamed():
                return self._streamed(event)
            case e.Asked():
                self.state, self._call = State.ADMITTING, event.call
                return [c.Admit(call=event.call)]
            case e.Admitted() if self.state is State.REROUTING:
                return self._dispatch_again(event)
            case e.Admitted():
                return self._record_request(event)
            case e.Unrouted():
                assert self._failure is not None
                return self._broken_off("failed", self._failure)
            case e.RequestRecorded():
                return self._dispatch(event)
            case e.Answered():
                return self._answered(event)
            case e.StreamEnded():
                return self._stream_ended()
            case e.Refused():
                content = {"request": _received(event.received), **_error(event.error)}
                return self._close("refused", event.error, content, operation=event.operation)
            case e.Failed():
                return self._failed(event.error)
            case e.Cut():
                return [*self._cancel_engine(), *self._broken_off("cut", event.error)]
            case e.ClientLeft():
                return [*self._cancel_engine(), *self._client_left()]
            case e.ResponseRecorded():
                self.state = State.DONE
                return [self._settle(), self._last]
            case e.LedgerFailed() if self.state is State.RUNNING:  # a piece; its end may still find room
                return [c.CancelEngine(), *self._broken_off("failed", event.error)]
            case e.LedgerFailed():
                self.state = State.DONE
                return [self._settle(), self._error_answer(event.error)]

    def _record_request(self, event: e.Admitted) -> list[c.Command]:
        assert self._call is not None
        self.state = State.RECORDING_REQUEST
        self._admit(event)
        content = {"path": self._call.path, "request": msgspec.Raw(self._call.received)}
        facts = {**self._served(self._call.operation), "parameters": self._call.parameters}
        return [c.RecordRequest(facts=facts, body=_json.encode(content))]

    def _admit(self, event: e.Admitted) -> None:
        assert self._call is not None
        self._admitted, self._model = event, event.model or self._call.model

    def _dispatch(self, event: e.RequestRecorded) -> list[c.Command]:
        self._request = event.index
        return self._run()

    def _dispatch_again(self, event: e.Admitted) -> list[c.Command]:
        """What the engine that failed had begun is forgotten: nobody has seen it."""
        assert self._admitted is not None
        self._tried.append(self._admitted.engine)
        self._admit(event)
        self.broken = None
        return self._run()

    def _run(self) -> list[c.Command]:
        assert self._call is not None
        assert self._admitted is not None
        call = self._call
        self.state = State.RUNNING
        if call.stream:
            self._assembler = Assembler(call.operation, self._model, call.wants_usage)
        job = Job(path=call.path, body=engine_body(call, self._admitted.served_name), exchange=self.id)
        return [c.Dispatch(job=job, stream=call.stream)]

    def _streamed(self, event: e.Streamed) -> list[c.Command]:
        assert self._assembler is not None
        fed = self._assembler.feed(event.payloads)
        self.broken = fed.broken
        if not fed.out:
            return []
        self._relayed = True
        return [c.Relay(data=fed.out, piece=fed.piece)]

    def _stream_ended(self) -> list[c.Command]:
        assert self._assembler is not None
        self._count(self._assembler.usage)
        self._last = c.Finish(data=frame(DONE))
        content = {"response": msgspec.Raw(self._assembler.whole())}
        return self._record_response("ok", 200, "", content, self._assembler.finish)

    def _answered(self, event: e.Answered) -> list[c.Command]:
        assert self._call is not None
        try:
            answer = parse_answer(self._call.operation, event.body)
        except EngineError as error:
            return self._failed(error)
        body = event.body if answer.model in ("", self._model) else renamed(event.body, self._model)
        self._count(answer.usage, len(event.body) if self._call.operation != "embedding" else 0)
        self._last = c.Send(status=200, body=body)
        return self._record_response("ok", 200, "", {"response": msgspec.Raw(body)}, answer.finish)

    def _failed(self, error: RempartError) -> list[c.Command]:
        if not self._may_retry(error):
            return self._broken_off("failed", error)
        assert self._call is not None
        assert isinstance(error, EngineError)
        self.state, self._failure = State.REROUTING, error
        return [c.Reroute(call=self._call, error=error)]

    def _may_retry(self, error: RempartError) -> bool:
        """What an engine refused, every engine would refuse; but not because it is busy."""
        if self.state is not State.RUNNING or self._relayed or not isinstance(error, EngineError):
            return False
        refused = isinstance(error, EngineRefused) and error.http_status != _STATUS_BUSY
        return not refused and self._admitted is not None and self._admitted.retries > 0

    def _cancel_engine(self) -> list[c.Command]:
        return [c.CancelEngine()] if self.state is State.RUNNING else []

    def _broken_off(self, outcome: str, error: RempartError) -> list[c.Command]:
        """No whole answer; what there is of one is recorded with the error."""
        content = {**self._so_far(charged=outcome == "cut"), **_error(error)}
        return self._close(outcome, error, content, finish=self._finish())

    def _client_left(self) -> list[c.Command]:
        self._last = c.Send(status=_STATUS_CLIENT_LEFT)  # nobody reads it
        finish = self._finish()
        content = self._so_far(charged=True)
        return self._record_response("cancelled", _STATUS_CLIENT_LEFT, "client_gone", content, finish)

    def _finish(self) -> tuple[str, ...]:
        return self._assembler.finish if self._assembler else ()

    def _so_far(self, charged: bool) -> dict[str, object]:
        """What there is of an answer. An engine that failed before its first piece is not charged for."""
        usage = self._assembler.usage if self._assembler else None
        if self.state is State.RUNNING and (charged or self._relayed):
            self._count(usage)
        if self._assembler is not None:
            return {"response": msgspec.Raw(self._assembler.whole())}
        if self._call is not None and self.state is State.ADMITTING:  # no entry holds its request yet
            return {"path": self._call.path, "request": msgspec.Raw(self._call.received)}
        return {}

    def _close(
        self,
        outcome: str,
        error: RempartError,
        content: Mapping[str, object],
        *,
        operation: str = "",
        finish: tuple[str, ...] = (),
    ) -> list[c.Command]:
        self._last = self._error_answer(error)
        status = 200 if self._relayed else error.http_status
        return self._record_response(outcome, status, error.code, content, finish, operation)

    def _error_answer(self, error: RempartError) -> c.Command:
        return c.Finish(data=frame(error_body(error))) if self._relayed else c.Send(error=error)

    def _record_response(
        self,
        outcome: str,
        status: int,
        error: str,
        content: Mapping[str, object],
        finish: tuple[str, ...],
        operation: str = "",
    ) -> list[c.Command]:
        self.state = State.RECORDING_RESPONSE
        facts: dict[str, Fact] = self._served(operation or (self._call.operation if self._call else ""))
        facts["outcome"] = outcome
        facts["status"] = status
        if error:
            facts["error"] = error
        if any(finish):
            facts["finish"] = list(dict.fromkeys(_word(reason) for reason in finish))
        if self._request is not None:
            facts["request"] = self._request
            if self._tried:
                facts["attempts"] = len(self._tried) + 1
                facts["tried"] = list(self._tried)
            facts["tokens_prompt"], facts["tokens_completion"] = self._tokens
            facts["tokens_source"] = "engine" if self._engine_counted else "counted"
        return [c.RecordResponse(facts=facts, body=_json.encode(content))]

    def _served(self, operation: str) -> dict[str, Fact]:
        """Names are recorded only of what was admitted: any other text may be somebody's data."""
        facts: dict[str, Fact] = {"operation": operation} if operation else {}
        if self._admitted is not None and self._call is not None:
            facts["model"] = self._model
            facts["model_digest"] = self._admitted.digest
            facts["engine"] = self._admitted.engine
        return facts

    def _count(self, usage: Usage | None, answer_bytes: int = 0) -> None:
        if usage is not None:
            self._engine_counted = True
            # Some engines tell what the last of several choices took; each piece that came is a token at least.
            came = self._assembler.counted if self._assembler else 0
            self._tokens = (_bounded(usage.prompt_tokens), max(_bounded(usage.completion_tokens), came))
            return
        # Without the engine's own count a quota must still hold: text is about four bytes a token.
        prompt = self._call.tokens_prompt if self._call else 0
        self._tokens = (prompt, self._assembler.counted if self._assembler else answer_bytes // BYTES_A_TOKEN)

    def _settle(self) -> c.Settle:
        return c.Settle(tokens_prompt=self._tokens[0], tokens_completion=self._tokens[1])


def _bounded(count: int | None) -> int:
    return min(max(count or 0, 0), limits.tokens_per_exchange_max)


def _word(reason: str) -> str:
    """Finish reasons stand in clear: only those of the API's own list."""
    known = ("stop", "length", "tool_calls", "content_filter", "function_call", "")
    return reason if reason in known else "other"


def _error(error: RempartError) -> dict[str, Any]:
    return {"error": msgspec.json.decode(error_body(error))["error"]}


def _received(body: bytes) -> object:
    """As JSON when it is JSON, else as text, else in base64."""
    try:
        body.decode()
        msgspec.json.decode(body)
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(body).decode()}
    except (msgspec.DecodeError, RecursionError):
        return {"text": body.decode()}
    return msgspec.Raw(body)
