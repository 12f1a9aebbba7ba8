"""`rempart.wire.answers`: an engine's whole answer is checked, counted and renamed."""

from __future__ import annotations

import json

import pytest
from openai.types import CreateEmbeddingResponse
from openai.types.chat import ChatCompletion

from rempart.errors import EngineError
from rempart.wire.answers import Answer, Usage, nonsense, parse_answer, renamed

CHAT = (
    b'{"id":"c1","object":"chat.completion","created":1,"model":"served","choices":[{"index":0,"message":'
    b'{"role":"assistant","content":"hi"},"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":2,'
    b'"total_tokens":5},"timings":{"ms":1.50}}'
)
EMBEDDING = (
    b'{"object":"list","model":"e","data":[{"object":"embedding","index":0,"embedding":[0.25,1.0e-3]}],'
    b'"usage":{"prompt_tokens":4,"total_tokens":4}}'
)


def test_a_chat_answer_is_counted() -> None:
    expected = Answer(usage=Usage(prompt_tokens=3, completion_tokens=2), finish=("stop",), model="served")
    assert parse_answer("chat", CHAT) == expected


def test_an_embedding_answer_has_no_choices_and_no_completion() -> None:
    expected = Answer(usage=Usage(prompt_tokens=4, completion_tokens=0), finish=(), model="e")
    assert parse_answer("embedding", EMBEDDING) == expected


def test_each_choice_has_its_reason_and_what_is_unfinished_an_empty_one() -> None:
    body = b'{"choices":[{"finish_reason":"length"},{"finish_reason":null},{}]}'
    assert parse_answer("completion", body).finish == ("length", "", "")


@pytest.mark.parametrize(
    ("usage", "counts"),
    [
        (b"null", None),
        (b"{}", Usage(prompt_tokens=0, completion_tokens=0)),
        (b'{"prompt_tokens":null,"completion_tokens":null}', Usage(prompt_tokens=None, completion_tokens=None)),
        (b'{"prompt_tokens":-1,"x":{}}', Usage(prompt_tokens=-1, completion_tokens=0)),
    ],
)
def test_usage_is_read_as_far_as_it_is_given(usage: bytes, counts: Usage | None) -> None:
    assert parse_answer("chat", b'{"choices":[],"usage":%s}' % usage).usage == counts


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b"null",
        b"{}",
        b'{"data":[]}',
        b'{"choices":null}',
        b'{"choices":{}}',
        b'{"choices":[1]}',
        b'{"choices":[{"finish_reason":1}]}',
        b'{"choices":[],"usage":[]}',
        b'{"choices":[],"usage":{"prompt_tokens":1.5}}',
        b'{"choices":[],"usage":{"prompt_tokens":1' + b"0" * 9_999 + b"}}",
        b'{"choices":[],"model":null}',
        b'{"choices":[],"x":NaN}',
        b'{"choices":[],"x":"\xff"}',
        b'{"choices":[],"x":"\\ud800"}',
        b'{"choices":[],"x":' + b"[" * 50_000 + b"]" * 50_000 + b"}",
        b'{"choices":[]} {}',
    ],
)
def test_what_is_no_answer_is_an_engine_error(body: bytes) -> None:
    with pytest.raises(EngineError) as caught:
        parse_answer("chat", body)
    assert caught.value.message == nonsense().message
    assert caught.value.hint


def test_an_answer_of_another_operation_is_no_answer() -> None:
    with pytest.raises(EngineError):
        parse_answer("embedding", CHAT)
    with pytest.raises(EngineError):
        parse_answer("completion", EMBEDDING)


@pytest.mark.parametrize("error", [b"{}", b'{"message":"no"}', b'"no"', b"[]"])
def test_an_error_in_an_answers_clothes_is_an_error(error: bytes) -> None:
    with pytest.raises(EngineError, match="answered with an error"):
        parse_answer("chat", b'{"choices":[],"error":%s}' % error)


def test_an_error_that_is_null_is_none() -> None:
    assert parse_answer("chat", b'{"choices":[],"error":null}').finish == ()


def test_renaming_touches_nothing_but_the_name() -> None:
    assert renamed(CHAT, "m") == CHAT.replace(b'"served"', b'"m"')
    assert renamed(b'{ "a" : 1.0 , "b":[ 1e5 ]}', 'q"') == b'{"a":1.0,"b":[ 1e5 ],"model":"q\\""}'


def test_renamed_answers_are_of_the_official_types() -> None:
    answer = ChatCompletion.model_validate(json.loads(renamed(CHAT, "public")))
    assert (answer.model, answer.choices[0].message.content) == ("public", "hi")
    vectors = CreateEmbeddingResponse.model_validate(json.loads(renamed(EMBEDDING, "public")))
    assert (vectors.model, vectors.data[0].embedding) == ("public", [0.25, 0.001])
