"""What can happen to an exchange (values)."""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from rempart.errors import RempartError
from rempart.wire.requests import Call


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """A request that could be read."""

    call: Call


class Refused(msgspec.Struct, frozen=True, kw_only=True):
    """A request that could not be read, or may not be answered now."""

    error: RempartError
    operation: str
    received: bytes
    """The request's body as far as it was read."""


class Admitted(msgspec.Struct, frozen=True, kw_only=True):
    """It may be answered, by this engine; or, after one failed, by this other one."""

    served_name: str
    digest: str
    engine: str
    model: str = ""
    """The model that answers: what an alias stands for, or a declared fallback; empty: the one that was asked for."""
    retries: int = 0
    """How often it may be handed to another engine, should this one fail before anything reached the client."""


class Unrouted(msgspec.Struct, frozen=True):
    """No other engine takes it."""


class RequestRecorded(msgspec.Struct, frozen=True, kw_only=True):
    """The request is durable."""

    index: int


class Answered(msgspec.Struct, frozen=True, kw_only=True):
    """The engine's whole answer."""

    body: bytes


class Streamed(msgspec.Struct, frozen=True, kw_only=True):
    """Payloads of the engine's stream, in order."""

    payloads: list[bytes]


class StreamEnded(msgspec.Struct, frozen=True):
    """The engine's stream ended as it should."""


class Failed(msgspec.Struct, frozen=True, kw_only=True):
    """The engine, or something of ours, failed."""

    error: RempartError


class ClientLeft(msgspec.Struct, frozen=True):
    """The client closed its connection."""


class Cut(msgspec.Struct, frozen=True, kw_only=True):
    """Past its deadline, or the server is stopping."""

    error: RempartError


class LedgerFailed(msgspec.Struct, frozen=True, kw_only=True):
    """What was to be recorded is not."""

    error: RempartError


class ResponseRecorded(msgspec.Struct, frozen=True, kw_only=True):
    """The response is durable."""

    index: int


Event: TypeAlias = (
    Asked
    | Refused
    | Admitted
    | Unrouted
    | RequestRecorded
    | Answered
    | Streamed
    | StreamEnded
    | Failed
    | ClientLeft
    | Cut
    | LedgerFailed
    | ResponseRecorded
)
