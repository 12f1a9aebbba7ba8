"""`rempart.gateway.exchanges`: whom a trusted proxy names is whose data it is, however many they are."""

from __future__ import annotations

from typing import Any

import pytest

from rempart import limits
from rempart.gateway.exchanges import _named, _people
from rempart.gateway.http import Request
from rempart.identity.caller import USER, Caller

PROXY = Caller(key="k", actor="a", role=USER, trust_subject_header=True)
OTHER = Caller(key="k", actor="a", role=USER)


async def _receive() -> Any:
    raise AssertionError("no body is read")


async def _send(_: Any) -> None:
    raise AssertionError("nothing is answered")


def request(*values: bytes) -> Request:
    scope: Any = {"type": "http", "method": "POST", "path": "/", "headers": [(b"x-rempart-subject", v) for v in values]}
    return Request(scope, _receive, _send)


@pytest.mark.parametrize(
    ("values", "people"),
    [
        ((), ()),
        ((b"",), ()),
        ((b"erika",), ("erika",)),
        ((b"erika, max ,, erika",), ("erika", "max")),
        ((b"erika", b"max,zo\xc3\xa9"), ("erika", "max", "zo\u00e9")),
        ((b"zo\xe9",), ("zo\u00e9",)),
        ((b"x" * 1000,), ("x" * limits.subject_chars_max,)),
    ],
)
def test_people_stand_between_commas_and_in_several_headers(values: tuple[bytes, ...], people: tuple[str, ...]) -> None:
    assert _people(request(*values), PROXY, None) == people
    assert _people(request(*values), OTHER, None) == ()


def test_more_than_the_ledger_takes_are_counted() -> None:
    many = request(b",".join(b"p%d" % number for number in range(limits.subjects_named_max + 1)))
    assert len(_named(many)) == limits.subjects_named_max + 1
