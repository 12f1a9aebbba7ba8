"""The load generator's parser: it takes whole answers alone, however they are split."""

import itertools

import httptools
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rempart.bench.answer import AnswerReader
from rempart.bench.canned import (
    LAST_WORD,
    PACED_DELTAS,
    STREAM_CHUNKS,
    json_answer,
    paced_chunks,
    stream_answer,
)

MARKER = LAST_WORD.encode()


def _whole(body: bytes, status: str = "200 OK") -> bytes:
    return f"HTTP/1.1 {status}\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body


def _chunked(chunks: list[bytes]) -> bytes:
    coded = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
    return b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + coded + b"0\r\n\r\n"


def _judged(data: bytes, *, stream: bool) -> tuple[str, int]:
    reader = AnswerReader(stream=stream, marker=MARKER)
    reader.begin()
    assert reader.feed(data)
    return reader.judge()


def test_a_whole_answer() -> None:
    assert _judged(_whole(json_answer("m")), stream=False) == ("", 0)


def test_a_whole_stream_and_its_events() -> None:
    assert _judged(_whole(stream_answer("m")), stream=True) == ("", STREAM_CHUNKS)


def test_the_paced_chunks_are_a_stream() -> None:
    chunks = paced_chunks("m")
    assert len(chunks) == PACED_DELTAS
    head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
    assert _judged(head + b"".join(chunks), stream=True) == ("", PACED_DELTAS + 1)


@given(st.lists(st.integers(min_value=1, max_value=9000), max_size=20))
def test_any_split_gives_the_same(cuts: list[int]) -> None:
    body = stream_answer("m", 40)
    data = _chunked([body[:1000], body[1000:]])
    reader = AnswerReader(stream=True, marker=MARKER)
    reader.begin()
    places = [0, *sorted({cut for cut in cuts if cut < len(data)}), len(data)]
    ended = [reader.feed(data[first:second]) for first, second in itertools.pairwise(places)]
    assert ended[-1]
    assert not any(ended[:-1])
    assert reader.judge() == ("", 40)


def test_answers_follow_each_other_on_one_connection() -> None:
    reader = AnswerReader(stream=False, marker=MARKER)
    for status, problem in (("200 OK", ""), ("500 Oops", "status 500"), ("200 OK", "")):
        reader.begin()
        assert not reader.begun
        assert reader.feed(_whole(json_answer("m"), status))
        assert reader.begun
        assert reader.keeps_alive
        assert reader.judge()[0].startswith(problem)
        assert bool(reader.judge()[0]) == bool(problem)


def test_a_connection_that_is_to_be_closed() -> None:
    reader = AnswerReader(stream=False, marker=MARKER)
    reader.begin()
    assert reader.feed(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 9\r\n\r\nforty-two")
    assert not reader.keeps_alive


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (stream_answer("m").replace(b"data: [DONE]\n\n", b""), "the stream does not end with [DONE]"),
        (stream_answer("m") + b'data: {"error":{}}\n\n', "the stream does not end with [DONE]"),
        (stream_answer("m").replace(MARKER, b""), "the answer's last word is missing"),
        (b"", "the answer's last word is missing"),
    ],
)
def test_a_broken_stream(body: bytes, problem: str) -> None:
    assert _judged(_whole(body), stream=True) == (problem, 0)


def test_an_answer_that_is_cut_has_not_ended() -> None:
    reader = AnswerReader(stream=False, marker=MARKER)
    reader.begin()
    assert not reader.feed(_whole(json_answer("m"))[:-1])


def test_what_is_not_http() -> None:
    reader = AnswerReader(stream=False, marker=MARKER)
    reader.begin()
    with pytest.raises(httptools.HttpParserError):
        reader.feed(b"SSH-2.0-x\r\n\r\n")
