"""`check_keys`: the conformance suite of the port `KeySource`, in both its forms."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from rempart.errors import LedgerUnavailable
from rempart.ledger.keys.source import KeySource

_BYTES = 32


async def check_keys(source: KeySource, forget: Callable[[str], Awaitable[None]]) -> None:
    """Raises `AssertionError`. `forget`: the key of that pseudonym is destroyed."""
    seeds = await asyncio.gather(*(source.new_seed() for _ in range(20)))
    assert len({seed.id for seed in seeds}) == len({seed.key for seed in seeds}) == 20
    assert {(len(seed.id), len(seed.key)) for seed in seeds} == {(_BYTES, _BYTES)}

    days = [await source.bucket("standard", day) for day in ("2026-11-23", "2026-11-24", "2026-11-23")]
    assert days[0] == days[2] != days[1]
    assert await source.bucket("short", "2026-11-23") not in days

    people = await asyncio.gather(*(source.person(name) for name in ("Erika", "Ünal", "Erika")))
    assert people[0] == people[2] != people[1]
    assert people[0].pseudonym.startswith("s_")
    assert "Erika" not in people[0].pseudonym
    assert await source.subject(people[0].pseudonym) == people[0].key

    await forget(people[0].pseudonym)
    assert await _refused(source.subject(people[0].pseudonym))
    assert await source.subject(people[1].pseudonym) == people[1].key


async def _refused(asked: Awaitable[object]) -> bool:
    try:
        await asked
    except LedgerUnavailable as error:
        return bool(error.message)
    return False
