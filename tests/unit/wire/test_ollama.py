"""`rempart.wire.ollama`: OpenAI's terms in Ollama's, and back; what cannot be said is refused by name."""

from __future__ import annotations

import base64
import struct
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rempart.errors import EngineError, EngineRefused
from rempart.wire.answers import parse_answer
from rempart.wire.assemble import Assembler
from rempart.wire.job import Job
from rempart.wire.ollama import Request, Translation, read_line, read_tags, translate

CHAT, COMPLETION, EMBEDDINGS = "/v1/chat/completions", "/v1/completions", "/v1/embeddings"
ASKED = [{"role": "user", "content": "hello"}]


def sent(path: str, **body: Any) -> tuple[Request, dict[str, Any]]:
    request = translate(Job(path=path, body=msgspec.json.encode({"model": "m", **body}), exchange="e"))
    return request, msgspec.json.decode(request.body)


def test_parameters_become_options() -> None:
    request, body = sent(
        CHAT, messages=ASKED, temperature=0.5, top_p=0.9, seed=7, stop="x", max_tokens=5, max_completion_tokens=9
    )
    assert request.path == "/api/chat"
    assert body["options"] == {"temperature": 0.5, "top_p": 0.9, "seed": 7, "stop": ["x"], "num_predict": 9}
    assert body["stream"] is False


def test_a_stream_is_asked_for_as_one_and_a_whole_answer_as_none() -> None:
    request, body = sent(CHAT, messages=ASKED, stream=True, stream_options={"include_usage": True})
    assert (request.stream, request.wants_usage, body["stream"]) == (True, True, True)


def test_a_completion_goes_to_the_model_as_it_is() -> None:
    request, body = sent(COMPLETION, prompt="Once")
    assert (request.path, body["prompt"], body["raw"]) == ("/api/generate", "Once", True)
    _, body = sent(COMPLETION, prompt=["Once"], suffix="end")
    assert (body["prompt"], body["suffix"], "raw" in body) == ("Once", "end", False)


def test_messages_with_tools_and_images() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Lyon"}'}}
    parts = [
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
    ]
    messages = [
        {"role": "developer", "content": "Be short."},
        {"role": "user", "content": parts},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "rain"},
    ]
    _, body = sent(CHAT, messages=messages, tools=[{"type": "function"}], tool_choice="auto")
    assert body["messages"] == [
        {"role": "system", "content": "Be short."},
        {"role": "user", "content": "What is this?", "images": ["AAAA"]},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"function": {"name": "weather", "arguments": {"city": "Lyon"}}}],
        },
        {"role": "tool", "content": "rain", "tool_name": "weather"},
    ]
    assert body["tools"] == [{"type": "function"}]
    assert "tools" not in sent(CHAT, messages=ASKED, tools=[{}], tool_choice="none")[1]


