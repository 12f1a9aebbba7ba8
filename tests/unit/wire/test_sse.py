"""`rempart.wire.sse`: an event stream is read as WHATWG HTML section 9.2.6 has it, and written likewise."""

from __future__ import annotations

import pytest

from rempart import limits
from rempart.errors import EngineError
from rempart.wire.sse import DONE, Decoder, frame


def decoded(*parts: bytes) -> list[bytes]:
    decoder = Decoder()
    return [payload for part in parts for payload in decoder.feed(part)]


@pytest.mark.parametrize(
    ("stream", "payloads"),
    [
        (b"", []),
        (b"data: a\n\n", [b"a"]),
        (b"data:a\n\n", [b"a"]),
        (b"data:  a \n\n", [b" a "]),
        (b"data: a\r\n\r\n", [b"a"]),
        (b"data: a\r\rdata: b\r\n\n", [b"a", b"b"]),
        (b"\xef\xbb\xbfdata: a\n\n", [b"a"]),
        (b"data: \xef\xbb\xbfa\n\n", [b"\xef\xbb\xbfa"]),
        (b"data: a\ndata: b\n\n", [b"a\nb"]),
        (b"data: a\ndata\ndata:\n\n", [b"a\n\n"]),
        (b"data\n\n", [b""]),
        (b"\n\n\ndata: a\n\n\n\n", [b"a"]),
        (b": comment\ndata: a\n: more\n\n", [b"a"]),
        (b"event: e\nid: 7\nretry: 1\ndata: a\nunknown\n\n", [b"a"]),
        (b"event: alone\n\n", []),
        (b"dataset: a\n\n", []),
        (b" data: a\n\n", []),
        (b"Data: a\n\n", []),
        (b"data: \xc3\xa9\n\n", [b"\xc3\xa9"]),
        (b"data: a\n\ndata: [DONE]\n\n", [b"a", DONE]),
    ],
)
def test_an_event_stream_is_read_by_the_standard(stream: bytes, payloads: list[bytes]) -> None:
    assert decoded(stream) == payloads


@pytest.mark.parametrize("stream", [b"data: a", b"data: a\n", b"data: a\r", b"data: a\r\n", b"data: a\n: x"])
def test_an_event_that_the_end_cuts_short_is_none(stream: bytes) -> None:
    assert decoded(stream) == []


def test_a_line_end_split_in_two_is_one_line_end() -> None:
    assert decoded(b"data: a\r", b"\ndata: b\r", b"\n\r", b"\n") == [b"a\nb"]
    assert decoded(b"data: a\r", b"\rdata: b\r", b"\r", b"\n") == [b"a", b"b"]


def test_an_event_is_given_as_soon_as_it_is_whole() -> None:
    decoder = Decoder()
    assert decoder.feed(b"data: a\n") == []
    assert decoder.feed(b"\nda") == [b"a"]
    assert decoder.feed(b"ta: b\n\ndata: c\n\n") == [b"b", b"c"]


def test_only_the_streams_own_byte_order_mark_is_dropped() -> None:
    assert decoded(b"\xef", b"\xbb", b"\xbfdata: a\n\n") == [b"a"]
    assert decoded(b"\xef\xbb\xbf\xef\xbb\xbfdata: a\n\n") == []


def test_a_character_may_be_split_between_parts() -> None:
    assert decoded(b"data: \xc3", b"\xa9\n\n") == [b"\xc3\xa9"]


def test_an_event_of_the_largest_size_is_taken() -> None:
    value = b"x" * (limits.event_bytes_max - len(b"data: "))
    assert decoded(b"data: " + value, b"\n\n") == [value]


@pytest.mark.parametrize(
    "parts",
    [
        pytest.param([b"data: " + b"x" * limits.event_bytes_max], id="line-without-end"),
        pytest.param([b": " + b"x" * limits.event_bytes_max], id="comment-without-end"),
        pytest.param([b"data: " + b"x" * 65_536 + b"\n"] * (limits.event_bytes_max // 65_536 + 1), id="lines"),
        pytest.param([b"data: " + b"x" * (limits.event_bytes_max + 1) + b"\n\n"], id="whole-in-one-part"),
        pytest.param([b"data\n" * 65_536] * (limits.event_bytes_max // 65_536 + 1), id="lines-of-nothing"),
    ],
)
def test_an_event_that_is_too_large_is_an_engine_error(parts: list[bytes]) -> None:
    with pytest.raises(EngineError, match="too large"):
        decoded(*parts)


def test_events_within_the_limit_may_together_exceed_it() -> None:
    value = b"x" * (limits.event_bytes_max // 2)
    assert decoded(*[b"data: " + value + b"\n\n"] * 5) == [value] * 5


def test_a_frame_is_one_event() -> None:
    assert frame(b'{"a":1}') == b'data: {"a":1}\n\n'
    assert frame(DONE) == b"data: [DONE]\n\n"


def test_a_frame_of_several_lines_is_one_line() -> None:
    assert frame(b'{\n"a":\r\n1}') == b'data: { "a":  1}\n\n'
    assert decoded(frame(b'{\n"a":\r1}')) == [b'{ "a": 1}']
