"""`rempart.wire.assemble`: what is no chunk breaks the stream off, and what came before it stands."""

from __future__ import annotations

import json

import pytest

from rempart import limits
from rempart.errors import EngineError
from rempart.wire.answers import nonsense
from rempart.wire.assemble import Assembler, Fed
from rempart.wire.sse import frame

ROLE = b'{"id":"c1","model":"m","choices":[{"index":0,"delta":{"role":"assistant"}}]}'


def broken(fed: Fed) -> str:
    assert isinstance(fed.broken, EngineError)
    assert fed.broken.hint
    return fed.broken.message


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"[DONE]",
        b"null",
        b"[]",
        b"{",
        b'{"choices":[1]}',
        b'{"choices":[{"index":"0"}]}',
        b'{"choices":[{"index":null}]}',
        b'{"choices":[{"delta":[]}]}',
        b'{"choices":[{"text":1}]}',
        b'{"choices":[{"finish_reason":1}]}',
        b'{"choices":[],"usage":1}',
        b'{"choices":[],"usage":{"prompt_tokens":"3"}}',
        b'{"choices":[],"model":null}',
        b'{"choices":[],"id":NaN}',
        b'{"choices":[],"id":"\\ud800"}',
        b'{"choices":[{"delta":{"content":"\\ud83d"}}]}',
        b'{"choices":[],"id":' + b"[" * 50_000 + b"]" * 50_000 + b"}",
        b'{"choices":[{"delta":{"x":' + b'{"a":' * 50_000,
        b'{"choices":[],"created":1e999}',
        b'{"choices":[],"created":1' + b"0" * 5_000 + b"}",
        b'{"choices":[{"delta":{"content":1e999}}]}',
        b'{"choices":[],"id":"\xff"}',
    ],
)
def test_what_is_no_chunk_breaks_the_stream_off(payload: bytes) -> None:
    fed = Assembler("chat", "m", wants_usage=True).feed([payload])
    assert (fed.out, fed.piece) == (b"", b"")
    assert broken(fed) == nonsense().message


def test_what_came_before_nonsense_stands_and_what_follows_is_dropped() -> None:
    assembler = Assembler("chat", "m", wants_usage=True)
    fed = assembler.feed([ROLE, b"{", ROLE])
    assert (fed.out, fed.piece) == (frame(ROLE), ROLE + b"\n")
    assert broken(fed) == nonsense().message
    assert len(json.loads(assembler.whole())["choices"]) == 1


@pytest.mark.parametrize("depth", range(480, 1000, 20))
def test_a_chunk_that_can_be_read_can_be_put_together(depth: int) -> None:
    nested = b'{"a":' * depth + b"1" + b"}" * depth
    assembler = Assembler("chat", "m", wants_usage=True)
    payload = b'{"choices":[{"delta":{"x":%s}}]}' % nested
    fed = assembler.feed([payload])
    assert (nested in assembler.whole()) == (fed.broken is None)
    assert fed.out == (b"" if fed.broken else frame(payload))


@pytest.mark.parametrize("error", [b"{}", b'{"message":"out of memory"}', b'"no"'])
def test_an_error_in_the_stream_breaks_it_off(error: bytes) -> None:
    fed = Assembler("chat", "m", wants_usage=True).feed([ROLE, b'{"error":%s}' % error])
    assert fed.out == frame(ROLE)
    assert broken(fed) == "The engine broke off its stream with an error."


def test_huge_numbers_that_can_be_read_are_kept() -> None:
    assembler = Assembler("chat", "m", wants_usage=True)
    assembler.feed([b'{"created":123456789012345678901234567890,"choices":[{"index":18446744073709551616}]}'])
    assert b"123456789012345678901234567890" in assembler.whole()
    assert b"18446744073709551616" in assembler.whole()


def test_an_answer_without_end_is_broken_off() -> None:
    assembler = Assembler("chat", "m", wants_usage=False)
    payload = b'{"usage":{},"x":"%s"}' % (b"x" * (limits.event_bytes_max - 20))
    for _ in range(limits.answer_bytes_max // len(payload)):
        assert assembler.feed([payload]).broken is None
    assert broken(assembler.feed([payload])) == "The engine's answer is too large."