@pytest.mark.parametrize(
    ("format_", "told"),
    [
        ({"type": "text"}, None),
        ({"type": "json_object"}, "json"),
        ({"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}}, {"type": "object"}),
    ],
)
def test_forms_of_answers(format_: dict[str, Any], told: Any) -> None:
    assert sent(CHAT, messages=ASKED, response_format=format_)[1].get("format") == told


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        (CHAT, {"messages": ASKED, "n": 2}, "n"),
        (CHAT, {"messages": ASKED, "logprobs": True}, "logprobs"),
        (CHAT, {"messages": ASKED, "logit_bias": {"1": 5}}, "logit_bias"),
        (CHAT, {"messages": ASKED, "tools": [{}], "tool_choice": "required"}, "tool_choice"),
        (CHAT, {"messages": ASKED, "response_format": {"type": "grammar"}}, "response_format"),
        (CHAT, {"messages": "wrong"}, "messages"),
        (
            CHAT,
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://x/y"}}]}]},
            "image_url",
        ),
        (CHAT, {"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]}, "content"),
        (CHAT, {"messages": [{"role": "assistant", "tool_calls": [{"function": {"arguments": "{"}}]}]}, "messages"),
        (COMPLETION, {"prompt": ["a", "b"]}, "prompt"),
        (COMPLETION, {"prompt": [1, 2]}, "prompt"),
        (EMBEDDINGS, {"input": [1, 2]}, "input"),
        (EMBEDDINGS, {"input": "a", "encoding_format": "hex"}, "encoding_format"),
    ],
)
def test_what_ollama_has_no_word_for_is_refused_by_name(path: str, body: dict[str, Any], param: str) -> None:
    with pytest.raises(EngineRefused) as refused:
        sent(path, **body)
    assert (refused.value.http_status, refused.value.param) == (400, param)


def test_a_text_to_embed_is_never_cut() -> None:
    request, body = sent(EMBEDDINGS, input=["a", "b"], dimensions=2)
    assert body == {"model": "m", "input": ["a", "b"], "truncate": False, "dimensions": 2}
    told = msgspec.json.decode(Translation(request, "e").whole(b'{"embeddings":[[0.5],[1]],"prompt_eval_count":2}'))
    assert [one["embedding"] for one in told["data"]] == [[0.5], [1.0]]
    assert told["usage"] == {"prompt_tokens": 2, "total_tokens": 2}


def test_vectors_in_base64_as_openais_client_asks_for_them() -> None:
    request, _ = sent(EMBEDDINGS, input="a", encoding_format="base64")
    told = msgspec.json.decode(Translation(request, "e").whole(b'{"embeddings":[[0.5,-2.0]]}'))
    assert struct.unpack("<2f", base64.b64decode(told["data"][0]["embedding"])) == (0.5, -2.0)


def test_an_answer_has_the_shape_of_openais() -> None:
    request, _ = sent(CHAT, messages=ASKED)
    line = {
        "message": {"role": "assistant", "content": "Hi", "thinking": "hm"},
        "created_at": "2026-11-01T08:00:00.123456789Z",
        **{"done": True, "done_reason": "length", "prompt_eval_count": 3, "eval_count": 2},
    }
    body = Translation(request, "e").whole(msgspec.json.encode(line))
    answer = parse_answer("chat", body)
    assert answer.finish == ("length",)
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (3, 2)
    told = msgspec.json.decode(body)
    assert told["choices"][0]["message"] == {"role": "assistant", "content": "Hi", "reasoning_content": "hm"}
    assert told["created"] == 1793520000


def test_a_stream_puts_together_what_its_lines_say() -> None:
    request, _ = sent(CHAT, messages=ASKED, stream=True, stream_options={"include_usage": True})
    translation = Translation(request, "e")
    assembler = Assembler("chat", "m", wants_usage=True)
    call = {"function": {"name": "weather", "arguments": {"city": "Lyon"}}}
    for line in (
        {"message": {"content": "Hi"}},
        {"message": {"content": " you", "tool_calls": [call]}},
        {"message": {"content": "", "tool_calls": [call]}},
        {"message": {"content": ""}, "done": True, "done_reason": "stop", "prompt_eval_count": 3, "eval_count": 4},
    ):
        assert assembler.feed(translation.chunks(read_line(msgspec.json.encode(line)))).broken is None
    message = msgspec.json.decode(assembler.whole())["choices"][0]["message"]
    assert message["content"] == "Hi you"
    assert [(one["id"], one["function"]) for one in message["tool_calls"]] == [
        ("call_0", {"name": "weather", "arguments": '{"city":"Lyon"}'}),
        ("call_1", {"name": "weather", "arguments": '{"city":"Lyon"}'}),
    ]
    assert assembler.finish == ("tool_calls",)
    assert assembler.usage is not None
    assert assembler.usage.completion_tokens == 4


def test_tags_carry_digests() -> None:
    body = b'{"models":[{"name":"m:latest","digest":"ab","modified_at":"2026-11-01T08:00:00Z"},{"name":"n"}]}'
    assert [(tag.name, tag.digest, tag.created) for tag in read_tags(body)] == [
        ("m:latest", "sha256:ab", 1793520000),
        ("n", "", 0),
    ]
    assert read_tags(b'{"models":null}') == []


@given(st.binary(max_size=200))
def test_whatever_ollama_says_only_our_errors_come_out(data: bytes) -> None:
    request, _ = sent(CHAT, messages=ASKED)
    for read in (read_line, read_tags, Translation(request, "e").whole):
        try:
            read(data)
        except EngineError:
            continue
