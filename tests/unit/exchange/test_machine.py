"""`rempart.exchange.machine`: exchanges as transcripts, what happens and what is wanted done about it."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec
import pytest

from rempart.errors import (
    EngineError,
    EngineRefused,
    EngineTimeout,
    EngineUnavailable,
    InvalidRequest,
    LedgerUnavailable,
    ModelNotFound,
    RempartError,
    ShuttingDown,
)
from rempart.exchange import commands as c
from rempart.exchange import events as e
from rempart.exchange.machine import Exchange, State
from rempart.wire.answers import nonsense
from rempart.wire.errors import error_body
from rempart.wire.job import Job
from rempart.wire.requests import CHAT, Call, parse
from rempart.wire.sse import DONE, frame

ID = "ab" * 16
CALL = parse(CHAT, b'{"model":"m", "messages":[{"role":"user","content":"hello"}],"temperature":0.5}')
STREAM = parse(CHAT, b'{"model":"m","messages":[{"role":"user","content":"hello"}],"stream":true}')
ADMITTED = e.Admitted(served_name="served", digest="sha256:00", engine="embedded")
NAMES = {"operation": "chat", "model": "m", "model_digest": "sha256:00", "engine": "embedded"}
ANSWER = (
    b'{"id":"1","model":"served","choices":[{"index":0,"message":{"role":"assistant","content":"hi"},'
    b'"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":2}}'
)
RENAMED = ANSWER.replace(b"served", b"m")
HI = b'{"id":"1","model":"m","choices":[{"index":0,"delta":{"role":"assistant","content":"hi"}}]}'
STOP = b'{"id":"1","model":"m","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}'
USAGE = b'{"id":"1","model":"m","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2}}'
NOTHING = {"object": "chat.completion", "model": "m", "choices": []}
HI_ALONE = {
    "id": "1",
    "model": "m",
    "object": "chat.completion",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "hi"}}],
}
LEDGER = LedgerUnavailable("The disk is full.", hint="Make room.")
DOWN = EngineUnavailable("The engine has died.", hint="See its log.")
LATE = EngineTimeout("Past its deadline.")


class Recorded(NamedTuple):
    """A `RecordResponse` whose body has been read."""

    facts: dict[str, Any]
    content: dict[str, Any]


def read(command: c.Command) -> Any:
    if isinstance(command, c.RecordResponse):
        return Recorded(dict(command.facts), msgspec.json.decode(command.body))
    return command


def transcript(exchange: Exchange, *lines: tuple[e.Event, list[Any]]) -> None:
    """Feeds each event and compares the commands that come of it."""
    for event, expected in lines:
        assert [read(command) for command in exchange.receive(event)] == expected


def recorded(content: dict[str, Any], **facts: Any) -> Recorded:
    return Recorded(facts, content)


def shown(error: RempartError) -> dict[str, Any]:
    return msgspec.json.decode(error_body(error), type=dict[str, Any])


def after(*events: e.Event) -> Exchange:
    exchange = Exchange(ID)
    for event in events:
        exchange.receive(event)
    return exchange


def running(call: Call = CALL, *more: e.Event) -> Exchange:
    """An exchange whose request is the ledger's entry 7."""
    return after(e.Asked(call=call), ADMITTED, e.RequestRecorded(index=7), *more)


