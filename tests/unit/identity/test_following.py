"""`rempart.identity.following`: what is revoked is cut first, whatever fails, and nothing is believed for too long."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Collection

import msgspec
import pytest

from rempart import limits
from rempart.errors import LedgerUnavailable, SharedStateUnavailable
from rempart.identity.following import Following, Started
from rempart.identity.keyring import KeyRing
from rempart.identity.keys import KeyRow
from rempart.identity.postgres_keys import News, Stored
from rempart.ipc.asking import Asking

MAC = bytes(32)
ROW = KeyRow(id="0" * 12, name="one", role="user", actor="theirs")
OTHER = msgspec.structs.replace(ROW, id="1" * 12)


class Database:
    """What `PostgresKeys` tells, and when it is away."""

    def __init__(self) -> None:
        self.version = 0
        self.rows: list[tuple[int, Stored]] = []
        self.away = False
        self.failed = 0
        self.recalled: set[str] = set()

    def put(self, *stored: Stored) -> None:
        self.version += 1
        self.rows += [(self.version, one) for one in stored]

    def news(self, version: int, wait_s: float) -> News:
        time.sleep(min(wait_s, 0.005))
        if self.away:
            self.failed += 1
            raise SharedStateUnavailable("PostgreSQL failed: gone.")
        rows = [one for at, one in self.rows if at > version]
        recalled, self.recalled = frozenset(self.recalled), set()
        return News(version=self.version, rows=rows, recalled=recalled, asked=time.monotonic(), database_now=7.0)

    def close(self) -> None:
        pass


class Leases:
    def __init__(self) -> None:
        self.back: list[Collection[str]] = []
        self.away = False

    def set_clock(self, lenders_now: float, steady: float) -> None:
        assert lenders_now == 7.0

    def recalled(self, keys: Collection[str]) -> None:
        self.back.append(keys)

    async def flush(self) -> None:
        if self.away:
            raise SharedStateUnavailable("gone")


class Place:
    """A gateway that follows."""

    def __init__(self) -> None:
        self.database = Database()
        self.ring = KeyRing(b"p" * 32, [])
        self.leases = Leases()
        self.spread: list[KeyRow] = []
        self.cut = 0
        self.renewed = 0
        self.keystore_away = False
        started = Started(version=0, asked=time.monotonic(), believed_s=60.0)
        keys = Asking(self.database, "keys")
        self.following = Following(keys, self.ring, self._local, self.leases, started)  # type: ignore[arg-type]
        self.following.spread = self._spread
        self.following.changed = self._changed
        self.following.back = self._back

    async def _local(self, one: Stored) -> KeyRow:
        if self.keystore_away:
            raise LedgerUnavailable("no keystore")
        return msgspec.structs.replace(one.row, actor=f"ours of {one.owner}")

    async def _spread(self, row: KeyRow, mac: bytes) -> None:
        self.spread.append(row)

    async def _back(self) -> None:
        self.renewed += 1

    def _changed(self) -> None:
        self.cut += 1

    def actor(self, id_: str) -> str:
        found = self.ring.get(id_)
        return "" if found is None else found[0].actor

    async def until(self, condition: object) -> None:
        async with asyncio.timeout(20):
            while not condition():  # type: ignore[operator]
                await asyncio.sleep(0.005)


@pytest.fixture
async def place() -> AsyncIterator[Place]:
    made = Place()
    task = asyncio.create_task(made.following.follow())
    yield made
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def test_a_key_comes_in_under_pseudonyms_of_here_and_is_told_to_the_other_workers(place: Place) -> None:
    place.database.put(Stored(ROW, MAC, "Ada"))
    await place.until(lambda: place.ring.holds(ROW.id))
    assert place.actor(ROW.id) == "ours of Ada"
    await place.until(lambda: [row.id for row in place.spread] == [ROW.id])
    place.database.put(Stored(msgspec.structs.replace(ROW, revoked=5), MAC, ""))
    await place.until(lambda: not place.ring.holds(ROW.id))
    assert place.actor(ROW.id) == "ours of Ada"
    await place.until(lambda: place.cut == 2 and place.spread[-1].revoked == 5)


async def test_a_worker_that_hangs_holds_up_no_later_revocation(place: Place) -> None:
    async def hang(row: KeyRow, mac: bytes) -> None:
        await asyncio.Event().wait()

    place.following.spread = hang
    place.database.put(Stored(ROW, MAC, ""))
    await place.until(lambda: place.ring.holds(ROW.id))
    place.database.put(Stored(msgspec.structs.replace(ROW, revoked=5), MAC, ""))
    await place.until(lambda: not place.ring.holds(ROW.id))


async def test_what_was_changed_here_is_not_told_again(place: Place) -> None:
    place.ring.put(msgspec.structs.replace(ROW, actor="ours of Ada"), MAC)
    place.database.put(Stored(ROW, MAC, "Ada"))
    place.database.put(Stored(OTHER, MAC, ""))
    await place.until(lambda: place.ring.holds(OTHER.id))
    assert [row.id for row in place.spread] == [OTHER.id] or not place.spread


async def test_a_keystore_that_is_away_keeps_no_revoked_key_alive(place: Place) -> None:
    place.ring.put(ROW, MAC)
    place.keystore_away = True
    place.database.put(Stored(OTHER, MAC, "Ada"), Stored(msgspec.structs.replace(ROW, revoked=5), MAC, "Ada"))
    await place.until(lambda: not place.ring.holds(ROW.id))
    assert not place.ring.holds(OTHER.id)
    place.keystore_away = False
    await place.until(lambda: place.ring.holds(OTHER.id))


async def test_while_the_database_is_away_it_says_so_and_believes_no_longer_than_before(
    place: Place, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(limits, "shared_poll_s", 0.01)
    place.database.away = True
    await place.until(lambda: "shared state is away" in caplog.messages)
    until = place.ring.believed_until
    place.database.put(Stored(ROW, MAC, ""))
    failed = place.database.failed
    await place.until(lambda: place.database.failed > failed + 2)
    assert place.ring.believed_until == until
    place.database.away = False
    await place.until(lambda: place.renewed == 1)
    assert place.ring.believed_until > until
    assert place.ring.holds(ROW.id)
    assert caplog.messages.count("shared state is away") == 1


async def test_a_database_that_was_put_back_is_read_anew_and_revives_no_key(place: Place) -> None:
    for row in (ROW, OTHER, msgspec.structs.replace(ROW, revoked=5)):
        place.database.put(Stored(row, MAC, ""))
    await place.until(lambda: place.ring.get(ROW.id) is not None and not place.ring.holds(ROW.id))
    third = msgspec.structs.replace(ROW, id="2" * 12)
    place.database.rows, place.database.version = [(1, Stored(ROW, MAC, "")), (2, Stored(third, MAC, ""))], 2
    await place.until(lambda: place.ring.holds(third.id))
    assert not place.ring.holds(ROW.id)


async def test_what_other_gateways_need_is_given_back_and_a_failure_of_that_ends_nothing(place: Place) -> None:
    place.leases.away = True
    place.database.recalled = {"k"}
    await place.until(lambda: place.leases.back == [{"k"}])
    place.database.put(Stored(ROW, MAC, ""))
    await place.until(lambda: place.ring.holds(ROW.id))
    assert place.renewed == 0
