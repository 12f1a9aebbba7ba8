"""`pacing`: an upstream that streams deltas at a steady pace, in a process of its own.

All streams share one timer of a millisecond: a stream is in the slot of the millisecond it began in and gets its next
delta each time that slot comes round.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import subprocess
import sys
from collections.abc import Iterator
from typing import Any, Final, cast

import httptools
import uvloop

from rempart.bench.canned import PACE_S, models_answer, paced_chunks

MODEL: Final = "paced"
_TICK_S: Final = 0.001
_SLOTS: Final = round(PACE_S / _TICK_S)
_HEAD: Final = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-cache\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)


@contextlib.contextmanager
def pacing() -> Iterator[tuple[int, int]]:
    """(its port, its process id) while it runs."""
    with subprocess.Popen([sys.executable, "-m", "rempart.bench.upstream"], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline()), process.pid
        finally:
            process.terminate()


class _Slots:
    """Streams under way, by the millisecond at which they are served."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._slots: list[dict[asyncio.Transport, int]] = [{} for _ in range(_SLOTS)]
        self._chunks = paced_chunks(MODEL)
        self._began = self._loop.time()
        self._served = 0

    def add(self, transport: asyncio.Transport) -> None:
        """Its first delta leaves at once."""
        transport.write(_HEAD + self._chunks[0])
        self._slots[self._now() % _SLOTS][transport] = 1

    def remove(self, transport: asyncio.Transport) -> None:
        for slot in self._slots:
            slot.pop(transport, None)

    async def serve(self) -> None:
        while True:
            now = self._now()
            while self._served < now:
                self._served += 1
                self._serve_slot(self._slots[self._served % _SLOTS])
            await asyncio.sleep(_TICK_S)

    def _serve_slot(self, slot: dict[asyncio.Transport, int]) -> None:
        ended = []
        for transport, number in slot.items():
            transport.write(self._chunks[number])
            slot[transport] = number + 1
            if number + 1 == len(self._chunks):
                ended.append(transport)
        for transport in ended:
            slot.pop(transport, None)

    def _now(self) -> int:
        return int((self._loop.time() - self._began) / _TICK_S)


class _Upstream(asyncio.Protocol):
    def __init__(self, slots: _Slots) -> None:
        self._slots = slots
        self._parser = httptools.HttpRequestParser(self)
        self._transport: Any = None
        self._url = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_begin(self) -> None:
        self._url = b""

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_message_complete(self) -> None:
        if self._url.endswith(b"/chat/completions"):
            self._slots.add(self._transport)
            return
        body = models_answer(MODEL)
        head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
        self._transport.write(head % len(body) + body)

    def connection_lost(self, exc: Exception | None) -> None:
        self._slots.remove(self._transport)


async def _main() -> None:
    slots = _Slots()
    server = await asyncio.get_running_loop().create_server(lambda: _Upstream(slots), "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await slots.serve()


if __name__ == "__main__":
    gc.disable()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_main())
