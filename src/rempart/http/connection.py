"""`Client.request`: HTTP/1.1 to one peer over kept connections; llhttp (httptools) parses (RFC 9112).

It is small on purpose: the gateway spends more time here than on anything else of an exchange, and must close a
connection the moment nobody waits for it, since that is how engines learn to stop. It knows no redirects, proxies,
cookies or compression. What sockets, TLS and the parser raise is mapped here to the errors of the peer's `Kind`: to
those of engines, unless something else is said.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from typing import Final, cast
from urllib.parse import SplitResult

import httptools
import msgspec

from rempart import limits
from rempart.errors import EngineError, EngineTimeout, EngineUnavailable, RempartError

# Shorter than what servers use (uvicorn and llama.cpp: 5 s), so that a kept connection is not closed under a request.
_KEEP_ALIVE_S: Final = 3.0
_HEAD_BYTES_MAX: Final = 64 * 1024
_BUFFER_BYTES: Final = 256 * 1024
"""Read ahead of who reads the answer; then the peer has to wait."""
_PORTS: Final = {"http": 80, "https": 443}


class Kind(msgspec.Struct, frozen=True, kw_only=True):
    """What a peer is called in errors, and which errors these are."""

    noun: str = "engine"
    failed: type[RempartError] = EngineError
    """It says what it should not."""
    unavailable: type[RempartError] = EngineUnavailable
    silent: type[RempartError] = EngineTimeout
    again: str = "Try again in a moment; see /readyz."
    shorter: str = "Ask for fewer tokens."
    """What to do when an answer is too large."""
    look: str = "See the engine's log."
    trust: str = "Check engines.ca_file, and the name in the engine's certificate."


_ENGINE: Final = Kind()


class Response:
    """An answer whose head has come. `close` it in the end: if it is not whole by then, the connection is closed."""

    __slots__ = ("_client", "_closed", "_connection", "content_type", "status")

    def __init__(self, client: Client, connection: _Connection) -> None:
        self._client = client
        self._connection = connection
        self._closed = False
        self.status = connection.status
        self.content_type = connection.headers.get(b"content-type", b"").partition(b";")[0].strip().lower()

    async def read(self) -> bytes:
        """What has come since the last call, at least a byte; empty at the end. Raises the errors of its kind."""
        return await self._connection.read()

    async def whole(self, bytes_max: int) -> bytes:
        """All that is left of the body. Raises `Kind.failed` when it is over `bytes_max`."""
        parts: list[bytes] = []
        total = 0
        while data := await self._connection.read():
            total += len(data)
            if total > bytes_max:
                kind = self._client.kind
                raise kind.failed(f"The {kind.noun}'s answer is too large.", hint=kind.shorter)
            parts.append(data)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def close(self) -> None:
        """Once; afterwards its connection may serve another exchange."""
        if not self._closed:
            self._closed = True
            self._client._take_back(self._connection)


class Answered(msgspec.Struct, frozen=True):
    """A whole answer."""

    status: int
    content_type: bytes
    body: bytes


class Client:
    """All connections to one peer. `name` is what errors call it."""

    def __init__(self, name: str, tls: ssl.SSLContext | None = None, kind: Kind = _ENGINE) -> None:
        self._name = name
        self.kind = kind
        self._tls = tls
        self._idle: deque[_Connection] = deque()
        """Those last used at the right."""
        self._used: set[_Connection] = set()
        self._closed = False

    async def request(self, url: SplitResult, head: bytes, body: bytes) -> Response:
        """`head` is the whole head of the request, from its first line to the empty one.

        Sent once more, on a new connection, when it was closed before any byte of an answer: a kept one may be closed
        by the server just as it is used again, and nothing of an answer has been seen by anyone.
        """
        response = await self._try(url, head, body, self._kept(url.netloc))
        if response is None:
            response = await self._try(url, head, body, None)
        if response is None:
            raise self.unavailable("closed its connection")
        return response

    async def post(self, url: SplitResult, content_type: str, body: bytes, answer_bytes_max: int) -> Answered:
        """`body` to `url`, and all of what is answered. Raises the errors of its kind."""
        head = (
            f"POST {url.path or '/'} HTTP/1.1\r\nHost: {url.netloc}\r\nAccept-Encoding: identity\r\n"
            f"Content-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        response = await self.request(url, head.encode(), body)
        try:
            answer = await response.whole(answer_bytes_max)
        finally:
            response.close()
        return Answered(response.status, response.content_type, answer)

    async def _try(self, url: SplitResult, head: bytes, body: bytes, kept: _Connection | None) -> Response | None:
        """None when the connection was closed before any byte of an answer."""
        if self._closed:
            raise self.unavailable("is closed")
        connection = kept or await self._connect(url)
        self._used.add(connection)
        try:
            connection.send(head + body)
            if not await connection.head():
                self._take_back(connection)
                return None
        except BaseException:
            self._take_back(connection)
            raise
        return Response(self, connection)

    def _kept(self, netloc: str) -> _Connection | None:
        """A peer that was restarted may listen elsewhere: what leads to its old place is closed."""
        now = asyncio.get_running_loop().time()
        while self._idle:
            connection = self._idle.pop()
            if connection.usable and connection.netloc == netloc and now - connection.idle_since < _KEEP_ALIVE_S:
                return connection
            connection.abort()
        return None

    async def _connect(self, url: SplitResult) -> _Connection:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(limits.engine_connect_s):
                _, connection = await loop.create_connection(
                    lambda: _Connection(loop, self, url.netloc),
                    url.hostname or "",
                    url.port or _PORTS[url.scheme],
                    ssl=(self._tls or True) if url.scheme == "https" else None,
                )
        except ssl.SSLCertVerificationError as error:
            raise self.kind.unavailable(
                f"{self} shows a certificate that cannot be trusted: {error.verify_message}.", hint=self.kind.trust
            ) from error
        except (OSError, UnicodeError) as error:  # also TimeoutError, and names that cannot be resolved or be names
            raise self.unavailable("cannot be reached") from error
        if self._closed:
            connection.abort()
            raise self.unavailable("is closed")
        return connection

    def _take_back(self, connection: _Connection) -> None:
        if connection not in self._used:
            return
        self._used.discard(connection)
        if self._closed or not connection.reusable:
            connection.abort()
            return
        connection.rest()
        self._idle.append(connection)
        while self._idle[0].idle_since + _KEEP_ALIVE_S < connection.idle_since:
            self._idle.popleft().abort()

    def close(self) -> None:
        self._closed = True
        for connection in (*self._idle, *self._used):
            connection.abort()
        self._idle.clear()

    def __str__(self) -> str:
        return f"The {self.kind.noun} {self._name}"

    def unavailable(self, what: str) -> RempartError:
        return self.kind.unavailable(f"{self} {what}.", hint=self.kind.again, retry_after_s=2)


class _Connection(asyncio.Protocol):
    """One connection, one request at a time."""

    def __init__(self, loop: asyncio.AbstractEventLoop, client: Client, netloc: str) -> None:
        self._loop = loop
        self._client = client
        self.netloc = netloc
        self.idle_since = 0.0
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._reset()

    def _reset(self) -> None:
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self._asked = self._began = self._headed = self._ended = self._keeps = self._paused = False
        self._unsaid = False
        """The head does not say where the body ends: it ends with the connection."""
        self._other_bytes = 0
        """What came since the last of a body: heads, trailers, what stands between chunks."""
        self._parts: list[bytes] = []
        self._buffered = 0
        self._error: RempartError | None = None

    # Who asks.

    @property
    def usable(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    @property
    def reusable(self) -> bool:
        return self.usable and self._ended and self._keeps and not self._paused and self._error is None

    def send(self, request: bytes) -> None:
        self._asked = True
        if self._transport is not None:
            self._transport.write(request)

    async def head(self) -> bool:
        """Wait for the answer's head; false when the connection was closed before any byte of it."""
        while not self._headed:
            if self._transport is None and not self._began and self._error is None:
                return False
            await self._wait(limits.engine_first_byte_s)
        return True

    async def read(self) -> bytes:
        while not self._parts:
            if self._ended:
                return b""
            await self._wait(limits.engine_between_bytes_s)
        data = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        self._parts.clear()
        self._buffered = 0
        if self._paused and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()
        return data

    async def _wait(self, most_s: float) -> None:
        """For anything to happen. Raises `Kind.silent` after `most_s`, or what has gone wrong."""
        if self._error is not None:
            raise self._error
        if self._transport is None:
            raise self._gone()
        self._waiter = self._loop.create_future()
        timer = self._loop.call_later(most_s, self._expire)
        try:
            await self._waiter
        finally:
            timer.cancel()
            self._waiter = None

    def _expire(self) -> None:
        self._fail(self._client.kind.silent(f"{self._client} is silent.", hint=self._client.kind.look))

    def rest(self) -> None:
        self._reset()
        self.idle_since = self._loop.time()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    # What the peer does.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if not self._asked or self._error is not None:
            self.abort()  # it speaks without being asked
            return
        self._began = True
        self._other_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._fail(self._not_http())
        if self._other_bytes > _HEAD_BYTES_MAX:
            self._fail(self._not_http())
        self._wake()

    def eof_received(self) -> None:
        if self._unsaid:
            self._ended = True
            self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self._began and not self._ended and self._error is None:
            self._error = self._gone()
        self._wake()

    def _fail(self, error: RempartError) -> None:
        if self._error is None:
            self._error = error
        self.abort()
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _gone(self) -> RempartError:
        return self._client.unavailable("closed its connection")

    def _not_http(self) -> RempartError:
        kind = self._client.kind
        return kind.failed(f"{self._client} does not speak HTTP as it should.", hint=kind.look)

    # What the parser finds.

    def on_message_begin(self) -> None:
        if self._ended:
            self._keeps = False  # more than was asked for

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._headed:
            self.headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        if self._ended:
            return
        status = self._parser.get_status_code()
        if status < 200:  # an interim answer (RFC 9110 section 15.2)
            self.headers = {}
            if status < 100:  # nothing of HTTP, and its body would be taken for that of the answer
                raise self._not_http()
            return
        self.status = status
        self._headed = True
        self._keeps = self._parser.should_keep_alive()
        self._unsaid = not self._keeps and not {b"content-length", b"transfer-encoding"} & self.headers.keys()

    def on_body(self, body: bytes) -> None:
        if self._ended:
            return
        self._other_bytes = 0
        self._parts.append(body)
        self._buffered += len(body)
        if self._buffered > _BUFFER_BYTES and not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()

    def on_message_complete(self) -> None:
        if self._headed:
            self._ended = True
