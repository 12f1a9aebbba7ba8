"""`DoorProtocol`: uvicorn's HTTP/1.1 protocol with bounds on heads, bodies, connections and stalls.

uvicorn bounds none of these by itself. One sweep a second over the open connections enforces the deadlines, so that
a request costs no timer of its own. Errors are written in OpenAI's shape, also those that happen before any
application is called.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Any, Final
from uuid import uuid4

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from rempart import limits
from rempart.errors import (
    HeadersTooLarge,
    InvalidRequest,
    Overloaded,
    RempartError,
    RequestTimeout,
    UnsupportedEncoding,
)
from rempart.wire.errors import error_body

DOOR: Final = "rempart.door"
"""Key of the connection in an ASGI scope."""
_ABSOLUTE: Final = re.compile(rb"https?://([^/?#@]+)(/.*)?", re.IGNORECASE | re.DOTALL)


class _Cycle(RequestResponseCycle):
    """One request and its answer, written in as few system calls as can be: the head goes with the first body, as
    ASGI 3.0 asks ("Response Start - send event"). Headers are the gateway's own and need no looking at."""

    _head: bytes = b""

    async def send(self, message: Any) -> None:
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.disconnected:
            return
        if message["type"] == "http.response.start":
            self._begin(message["status"], message["headers"])
            return
        body: bytes = message.get("body", b"")
        more: bool = message.get("more_body", False)
        if self.scope["method"] == "HEAD":
            body = b""
        elif self.chunked_encoding:
            framed = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            body = framed if more else framed + b"0\r\n\r\n"
        data, self._head = self._head + body, b""
        if data:
            self.transport.write(data)
        if not more:
            self._complete()

    def _begin(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        self.response_started = True
        self.waiting_for_100_continue = False
        lines = [STATUS_LINE[status]]
        whole = status in (204, 304)
        for name, value in headers:
            whole = whole or name == b"content-length"
            if name == b"connection":
                self.keep_alive = False  # it can only say "close"
            else:
                lines += (name, b": ", value, b"\r\n")
        old = self.scope["http_version"] == "1.0"  # knows no chunks: the answer ends with the connection
        self.keep_alive = self.keep_alive and not (old and not whole)
        self.chunked_encoding = not whole and not old and self.scope["method"] != "HEAD"
        if self.chunked_encoding:
            lines.append(b"transfer-encoding: chunked\r\n")
        lines.append(b"\r\n" if self.keep_alive else b"connection: close\r\n\r\n")
        self._head = b"".join(lines)

    def _complete(self) -> None:
        self.response_complete = True
        self.message_event.set()
        if not self.keep_alive:
            self.transport.close()
        self.on_response()


class DoorProtocol(HttpToolsProtocol):
    """One connection. Its state is `None` head time when idle, else the loop time at which the head or body began."""

    head_since: float | None = None
    body_since: float | None = None
    stalled_since: float | None = None
    _raw_bytes = 0
    _head_bytes = 0
    _head_count = 0
    _when_gone: Callable[[], None] | None = None
    _refusal: RempartError | None = None
    _skipping = False
    """The parser is being told of a head that was read before."""
    _over = False
    """A head is over its bounds: nothing that follows it is taken."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > limits.connections_max:
            self.refuse(Overloaded("Too many connections are open.", hint="Try again in a moment.", retry_after_s=1))
            return
        self.head_since = self.loop.time()

    def data_received(self, data: bytes) -> None:
        while data and self._refusal is None:
            data = self._take(data)

    def _take(self, data: bytes) -> bytes:
        """Returns what follows an offer to upgrade, and is to be taken next."""
        self._unset_keepalive_if_required()
        if self.head_since is None and self.body_since is None:
            self.head_since = self.loop.time()
        # The parser reports a header, or a trailer, only when it is whole: an endless one shows in the raw count alone.
        self._raw_bytes += len(data)
        rest = b""
        try:
            self.parser.feed_data(data)
        except HttpParserUpgrade as offer:
            rest = data[offer.args[0] :]
            self._decline()
        except HttpParserError:
            self.refuse(InvalidRequest("The request is not valid HTTP/1.1.", hint="Check the client or the proxy."))
            return b""
        if self._over or self._raw_bytes > limits.header_bytes_max:
            self.refuse(
                HeadersTooLarge(
                    f"The headers are over {limits.header_bytes_max} bytes or {limits.header_count_max} lines.",
                    hint="Send fewer or shorter headers.",
                )
            )
        return rest

    def _decline(self) -> None:
        """Offers such as `Upgrade: h2c` (Java's default client) may be ignored: RFC 9110 section 7.8.

        The parser then stands after the head and would drop the body: a new one is told of it and goes on.
        """
        framing = self._body_header()
        self.parser = HttpRequestParser(self)
        if framing:
            self._skipping = True
            self.parser.feed_data(b"POST / HTTP/1.1\r\n" + framing + b"\r\n\r\n")
            self._skipping = False

    def _body_header(self) -> bytes:
        """The header that says how long the body is; empty when there is none."""
        for name, value in self.headers:
            if name == b"transfer-encoding" or (name == b"content-length" and value.strip(b"0 ")):
                return name + b": " + value
        return b""

    def _head_over(self) -> bool:
        return self._head_count > limits.header_count_max or self._head_bytes > limits.header_bytes_max

    @property
    def _deaf(self) -> bool:
        """What the parser still finds in the same packet is nobody's request any more."""
        return self._skipping or self._over or self._refusal is not None

    def on_message_begin(self) -> None:
        if self._deaf:
            return
        self._head_bytes = self._raw_bytes = self._head_count = 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        if self._deaf:
            return
        self._head_bytes += len(url)
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._deaf:
            return
        self._head_count += 1
        self._head_bytes += len(name) + len(value)
        self._over = self._head_over()
        if not self._over:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._over = self._over or self._head_over()
        if self._deaf:
            return  # data_received answers 431 as soon as the parser returns
        self.head_since = None
        self.body_since = self.loop.time()
        self._raw_bytes = 0
        self.scope[DOOR] = self  # type: ignore[typeddict-unknown-key]
        if not self.url.startswith(b"/") and not self._take_authority():
            self.refuse(InvalidRequest("The request's target is no path.", hint="Send it to /v1/… of this server."))
            return
        if any(name == b"transfer-encoding" and value.strip().lower() != b"chunked" for name, value in self.headers):
            self.refuse(UnsupportedEncoding("The body comes in a transfer coding that is not known here."))
            return
        super().on_headers_complete()

    def _take_authority(self) -> bool:
        """An absolute target stands above the Host header (RFC 9112 section 3.2.2). False when it is none."""
        target = _ABSOLUTE.fullmatch(self.url)
        if target is None:
            return False
        self.headers[:] = [(name, value) for name, value in self.headers if name != b"host"]
        self.headers.append((b"host", target[1]))
        self.url = target[2] or b"/"
        return True

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        cycle.__class__ = _Cycle  # uvicorn makes them, and asks nobody which
        super()._start_asgi_task(cycle, app)

    def on_body(self, body: bytes) -> None:
        if self._over or self._refusal is not None:
            return
        self._raw_bytes = 0
        if self.cycle is not None and self.body_since is not None:
            super().on_body(body)

    def on_message_complete(self) -> None:
        if self._over or self._refusal is not None:
            return
        self._raw_bytes = 0
        if self.parser.should_upgrade() and self._body_header():
            return  # the parser drops the body of an offer to upgrade; `_decline` sees to it
        if self.cycle is not None and self.body_since is not None:
            self.body_since = None
            super().on_message_complete()

    def pause_writing(self) -> None:
        self.stalled_since = self.loop.time()
        super().pause_writing()

    def resume_writing(self) -> None:
        self.stalled_since = None
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self.head_since = self.body_since = self.stalled_since = None
        super().connection_lost(exc)
        if self._when_gone is not None:
            self._when_gone()

    def when_gone(self, callback: Callable[[], None] | None) -> None:
        """Call back once when the client closes its connection; None forgets. Costs no task, unlike `receive`."""
        self._when_gone = callback
        if callback is not None and self.transport.is_closing():
            callback()

    def sweep(self, now: float) -> None:
        """Close what is past its deadline. `now` is loop time in seconds."""
        if self.head_since is not None and now - self.head_since > limits.request_head_s:
            self.refuse(RequestTimeout("The request's headers did not arrive in time.", hint="Send them at once."))
        elif self.body_since is not None and now - self.body_since > limits.request_body_s:
            self._late_body()
        elif self.stalled_since is not None and now - self.stalled_since > limits.client_stall_s:
            self.transport.abort()

    def _late_body(self) -> None:
        """The application is waiting for this body; it sees its client gone, records that, and writes nothing."""
        self.refuse(RequestTimeout("The request's body did not arrive in time.", hint="Send it at once."))

    def refuse(self, error: RempartError) -> None:
        """Answer without calling the application, and close."""
        self._refusal = error
        self.head_since = self.body_since = None
        if self.transport.is_closing():
            return
        if self.cycle is not None and not self.cycle.more_body and not self.cycle.response_complete:
            self.cycle.keep_alive = False  # what was asked before this is answered first, and then it ends
            return
        if self.pipeline or (
            self.cycle is not None and self.cycle.response_started and not self.cycle.response_complete
        ):
            self.transport.abort()  # an answer is under way: ours would stand in the middle of it
            return
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        body = error_body(error)
        head = [
            STATUS_LINE[error.http_status],
            b"content-type: application/json\r\ncontent-length: ",
            str(len(body)).encode(),
            b"\r\nconnection: close\r\nx-request-id: ",
            uuid4().hex.encode(),
            b"\r\n",
        ]
        if error.retry_after_s is not None:
            head.append(b"retry-after: %d\r\n" % error.retry_after_s)
        head.append(b"\r\n")
        self.transport.write(b"".join(head) + body)
        self.transport.close()


def sweep(connections: set[Any], now: float) -> None:
    """Apply the deadlines to all open connections."""
    for connection in tuple(connections):
        connection.sweep(now)
