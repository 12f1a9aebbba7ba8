"""`Job` and `Target`: work for an engine, in OpenAI's terms, and where it goes (pure)."""

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


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """Where a model is served."""

    model: str
    """Name the client uses."""
    served_name: str
    """Name the engine knows it by; the body's `model` is replaced when they differ."""
    digest: str
    """`sha256:<hex>` of the weights, or empty."""
    engine: str
    """Name of the engine."""
    created: int = 0
    """Unix seconds, for `/v1/models`."""


class Served(msgspec.Struct, frozen=True, kw_only=True):
    """What an engine itself says it served since it was started here, in tokens."""

    tokens_prompt: int
    tokens_completion: int


class Capacity(msgspec.Struct, frozen=True, kw_only=True):
    """Room in an engine's KV cache, in tokens, as it tells now."""

    tokens_free: int
    tokens_total: int
