"""`rempart.exchange.machine`: what holds of every exchange, whatever happens to it."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rempart import limits
from rempart.errors import EngineUnavailable, InvalidRequest, LedgerUnavailable, RempartError, ShuttingDown
from rempart.exchange import commands as c
from rempart.exchange import events as e
from rempart.exchange.machine import TRANSITIONS, Exchange, State
from rempart.wire.errors import error_body
from rempart.wire.requests import CHAT, Call, parse
from rempart.wire.sse import DONE, Decoder, frame

# Words that must never stand in clear, wherever a client or an engine may put them.
PROMPT, UNKNOWN_MODEL, SUBJECT, REASON = "sesame", "zoltan-9b", "ada", "because-of-bob"


def call(*, stream: bool, model: str = "m") -> Call:
    body = {
        "model": model,
        "messages": [{"role": PROMPT, "content": PROMPT, "name": SUBJECT}],
        "stream": stream,
        "user": SUBJECT,
        "stop": [PROMPT],
        "metadata": {SUBJECT: PROMPT},
        "tool_choice": PROMPT,
        "reasoning_effort": SUBJECT,
        "temperature": 0.25,
        "top_p": 1e-9,
        "seed": 2**60,
        "n": 2,
        PROMPT: 1.5,
    }
    return parse(CHAT, msgspec.json.encode(body))


def chunk(content: str, reason: str | None = None) -> bytes:
    return msgspec.json.encode(
        {"id": "1", "model": "s", "choices": [{"index": 0, "delta": {"content": content}, "finish_reason": reason}]}
    )


ERRORS = (
    RempartError("Failed."),
    EngineUnavailable("Down."),
    ShuttingDown("Stopping."),
    LedgerUnavailable("Full."),
    InvalidRequest("Wrong.", param="n"),
)
MAD_USAGE = b'{"choices":[],"usage":{"prompt_tokens":-3,"completion_tokens":1180591620717411303424}}'
PAYLOADS = (
    chunk(PROMPT),
    chunk(""),
    chunk("x", "stop"),
    chunk("x", REASON),
    b'{"model":"m","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":9}}',
    MAD_USAGE,
    b"{}",
    b'{"choices":1}',
    b'{"error":{}}',
)
ANSWERS = (
    b'{"model":"s","choices":[{"finish_reason":"stop"},{"finish_reason":"because-of-bob"},{}]}',
    b'{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":null}}',
    b"nonsense",
    b'{"error":"sesame"}',
)


def happenings(kind: type[e.Event], errors: Iterable[RempartError] = ERRORS) -> st.SearchStrategy[e.Event]:
    """Events of that kind, as a performer may report them."""
    error = st.sampled_from(tuple(errors))
    index = st.integers(min_value=0, max_value=2**53 - 1)
    strategies: dict[type[e.Event], st.SearchStrategy[e.Event]] = {
        e.Asked: st.builds(e.Asked, call=st.sampled_from([call(stream=False), call(stream=True)])),
        e.Refused: st.builds(
            e.Refused,
            error=error,
            operation=st.sampled_from(["", "chat"]),
            received=st.one_of(st.binary(), st.just(call(stream=False, model=UNKNOWN_MODEL).received)),
        ),
        e.Admitted: st.builds(
            e.Admitted,
            served_name=st.just("s"),
            digest=st.just("sha256:00"),
            engine=st.sampled_from(["embedded", "other"]),
            model=st.sampled_from(["", "m", "n"]),
            retries=st.integers(min_value=0, max_value=2),
        ),
        e.Unrouted: st.just(e.Unrouted()),
        e.RequestRecorded: st.builds(e.RequestRecorded, index=index),
        e.Answered: st.builds(e.Answered, body=st.sampled_from(ANSWERS)),
        e.Streamed: st.builds(e.Streamed, payloads=st.lists(st.sampled_from(PAYLOADS), max_size=3)),
        e.StreamEnded: st.just(e.StreamEnded()),
        e.Failed: st.builds(e.Failed, error=error),
        e.ClientLeft: st.just(e.ClientLeft()),
        e.Cut: st.builds(e.Cut, error=error),
        e.LedgerFailed: st.just(e.LedgerFailed(error=LedgerUnavailable("Full."))),
        e.ResponseRecorded: st.builds(e.ResponseRecorded, index=index),
    }
    return strategies[kind]


EXAMPLES: Mapping[type[e.Event], e.Event] = {
    e.Asked: e.Asked(call=call(stream=True)),
    e.Refused: e.Refused(error=ERRORS[0], operation="", received=b""),
    e.Admitted: e.Admitted(served_name="s", digest="", engine="embedded", retries=1),
    e.Unrouted: e.Unrouted(),
    e.RequestRecorded: e.RequestRecorded(index=1),
    e.Answered: e.Answered(body=ANSWERS[0]),
    e.Streamed: e.Streamed(payloads=[chunk("a")]),
    e.StreamEnded: e.StreamEnded(),
    e.Failed: e.Failed(error=ERRORS[1]),
    e.ClientLeft: e.ClientLeft(),
    e.Cut: e.Cut(error=ERRORS[0]),
    e.LedgerFailed: e.LedgerFailed(error=ERRORS[3]),
    e.ResponseRecorded: e.ResponseRecorded(index=2),
}
WAYS: Mapping[State, tuple[type[e.Event], ...]] = {
    State.NEW: (),
    State.ADMITTING: (e.Asked,),
    State.RECORDING_REQUEST: (e.Asked, e.Admitted),
    State.RUNNING: (e.Asked, e.Admitted, e.RequestRecorded),
    State.REROUTING: (e.Asked, e.Admitted, e.RequestRecorded, e.Failed),
    State.RECORDING_RESPONSE: (e.Asked, e.Admitted, e.RequestRecorded, e.StreamEnded),
    State.DONE: (e.Asked, e.Admitted, e.RequestRecorded, e.StreamEnded, e.ResponseRecorded),
}
PAIRS = list(itertools.product(State, EXAMPLES))


def at(state: State) -> Exchange:
    exchange = Exchange("ab" * 16)
    for kind in WAYS[state]:
        exchange.receive(EXAMPLES[kind])
    assert exchange.state is state
    return exchange


def test_the_table_knows_every_state_and_every_event() -> None:
    assert set(TRANSITIONS) == set(State)
    assert {kind for row in TRANSITIONS.values() for kind in row} == set(EXAMPLES) == set(e.Event.__args__)


@pytest.mark.parametrize(("state", "kind"), [pair for pair in PAIRS if pair[1] in TRANSITIONS[pair[0]]])
def test_what_the_table_names_leads_where_it_says(state: State, kind: type[e.Event]) -> None:
    exchange = at(state)
    exchange.receive(EXAMPLES[kind])
    assert exchange.state in TRANSITIONS[state][kind]


@pytest.mark.parametrize(("state", "kind"), [pair for pair in PAIRS if pair[1] not in TRANSITIONS[pair[0]]])
def test_what_the_table_does_not_name_cannot_happen(state: State, kind: type[e.Event]) -> None:
    exchange = at(state)
    with pytest.raises(RuntimeError, match=f"{kind.__name__} cannot happen .* {state.name}"):
        exchange.receive(EXAMPLES[kind])
    assert exchange.state is state


Walk = list[tuple[e.Event, list[c.Command]]]


@st.composite
def walks(draw: st.DrawFn) -> Walk:
    """A whole exchange: events that its state allows, and the commands that came of each."""
    exchange, walk, stream = Exchange("cd" * 16), Walk(), False
    while exchange.state is not State.DONE:
        kinds = [kind for kind in TRANSITIONS[exchange.state] if kind is not (e.Answered if stream else e.StreamEnded)]
        if exchange.state is State.RUNNING and (not stream or len(walk) > 12):
            kinds = [kind for kind in kinds if kind is not e.Streamed]
        kinds += [kind for kind in kinds if kind is e.Streamed] * 5
        if exchange.broken is not None and exchange.state is State.RUNNING:
            kinds = [e.Failed, e.ClientLeft, e.Cut, e.LedgerFailed]
        event = draw(happenings(draw(st.sampled_from(kinds))))
        if isinstance(event, e.Failed) and exchange.broken is not None:
            event = e.Failed(error=exchange.broken)
        if isinstance(event, e.Asked):
            stream = event.call.stream
        walk.append((event, exchange.receive(event)))
    return walk


def wanted(walk: Walk) -> list[c.Command]:
    return [command for _, commands in walk for command in commands]


def kinds_of(walk: Walk) -> list[type]:
    """Events and commands in the order in which they come about."""
    return [type(item) for event, commands in walk for item in (event, *commands)]


@given(walks())
def test_law_1_the_request_is_durable_before_it_is_dispatched(walk: Walk) -> None:
    order = kinds_of(walk)
    handed_on = max(order.count(e.Admitted) - 1, 0)
    assert order.count(e.RequestRecorded) <= 1
    assert order.count(c.Dispatch) == order.count(e.RequestRecorded) + handed_on
    if c.Dispatch in order:
        assert order.index(c.RecordRequest) < order.index(e.RequestRecorded) < order.index(c.Dispatch)


@given(walks())
def test_law_2_all_that_is_relayed_is_in_the_piece_that_is_written_first(walk: Walk) -> None:
    for command in wanted(walk):
        if isinstance(command, c.Relay):
            events = [msgspec.json.decode(payload) for payload in Decoder().feed(command.data)]
            lines = [msgspec.json.decode(line) for line in command.piece.splitlines()]
            assert len(events) == len(lines) > 0
            for event, line in zip(events, lines, strict=True):
                if isinstance(line, str):
                    assert event["choices"][0]["delta"] == {"content": line}
                else:
                    assert event == {**line, **({"model": "m"} if "model" in line else {})}


@given(walks())
def test_law_3_nothing_ends_an_answer_before_the_ledger_has_spoken(walk: Walk) -> None:
    *earlier, (last, commands) = walk
    assert isinstance(last, e.ResponseRecorded | e.LedgerFailed)
    assert not any(isinstance(command, c.Send | c.Finish | c.Settle) for command in wanted(earlier))
    assert [type(command) for command in commands] in ([c.Settle, c.Send], [c.Settle, c.Finish])


@given(walks())
def test_law_4_each_ends_in_at_most_one_response_and_is_settled_once(walk: Walk) -> None:
    order = kinds_of(walk)
    assert order.count(c.Settle) == 1
    assert order.count(c.Send) + order.count(c.Finish) == 1
    unrecorded = isinstance(walk[-1][0], e.LedgerFailed) and c.RecordResponse not in order
    assert order.count(c.RecordResponse) == (0 if unrecorded else 1)
    assert unrecorded <= (c.Dispatch not in order)


@given(walks())
def test_law_5_when_the_ledger_fails_the_client_gets_an_error_and_no_answer(walk: Walk) -> None:
    failures = [event for event, _ in walk if isinstance(event, e.LedgerFailed)]
    if failures and not any(isinstance(event, e.ClientLeft) for event, _ in walk):
        last = walk[-1][1][-1]
        if isinstance(last, c.Send):
            assert (last.error, last.body) == (failures[-1].error, b"")
        else:
            assert last == c.Finish(data=frame(error_body(failures[-1].error))) != c.Finish(data=frame(DONE))


@given(walks())
def test_law_6_it_is_handed_on_only_before_anything_was_relayed_and_each_engine_is_recorded(walk: Walk) -> None:
    order = kinds_of(walk)
    for number, item in enumerate(order):
        if item is c.Reroute:
            assert c.Relay not in order[:number]
    engines = [event.engine for event, _ in walk if isinstance(event, e.Admitted)]
    for command in wanted(walk):
        if isinstance(command, c.RecordResponse) and "request" in command.facts:
            tried = command.facts.get("tried", [])
            assert isinstance(tried, list)
            assert [*tried, command.facts["engine"]] == engines
            assert command.facts.get("attempts", 1) == len(engines)


@given(walks())
def test_only_the_last_command_of_a_list_leads_to_an_event(walk: Walk) -> None:
    for _, commands in walk:
        for command in commands[:-1]:
            assert isinstance(command, c.CancelEngine | c.Settle)


@given(walks())
def test_what_is_settled_is_what_is_recorded(walk: Walk) -> None:
    [settle] = [command for command in wanted(walk) if isinstance(command, c.Settle)]
    assert 0 <= settle.tokens_prompt < 2**53
    assert 0 <= settle.tokens_completion < 2**53
    for command in wanted(walk):
        if isinstance(command, c.RecordResponse):
            recorded = (command.facts.get("tokens_prompt", 0), command.facts.get("tokens_completion", 0))
            assert recorded == (settle.tokens_prompt, settle.tokens_completion)


def test_counts_that_no_engine_can_mean_are_bounded() -> None:
    exchange = at(State.RUNNING)
    exchange.receive(e.Streamed(payloads=[chunk("a"), MAD_USAGE]))
    exchange.receive(e.StreamEnded())
    assert exchange.receive(e.ResponseRecorded(index=2))[0] == c.Settle(
        tokens_prompt=0, tokens_completion=limits.tokens_per_exchange_max
    )


def is_scalar(value: object) -> bool:
    return isinstance(value, str | bool) or (isinstance(value, int) and abs(value) < 2**53)


@given(walks())
def test_facts_hold_only_scalars_and_nobodys_words(walk: Walk) -> None:
    for command in wanted(walk):
        if isinstance(command, c.RecordRequest | c.RecordResponse):
            for value in command.facts.values():
                members = (
                    value if isinstance(value, list) else value.values() if isinstance(value, Mapping) else [value]
                )
                assert all(is_scalar(member) for member in members)
            clear = msgspec.json.encode(command.facts).decode()
            assert not [word for word in (PROMPT, UNKNOWN_MODEL, SUBJECT, REASON) if word in clear]


@given(walks())
def test_bodies_are_json_objects(walk: Walk) -> None:
    for command in wanted(walk):
        if isinstance(command, c.RecordRequest | c.RecordResponse):
            assert isinstance(msgspec.json.decode(command.body), dict)
