"""`AnswerReader`: the answers on one connection, read by llhttp, each judged whole or broken (no I/O)."""

from __future__ import annotations

from typing import Final

import httptools

_DONE: Final = b"data: [DONE]"
_EVENT: Final = b"data: "


class AnswerReader:
    """Feed what arrives; `feed` is true once an answer has ended. Then `problem` and `events` are about it."""

    def __init__(self, *, stream: bool, marker: bytes) -> None:
        self._stream = stream
        self._marker = marker
        self._parser = httptools.HttpResponseParser(self)
        self._parts: list[bytes] = []
        self._ended = False
        self.keeps_alive = True
        """Whether the connection stays open after the answer that has ended."""

    def begin(self) -> None:
        """Another answer is awaited on this connection."""
        self._parts = []
        self._ended = False

    def feed(self, data: bytes) -> bool:
        """Raises `httptools.HttpParserError` when it is not HTTP."""
        self._parser.feed_data(data)
        return self._ended

    def on_body(self, body: bytes) -> None:
        self._parts.append(body)

    def on_message_complete(self) -> None:
        self._ended = True
        # Once the message has ended llhttp has forgotten its headers.
        self.keeps_alive = self._parser.should_keep_alive()

    @property
    def begun(self) -> bool:
        """Whether a byte of the body has come."""
        return bool(self._parts)

    def judge(self) -> tuple[str, int]:
        """(what is wrong with the answer, empty when it is whole; events in it, [DONE] not counted)."""
        body = b"".join(self._parts)
        status = self._parser.get_status_code()
        if status != 200:
            return f"status {status}: {body[:200].decode(errors='replace')}", 0
        if self._marker not in body:
            return "the answer's last word is missing", 0
        if not self._stream:
            return "", 0
        if not body.rstrip().endswith(_DONE):
            return "the stream does not end with [DONE]", 0
        return "", body.count(_EVENT) - 1
