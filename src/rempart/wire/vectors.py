"""`in_base64`: the form of a vector that OpenAI's own client asks for (pure)."""

from __future__ import annotations

import base64
import struct
from collections.abc import Mapping, Sequence
from typing import Any

from rempart.errors import EngineRefused


def in_base64(values: Sequence[float]) -> str:
    """float32, little-endian, in base64."""
    return base64.b64encode(struct.pack(f"<{len(values)}f", *values)).decode()


def wants_base64(asked: Mapping[str, Any]) -> bool:
    """What `encoding_format` says. Raises `EngineRefused` when it is neither of OpenAI's two."""
    kind = asked.get("encoding_format") or "float"
    if kind not in ("float", "base64"):
        raise EngineRefused(f"encoding_format {kind!r} is unknown.", status=400, param="encoding_format")
    return bool(kind == "base64")
