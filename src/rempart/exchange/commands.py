"""What an exchange wants done (values)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

import msgspec

from rempart.errors import RempartError
from rempart.wire.facts import Fact
from rempart.wire.job import Job
from rempart.wire.requests import Call


class Admit(msgspec.Struct, frozen=True, kw_only=True):
    """Decide whether and by whom this is answered -> Admitted, Refused, or while it waits ClientLeft or Cut."""

    call: Call


class Reroute(msgspec.Struct, frozen=True, kw_only=True):
    """Let the engine that failed go, and find another one -> Admitted, Unrouted, ClientLeft or Cut."""

    call: Call
    error: RempartError
    """What it failed with."""


class RecordRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Make the request durable -> RequestRecorded or LedgerFailed."""

    facts: Mapping[str, Fact]
    body: bytes


class Dispatch(msgspec.Struct, frozen=True, kw_only=True):
    """Ask the engine -> Answered, or Streamed… and StreamEnded; or Failed, ClientLeft, Cut."""

    job: Job
    stream: bool


class Relay(msgspec.Struct, frozen=True, kw_only=True):
    """Write the piece to the ledger, then send the data to the client. No event when all is well."""

    data: bytes
    piece: bytes


class CancelEngine(msgspec.Struct, frozen=True):
    """The engine need not go on."""


class RecordResponse(msgspec.Struct, frozen=True, kw_only=True):
    """Make the response durable -> ResponseRecorded or LedgerFailed."""

    facts: Mapping[str, Fact]
    body: bytes


class Settle(msgspec.Struct, frozen=True, kw_only=True):
    """Account for what was used."""

    tokens_prompt: int
    tokens_completion: int


class Send(msgspec.Struct, frozen=True, kw_only=True):
    """The whole answer: a body, or an error."""

    status: int = 200
    body: bytes = b""
    error: RempartError | None = None


class Finish(msgspec.Struct, frozen=True, kw_only=True):
    """The last bytes of a stream."""

    data: bytes


Command: TypeAlias = (
    Admit | Reroute | RecordRequest | Dispatch | Relay | CancelEngine | RecordResponse | Settle | Send | Finish
)
