"""`rempart.gateway.door`: a head is bounded however it arrives, and what is no HTTP is told so in OpenAI's shape."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from rempart import limits

if TYPE_CHECKING:
    from conftest import Answer, House

GET = b"GET / HTTP/1.1\r\nhost: here\r\n"
POST = b"POST / HTTP/1.1\r\nhost: here\r\n"


def refusal(answer: Answer, status: int, code: str) -> None:
    """It is an error in OpenAI's shape that says what to do, and the connection is closed."""
    assert answer.status == status
    assert answer.error["code"] == code
    assert answer.error["type"] == ("server_error" if status >= 500 else "invalid_request_error")
    assert answer.error["message"]
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["connection"] == "close"
    assert re.fullmatch("[0-9a-f]{32}", answer.headers["x-request-id"])


async def test_a_request_reaches_the_application(house: House) -> None:
    answer = await house.ask(POST + b"content-length: 3\r\n\r\nabc")
    assert (answer.status, answer.body) == (200, b'["POST","/",3]')


@pytest.mark.parametrize("size", [1, 2, 7])
async def test_a_request_may_come_in_pieces(house: House, size: int) -> None:
    connection = await house.connect()
    request = POST + b"content-length: 3\r\n\r\nabc"
    for at in range(0, len(request), size):
        connection.send(request[at : at + size])
        await connection.writer.drain()
    assert (await connection.answer()).body == b'["POST","/",3]'


async def test_as_many_headers_as_may_be_are_taken(house: House) -> None:
    headers = b"".join(b"x-%d: y\r\n" % number for number in range(limits.header_count_max - 1))
    assert (await house.ask(GET + headers + b"\r\n")).status == 200


async def test_one_header_more_is_refused(house: House) -> None:
    headers = b"".join(b"x-%d: y\r\n" % number for number in range(limits.header_count_max))
    refusal(await house.ask(GET + headers + b"\r\n"), 431, "headers_too_large")
    assert house.scopes == []


async def test_headers_that_are_too_long_in_all_are_refused(house: House) -> None:
    headers = b"".join(b"x-%d: " % number + b"y" * 1000 + b"\r\n" for number in range(40))
    refusal(await house.ask(GET + headers + b"\r\n"), 431, "headers_too_large")
    assert house.scopes == []


ENDLESS = [
    pytest.param(GET + b"x: ", b"y", id="value"),
    pytest.param(GET, b"y", id="name"),
    pytest.param(b"GET /", b"y", id="address"),
    pytest.param(b"GET / HTTP/1.1\r\n", b"x: y\r\n", id="flood"),
]


