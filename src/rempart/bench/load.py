"""`generate`: load on one target, from a process of its own, which reads a `Load` and writes an `Outcome` (JSON).

It is built to cost little: no HTTP client, one protocol object a connection, one request written as one buffer. What
it does not do: cookies, redirects, TLS.
"""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine
from typing import Any, Final, cast

import httptools
import msgspec
import uvloop

from rempart.bench.answer import AnswerReader
from rempart.bench.canned import LAST_WORD, PACE_S, PACED_DELTAS, request_body
from rempart.bench.plan import Load, Outcome, Target

_DRAIN_S: Final = 5.0
_CLOSED_DRAIN_S: Final = 1.0
"""Of answers that count no more."""
_START_S: Final = 60.0
_STREAM_S: Final = PACE_S * PACED_DELTAS


class GeneratorFailed(Exception):
    """The load generator ended without an outcome; the text is its stderr."""


def generate(load: Load) -> Outcome:
    """Run it in a process of its own. Raises `GeneratorFailed`."""
    done = subprocess.run(
        [sys.executable, "-m", "rempart.bench.load"],
        input=msgspec.json.encode(load),
        capture_output=True,
        check=False,
        timeout=load.warm_s + load.seconds + _DRAIN_S + _START_S,
    )
    if done.returncode:
        raise GeneratorFailed(done.stderr.decode(errors="replace")[-2000:])
    return msgspec.json.decode(done.stdout, type=Outcome)


def request_bytes(target: Target, *, stream: bool) -> bytes:
    body = request_body(target.model, stream=stream)
    key = f"authorization: Bearer {target.key}\r\n" if target.key else ""
    head = f"POST {target.path} HTTP/1.1\r\nhost: 127.0.0.1:{target.port}\r\n{key}content-type: application/json\r\n"
    return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body


class _Connection(asyncio.Protocol):
    """One connection, one answer at a time."""

    def __init__(self, reader: AnswerReader, ended: Callable[[_Connection, str, int], None]) -> None:
        self._reader = reader
        self._ended = ended
        self._transport: asyncio.Transport | None = None
        self.waiting = False
        self.sent = self.first = self.last = 0.0
        """Monotonic seconds: of sending, of the first and the latest arrival of this answer."""
        self.gap = 0.0
        """Longest time between two arrivals of this answer, seconds."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    @property
    def usable(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def ask(self, request: bytes, sent: float) -> None:
        assert self._transport is not None
        self._reader.begin()
        self.waiting = True
        self.sent, self.first, self.last, self.gap = sent, 0.0, 0.0, 0.0
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        now = time.monotonic()
        try:
            ended = self._reader.feed(data)
        except httptools.HttpParserError as error:
            self.close()
            self._end(f"not HTTP: {error}", 0)
            return
        if self.last:
            self.gap = max(self.gap, now - self.last)
        if self._reader.begun:
            self.first = self.first or now
            self.last = now
        if ended:
            if not self._reader.keeps_alive:
                self.close()
            self._end(*self._reader.judge())

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self.waiting:
            self._end("the connection was closed before the answer ended", 0)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def _end(self, problem: str, events: int) -> None:
        if self.waiting:
            self.waiting = False
            self._ended(self, problem, events)


class _Generator:
    """All connections of one load, and what is counted."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._request = request_bytes(load.target, stream=load.stream)
        self._loop = asyncio.get_running_loop()
        self._connections: list[_Connection] = []
        self._free: list[_Connection] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._asking = True
        self._counting = False
        self._answers = self._broken = self._events = 0
        self._problem = ""
        self._latencies: list[float] = []
        self._firsts: list[float] = []
        self._gap = 0.0

    async def run(self) -> Outcome:
        load = self._load
        if load.loop == "open":
            self._spawn(self._fire())
        else:
            for number in range(load.connections):
                delay = number / load.connections * _STREAM_S if load.loop == "paced" else 0.0
                self._loop.call_later(delay, self._spawn_one)
        await asyncio.sleep(load.warm_s)
        self._counting = True
        began, cpu = time.monotonic(), time.process_time()
        await asyncio.sleep(load.seconds)
        seconds, used = time.monotonic() - began, time.process_time() - cpu
        self._asking = False
        self._counting = load.loop != "closed"
        until = self._loop.time() + (_CLOSED_DRAIN_S if load.loop == "closed" else _DRAIN_S)
        while any(one.waiting for one in self._connections) and self._loop.time() < until:
            await asyncio.sleep(0.02)
        for one in self._connections:
            if one.waiting and load.loop != "closed":
                self._count(one, f"no answer within {_DRAIN_S:.0f} s of the end", 0)
            one.waiting = False
            one.close()
        return self._outcome(seconds, used / seconds)

    def _outcome(self, seconds: float, cpu_share: float) -> Outcome:
        return Outcome(
            seconds=seconds,
            answers=self._answers,
            broken=self._broken,
            problem=self._problem,
            events=self._events,
            cpu_share=cpu_share,
            latencies_ms=self._latencies,
            first_ms=self._firsts,
            longest_gap_ms=self._gap * 1000,
        )

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _spawn_one(self) -> None:
        if self._asking:
            self._spawn(self._connect_and_ask(time.monotonic()))

    async def _connect_and_ask(self, sent: float) -> None:
        reader = AnswerReader(stream=self._load.stream, marker=LAST_WORD.encode())
        try:
            _, one = await self._loop.create_connection(
                lambda: _Connection(reader, self._ended), "127.0.0.1", self._load.target.port
            )
        except OSError as error:
            self._broken += 1
            self._problem = self._problem or f"cannot connect: {error.strerror}"
            return
        self._connections.append(one)
        one.ask(self._request, sent)

    async def _fire(self) -> None:
        """Requests leave at their times. libuv's timers are whole milliseconds: each is timed from when it left."""
        began = self._loop.time()
        number = 0
        while self._asking:
            await asyncio.sleep(max(began + number / self._load.per_s - self._loop.time(), 0))
            number += 1
            now = time.monotonic()
            while self._free and not self._free[-1].usable:
                self._free.pop()
            if self._free:
                self._free.pop().ask(self._request, now)
            elif sum(one.waiting for one in self._connections) < self._load.connections:
                self._spawn(self._connect_and_ask(now))
            else:
                self._broken += 1
                self._problem = self._problem or "more requests were waiting than there may be connections"

    def _ended(self, one: _Connection, problem: str, events: int) -> None:
        if self._counting:
            self._count(one, problem, events)
        if self._load.loop == "open":
            self._free.append(one)
        elif self._asking:
            if one.usable:
                one.ask(self._request, time.monotonic())
            else:
                self._spawn_one()

    def _count(self, one: _Connection, problem: str, events: int) -> None:
        if problem:
            self._broken += 1
            self._problem = self._problem or problem
            return
        self._answers += 1
        self._events += events
        if self._load.loop == "open":
            self._latencies.append((one.last - one.sent) * 1000)
        elif self._load.loop == "paced":
            self._firsts.append((one.first - one.sent) * 1000)
            self._gap = max(self._gap, one.gap)


async def _main() -> Outcome:
    return await _Generator(msgspec.json.decode(sys.stdin.buffer.read(), type=Load)).run()


if __name__ == "__main__":
    gc.disable()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        sys.stdout.buffer.write(msgspec.json.encode(runner.run(_main())))
