"""`rempart.ledger.log.entry`: entries are RFC 8785 canonical JSON, and nothing else is read as one."""

from __future__ import annotations

from typing import Any

import pytest
import rfc8785

from rempart import limits
from rempart.errors import LedgerCorrupt
from rempart.ledger.log import entry

EXAMPLE: dict[str, Any] = {
    "v": 1,
    "type": "request",
    "time": "2026-11-23T17:00:00.123456Z",
    "subjects": ["s_1", "s_2"],
    "parameters": {"temperature": "0.7", "max_tokens": 100, "stream": True},
    "model": "Grüße/7B",
}
DEEP = 2_000


def test_an_entry_is_written_without_spaces_and_its_keys_sorted() -> None:
    assert (
        entry.encode(EXAMPLE)
        == (
            '{"model":"Grüße/7B","parameters":{"max_tokens":100,"stream":true,"temperature":"0.7"},'
            '"subjects":["s_1","s_2"],"time":"2026-11-23T17:00:00.123456Z","type":"request","v":1}'
        ).encode()
    )
    assert entry.encode(EXAMPLE) == rfc8785.dumps(EXAMPLE)


def test_the_string_of_rfc_8785_section_3_2_2() -> None:
    text = '\u20ac$\u000f\nA\'B"\\\\"/'
    assert entry.encode({"string": text}) == b'{"string":"\xe2\x82\xac$\\u000f\\nA\'B\\"\\\\\\\\\\"/"}'


@pytest.mark.parametrize("code", [*range(0x22), 0x5C, 0x7F, 0x80, 0x9F, 0x2028, 0x2029, 0xFEFF, 0xFFFF, 0x10FFFF])
def test_every_odd_character_is_written_as_the_standard_has_it(code: int) -> None:
    assert entry.encode({chr(0x61): chr(code)}) == rfc8785.dumps({"a": chr(code)})


def test_what_was_written_is_read() -> None:
    assert entry.decode(entry.encode(EXAMPLE)) == EXAMPLE


def test_an_entry_has_at_most_65_535_bytes() -> None:
    most = limits.entry_bytes_max - len(b'{"x":""}')
    assert len(entry.encode({"x": "a" * most})) == 65_535
    with pytest.raises(ValueError, match="65535 bytes, not 65536"):
        entry.encode({"x": "a" * (most + 1)})


@pytest.mark.parametrize(
    "value", ["", "ü", True, 0, 2**53 - 1, -(2**53) + 1, [], {}, ["a", [1, {"b": False}]], ("a", 1), EXAMPLE]
)
def test_what_may_stand_in_an_entry(value: Any) -> None:
    entry.check(value)


@pytest.mark.parametrize(
    "value",
    [
        None,
        1.0,
        float("nan"),
        b"bytes",
        {1},
        object(),
        2**53 + 1,
        -(2**53) - 1,
        10**400,
        {"é": 1},
        {"a": None},
        ["a", 0.5],
        {"a": {"b": [b"bytes"]}},
    ],
)
def test_what_may_not_stand_in_an_entry(value: Any) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 -- any of its messages
        entry.check(value)


@pytest.mark.parametrize("key", [1, True, None, b"a"])
def test_keys_are_text(key: Any) -> None:
    with pytest.raises(ValueError, match="keys of an entry"):
        entry.check({key: 1})


def test_text_that_utf_8_cannot_write_is_refused() -> None:
    for value in ("\ud800", {"a": ["\udfff"]}):
        with pytest.raises(ValueError):  # noqa: PT011 -- any of its messages
            entry.check(value)