@pytest.mark.parametrize(("begin", "more"), ENDLESS)
async def test_an_endless_head_is_refused(house: House, begin: bytes, more: bytes) -> None:
    connection = await house.connect()
    connection.send(begin)
    for _ in range(200):
        connection.send(more * (1000 // len(more)))
    refusal(await connection.answer(), 431, "headers_too_large")
    assert house.scopes == []


@pytest.mark.parametrize(
    ("begin", "end"), [(b"GET /", b" HTTP/1.1\r\nhost: here\r\n\r\n"), (GET + b"x: ", b"\r\n\r\n")]
)
async def test_a_long_head_is_refused_also_when_it_comes_at_once(house: House, begin: bytes, end: bytes) -> None:
    answer = await house.ask(begin + b"y" * (limits.header_bytes_max + 1000) + end)
    refusal(answer, 431, "headers_too_large")
    assert house.scopes == []


async def test_a_trailer_has_the_bounds_of_a_head(house: House) -> None:
    """The parser keeps an endless trailer as it keeps an endless header."""
    connection = await house.connect()
    connection.send(POST + b"transfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\nx: ")
    await house.until(lambda: house.scopes)
    door = house.door()
    for _ in range(10):
        before = door.came
        connection.send(b"y" * 10_000)
        await house.until(lambda before=before: door.came > before or door.transport.is_closing())
    house.later(limits.request_body_s + 1)  # so that it ends where no bound ends it
    refusal(await connection.answer(), 431, "headers_too_large")


async def test_requests_of_one_connection_have_bounds_of_their_own(house: House) -> None:
    headers = b"".join(b"x-%d: " % number + b"y" * 300 + b"\r\n" for number in range(80))
    connection = await house.connect()
    for _ in range(5):
        connection.send(GET + headers + b"\r\n")
        assert (await connection.answer()).status == 200


async def test_a_long_body_is_no_long_head(house: House) -> None:
    connection = await house.connect()
    for _ in range(2):
        connection.send(POST + b"content-length: 300000\r\n\r\n" + b"x" * 300_000)
        assert (await connection.answer()).body == b'["POST","/",300000]'


async def test_requests_sent_at_once_are_answered_in_order(house: House) -> None:
    connection = await house.connect()
    connection.send(b"".join(b"GET /%d HTTP/1.1\r\nhost: here\r\n\r\n" % number for number in range(5)))
    assert [(await connection.answer()).body for _ in range(5)] == [b'["GET","/%d",0]' % n for n in range(5)]


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"hello\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"FLY / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET / HTTP/1.1\r\nx : y\r\n\r\n",
        b"GET / HTTP/1.1\r\nx: a\x00b\r\n\r\n",
        b"GET / HTTP/1.1\r\nx: a\r\n folded: y\r\n\x00\r\n",
        b"GET /\xff HTTP/1.1\r\n\r\n",
        POST + b"content-length: x\r\n\r\n",
        POST + b"content-length: -1\r\n\r\n",
        POST + b"content-length: 99999999999999999999\r\n\r\n",
        POST + b"content-length: 1\r\ncontent-length: 2\r\n\r\n",
        POST + b"content-length: 1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        POST + b"transfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    ],
)
async def test_what_is_no_http_is_a_bad_request(house: House, data: bytes) -> None:
    refusal(await house.ask(data), 400, "invalid_request")
    assert not any(message == "http.request" for message in house.received)


@pytest.mark.parametrize("chunk", [b"x\r\n", b"-1\r\n", b"fffffffffffffffff\r\n", b"1\r\nabc\r\n"])
async def test_chunks_that_are_none_are_a_bad_request(house: House, chunk: bytes) -> None:
    refusal(await house.ask(POST + b"transfer-encoding: chunked\r\n\r\n" + chunk), 400, "invalid_request")


async def test_after_a_refusal_nothing_more_is_read(house: House) -> None:
    connection = await house.connect()
    connection.send(b"nonsense\r\n\r\n" + GET + b"\r\n")
    refusal(await connection.answer(), 400, "invalid_request")
    assert await connection.end() == b""
    assert house.scopes == []


OFFER = b"connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAEAAEAAAAIAAAAB\r\n"


async def test_an_offer_to_upgrade_is_not_taken(house: House) -> None:
    connection = await house.connect()
    for _ in range(2):
        connection.send(GET + OFFER + b"\r\n")
        answer = await connection.answer()
        assert (answer.status, answer.body) == (200, b'["GET","/",0]')


@pytest.mark.parametrize("pause", [False, True], ids=["at once", "after its head"])
@pytest.mark.parametrize(
    "body",
    [b"content-length: 3\r\n\r\nabc", b"transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"],
    ids=["length", "chunked"],
)
async def test_an_offer_to_upgrade_costs_no_body(house: House, body: bytes, pause: bool) -> None:
    """Java's client offers h2c with its first request, also with a POST: RFC 9110 section 7.8 lets us ignore that."""
    connection = await house.connect()
    for number in (1, 2):
        head, end, rest = body.partition(b"\r\n\r\n")
        connection.send(POST + OFFER + head + end)
        if pause:
            await house.until(lambda number=number: len(house.scopes) == number)
        connection.send(rest)
        answer = await connection.answer()
        assert (answer.status, answer.body) == (200, b'["POST","/",3]')


