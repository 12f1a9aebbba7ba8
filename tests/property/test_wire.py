"""`rempart.wire`: what holds of all bytes, all JSON, and all ways to split a stream."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from rempart.errors import EngineError, InvalidRequest
from rempart.exchange import commands as c
from rempart.exchange import events as e
from rempart.exchange.machine import Exchange
from rempart.wire.answers import parse_answer, renamed
from rempart.wire.assemble import Assembler, from_pieces
from rempart.wire.errors import error_body
from rempart.wire.requests import OPERATIONS, OWNED, engine_body, parse
from rempart.wire.sse import Decoder, frame

PATHS = st.sampled_from(sorted(OPERATIONS))
KINDS = st.sampled_from(sorted(OPERATIONS.values()))

# JSON texts that a generator of values would not write.
ODD = ("NaN", "-0", "1e999", "1" + "0" * 30, "1" + "0" * 5_000, r'"\ud800"', r'"\ud83d\ude00"', "01", "[" * 2_000)
NAMES = sorted(
    {"model", "messages", "prompt", "input", "stream", "stream_options", "n", "max_tokens", "temperature", "user"}
    | {"tools", "choices", "data", "usage", "error", "index", "delta", "text", "content", "role", "finish_reason"}
    | {"prompt_tokens", "tool_calls", "logprobs", "include_usage", "id", "x"}
    | OWNED
)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    TEXTS,
).map(json.dumps)


def listed(parts: list[str]) -> str:
    return "[" + ",".join(parts) + "]"


def membered(parts: list[tuple[str, str]]) -> str:
    return "{" + ",".join(f"{json.dumps(name)}: {value}" for name, value in parts) + "}"


def objects(values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """JSON objects, a name sometimes twice."""
    return st.lists(st.tuples(st.sampled_from(NAMES) | TEXTS, values), max_size=6).map(membered)


VALUES = st.recursive(
    LEAVES | st.sampled_from(ODD), lambda inner: st.lists(inner, max_size=3).map(listed) | objects(inner), max_leaves=12
)
GOOD = {
    "model": '"m"',
    "messages": '[{"role":"user","content":"hi"}]',
    "prompt": '"hi"',
    "input": '"hi"',
    "choices": '[{"index":0,"delta":{"content":"hi"},"finish_reason":"stop"}]',
    "data": "[]",
}


def mostly_good(change: dict[str, str]) -> bytes:
    return membered(list({**GOOD, **change}.items())).encode()


BODIES = st.one_of(
    st.binary(),
    objects(VALUES).map(str.encode),
    st.dictionaries(st.sampled_from(NAMES) | TEXTS, VALUES, max_size=3).map(mostly_good),
)


CUTS = st.lists(st.integers(min_value=0, max_value=120), max_size=20)


def parts_of(data: Any, cuts: list[int]) -> list[Any]:
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


def read(body: bytes) -> Any:
    """JSON whose numbers stay as they are written."""
    return json.loads(body, parse_float=str, parse_int=str)


@given(PATHS, BODIES)
def test_a_request_is_understood_or_refused(path: str, body: bytes) -> None:
    try:
        call = parse(path, body)
    except InvalidRequest as error:
        json.loads(error_body(error))
        return
    sent = read(engine_body(call, "served"))
    assert sent["model"] == "served"
    assert not OWNED & set(sent)
    assert all(isinstance(value, str | bool | int) for value in call.parameters.values())


@given(PATHS, BODIES)
def test_what_is_not_the_gateways_reaches_the_engine_unchanged(path: str, body: bytes) -> None:
    try:
        call = parse(path, body)
    except InvalidRequest:
        return
    received, sent = read(body), read(engine_body(call, "served"))
    for name in set(received) - OWNED - {"model", "stream_options"}:
        assert sent[name] == received[name]


@given(KINDS, BODIES)
def test_an_answer_is_understood_or_an_engine_error(operation: str, body: bytes) -> None:
    try:
        parse_answer(operation, body)
    except EngineError:
        return
    assert read(renamed(body, "other"))["model"] == "other"


@given(KINDS, st.lists(BODIES, max_size=4), st.booleans())
@example("chat", [b'{"x":1e999}'], True)
@example("chat", [b'{"model":"other","x":{"a":"\xff"}}'], True)
def test_a_chunk_is_taken_or_breaks_the_stream_off(operation: str, payloads: list[bytes], wants_usage: bool) -> None:
    at_once, one_by_one = (Assembler(operation, "m", wants_usage) for _ in range(2))
    fed, out = at_once.feed(payloads), b""
    for payload in payloads:
        one = one_by_one.feed([payload])
        out += one.out
        if one.broken:
            break
    assert fed.out == out
    assert str(fed.broken) == str(one.broken if payloads else None)
    assert at_once.whole() == one_by_one.whole()
    assert len(at_once.finish) == len(read(at_once.whole())["choices"])


@given(st.binary(), CUTS)
def test_any_bytes_may_be_an_event_stream(stream: bytes, cuts: list[int]) -> None:
    whole, decoder = Decoder(), Decoder()
    parts = [payload for part in parts_of(stream, cuts) for payload in decoder.feed(part)]
    assert parts == whole.feed(stream)


@given(st.booleans(), BODIES)
def test_whatever_an_engine_answers_the_exchange_goes_on(stream: bool, body: bytes) -> None:
    received = membered(list({**GOOD, "stream": json.dumps(stream)}.items())).encode()
    exchange = Exchange("ab" * 16)
    exchange.receive(e.Asked(call=parse("/v1/chat/completions", received)))
    exchange.receive(e.Admitted(served_name="s", digest="", engine="embedded"))
    exchange.receive(e.RequestRecorded(index=1))
    commands = exchange.receive(e.Streamed(payloads=[body]) if stream else e.Answered(body=body))
    if exchange.broken is not None:
        assert commands == []
        commands = exchange.receive(e.Failed(error=exchange.broken))
    elif stream:
        commands = exchange.receive(e.StreamEnded())
    [record] = commands
    assert isinstance(record, c.RecordResponse)
    assert record.facts["outcome"] in ("ok", "failed")
    assert read(record.body).keys() & {"response", "error"}


EOL = st.sampled_from([b"\n", b"\r", b"\r\n"])
LINES = st.one_of(
    st.sampled_from([b"", b"", b"data", b"data:", b"data: ", b": note", b"event: e", b"id", b"\xef\xbb\xbfdata: x"]),
    TEXTS.map(lambda text: b"data: " + text.encode()),
    TEXTS.map(lambda text: text.encode()),
)
STREAMS = st.builds(
    lambda mark, lines: mark + b"".join(line + eol for line, eol in lines),
    st.sampled_from([b"", b"\xef\xbb\xbf"]),
    st.lists(st.tuples(LINES, EOL), max_size=12),
)


def by_the_standard(stream: bytes) -> list[bytes]:
    """WHATWG HTML section 9.2.6, said naively."""
    text = stream.decode().removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    payloads: list[bytes] = []
    data: list[str] = []
    for line in text.split("\n")[:-1]:
        field, _, value = line.partition(":")
        if field == "data":
            data.append(value.removeprefix(" "))
        if not line and data:
            payloads.append("\n".join(data).encode())
        if not line:
            data = []
    return payloads


@given(STREAMS, CUTS)
def test_any_split_of_an_event_stream_gives_what_the_standard_gives(stream: bytes, cuts: list[int]) -> None:
    decoder = Decoder()
    assert [payload for part in parts_of(stream, cuts) for payload in decoder.feed(part)] == by_the_standard(stream)


@given(STREAMS)
def test_an_event_stream_may_come_byte_by_byte(stream: bytes) -> None:
    decoder = Decoder()
    assert [payload for byte in stream for payload in decoder.feed(bytes([byte]))] == by_the_standard(stream)


@given(st.lists(st.dictionaries(TEXTS, TEXTS, max_size=3), max_size=5), st.sampled_from([None, 1]), CUTS)
def test_frames_are_read_back(values: list[dict[str, str]], indent: int | None, cuts: list[int]) -> None:
    decoder = Decoder()
    stream = b"".join(frame(json.dumps(value, indent=indent, ensure_ascii=False).encode()) for value in values)
    payloads = [payload for part in parts_of(stream, cuts) for payload in decoder.feed(part)]
    assert [json.loads(payload) for payload in payloads] == values


CALLS = st.fixed_dictionaries(
    {"index": st.integers(min_value=0, max_value=2)},
    optional={
        "id": st.sampled_from(["a", "b"]),
        "function": st.fixed_dictionaries({}, optional={"name": st.just("f"), "arguments": TEXTS}),
    },
)
DELTAS = st.fixed_dictionaries(
    {},
    optional={
        "role": st.just("assistant"),
        "content": st.none() | TEXTS,
        "reasoning_content": TEXTS,
        "tool_calls": st.lists(CALLS, min_size=1, max_size=2, unique_by=lambda call: call["index"]),
    },
)
CONTENT = TEXTS.map(lambda text: {"content": text})
PROBS = st.just({"content": [{"token": "a", "logprob": -0.5}]})


def choices(body: dict[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[Any]:
    optional = {"finish_reason": st.sampled_from([None, "stop", "length"]), "logprobs": st.none() | PROBS}
    return st.fixed_dictionaries({"index": st.sampled_from([0, 0, 0, 1]), **body}, optional=optional)


def chunks(body: dict[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[bytes]:
    usage = st.none() | st.just({"prompt_tokens": 1, "completion_tokens": 2})
    return st.fixed_dictionaries(
        {"id": st.just("c1"), "model": st.sampled_from(["m", "served"])},
        optional={"choices": st.lists(choices(body), max_size=2), "usage": usage, "created": st.just(1)},
    ).map(lambda chunk: json.dumps(chunk).encode())


SPEECH = st.one_of(
    st.tuples(st.just("chat"), st.lists(chunks({"delta": DELTAS | CONTENT}), max_size=10)),
    st.tuples(st.just("completion"), st.lists(chunks({"text": TEXTS}), max_size=10)),
)


@given(SPEECH, CUTS, st.booleans())
def test_any_split_into_batches_is_put_together_alike(
    speech: tuple[str, list[bytes]], cuts: list[int], wants_usage: bool
) -> None:
    operation, payloads = speech
    at_once, by_parts = (Assembler(operation, "m", wants_usage) for _ in range(2))
    fed = at_once.feed(payloads)
    parts = []
    for part in parts_of(payloads, cuts):
        parts.append(by_parts.feed(part))
        by_parts.whole()  # looking changes nothing
    assert by_parts.whole() == at_once.whole()
    assert b"".join(part.out for part in parts) == fed.out
    assert b"".join(part.piece for part in parts) == fed.piece
    assert (by_parts.usage, by_parts.counted, by_parts.finish) == (at_once.usage, at_once.counted, at_once.finish)


@given(SPEECH, CUTS, st.booleans())
def test_all_pieces_give_the_whole_but_for_usage_kept_from_the_client(
    speech: tuple[str, list[bytes]], cuts: list[int], wants_usage: bool
) -> None:
    operation, payloads = speech[0], [b'{"id":"c1","choices":[]}', *speech[1]]
    assembler, shown = Assembler(operation, "m", wants_usage), Assembler(operation, "m", wants_usage=True)
    pieces = [assembler.feed(part).piece for part in parts_of(payloads, cuts)]
    for chunk in map(json.loads, payloads):
        if wants_usage or chunk.get("choices") or chunk.get("usage") is None:
            shown.feed([json.dumps(chunk).encode()])
    assert from_pieces(operation, "m", pieces) == shown.whole()


@given(SPEECH)
def test_no_text_is_lost_or_doubled(speech: tuple[str, list[bytes]]) -> None:
    operation, payloads = speech
    assembler = Assembler(operation, "m", wants_usage=True)
    assembler.feed(payloads)
    first = next((choice for choice in json.loads(assembler.whole())["choices"] if choice["index"] == 0), {})
    said = [choice for chunk in map(json.loads, payloads) for choice in chunk.get("choices", [])]
    for name in ("text",) if operation == "completion" else ("content", "reasoning_content"):
        texts = [choice.get("delta", choice).get(name) or "" for choice in said if choice["index"] == 0]
        assert (first.get("message", first).get(name) or "") == "".join(texts)
