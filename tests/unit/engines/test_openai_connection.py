"""`rempart.engines.openai` against servers that answer bytes written here: headers, redirects, kept connections."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from rempart.engines.asking import Endpoint
from rempart.engines.openai import OpenAIEngine
from rempart.errors import EngineError, EngineRefused, EngineUnavailable
from rempart.wire.job import Job

JOB = Job(path="/v1/chat/completions", body=b'{"model":"m"}', exchange="e" * 32)


class Raw:
    """Answers `answer(number of the request)`; None, or `connection: close` in it, closes the connection."""

    def __init__(self, answer: Callable[[int], bytes | None]) -> None:
        self.answer = answer
        self.heads: list[bytes] = []
        self.connections = 0
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                self.heads.append(head)
                if head.startswith(b"POST"):
                    await reader.readexactly(len(JOB.body))
                answer = self.answer(len(self.heads))
                if answer is None:
                    break
                writer.write(answer)
                await writer.drain()
                if b"connection: close" in answer:
                    break
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def raw(answer: Callable[[int], bytes | None]) -> AsyncIterator[tuple[Raw, OpenAIEngine]]:
    script = Raw(answer)
    server = await asyncio.start_server(script.serve, "127.0.0.1", 0)
    script.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    engine = OpenAIEngine("far", lambda: Endpoint(script.url, "secret"))
    try:
        yield script, engine
    finally:
        await engine.close()
        server.close()


def ok(body: bytes, *headers: bytes) -> bytes:
    return reply(b"200 OK", body, *headers)


def reply(status: bytes, body: bytes, *headers: bytes) -> bytes:
    lines = [b"HTTP/1.1 " + status, b"content-length: %d" % len(body), *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


async def test_a_kept_connection_that_the_server_closed_is_tried_once_more() -> None:
    async with raw(lambda number: None if number == 2 else ok(b"{}")) as (script, engine):
        assert await engine.answer(JOB) == b"{}"
        assert await engine.answer(JOB) == b"{}"
        assert (len(script.heads), script.connections) == (3, 2)


async def test_it_is_tried_once_more_and_not_for_ever() -> None:
    async with raw(lambda number: None) as (script, engine):
        with pytest.raises(EngineUnavailable, match="closed its connection"):
            await engine.answer(JOB)
        assert len(script.heads) == 2


async def test_an_answer_that_has_begun_is_not_asked_for_again() -> None:
    begun = ok(b"{}", b"connection: close").replace(b"length: 2", b"length: 9")
    async with raw(lambda number: begun) as (script, engine):
        with pytest.raises(EngineError):
            await engine.answer(JOB)
        assert len(script.heads) == 1


async def test_the_key_and_the_exchange_are_sent() -> None:
    async with raw(lambda number: ok(b"{}")) as (script, engine):
        await engine.answer(JOB)
        head = script.heads[0].lower()
        assert b"authorization: bearer secret\r\n" in head
        assert b"x-request-id: " + JOB.exchange.encode() + b"\r\n" in head
        assert b"content-type: application/json\r\n" in head


async def test_no_compression_is_offered_since_none_is_undone() -> None:
    async with raw(lambda number: ok(b"{}")) as (script, engine):
        await engine.answer(JOB)
        assert b"gzip" not in script.heads[0].lower()


@pytest.mark.parametrize("status", [b"301 Moved", b"302 Found", b"307 Temporary Redirect", b"308 Permanent Redirect"])
async def test_a_prompt_does_not_follow_a_redirect(status: bytes) -> None:
    """The operator chose where prompts go; an engine may not send them on."""
    async with raw(lambda number: ok(b"{}")) as (elsewhere, _):
        location = b"location: " + elsewhere.url.encode() + b"/v1/chat/completions"
        async with raw(lambda number: reply(status, b"", location)) as (_, engine):
            with pytest.raises(EngineError):
                await engine.answer(JOB)
        assert elsewhere.heads == []


@pytest.mark.parametrize("answer", [b"SSH-2.0-OpenSSH\r\n\r\n", b"HTTP/1.1 abc\r\n\r\n", b"\x00" * 100 + b"\r\n\r\n"])
async def test_what_is_no_http_is_an_engine_error(answer: bytes) -> None:
    async with raw(lambda number: answer) as (_, engine):
        with pytest.raises(EngineError, match="far"):
            await engine.answer(JOB)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"error":{"message":"too long","param":"max_tokens"}}', "too long"),
        (b'{"error":"too long"}', "too long"),
        (b'{"message":"too long"}', "too long"),
        (b'{"detail":"too long"}', "too long"),
        (b'{"detail":[{"msg":"x"}]}', "The engine refused the request (400)."),
        (b"<html>", "The engine refused the request (400)."),
        (b"\xff", "The engine refused the request (400)."),
        (b"", "The engine refused the request (400)."),
        (b"[" * 10_000, "The engine refused the request (400)."),
        (b'{"x":' + b"[" * 10_000 + b"]" * 10_000 + b"}", "The engine refused the request (400)."),
    ],
)
async def test_a_refusal_is_read_in_any_shape(body: bytes, message: str) -> None:
    async with raw(lambda number: reply(b"400 Bad Request", body)) as (_, engine):
        with pytest.raises(EngineRefused) as caught:
            await engine.answer(JOB)
        assert caught.value.message == message


async def test_a_refusal_that_never_ends_is_cut() -> None:
    async with raw(lambda number: reply(b"400 Bad Request", b'{"message":"' + b"x" * 50_000 + b'"}')) as (_, engine):
        with pytest.raises(EngineRefused) as caught:
            await engine.answer(JOB)
        assert len(caught.value.message) == 2_000


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b'{"data":7}',
        b'{"data":[{}]}',
        b'{"data":[{"id":7}]}',
        b"\xff",
        b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b',"data":[]}',
    ],
)
async def test_a_list_of_models_that_makes_no_sense_is_an_engine_error(body: bytes) -> None:
    async with raw(lambda number: ok(body)) as (_, engine):
        with pytest.raises(EngineError):
            await engine.models()
