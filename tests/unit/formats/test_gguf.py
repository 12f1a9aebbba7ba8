"""`rempart.formats.gguf`: a header is read, and any damage to it is `NotGguf` and nothing else.

The headers are built here from ggml's `docs/gguf.md`.
"""

from __future__ import annotations

import io
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rempart.formats.gguf import GgufHeader, NotGguf, read_header

_U32, _I32, _BOOL, _STRING, _ARRAY, _U64 = 4, 5, 7, 8, 9, 10
_FORMATS = {0: "B", 1: "b", 2: "H", 3: "h", _U32: "I", _I32: "i", 6: "f", _BOOL: "?", _U64: "Q", 11: "q", 12: "d"}


def text(value: bytes) -> bytes:
    return struct.pack("<Q", len(value)) + value


def scalar(key: str, kind: int, value: Any) -> bytes:
    return text(key.encode()) + struct.pack(f"<I{_FORMATS[kind]}", kind, value)


def string(key: str, value: bytes) -> bytes:
    return text(key.encode()) + struct.pack("<I", _STRING) + text(value)


def array(key: str, kind: int, count: int, content: bytes) -> bytes:
    return text(key.encode()) + struct.pack("<IIQ", _ARRAY, kind, count) + content


def header(*pairs: bytes, version: int = 3, tensors: int = 7, count: int | None = None) -> bytes:
    head = b"GGUF" + struct.pack("<IQQ", version, tensors, len(pairs) if count is None else count)
    return head + b"".join(pairs)


def read(data: bytes) -> GgufHeader:
    return read_header(io.BytesIO(data))


WHOLE = header(
    string("general.architecture", b"llama"),
    string("general.name", b"A small one"),
    scalar("llama.context_length", _U32, 2048),
    array("tokenizer.ggml.tokens", _STRING, 3, text(b"a") + text(b"") + text(b"\xff")),
    array("tokenizer.ggml.scores", 6, 2, struct.pack("<2f", 0.5, -1.0)),
    scalar("general.alignment", _U64, 32),
)


def test_a_whole_header_is_read() -> None:
    assert read(WHOLE) == GgufHeader(architecture="llama", name="A small one", context_tokens=2048, tensors=7)


def test_the_weights_are_not_read() -> None:
    file = io.BytesIO(WHOLE + b"weights")
    read_header(file)
    assert file.read() == b"weights"


def test_a_header_without_any_pair_says_nothing() -> None:
    assert read(header(tensors=0)) == GgufHeader(architecture="", name="", context_tokens=0, tensors=0)


@pytest.mark.parametrize("version", [2, 3])
def test_versions_2_and_3_are_read(version: int) -> None:
    assert read(header(version=version)).tensors == 7


@pytest.mark.parametrize("version", [0, 1, 4, 3 << 24])
def test_other_versions_are_refused(version: int) -> None:
    with pytest.raises(NotGguf, match=str(version)):
        read(header(version=version))


@pytest.mark.parametrize("data", [b"", b"GGU", b"gguf" + WHOLE[4:], b"PK\x03\x04" + WHOLE[4:], b"\x00" * 64])
def test_another_file_is_refused(data: bytes) -> None:
    with pytest.raises(NotGguf) as caught:
        read(data)
    assert caught.value.hint


@pytest.mark.parametrize("length", range(len(WHOLE)))
def test_a_header_that_is_cut_anywhere_is_refused(length: int) -> None:
    with pytest.raises(NotGguf, match="ends in its header"):
        read(WHOLE[:length])


@pytest.mark.parametrize("kind", _FORMATS)
def test_every_kind_of_scalar_and_list_is_passed_over(kind: int) -> None:
    one = struct.pack(f"<{_FORMATS[kind]}", 1)
    data = header(scalar("k", kind, 1), array("l", kind, 3, one * 3), string("general.name", b"after"))
    assert read(data).name == "after"


_MOST = 2**64 - 1


@pytest.mark.parametrize(
    "data",
    [
        header(tensors=_MOST),
        header(count=_MOST),
        header(count=65_537),
        header(struct.pack("<Q", _MOST)),
        header(struct.pack("<Q", 2**63)),
        header(text(b"k") + struct.pack("<IQ", _STRING, _MOST)),
        header(array("k", 0, _MOST, b"")),
        header(array("k", _STRING, _MOST, b"")),
        header(array("k", 12, 2**61, b"")),
        header(array("k", 12, 16 * 1024 * 1024, b"")),
        header(array("k", _STRING, 16 * 1024 * 1024, b"")),
    ],
)
def test_absurd_counts_are_refused_and_not_believed(data: bytes) -> None:
    with pytest.raises(NotGguf):
        read(data)


@pytest.mark.parametrize("kind", [13, 255, 2**32 - 1])
def test_unknown_kinds_are_refused(kind: int) -> None:
    with pytest.raises(NotGguf, match=f"unknown kind {kind}"):
        read(header(text(b"k") + struct.pack("<I", kind)))
    with pytest.raises(NotGguf, match=f"unknown kind {kind}"):
        read(header(array("k", kind, 1, b"")))


def test_lists_of_lists_are_refused() -> None:
    with pytest.raises(NotGguf, match="unknown kind 9"):
        read(header(array("k", _ARRAY, 1, struct.pack("<IQ", 0, 1) + b"\x00")))


def test_texts_that_are_not_utf8_are_read_all_the_same() -> None:
    assert read(header(string("general.name", b"caf\xe9"))).name == "caf\ufffd"


def test_a_name_of_another_kind_is_read_as_text() -> None:
    assert read(header(scalar("general.name", _U32, 7))).name == "7"


@pytest.mark.parametrize(
    "pair",
    [
        string("llama.context_length", b"2048"),
        scalar("llama.context_length", 6, 2048.0),
        scalar("other.context_length", _U32, 2048),
    ],
)
def test_a_context_that_is_no_number_of_this_architecture_is_none(pair: bytes) -> None:
    assert read(header(string("general.architecture", b"llama"), pair)).context_tokens == 0


@pytest.mark.parametrize(("kind", "value"), [(_I32, -5), (_BOOL, True)])
def test_a_context_that_cannot_be_is_none(kind: int, value: int) -> None:
    pair = scalar("a.context_length", kind, value)
    context = read(header(string("general.architecture", b"a"), pair)).context_tokens
    assert context == 0
    assert type(context) is int


@given(st.binary(max_size=200))
def test_any_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(NotGguf):
        read(data)


@given(st.binary(max_size=300), st.integers(0, 5), st.sampled_from([2, 3]))
def test_any_bytes_behind_a_good_beginning_are_a_header_or_refused(data: bytes, count: int, version: int) -> None:
    try:
        found = read(header(count=count, version=version) + data)
    except NotGguf:
        return
    assert found.tensors == 7


@given(st.integers(0, len(WHOLE) - 1), st.integers(1, 255))
def test_any_one_wrong_byte_is_a_header_or_refused(position: int, flip: int) -> None:
    damaged = bytearray(WHOLE)
    damaged[position] ^= flip
    try:
        read(bytes(damaged))
    except NotGguf:
        return