@pytest.mark.parametrize("value", [2**53, -(2**53)])
def test_the_largest_integer_admitted_is_canonical(value: int) -> None:
    """RFC 7493 section 2.2 ends at 2^53 - 1: from 2^53 on two integers may be one double."""
    try:
        entry.check(value)
    except ValueError:
        return
    assert entry.encode({"n": value}) == rfc8785.dumps({"n": value})


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"null",
        b"[]",
        b'"v"',
        b"{}",
        b'{"v":2}',
        b'{"v":"1"}',
        b'{"v":1',
        b'{"v":1} ',
        b' {"v":1}',
        b'{"v": 1}',
        b'{"v":1}\n',
        b'{"v":1}{"v":1}',
        b'{"v":1,"v":1}',
        b'{"v":1,"a":1}',
        b'{"a":"\\u0061","v":1}',
        b'{"a":"\\/","v":1}',
        b'{"a":"\\u001F","v":1}',
        b'{"a":-0,"v":1}',
        b'{"a":1e3,"v":1}',
        b'{"a":1e999,"v":1}',
        b'{"a":NaN,"v":1}',
        b'{"a":"\\ud800","v":1}',
        b'\xef\xbb\xbf{"v":1}',
    ],
)
def test_what_is_not_canonical_or_of_another_version_is_refused(data: bytes) -> None:
    with pytest.raises(LedgerCorrupt):
        entry.decode(data)


@pytest.mark.parametrize(
    "data",
    [
        b'{"v":1.0}',
        b'{"v":true}',
        b'{"a":1.0,"v":1}',
        b'{"a":0.5,"v":1}',
        b'{"a":null,"v":1}',
        b'{"a":9007199254740993,"v":1}',
        b'{"a":123456789012345678901234567890,"v":1}',
        '{"v":1,"é":1}'.encode(),
    ],
)
def test_values_that_no_entry_holds_are_refused(data: bytes) -> None:
    with pytest.raises(LedgerCorrupt):
        entry.decode(data)


@pytest.mark.parametrize(
    "data", [b'{"a":"\xff","v":1}', b'{"\xff":1,"v":1}', b'{"a":"\xed\xa0\x80","v":1}', b'{"a":"\xc0\xaf","v":1}']
)
def test_bytes_that_are_no_utf_8_are_refused(data: bytes) -> None:
    with pytest.raises(LedgerCorrupt):
        entry.decode(data)


@pytest.mark.parametrize("data", [b'{"a":' + b"[" * DEEP, b'{"a":' + b'{"a":' * DEEP + b"1" + b"}" * (DEEP + 1)])
def test_what_is_nested_too_deep_is_refused(data: bytes) -> None:
    with pytest.raises(LedgerCorrupt):
        entry.decode(data)
    with pytest.raises(LedgerCorrupt):
        entry.facts(data)


def test_facts_are_what_verification_reads() -> None:
    fields = {**EXAMPLE, "exchange": "ab", "request": 4, "outcome": "ok", "body": "cd", "body_bytes": 9, "log": "l"}
    facts = entry.facts(entry.encode(fields))
    assert (facts.v, facts.type, facts.time) == (1, "request", "2026-11-23T17:00:00.123456Z")
    assert (facts.exchange, facts.request, facts.outcome) == ("ab", 4, "ok")
    assert (facts.body, facts.body_bytes, facts.log, facts.boot) == ("cd", 9, "l", "")


def test_facts_of_an_entry_that_lacks_some() -> None:
    facts = entry.facts(entry.encode({"v": 1, "type": "start", "time": "t"}))
    assert (facts.request, facts.body, facts.body_bytes, facts.outcome) == (None, "", 0, "")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b'{"v":1,"type":"start"}',
        b'{"v":"1","type":"start","time":"t"}',
        b'{"v":1,"type":"start","time":"t","body":7}',
        b'{"v":1,"type":"start","time":"t","body":"\xff"}',
    ],
)
def test_an_entry_that_lacks_what_all_have_cannot_be_read(data: bytes) -> None:
    with pytest.raises(LedgerCorrupt):
        entry.facts(data)


@pytest.mark.parametrize(
    ("now", "text"),
    [
        (0.0, "1970-01-01T00:00:00.000000Z"),
        (1_795_453_200.123456, "2026-11-23T17:00:00.123456Z"),
        (951_782_400.0, "2000-02-29T00:00:00.000000Z"),
        (1_795_453_199.9999999, "2026-11-23T17:00:00.000000Z"),
    ],
)
def test_times_are_utc_with_six_places(now: float, text: str) -> None:
    assert entry.timestamp(now) == text
