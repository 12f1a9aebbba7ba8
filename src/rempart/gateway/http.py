"""`Request`: what an ASGI scope holds, read lazily, and the one way to answer it.

Header names are bytes in lower case, as ASGI gives them.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeAlias

from rempart import limits
from rempart.errors import ClientGone, InvalidRequest, Overloaded, RempartError, RequestTooLarge
from rempart.gateway.door import DOOR
from rempart.wire.errors import error_body

Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Headers: TypeAlias = list[tuple[bytes, bytes]]

JSON = (b"content-type", b"application/json")
EVENT_STREAM = (b"content-type", b"text/event-stream; charset=utf-8")
NO_STORE = (b"cache-control", b"no-store")
# Proxies such as nginx hold streams back unless told not to.
UNBUFFERED = (b"x-accel-buffering", b"no")
CLOSE = (b"connection", b"close")


class Budget:
    """What the bodies of all requests under way may take together; one `Share` of it for each request."""

    def __init__(self, bytes_max: int) -> None:
        self._left = bytes_max

    def share(self) -> Share:
        return Share(self)

    def take(self, count: int) -> None:
        if count > self._left:
            raise Overloaded("Too many large requests are under way.", hint="Try again in a moment.", retry_after_s=1)
        self._left -= count


class Share:
    """What one request took, given back at its end."""

    __slots__ = ("_budget", "_taken")

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._taken = 0

    def take(self, count: int) -> None:
        """Raises `Overloaded`."""
        self._budget.take(count)
        self._taken += count

    def give_back(self) -> None:
        self._budget.take(-self._taken)
        self._taken = 0


class Request:
    """One HTTP request and its answer."""

    __slots__ = ("_headers", "answer_headers", "method", "path", "receive", "scope", "send", "started")

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope = scope
        self.receive = receive
        self.send = send
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self._headers: dict[bytes, bytes] | None = None
        self.answer_headers: Headers = []
        """Headers that every answer to this request carries, errors too."""
        self.started = False

    def header(self, name: bytes) -> bytes:
        """Value of the first header of that name, or empty."""
        if self._headers is None:
            headers: dict[bytes, bytes] = {}
            for key, value in self.scope["headers"]:
                headers.setdefault(key, value)
            self._headers = headers
        return self._headers.get(name, b"")

    def all(self, name: bytes) -> list[bytes]:
        """Values of all headers of that name, in order."""
        return [value for key, value in self.scope["headers"] if key == name]

    def single(self, name: bytes) -> bytes:
        """As `header`, but raises `InvalidRequest` when it is sent twice: a proxy in front might read the other one."""
        values = [value for key, value in self.scope["headers"] if key == name]
        if len(values) > 1:
            raise InvalidRequest(f"The header {name.decode()} is sent twice.", hint="Send it once.")
        return values[0] if values else b""

    async def body(self, bytes_max: int, share: Share) -> bytes:
        """The whole body. Raises `RequestTooLarge`, `Overloaded` when all bodies together are too large, or
        `ClientGone` when it never comes whole."""
        length = self.header(b"content-length")
        if length.isdigit() and int(length) > bytes_max:
            if not self.header(b"expect"):  # whoever asks first whether to send need not send it
                await self._discard(bytes_max)
            raise _too_large(bytes_max)
        parts: list[bytes] = []
        total = 0
        while True:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                raise ClientGone("The client went away before its request was whole.")
            part: bytes = message.get("body", b"")
            total += len(part)
            share.take(len(part))
            if total > bytes_max:
                await self._discard(bytes_max)
                raise _too_large(bytes_max)
            parts.append(part)
            if not message.get("more_body", False):
                return parts[0] if len(parts) == 1 else b"".join(parts)

    async def _discard(self, bytes_max: int) -> None:
        """Read on for a moment: a client that is still sending would meet a reset instead of our answer."""
        total = 0
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limits.discard_s):
                while total < 4 * bytes_max:
                    message = await self.receive()
                    total += len(message.get("body", b""))
                    if not message.get("more_body", False):
                        return

    def when_gone(self, callback: Callable[[], None] | None) -> None:
        """Call back once when the client closes its connection; None forgets."""
        self.scope[DOOR].when_gone(callback)

    async def reply(self, status: int, body: bytes, headers: Headers) -> None:
        """A whole answer in one go."""
        self.started = True
        length = [(b"content-length", b"%d" % len(body))] if status != 304 else []
        await self.send(
            {
                "type": "http.response.start",
                "status": status,
                "headers": [*length, *headers, *self.answer_headers],
            }
        )
        await self.send({"type": "http.response.body", "body": body})

    async def reply_json(self, status: int, body: bytes) -> None:
        await self.reply(status, body, [JSON, NO_STORE])

    async def reply_error(self, error: RempartError) -> None:
        """The error in OpenAI's shape, with `retry-after` where it is known."""
        headers = [JSON, NO_STORE]
        if error.retry_after_s is not None:
            headers.append((b"retry-after", b"%d" % error.retry_after_s))
        if isinstance(error, RequestTooLarge):
            headers.append(CLOSE)  # the rest of the body is not read
        await self.reply(error.http_status, error_body(error), headers)

    async def start_stream(self) -> None:
        self.started = True
        await self.send(
            {
                "type": "http.response.start",
                "status": 200,
                "headers": [EVENT_STREAM, NO_STORE, UNBUFFERED, *self.answer_headers],
            }
        )

    async def stream(self, data: bytes, more: bool) -> None:
        await self.send({"type": "http.response.body", "body": data, "more_body": more})


def _too_large(bytes_max: int) -> RequestTooLarge:
    return RequestTooLarge(
        f"The body is over {bytes_max} bytes.",
        hint="Shorten the prompt, or ask the operator to raise server.body_bytes_max.",
    )
