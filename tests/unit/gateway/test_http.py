"""`rempart.gateway.http`: a body is read whole or not at all, and errors are answered in OpenAI's shape."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

import msgspec
import pytest

from rempart import limits
from rempart.errors import ClientGone, HeadersTooLarge, Overloaded, RequestTooLarge
from rempart.gateway.door import DOOR
from rempart.gateway.http import Budget, Request

Message = MutableMapping[str, Any]


class Client:
    """Sends `messages`, then is silent for ever; `sent` is what it got."""

    def __init__(self, *messages: Message) -> None:
        self.messages = list(messages)
        self.sent: list[Message] = []

    async def receive(self) -> Message:
        if not self.messages:
            raise TimeoutError  # what a deadline around it would raise
        return self.messages.pop(0)

    async def send(self, message: Message) -> None:
        self.sent.append(message)

    def request(self, *headers: tuple[bytes, bytes]) -> Request:
        scope = {"method": "POST", "path": "/v1/chat/completions", "headers": list(headers)}
        return Request(scope, self.receive, self.send)


def part(body: bytes, more: bool = False) -> Message:
    return {"type": "http.request", "body": body, "more_body": more}


GONE: Message = {"type": "http.disconnect"}


async def test_a_body_comes_whole() -> None:
    assert await Client(part(b"abc")).request().body(3, Budget(1 << 20).share()) == b"abc"


async def test_a_body_in_parts_comes_whole() -> None:
    client = Client(part(b"a", more=True), part(b"", more=True), part(b"bc", more=True), part(b""))
    assert await client.request().body(3, Budget(1 << 20).share()) == b"abc"


async def test_no_body_is_an_empty_one() -> None:
    assert await Client({"type": "http.request"}).request().body(3, Budget(1 << 20).share()) == b""


async def test_a_body_over_the_limit_is_refused_and_the_rest_discarded() -> None:
    client = Client(part(b"ab", more=True), part(b"cd", more=True), part(b"ef"))
    with pytest.raises(RequestTooLarge, match="3 bytes"):
        await client.request().body(3, Budget(1 << 20).share())
    assert client.messages == []


async def test_a_length_over_the_limit_is_refused_before_the_body_is_kept() -> None:
    client = Client(part(b"abcd"))
    with pytest.raises(RequestTooLarge):
        await client.request((b"content-length", b"4")).body(3, Budget(1 << 20).share())
    assert client.messages == []


async def test_a_length_that_lies_helps_nobody() -> None:
    with pytest.raises(RequestTooLarge):
        await Client(part(b"abcd")).request((b"content-length", b"2")).body(3, Budget(1 << 20).share())


@pytest.mark.parametrize("length", [b"", b"-1", b"x", b"3, 3"])
async def test_a_length_that_is_none_is_not_looked_at(length: bytes) -> None:
    assert await Client(part(b"abc")).request((b"content-length", length)).body(3, Budget(1 << 20).share()) == b"abc"


async def test_discarding_ends_with_the_client() -> None:
    client = Client(part(b"abcd", more=True), part(b"e", more=True), GONE, part(b"never read"))
    with pytest.raises(RequestTooLarge):
        await client.request().body(3, Budget(1 << 20).share())
    assert len(client.messages) == 1


async def test_discarding_has_an_end_in_bytes() -> None:
    client = Client(*(part(b"abcd", more=True) for _ in range(100)))
    with pytest.raises(RequestTooLarge):
        await client.request().body(3, Budget(1 << 20).share())
    assert len(client.messages) > 90


async def test_discarding_has_an_end_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "discard_s", 0.0)
    with pytest.raises(RequestTooLarge):
        await Client(part(b"abcd", more=True)).request().body(3, Budget(1 << 20).share())


@pytest.mark.parametrize("before", [[], [part(b"a", more=True)]])
async def test_a_client_that_leaves_before_its_request_is_whole_is_gone(before: list[Message]) -> None:
    with pytest.raises(ClientGone):
        await Client(*before, GONE).request().body(3, Budget(1 << 20).share())


async def test_the_first_header_of_a_name_counts() -> None:
    request = Client().request((b"a", b"1"), (b"a", b"2"))
    assert (request.header(b"a"), request.header(b"b")) == (b"1", b"")


async def test_an_answer_tells_its_length_and_carries_the_headers_of_all_answers() -> None:
    client = Client()
    request = client.request()
    request.answer_headers.append((b"x-request-id", b"7"))
    assert not request.started
    await request.reply(200, b"abc", [(b"x-a", b"b")])
    start, body = client.sent
    assert request.started
    assert (start["type"], start["status"]) == ("http.response.start", 200)
    assert start["headers"] == [(b"content-length", b"3"), (b"x-a", b"b"), (b"x-request-id", b"7")]
    assert body == {"type": "http.response.body", "body": b"abc"}


async def test_not_modified_tells_no_length() -> None:
    client = Client()
    await client.request().reply(304, b"", [])
    assert client.sent[0]["headers"] == []


async def test_an_error_is_in_the_shape_of_openai() -> None:
    client = Client()
    await client.request().reply_error(Overloaded("Too many.", hint="Wait.", retry_after_s=7))
    start, body = client.sent
    headers = dict(start["headers"])
    assert start["status"] == 503
    assert (headers[b"retry-after"], headers[b"content-type"]) == (b"7", b"application/json")
    assert headers[b"cache-control"] == b"no-store"
    assert msgspec.json.decode(body["body"]) == {
        "error": {"message": "Too many. Wait.", "type": "server_error", "param": None, "code": "overloaded"}
    }


async def test_a_connection_with_an_unread_body_is_closed() -> None:
    client = Client()
    await client.request().reply_error(RequestTooLarge("Too large."))
    assert (b"connection", b"close") in client.sent[0]["headers"]
    await client.request().reply_error(HeadersTooLarge("Too large."))
    assert (b"connection", b"close") not in client.sent[2]["headers"]


async def test_a_stream_is_not_held_back_by_proxies() -> None:
    client = Client()
    request = client.request()
    await request.start_stream()
    await request.stream(b"data: 1\n\n", more=True)
    await request.stream(b"", more=False)
    headers = dict(client.sent[0]["headers"])
    assert headers[b"content-type"].startswith(b"text/event-stream")
    assert headers[b"x-accel-buffering"] == b"no"
    assert b"content-length" not in headers
    assert [(message["body"], message["more_body"]) for message in client.sent[1:]] == [
        (b"data: 1\n\n", True),
        (b"", False),
    ]


async def test_the_door_is_asked_whether_the_client_is_gone() -> None:
    class Door:
        def __init__(self) -> None:
            self.callbacks: list[object] = []

        def when_gone(self, callback: object) -> None:
            self.callbacks.append(callback)

    door, request = Door(), Client().request()
    request.scope[DOOR] = door
    request.when_gone(print)
    request.when_gone(None)
    assert door.callbacks == [print, None]


async def test_bodies_together_stay_within_their_budget() -> None:
    budget = Budget(5)
    first, second = budget.share(), budget.share()
    assert await Client(part(b"abc")).request().body(3, first) == b"abc"
    with pytest.raises(Overloaded):
        await Client(part(b"abc")).request().body(3, second)
    first.give_back()
    second.give_back()
    assert await Client(part(b"abc")).request().body(3, second) == b"abc"


async def test_who_asks_whether_to_send_too_much_is_not_told_to_go_on() -> None:
    client = Client(part(b"abcd"))
    request = client.request((b"content-length", b"4"), (b"expect", b"100-continue"))
    with pytest.raises(RequestTooLarge):
        await request.body(3, Budget(9).share())
    assert client.messages != []
