"""`read_header`: what a GGUF file says of itself, without reading its weights.

Source: ggml `docs/gguf.md`, versions 2 and 3. Every length is bounded before it is believed: parsers of this format
had heap overflows (CVE-2026-33298, CVE-2026-27940).
"""

from __future__ import annotations

import struct
from typing import Any, BinaryIO, Final

import msgspec

from rempart.errors import InvalidRequest

_MAGIC: Final = b"GGUF"
_VERSIONS: Final = (2, 3)
_PAIRS_MAX: Final = 65_536
_TENSORS_MAX: Final = 1_000_000
_TEXT_BYTES_MAX: Final = 16 * 1024 * 1024
_ELEMENTS_MAX: Final = 16 * 1024 * 1024
_STRING: Final = 8
_ARRAY: Final = 9
_SCALARS: Final = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}


class NotGguf(InvalidRequest):
    """The file is no GGUF, or one that is damaged."""

    code = "not_gguf"


class GgufHeader(msgspec.Struct, frozen=True):
    """What serving needs to know."""

    architecture: str
    name: str
    context_tokens: int
    """The longest context it was trained for; 0 when it does not tell."""
    tensors: int


def read_header(file: BinaryIO) -> GgufHeader:
    """Reads from the file's beginning. Raises `NotGguf`."""
    if _exactly(file, 4) != _MAGIC:
        raise NotGguf("The file does not begin as GGUF does.", hint="Give a .gguf file.")
    (version,) = struct.unpack("<I", _exactly(file, 4))
    if version not in _VERSIONS:
        raise NotGguf(f"GGUF version {version} is not known here.", hint="Convert it anew with a recent llama.cpp.")
    tensors, pairs = struct.unpack("<QQ", _exactly(file, 16))
    if pairs > _PAIRS_MAX or tensors > _TENSORS_MAX:
        raise NotGguf("The header's counts cannot be true.", hint="The file is damaged: fetch it again.")
    found: dict[str, Any] = {}
    for _ in range(pairs):
        key = _text(file)
        (kind,) = struct.unpack("<I", _exactly(file, 4))
        value = _value(file, kind)
        if value is not None:
            found[key] = value
    architecture = str(found.get("general.architecture", ""))
    context = found.get(f"{architecture}.context_length", 0)
    return GgufHeader(
        architecture=architecture,
        name=str(found.get("general.name", "")),
        context_tokens=context if type(context) is int and context > 0 else 0,
        tensors=tensors,
    )


def _value(file: BinaryIO, kind: int) -> Any:
    """Scalars and texts; None for arrays, which are skipped."""
    if kind == _STRING:
        return _text(file)
    if kind == _ARRAY:
        (inner, count) = struct.unpack("<IQ", _exactly(file, 12))
        if count > _ELEMENTS_MAX:
            raise NotGguf("A list in the header is too long.", hint="The file is damaged: fetch it again.")
        _skip(file, inner, count)
        return None
    code = _SCALARS.get(kind)
    if code is None:
        raise NotGguf(f"The header holds a value of the unknown kind {kind}.", hint="Update Rempart.")
    return struct.unpack(f"<{code}", _exactly(file, struct.calcsize(f"<{code}")))[0]


def _skip(file: BinaryIO, kind: int, count: int) -> None:
    if kind == _STRING:
        for _ in range(count):
            _text(file)
    elif kind in _SCALARS:
        _exactly(file, count * struct.calcsize(f"<{_SCALARS[kind]}"))
    else:
        raise NotGguf(f"The header holds a list of the unknown kind {kind}.", hint="Update Rempart.")


def _text(file: BinaryIO) -> str:
    (length,) = struct.unpack("<Q", _exactly(file, 8))
    if length > _TEXT_BYTES_MAX:
        raise NotGguf("A text in the header is too long.", hint="The file is damaged: fetch it again.")
    return _exactly(file, length).decode(errors="replace")


def _exactly(file: BinaryIO, count: int) -> bytes:
    data = file.read(count)
    if len(data) != count:
        raise NotGguf("The file ends in its header.", hint="It is damaged or still being copied: fetch it again.")
    return data