async def test_what_follows_a_head_in_its_packet_is_not_counted_as_head(house: House) -> None:
    connection = await house.connect()
    connection.send(GET[:-4])
    await house.until(lambda: house.door().came)
    connection.send(GET[-4:] + b"\r\n" + (GET + b"\r\n") * 2_000)
    for _ in range(2_001):
        assert (await connection.answer()).status == 200


async def test_thousands_of_offers_in_one_packet_are_all_declined(house: House) -> None:
    connection = await house.connect()
    connection.send((GET + OFFER + b"\r\n") * 2_000)
    for _ in range(2_000):
        answer = await connection.answer()
        assert (answer.status, answer.body) == (200, b'["GET","/",0]')


async def test_over_the_most_connections_one_more_is_told_to_come_back(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "connections_max", 1)
    first = await house.connect()
    first.send(GET + b"\r\n")
    await first.answer()
    second = await house.connect()
    answer = await second.answer()
    refusal(answer, 503, "overloaded")
    assert answer.headers["retry-after"] == "1"
    first.send(GET + b"\r\n")
    assert (await first.answer()).status == 200


async def test_an_absolute_target_stands_above_the_host_header(house: House) -> None:
    answer = await house.ask(b"GET http://elsewhere:80/v1/models?x=1 HTTP/1.1\r\nhost: here\r\n\r\n")
    assert answer.status == 200
    (scope,) = house.scopes
    assert [value for name, value in scope["headers"] if name == b"host"] == [b"elsewhere:80"]
    assert (scope["path"], scope["query_string"]) == ("/v1/models", b"x=1")


@pytest.mark.parametrize(
    "line",
    [
        *(b"OPTIONS *", b"CONNECT here:80", b"GET ftp://here/", b"GET http://me@here/", b"GET http:///x"),
        *(b"GET http://", b"GET http://here?x"),
    ],
)
async def test_a_target_that_is_no_path_is_refused(house: House, line: bytes) -> None:
    refusal(await house.ask(line + b" HTTP/1.1\r\nhost: here\r\n\r\n"), 400, "invalid_request")
    assert house.scopes == []


async def test_after_a_head_that_is_over_its_bounds_nothing_of_the_packet_is_taken(house: House) -> None:
    """Else the second request's answer would be read as the first one's."""
    headers = b"".join(b"x-%d: y\r\n" % number for number in range(limits.header_count_max + 1))
    connection = await house.connect()
    connection.send(GET + headers + b"\r\n" + GET + b"\r\n")
    refusal(await connection.answer(), 431, "headers_too_large")
    assert await connection.end() == b""
    assert house.scopes == []


async def test_what_was_asked_before_a_bad_request_is_answered_first(house: House) -> None:
    connection = await house.connect()
    connection.send(b"GET /hold HTTP/1.1\r\nhost: here\r\n\r\n" + b"nonsense\r\n\r\n")
    house.release.set()
    answer = await connection.answer()
    assert (answer.status, answer.body) == (200, b'["GET","/hold",0]')
    assert await connection.end() == b""


@pytest.mark.parametrize("coding", [b"gzip, chunked", b"gzip", b"identity"])
async def test_a_transfer_coding_that_is_not_known_is_refused(house: House, coding: bytes) -> None:
    answer = await house.ask(POST + b"transfer-encoding: " + coding + b"\r\n\r\n0\r\n\r\n")
    assert answer.status in (400, 501)
    assert house.scopes == []


async def test_a_client_of_http_1_0_gets_no_chunks(house: House) -> None:
    connection = await house.connect()
    connection.send(b"GET /flood HTTP/1.0\r\nhost: here\r\n\r\n")
    head = await connection.reader.readuntil(b"\r\n\r\n")
    house.release.set()
    assert b"transfer-encoding" not in head
    assert b"connection: close" in head
