"""`encode` and `decode`: settings as one process of this site hands them to another (pure)."""

from __future__ import annotations

from pathlib import Path

import msgspec

from rempart.config.settings import Settings


def encode(settings: Settings) -> bytes:
    """JSON, with paths as texts."""
    return msgspec.json.encode(settings, enc_hook=str)


def decode(data: bytes) -> Settings:
    """Raises `msgspec.ValidationError` at what no version of this wrote."""
    return msgspec.json.decode(data, type=Settings, dec_hook=_path)


def _path(kind: type, value: object) -> Path:
    if kind is not Path or not isinstance(value, str):
        raise TypeError(f"Expected `path`, got `{type(value).__name__}`")
    return Path(value)
