"""`rempart.wire.assemble`: a stream is relayed as it came and put together again as if it had not been one."""

from __future__ import annotations

import json
from typing import Any

import pytest
from openai.types import Completion
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from rempart.wire.answers import Usage
from rempart.wire.assemble import Assembler, from_pieces
from rempart.wire.sse import Decoder, frame

USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}


def packed(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def chunk(delta: dict[str, Any], finish: str | None = None, *, index: int = 0, **more: Any) -> bytes:
    choice = {"index": index, "delta": delta, "finish_reason": finish, **more}
    return packed({**HEAD, "choices": [choice]})


def text(value: str, finish: str | None = None, **more: Any) -> bytes:
    choice = {"index": 0, "text": value, "finish_reason": finish, "logprobs": None, **more}
    return packed({"id": "t1", "object": "text_completion", "created": 1, "model": "m", "choices": [choice]})


HEAD: dict[str, Any] = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
ROLE = chunk({"role": "assistant", "content": ""})
COUNTED = packed({**HEAD, "choices": [], "usage": USAGE})
PLAIN = [ROLE, chunk({"content": "hel"}), chunk({"content": "lo"}), chunk({}, "stop"), COUNTED]


def assembled(payloads: list[bytes], operation: str = "chat") -> dict[str, Any]:
    """The whole answer, once it is sure that the ledger's pieces give the same."""
    assembler = Assembler(operation, "m", wants_usage=True)
    pieces = [assembler.feed([payload]).piece for payload in payloads]
    whole = assembler.whole()
    assert from_pieces(operation, "m", pieces) == whole
    found: dict[str, Any] = json.loads(whole)
    return found


def message(payloads: list[bytes]) -> dict[str, Any]:
    """The only choice's message, of the official type."""
    whole = ChatCompletion.model_validate(assembled(payloads))
    return whole.choices[0].message.model_dump(exclude_unset=True)


def relayed(payloads: list[bytes], model: str = "m", *, wants_usage: bool = True) -> list[bytes]:
    return Decoder().feed(Assembler("chat", model, wants_usage).feed(payloads).out)


def test_a_stream_becomes_the_answer_that_it_would_have_been() -> None:
    assert assembled(PLAIN) == {
        "id": "c1",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "hello"}}],
        "usage": USAGE,
    }


def test_what_is_relayed_is_what_came() -> None:
    assembler = Assembler("chat", "m", wants_usage=True)
    odd = b'{ "model":"m", "choices":[{"delta":{"content":"\\u00e9\\/"},"x":1.0}] }'
    assert assembler.feed([ROLE, odd]).out == frame(ROLE) + frame(odd)


def test_relayed_chunks_are_of_the_official_type() -> None:
    chunks = [ChatCompletionChunk.model_validate(json.loads(payload)) for payload in relayed(PLAIN, "public")]
    assert {chunk.model for chunk in chunks} == {"public"}
    assert "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices) == "hello"


def test_a_chunk_of_another_name_is_renamed_and_nothing_else() -> None:
    payloads = [payload.replace(b'"m"', b'"served"') for payload in PLAIN]
    assert relayed(payloads) == PLAIN
    assert relayed([b'{"choices":[]}'], "other") == [b'{"choices":[]}']
    assert assembled(payloads)["model"] == "m"


def test_a_chunk_of_several_lines_stays_one_line_in_the_ledger_and_one_event() -> None:
    fed = Assembler("chat", "m", wants_usage=True).feed([b'{\n"choices" :\r\n[]}'])
    assert (fed.piece, Decoder().feed(fed.out)) == (b'{"choices":[]}\n', [b'{ "choices" :  []}'])


def test_plain_text_is_one_short_line_in_the_ledger() -> None:
    fed = Assembler("chat", "m", wants_usage=True).feed([ROLE, chunk({"content": 'a"\n'}), chunk({"content": ""})])
    assert fed.piece == ROLE + b'\n"a\\"\\n"\n""\n'


def test_usage_that_the_client_did_not_ask_for_is_counted_but_not_relayed() -> None:
    assembler = Assembler("chat", "m", wants_usage=False)
    assert Decoder().feed(assembler.feed(PLAIN).out) == PLAIN[:-1]
    assert assembler.feed([COUNTED]).out == b""
    assert assembler.usage == Usage(prompt_tokens=3, completion_tokens=2)


