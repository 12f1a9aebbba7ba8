"""`Job`: one piece of work for an engine, in OpenAI's terms (pure)."""

from __future__ import annotations

import msgspec


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """What the gateway asks of an engine."""

    path: str
    """`/v1/chat/completions`, `/v1/completions` or `/v1/embeddings`."""
    body: bytes
    """The JSON body to send, as it is."""
    exchange: str
    """Id of the exchange, sent as `x-request-id`."""