RAN = {**NAMES, "request": 7}
COUNTED = {"tokens_prompt": 3, "tokens_completion": 2, "tokens_source": "engine"}
GUESSED = {"tokens_prompt": len(STREAM.received) // 4, "tokens_completion": 1, "tokens_source": "counted"}
PROMPT_GUESSED = {**GUESSED, "tokens_prompt": len(CALL.received) // 4, "tokens_completion": 0}
UNCHARGED = {"tokens_prompt": 0, "tokens_completion": 0, "tokens_source": "counted"}
DURABLE = e.ResponseRecorded(index=8)
SETTLE_COUNTED = c.Settle(tokens_prompt=3, tokens_completion=2)
SETTLE_GUESSED = c.Settle(tokens_prompt=GUESSED["tokens_prompt"], tokens_completion=1)
SETTLE_PROMPT = c.Settle(tokens_prompt=len(CALL.received) // 4, tokens_completion=0)
SETTLE_NOTHING = c.Settle(tokens_prompt=0, tokens_completion=0)
RELAY_HI = c.Relay(data=frame(HI), piece=HI + b"\n")


def test_an_answer_that_is_not_streamed() -> None:
    exchange = Exchange(ID)
    body = b'{"path":"/v1/chat/completions","request":' + CALL.received + b"}"
    facts = {**NAMES, "parameters": {"temperature": "0.5", "messages": 1}}
    job = Job(path=CHAT, body=CALL.received.replace(b', "', b',"').replace(b'"m"', b'"served"'), exchange=ID)
    transcript(
        exchange,
        (e.Asked(call=CALL), [c.Admit(call=CALL)]),
        (ADMITTED, [c.RecordRequest(facts=facts, body=body)]),
        (e.RequestRecorded(index=7), [c.Dispatch(job=job, stream=False)]),
    )
    response = {"response": msgspec.json.decode(RENAMED)}
    transcript(
        exchange,
        (e.Answered(body=ANSWER), [recorded(response, **RAN, outcome="ok", status=200, finish=["stop"], **COUNTED)]),
        (DURABLE, [SETTLE_COUNTED, c.Send(status=200, body=RENAMED)]),
    )
    assert exchange.state is State.DONE


def test_an_answer_that_is_streamed() -> None:
    whole = {**HI_ALONE, "usage": {"prompt_tokens": 3, "completion_tokens": 2}}
    whole["choices"] = [{**HI_ALONE["choices"][0], "finish_reason": "stop"}]
    ok = recorded({"response": whole}, **RAN, outcome="ok", status=200, finish=["stop"], **COUNTED)
    transcript(
        running(STREAM),
        (e.Streamed(payloads=[]), []),
        (e.Streamed(payloads=[HI]), [RELAY_HI]),
        (e.Streamed(payloads=[STOP, USAGE]), [c.Relay(data=frame(STOP), piece=STOP + b"\n")]),
        (e.Streamed(payloads=[USAGE]), []),
        (e.StreamEnded(), [ok]),
        (DURABLE, [SETTLE_COUNTED, c.Finish(data=frame(DONE))]),
    )


def test_a_streamed_request_is_dispatched_as_a_stream_that_counts() -> None:
    body = STREAM.received.replace(b'"m"', b'"served"')[:-1] + b',"stream_options":{"include_usage":true}}'
    dispatch = c.Dispatch(job=Job(path=CHAT, body=body, exchange=ID), stream=True)
    transcript(after(e.Asked(call=STREAM), ADMITTED), (e.RequestRecorded(index=7), [dispatch]))


@pytest.mark.parametrize(
    ("received", "request_content"),
    [
        (b'{"model": 1}', {"model": 1}),
        (b'{"model":', {"text": '{"model":'}),
        (b"", {"text": ""}),
        (b"\xff\xfe", {"base64": "//4="}),
        (b"[" * 50_000, {"text": "[" * 50_000}),
        (b'"\\ud800"', {"text": '"\\ud800"'}),
    ],
)
def test_a_request_that_cannot_be_read_is_recorded_as_it_came(received: bytes, request_content: Any) -> None:
    error = InvalidRequest("model: Expected `str`.", param="model")
    response = recorded({"request": request_content, **shown(error)}, outcome="refused", status=400, error=error.code)
    transcript(
        Exchange(ID),
        (e.Refused(error=error, operation="", received=received), [response]),
        (DURABLE, [SETTLE_NOTHING, c.Send(error=error)]),
    )


def test_a_request_refused_at_admission_names_no_model() -> None:
    error = ModelNotFound("There is no such model.", param="model")
    content = {"request": msgspec.json.decode(CALL.received), **shown(error)}
    facts = {"operation": "chat", "outcome": "refused", "status": 404, "error": "model_not_found"}
    transcript(
        Exchange(ID),
        (e.Asked(call=CALL), [c.Admit(call=CALL)]),
        (e.Refused(error=error, operation="chat", received=CALL.received), [recorded(content, **facts)]),
        (DURABLE, [SETTLE_NOTHING, c.Send(error=error)]),
    )


def test_a_fault_of_ours_before_the_request_is_recorded() -> None:
    error = RempartError("Something failed here.")
    asked = e.Asked(call=CALL)
    unrecorded = {"path": CHAT, "request": msgspec.json.decode(CALL.received)}
    for exchange, names, held in (
        (after(asked), {"operation": "chat"}, unrecorded),
        (after(asked, ADMITTED), NAMES, {}),
    ):
        facts = {**names, "outcome": "failed", "status": 500, "error": "internal_error"}
        transcript(
            exchange,
            (e.Failed(error=error), [recorded({**held, **shown(error)}, **facts)]),
            (DURABLE, [SETTLE_NOTHING, c.Send(error=error)]),
        )


@pytest.mark.parametrize(("call", "partial"), [(CALL, {}), (STREAM, {"response": NOTHING})])
def test_an_engine_that_fails_before_its_first_piece_is_not_charged_for(call: Call, partial: dict[str, Any]) -> None:
    facts = {**RAN, "outcome": "failed", "status": 503, "error": "engine_unavailable", **UNCHARGED}
    transcript(
        running(call),
        (e.Failed(error=DOWN), [recorded({**partial, **shown(DOWN)}, **facts)]),
        (DURABLE, [SETTLE_NOTHING, c.Send(error=DOWN)]),
    )


def test_an_engine_that_fails_after_its_first_piece() -> None:
    facts = {**RAN, "outcome": "failed", "status": 200, "error": "engine_unavailable", **GUESSED}
    transcript(
        running(STREAM),
        (e.Streamed(payloads=[HI]), [RELAY_HI]),
        (e.Failed(error=DOWN), [recorded({"response": HI_ALONE, **shown(DOWN)}, **facts)]),
        (DURABLE, [SETTLE_GUESSED, c.Finish(data=frame(error_body(DOWN)))]),
    )


def test_a_client_that_left_is_charged_and_what_it_got_recorded() -> None:
    facts = {**RAN, "outcome": "cancelled", "status": 499, "error": "client_gone"}
    transcript(
        running(STREAM),
        (e.Streamed(payloads=[HI]), [RELAY_HI]),
        (e.ClientLeft(), [c.CancelEngine(), recorded({"response": HI_ALONE}, **facts, **GUESSED)]),
        (DURABLE, [SETTLE_GUESSED, c.Send(status=499)]),
    )
    transcript(
        running(),
        (e.ClientLeft(), [c.CancelEngine(), recorded({}, **facts, **PROMPT_GUESSED)]),
        (DURABLE, [SETTLE_PROMPT, c.Send(status=499)]),
    )


def test_an_exchange_that_is_cut() -> None:
    stopping = ShuttingDown("The server is stopping.")
    facts = {**RAN, "outcome": "cut", "status": 503, "error": "shutting_down", **PROMPT_GUESSED}
    transcript(
        running(),
        (e.Cut(error=stopping), [c.CancelEngine(), recorded(shown(stopping), **facts)]),
        (DURABLE, [SETTLE_PROMPT, c.Send(error=stopping)]),
    )


def test_a_stream_that_is_cut_ends_with_the_error() -> None:
    facts = {**RAN, "outcome": "cut", "status": 200, "error": "engine_timeout", **GUESSED}
    transcript(
        running(STREAM),
        (e.Streamed(payloads=[HI]), [RELAY_HI]),
        (e.Cut(error=LATE), [c.CancelEngine(), recorded({"response": HI_ALONE, **shown(LATE)}, **facts)]),
        (DURABLE, [SETTLE_GUESSED, c.Finish(data=frame(error_body(LATE)))]),
    )


def test_a_request_that_the_ledger_cannot_record_is_not_dispatched() -> None:
    exchange = after(e.Asked(call=CALL), ADMITTED)
    transcript(exchange, (e.LedgerFailed(error=LEDGER), [SETTLE_NOTHING, c.Send(error=LEDGER)]))
    assert exchange.state is State.DONE


def test_a_piece_that_the_ledger_cannot_record_ends_the_stream() -> None:
    facts = {**RAN, "outcome": "failed", "status": 200, "error": "ledger_unavailable", **GUESSED}
    transcript(
        running(STREAM),
        (e.Streamed(payloads=[HI]), [RELAY_HI]),
        (e.LedgerFailed(error=LEDGER), [c.CancelEngine(), recorded({"response": HI_ALONE, **shown(LEDGER)}, **facts)]),
        (DURABLE, [SETTLE_GUESSED, c.Finish(data=frame(error_body(LEDGER)))]),
    )


def test_a_response_that_the_ledger_cannot_record_is_not_sent() -> None:
    exchange = running(CALL, e.Answered(body=ANSWER))
    transcript(exchange, (e.LedgerFailed(error=LEDGER), [SETTLE_COUNTED, c.Send(error=LEDGER)]))
    stream = running(STREAM, e.Streamed(payloads=[HI, USAGE]), e.StreamEnded())
    transcript(stream, (e.LedgerFailed(error=LEDGER), [SETTLE_COUNTED, c.Finish(data=frame(error_body(LEDGER)))]))


def test_a_nonsense_answer_is_an_engine_error() -> None:
    exchange = running()
    [record] = exchange.receive(e.Answered(body=b"<html>"))
    facts = {**RAN, "outcome": "failed", "status": 502, "error": "engine_error", **UNCHARGED}
    assert read(record) == recorded(shown(nonsense()), **facts)
    [settle, send] = exchange.receive(DURABLE)
    assert settle == SETTLE_NOTHING
    assert isinstance(send, c.Send)
    assert isinstance(send.error, EngineError)


@pytest.mark.parametrize("payload", [b"", b"{", b'{"choices":3}', b'{"error":"no"}', b'{"choices":[],"x":1e999}'])
def test_a_nonsense_chunk_breaks_the_stream_off_after_what_came_before(payload: bytes) -> None:
    exchange = running(STREAM)
    transcript(exchange, (e.Streamed(payloads=[HI, payload, HI]), [RELAY_HI]))
    error = exchange.broken
    assert isinstance(error, EngineError)
    facts = {**RAN, "outcome": "failed", "status": 200, "error": "engine_error", **GUESSED}
    transcript(
        exchange,
        (e.Failed(error=error), [recorded({"response": HI_ALONE, **shown(error)}, **facts)]),
        (DURABLE, [SETTLE_GUESSED, c.Finish(data=frame(error_body(error)))]),
    )


def test_a_stream_that_begins_with_nonsense_is_not_charged_for() -> None:
    exchange = running(STREAM)
    transcript(exchange, (e.Streamed(payloads=[b"<html>"]), []))
    assert exchange.broken is not None
    exchange.receive(e.Failed(error=exchange.broken))
    transcript(exchange, (DURABLE, [SETTLE_NOTHING, c.Send(error=exchange.broken)]))


# Another engine, and another model.

RETRYABLE = e.Admitted(served_name="served", digest="sha256:00", engine="embedded", retries=1)
OTHER = e.Admitted(served_name="own", digest="sha256:11", engine="other", model="n")
BUSY = EngineRefused("Too many requests.", status=429)
WRONG = EngineRefused("Wrong.", status=400)


def test_an_engine_that_fails_before_its_first_piece_is_replaced_and_both_are_recorded() -> None:
    exchange = after(e.Asked(call=STREAM), RETRYABLE, e.RequestRecorded(index=1))
    assert exchange.receive(e.Failed(error=DOWN)) == [c.Reroute(call=STREAM, error=DOWN)]
    [dispatch] = exchange.receive(OTHER)
    assert isinstance(dispatch, c.Dispatch)
    assert msgspec.json.decode(dispatch.job.body)["model"] == "own"
    [relay] = exchange.receive(e.Streamed(payloads=[HI]))
    assert isinstance(relay, c.Relay)
    assert b'"model":"n"' in relay.data
    [response] = exchange.receive(e.StreamEnded())
    assert isinstance(response, c.RecordResponse)
    told = {name: response.facts[name] for name in ("engine", "model", "model_digest", "attempts", "tried", "outcome")}
    assert told == {
        "engine": "other",
        "model": "n",
        "model_digest": "sha256:11",
        "attempts": 2,
        "tried": ["embedded"],
        "outcome": "ok",
    }


@pytest.mark.parametrize("error", [DOWN, LATE, nonsense(), BUSY])
def test_what_another_engine_may_do_better_is_handed_on(error: EngineError) -> None:
    exchange = after(e.Asked(call=CALL), RETRYABLE, e.RequestRecorded(index=1))
    assert exchange.receive(e.Failed(error=error)) == [c.Reroute(call=CALL, error=error)]


def test_an_answer_that_is_none_is_handed_on_too() -> None:
    exchange = after(e.Asked(call=CALL), RETRYABLE, e.RequestRecorded(index=1))
    [reroute] = exchange.receive(e.Answered(body=b"nonsense"))
    assert isinstance(reroute, c.Reroute)


@pytest.mark.parametrize("error", [WRONG, LEDGER, RempartError("Ours.")])
def test_what_no_engine_would_do_better_is_not(error: RempartError) -> None:
    exchange = after(e.Asked(call=CALL), RETRYABLE, e.RequestRecorded(index=1))
    [response] = exchange.receive(e.Failed(error=error))
    assert isinstance(response, c.RecordResponse)


def test_a_stream_that_has_begun_is_not_handed_on() -> None:
    exchange = after(e.Asked(call=STREAM), RETRYABLE, e.RequestRecorded(index=1), e.Streamed(payloads=[HI]))
    [response] = exchange.receive(e.Failed(error=DOWN))
    assert isinstance(response, c.RecordResponse)


def test_nor_is_one_that_may_not_be_handed_on_again() -> None:
    exchange = after(e.Asked(call=CALL), RETRYABLE, e.RequestRecorded(index=1), e.Failed(error=DOWN), OTHER)
    [response] = exchange.receive(e.Failed(error=LATE))
    assert isinstance(response, c.RecordResponse)
    assert (response.facts["error"], response.facts["engine"]) == ("engine_timeout", "other")


def test_when_no_other_engine_takes_it_the_client_gets_what_the_first_one_failed_with() -> None:
    exchange = after(e.Asked(call=CALL), RETRYABLE, e.RequestRecorded(index=1), e.Failed(error=DOWN))
    [response] = exchange.receive(e.Unrouted())
    assert isinstance(response, c.RecordResponse)
    assert (response.facts["engine"], response.facts["error"]) == ("embedded", "engine_unavailable")
    assert "tried" not in response.facts
    assert exchange.receive(DURABLE)[1] == c.Send(error=DOWN)


@pytest.mark.parametrize(
    ("event", "outcome"), [(e.ClientLeft(), "cancelled"), (e.Cut(error=ShuttingDown("Stopping.")), "cut")]
)
def test_who_leaves_the_queue_is_recorded_with_what_was_asked(event: e.Event, outcome: str) -> None:
    [response] = after(e.Asked(call=CALL)).receive(event)
    assert isinstance(response, c.RecordResponse)
    assert (response.facts["outcome"], "request" in response.facts, "model" in response.facts) == (
        outcome,
        False,
        False,
    )
    assert msgspec.json.decode(response.body)["request"] == msgspec.json.decode(CALL.received)


def test_the_answer_names_the_model_that_an_alias_stands_for() -> None:
    exchange = after(
        e.Asked(call=CALL), msgspec.structs.replace(ADMITTED, model="canonical"), e.RequestRecorded(index=1)
    )
    exchange.receive(e.Answered(body=ANSWER))
    send = exchange.receive(DURABLE)[1]
    assert isinstance(send, c.Send)
    assert msgspec.json.decode(send.body)["model"] == "canonical"
