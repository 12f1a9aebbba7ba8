"""The load generator against small servers of ours: what it counts is what they did."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import pytest

from rempart.bench.canned import json_answer, stream_answer
from rempart.bench.load import generate, request_bytes
from rempart.bench.plan import Load, Outcome, Target
from rempart.bench.upstream import pacing

Reply = Callable[[int], bytes]


def _whole(body: bytes, status: str = "200 OK") -> bytes:
    return f"HTTP/1.1 {status}\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body


@contextlib.asynccontextmanager
async def _serving(reply: Reply, accepted: list[int] | None = None) -> AsyncIterator[tuple[int, list[bytes]]]:
    """(port, requests seen); an empty reply closes the connection."""
    seen: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if accepted is not None:
            accepted.append(len(seen))
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length: ")[2].split()[0])
                seen.append(head + await reader.readexactly(length))
                answer = reply(len(seen))
                writer.write(answer)
                if not answer:
                    break
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1], seen


def _load(port: int, **changed: object) -> Load:
    target = Target(port=port, path="/v1/chat/completions", model="m", key="k")
    values: dict[str, object] = {"loop": "closed", "stream": False, "connections": 4, "seconds": 0.4, "warm_s": 0.0}
    return Load(target=target, **{**values, **changed})  # type: ignore[arg-type]


async def _generate(load: Load) -> Outcome:
    return await asyncio.to_thread(generate, load)


async def test_closed_loop_keeps_its_connections() -> None:
    accepted: list[int] = []
    async with _serving(lambda _: _whole(json_answer("m")), accepted) as (port, seen):
        outcome = await _generate(_load(port))
    assert len(accepted) == 4
    assert outcome.answers > 4
    assert outcome.broken == 0
    assert outcome.answers <= len(seen) <= outcome.answers + 8
    assert seen[0] == request_bytes(_load(port).target, stream=False)
    assert b"authorization: Bearer k\r\n" in seen[0]


async def test_streams_and_their_events() -> None:
    async with _serving(lambda _: _whole(stream_answer("m", 10))) as (port, seen):
        outcome = await _generate(_load(port, stream=True))
    assert outcome.events == 10 * outcome.answers > 0
    assert b'"stream":true' in seen[0]


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (_whole(b"{}", "429 No"), "status 429"),
        (_whole(b"{}"), "last word"),
        (b"SSH-2.0-x\r\n\r\n", "not HTTP"),
        (b"", "closed before"),
    ],
)
async def test_broken_answers_are_told_from_whole_ones(answer: bytes, problem: str) -> None:
    async with _serving(lambda number: answer if number == 2 else _whole(json_answer("m"))) as (port, _):
        outcome = await _generate(_load(port))
    assert outcome.broken == 1
    assert problem in outcome.problem
    assert outcome.answers > 4


async def test_open_loop_sends_at_its_rate() -> None:
    async with _serving(lambda _: _whole(json_answer("m"))) as (port, seen):
        outcome = await _generate(_load(port, loop="open", per_s=100.0, seconds=0.5))
    assert len(outcome.latencies_ms) == outcome.answers
    assert 25 <= len(seen) <= 52
    assert all(latency > 0 for latency in outcome.latencies_ms)


async def test_nobody_there() -> None:
    async with _serving(lambda _: b"") as (port, _):
        pass
    outcome = await _generate(_load(port, seconds=0.1))
    assert outcome.answers == 0
    assert "cannot connect" in outcome.problem


async def test_the_pacing_upstream_takes_its_time() -> None:
    with pacing() as (port, _):
        outcome = await _generate(_load(port, loop="paced", stream=True, connections=3, seconds=0.2))
    assert outcome.broken == 0
    assert outcome.answers >= 1
    assert outcome.events == 65 * outcome.answers
    assert outcome.longest_gap_ms >= 10
    assert len(outcome.first_ms) == outcome.answers
