"""`rempart.wire.triton`: OpenAI's terms in tensors, and back, as far as the model has inputs and outputs for them."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rempart.errors import EngineError, EngineRefused
from rempart.wire.assemble import Assembler
from rempart.wire.job import Job
from rempart.wire.triton import Request, Shape, Translation, read_index, read_shape, translate

CHAT, COMPLETION, EMBEDDINGS = "/v1/chat/completions", "/v1/completions", "/v1/embeddings"
ASKED = [{"role": "user", "content": "hello"}]


def shape(inputs: str, outputs: str) -> Shape:
    tensors = {"inputs": inputs.split(), "outputs": outputs.split()}
    told = {name: [{"name": one, "datatype": "BYTES"} for one in given] for name, given in tensors.items()}
    return read_shape(msgspec.json.encode({"name": "a model", **told}))


OURS = shape("text_input messages stream sampling_parameters", "text_output finish_reason num_input_tokens")
VLLM_BACKEND = shape(
    "text_input stream sampling_parameters exclude_input_in_output return_finish_reason", "text_output finish_reason"
)
PLAIN = shape("text_input", "text_output")
VECTORS = shape("text_input", "embedding num_input_tokens")


def sent(of: Shape, path: str, **body: Any) -> tuple[Request, dict[str, Any]]:
    request = translate(Job(path=path, body=msgspec.json.encode({"model": "a model", **body}), exchange="e"), of)
    return request, msgspec.json.decode(request.body)


def test_a_conversation_goes_to_a_model_that_takes_one() -> None:
    request, body = sent(OURS, CHAT, messages=ASKED, temperature=0, max_tokens=5, ignore_eos=True)
    assert request.path == "/v2/models/a%20model/generate_stream"
    assert msgspec.json.decode(body["messages"]) == ASKED
    assert msgspec.json.decode(body["sampling_parameters"]) == {"temperature": 0, "ignore_eos": True, "max_tokens": 5}
    assert body["stream"] is True


def test_the_vllm_backend_is_asked_for_what_it_leaves_out() -> None:
    _, body = sent(VLLM_BACKEND, COMPLETION, prompt="Once", stop=["x"])
    assert body == {
        **{"text_input": "Once", "stream": True, "sampling_parameters": '{"stop":["x"]}'},
        **{"exclude_input_in_output": True, "return_finish_reason": True},
    }


def test_a_plain_model_gets_parameters() -> None:
    assert sent(PLAIN, COMPLETION, prompt=["Once"], temperature=0.5)[1] == {
        "text_input": "Once",
        "parameters": {"temperature": 0.5},
    }
    assert sent(PLAIN, COMPLETION, prompt="Once")[1] == {"text_input": "Once"}


@pytest.mark.parametrize(
    ("of", "path", "body", "param"),
    [
        (VLLM_BACKEND, CHAT, {"messages": ASKED}, "messages"),
        (OURS, CHAT, {"messages": "wrong"}, "messages"),
        (OURS, CHAT, {"messages": ASKED, "n": 2}, "n"),
        (OURS, CHAT, {"messages": ASKED, "tools": [{}]}, "tools"),
        (OURS, CHAT, {"messages": ASKED, "response_format": {"type": "json_object"}}, "response_format"),
        (OURS, COMPLETION, {"prompt": ["a", "b"]}, "prompt"),
        (PLAIN, COMPLETION, {"prompt": "a", "stop": ["x"]}, "stop"),
        (VECTORS, CHAT, {"messages": ASKED}, "model"),
        (OURS, EMBEDDINGS, {"input": "a"}, "model"),
        (VECTORS, EMBEDDINGS, {"input": [1, 2]}, "input"),
        (VECTORS, EMBEDDINGS, {"input": "a", "encoding_format": "hex"}, "encoding_format"),
    ],
)
def test_what_the_model_has_no_input_for_is_refused(of: Shape, path: str, body: dict[str, Any], param: str) -> None:
    with pytest.raises(EngineRefused) as refused:
        sent(of, path, **body)
    assert (refused.value.http_status, refused.value.param) == (400, param)


def event(text: str, finish: str = "", tokens: int = 1) -> bytes:
    return msgspec.json.encode(
        {"text_output": text, "finish_reason": finish, "num_input_tokens": 3, "num_output_tokens": tokens}
    )


def test_events_become_a_stream_with_its_count() -> None:
    request, _ = sent(OURS, CHAT, messages=ASKED, stream=True, stream_options={"include_usage": True})
    translation = Translation(request, "e", 7)
    assembler = Assembler("chat", "a model", wants_usage=True)
    chunks = [translation.chunk(event("Hi")), translation.chunk(event(" you", "length", 2)), *translation.last()]
    assert assembler.feed(chunks).broken is None
    told = msgspec.json.decode(assembler.whole())
    assert told["choices"][0]["message"]["content"] == "Hi you"
    assert told["usage"] == {"prompt_tokens": 3, "completion_tokens": 3, "total_tokens": 6}
    assert assembler.finish == ("length",)


def test_events_become_a_whole_answer() -> None:
    request, _ = sent(OURS, COMPLETION, prompt="Once")
    translation = Translation(request, "e", 7)
    translation.take(event("Hi"))
    translation.take(event("", "stop", 0))
    told = msgspec.json.decode(translation.whole())
    assert told["choices"] == [{"index": 0, "text": "Hi", "finish_reason": "stop"}]
    assert told["usage"]["completion_tokens"] == 1


def test_a_stream_that_ends_before_its_reason_was_cut() -> None:
    translation = Translation(sent(OURS, CHAT, messages=ASKED)[0], "e", 7)
    translation.chunk(event("Hi"))
    with pytest.raises(EngineError, match="ended in the middle"):
        translation.last()


def test_an_error_under_status_200_is_one() -> None:
    translation = Translation(sent(OURS, CHAT, messages=ASKED)[0], "e", 7)
    with pytest.raises(EngineError, match="broke off"):
        translation.chunk(b'{"error":"the model failed"}')


def test_vectors_come_in_one_row_each() -> None:
    request, body = sent(VECTORS, EMBEDDINGS, input=["a", "b"])
    assert request.path == "/v2/models/a%20model/infer"
    assert body == {"inputs": [{"name": "text_input", "shape": [2], "datatype": "BYTES", "data": ["a", "b"]}]}
    found = [
        {"name": "embedding", "shape": [2, 2], "data": [1, 2, 3, 4]},
        {"name": "num_input_tokens", "shape": [1], "data": [5]},
    ]
    told = msgspec.json.decode(Translation(request, "e", 7).embeddings(msgspec.json.encode({"outputs": found})))
    assert [one["embedding"] for one in told["data"]] == [[1, 2], [3, 4]]
    assert told["usage"] == {"prompt_tokens": 5, "total_tokens": 5}


def test_the_index_tells_what_is_ready() -> None:
    body = (
        b'[{"name":"b","version":"1","state":"READY"},{"name":"c","state":"UNAVAILABLE"},{"name":"a","state":"READY"}]'
    )
    assert read_index(body) == ["a", "b"]


@given(st.binary(max_size=200))
def test_whatever_triton_says_only_our_errors_come_out(data: bytes) -> None:
    translation = Translation(sent(OURS, CHAT, messages=ASKED)[0], "e", 7)
    for read in (read_shape, read_index, translation.chunk, translation.embeddings):
        try:
            read(data)
        except EngineError:
            continue