def test_usage_that_the_client_asked_for_is_relayed() -> None:
    assert relayed(PLAIN) == PLAIN


def test_usage_beside_choices_is_always_relayed() -> None:
    payload = packed({**HEAD, "choices": [{"index": 0, "delta": {"content": "a"}}], "usage": USAGE})
    assert relayed([payload], wants_usage=False) == [payload]


def test_usage_that_the_client_did_not_ask_for_is_in_the_whole_but_in_no_piece() -> None:
    assembler = Assembler("chat", "m", wants_usage=False)
    piece = assembler.feed(PLAIN).piece
    whole = json.loads(assembler.whole())
    assert whole.pop("usage") == USAGE
    assert json.loads(from_pieces("chat", "m", [piece])) == whole


def test_usage_kept_from_the_client_does_not_cost_the_pieces_the_streams_head() -> None:
    assembler = Assembler("chat", "m", wants_usage=False)
    pieces = [assembler.feed([payload]).piece for payload in (COUNTED, chunk({"content": "a"}), chunk({}, "stop"))]
    assert json.loads(from_pieces("chat", "m", pieces[:2]))["id"] == "c1"


def call(index: int, call_id: str | None = None, name: str | None = None, arguments: str = "") -> dict[str, Any]:
    if call_id is None:
        return {"index": index, "function": {"arguments": arguments}}
    return {"index": index, "id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def test_tool_calls_are_merged_by_their_index() -> None:
    stream = [
        chunk({"role": "assistant", "content": None, "tool_calls": [call(0, "a", "f")]}),
        chunk({"tool_calls": [call(0, arguments='{"x"')]}),
        chunk({"tool_calls": [call(1, "b", "g")]}),
        chunk({"tool_calls": [call(1, arguments="{}"), call(0, arguments=":1}")]}),
        chunk({}, "tool_calls"),
    ]
    assert message(stream)["tool_calls"] == [
        {"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"x":1}'}},
        {"id": "b", "type": "function", "function": {"name": "g", "arguments": "{}"}},
    ]


def test_tool_calls_that_repeat_their_name_are_not_doubled() -> None:
    stream = [
        chunk({"role": "assistant", "tool_calls": [call(0, "a", "f", "{")]}),
        chunk({"tool_calls": [call(0, "a", "f", "}")]}),
        chunk({}, "tool_calls"),
    ]
    [found] = message(stream)["tool_calls"]
    assert found == {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}


@pytest.mark.parametrize("earlier", [[], [call(0, "a", "f", "{}")]])
def test_parts_of_one_tool_call_in_one_chunk_are_merged(earlier: list[dict[str, Any]]) -> None:
    stream = [
        chunk({"role": "assistant", **({"tool_calls": earlier} if earlier else {})}),
        chunk({"tool_calls": [call(1, "b", "g"), call(1, arguments="{}")]}),
        chunk({}, "tool_calls"),
    ]
    assert message(stream)["tool_calls"][len(earlier) :] == [
        {"id": "b", "type": "function", "function": {"name": "g", "arguments": "{}"}}
    ]


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning", "refusal", "audio_text"])
def test_other_texts_of_a_message_are_joined(field: str) -> None:
    stream = [ROLE, chunk({field: "because "}), chunk({field: "so"}), chunk({"content": "yes"}), chunk({}, "stop")]
    found = message(stream)
    assert (found[field], found["content"]) == ("because so", "yes")


def test_a_role_in_every_chunk_is_not_doubled() -> None:
    stream = [chunk({"role": "assistant", "content": part}) for part in ("a", "b")]
    assert message([*stream, chunk({}, "stop")]) == {"role": "assistant", "content": "ab"}


def test_log_probabilities_are_joined() -> None:
    def said(token: str) -> bytes:
        prob = {"token": token, "logprob": -0.5, "bytes": None, "top_logprobs": []}
        return chunk({"content": token}, logprobs={"content": [prob], "refusal": None})

    whole = ChatCompletion.model_validate(assembled([ROLE, said("a"), said("b"), chunk({}, "stop")]))
    probs = whole.choices[0].logprobs
    assert probs is not None
    assert [prob.token for prob in probs.content or ()] == ["a", "b"]
    assert whole.choices[0].message.content == "ab"


def test_several_choices_are_kept_apart_and_in_order() -> None:
    stream = [chunk({"role": "assistant"}, index=index) for index in (1, 0)]
    stream += [chunk({"content": part}, index=index) for part, index in (("a", 0), ("x", 1), ("b", 0), ("y", 1))]
    stream += [chunk({}, "length", index=1), chunk({}, "stop", index=0)]
    whole = ChatCompletion.model_validate(assembled(stream))
    assert [(c.index, c.message.content, c.finish_reason) for c in whole.choices] == [
        (0, "ab", "stop"),
        (1, "xy", "length"),
    ]


def test_a_completion_is_assembled_as_text() -> None:
    probs = {"tokens": ["c"], "token_logprobs": [-1.0], "top_logprobs": [], "text_offset": [2]}
    found = assembled([text("a"), text("b"), text("c", logprobs=probs), text("", "stop")], "completion")
    whole = Completion.model_validate(found)
    assert (whole.object, whole.choices[0].text, whole.choices[0].finish_reason) == ("text_completion", "abc", "stop")
    assert found["choices"][0]["logprobs"] == probs


@pytest.mark.parametrize("at", [0, 1, 2])
def test_fields_that_nobody_knows_are_merged_wherever_they_stand(at: int) -> None:
    stream = PLAIN[:3]
    payload = json.loads(stream[at])
    payload["timings"] = {"ms": 1.5}
    payload["choices"][0]["token_ids"] = [7, 8]
    found = assembled([*stream[:at], packed(payload), *stream[at + 1 :], chunk({}, "stop")])
    assert found["timings"] == {"ms": 1.5}
    assert found["choices"][0]["token_ids"] == [7, 8]


def test_what_was_said_is_not_unsaid_by_null() -> None:
    stream = [ROLE, chunk({"content": "a"}), chunk({"content": None, "role": None}), chunk({}, "stop"), chunk({}, None)]
    found = assembled([*stream, packed({**HEAD, "created": None})])
    assert (found["created"], found["choices"][0]["finish_reason"]) == (1, "stop")
    assert found["choices"][0]["message"] == {"role": "assistant", "content": "a"}


def test_finish_reasons_stand_in_order_of_the_choices() -> None:
    assembler = Assembler("chat", "m", wants_usage=True)
    assert assembler.finish == ()
    assembler.feed([chunk({}, "length", index=2), chunk({"content": "a"}, index=0), chunk({}, "stop", index=1)])
    assert assembler.finish == ("", "stop", "length")


def test_a_stream_cut_off_gives_what_there_was() -> None:
    assembler = Assembler("chat", "m", wants_usage=True)
    assert json.loads(assembler.whole()) == {"object": "chat.completion", "model": "m", "choices": []}
    assembler.feed(PLAIN[:2])
    assert json.loads(assembler.whole())["choices"][0]["message"]["content"] == "hel"
    assembler.feed(PLAIN[2:])
    assert json.loads(assembler.whole()) == assembled(PLAIN)


@pytest.mark.parametrize(
    ("stream", "count"),
    [
        ([chunk({"role": "assistant"}), chunk({}, "stop")], 0),
        ([chunk({"role": "assistant"}), chunk({"content": "a"}), chunk({"content": "b"}), chunk({}, "stop")], 2),
        ([chunk({"role": "assistant"}), chunk({"content": "a"}, "length")], 1),
        ([chunk({"role": "assistant"}), *[chunk({"content": "a"}, index=i) for i in (0, 1)]], 2),
        ([chunk({"role": "assistant"}), *[chunk({"reasoning_content": "a"})] * 3], 3),
        ([chunk({"role": "assistant"}), *[chunk({"tool_calls": [call(0, arguments="{")]})] * 2], 2),
        ([text("a"), text("b"), text("", "stop")], 2),
    ],
)
def test_chunks_with_text_are_counted(stream: list[bytes], count: int) -> None:
    assembler = Assembler("chat", "m", wants_usage=True)
    assembler.feed(stream)
    assert assembler.counted == count
