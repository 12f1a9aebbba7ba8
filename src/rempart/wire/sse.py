"""`Decoder`: server-sent events, incrementally (pure).

Source: WHATWG HTML, section 9.2.6 "Interpreting an event stream". Only `data` matters here: the event's other fields
are read and dropped, and an event that the stream's end cuts short is not one.
"""

from __future__ import annotations

import re
from typing import Final

from rempart import limits
from rempart.errors import EngineError

DONE: Final = b"[DONE]"
_EOL = re.compile(rb"\r\n|\n|\r")
_BOM = b"\xef\xbb\xbf"


class Decoder:
    """Feed bytes in any split; get the `data` payloads of the events that are whole. Raises `EngineError` when an
    event is over `limits.event_bytes_max`."""

    __slots__ = ("_bytes", "_data", "_half", "_rest", "_started")

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[bytes] = []
        self._bytes = 0
        self._started = False
        self._half = False
        """A CR came last: a line feed after it ends the same line."""

    def feed(self, data: bytes) -> list[bytes]:
        if self._half and data:
            self._half = False
            data = data.removeprefix(b"\n")
        if self._rest:
            data = self._rest + data
        if not self._started:
            if len(data) < len(_BOM) and _BOM.startswith(data):
                self._rest = data
                return []
            self._started = True
            data = data.removeprefix(_BOM)
        self._half = self._half or data.endswith(b"\r")
        lines = self._split(data)
        self._rest = lines.pop()
        events = self._events(lines)
        self._check_size(len(self._rest))
        return events

    def _keep(self, value: bytes) -> None:
        self._data.append(value)
        self._bytes += len(value) + 1
        self._check_size(0)

    def _check_size(self, more: int) -> None:
        if self._bytes + more > limits.event_bytes_max:
            raise EngineError("The engine sent an event that is too large.", hint="See the engine's log.")

    @staticmethod
    def _split(data: bytes) -> list[bytes]:
        return _EOL.split(data) if b"\r" in data else data.split(b"\n")

    def _events(self, lines: list[bytes]) -> list[bytes]:
        events: list[bytes] = []
        for line in lines:
            if not line:
                if self._data:
                    events.append(b"\n".join(self._data))
                    self._data = []
                    self._bytes = 0
            elif line.startswith(b"data:"):
                value = line[6:] if line[5:6] == b" " else line[5:]
                self._keep(value)
            elif line == b"data":
                self._keep(b"")
        return events


def frame(payload: bytes) -> bytes:
    """One event. A payload of several lines becomes one: between JSON's tokens a line feed is as good as a space."""
    if b"\n" in payload or b"\r" in payload:
        payload = payload.replace(b"\r", b" ").replace(b"\n", b" ")
    return b"data: " + payload + b"\n\n"
