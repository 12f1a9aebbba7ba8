"""`PostgresQuota`: limits of keys that hold at several gateways together, lent out in blocks (ADR 0006).

`used` has one row for each key and kind: how much of this minute's requests, or this day's tokens, is lent or used. A
loan is one statement: two gateways can never be lent more than the limit together. `held` says how much of it which
gateway has, so that one that died brings back at its next start what it had not used. Minutes and days are those of the
database's clock; of a span that is over nothing needs to come back.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

from rempart import limits
from rempart.errors import SharedStateUnavailable
from rempart.identity.leases import WIDTHS_S, Ask, Change, Grant, Held
from rempart.identity.postgres_keys import RECALL_CHANNEL, shared_session
from rempart.ipc.asking import Asking

_NOW: Final = "extract(epoch FROM clock_timestamp())::float8"
_MORE: Final = (
    "CASE WHEN %(limit)s - u.taken >= %(need)s THEN greatest(least(%(block)s, %(limit)s - u.taken), 0) ELSE 0 END"
)
_FIRST: Final = "CASE WHEN %(limit)s >= %(need)s THEN least(%(block)s, %(limit)s)::bigint ELSE 0 END"
_LEND: Final = f"""
WITH w AS (SELECT floor({_NOW} / %(width)s)::bigint AS span),
lent AS (
  INSERT INTO rempart_shared.used AS u (key, kind, span, taken, granted)
  SELECT %(key)s, %(kind)s, w.span, {_FIRST}, {_FIRST} FROM w
  ON CONFLICT (key, kind) DO UPDATE SET span = excluded.span,
    granted = CASE WHEN u.span = excluded.span THEN {_MORE} ELSE excluded.granted END,
    taken = CASE WHEN u.span = excluded.span THEN u.taken + {_MORE} ELSE excluded.taken END
  WHERE u.span <= excluded.span
  RETURNING span, taken, granted
), noted AS (
  INSERT INTO rempart_shared.held AS h (gateway, key, kind, span, amount)
  SELECT %(gateway)s, %(key)s, %(kind)s, lent.span, lent.granted FROM lent WHERE lent.granted > 0
  ON CONFLICT (gateway, key, kind) DO UPDATE SET span = excluded.span,
    amount = CASE WHEN h.span = excluded.span THEN h.amount + excluded.amount ELSE excluded.amount END
)
SELECT span, taken, granted, {_NOW} FROM lent
"""
_CHARGE: Final = """
INSERT INTO rempart_shared.used AS u (key, kind, span, taken, granted)
VALUES (%(key)s, %(kind)s, %(span)s, greatest(%(amount)s, 0), 0)
ON CONFLICT (key, kind) DO UPDATE SET span = excluded.span, granted = 0,
  taken = CASE WHEN u.span = excluded.span THEN greatest(u.taken + %(amount)s, 0) ELSE excluded.taken END
WHERE u.span <= excluded.span
"""
_NOTE: Final = """
INSERT INTO rempart_shared.held AS h (gateway, key, kind, span, amount)
VALUES (%(gateway)s, %(key)s, %(kind)s, %(span)s, greatest(%(amount)s, 0))
ON CONFLICT (gateway, key, kind) DO UPDATE SET span = excluded.span,
  amount = CASE WHEN h.span = excluded.span THEN greatest(h.amount + %(amount)s, 0) ELSE excluded.amount END
WHERE h.span <= excluded.span
"""
_TRIES: Final = 3
R = TypeVar("R")


class PostgresQuota:
    """Of one gateway; `PostgresKeys` has made its tables. All raise `SharedStateUnavailable`."""

    def __init__(self, conninfo: str, gateway: str) -> None:
        """`gateway`: its name among those that share, the same after a restart, and no other's."""
        self._session = shared_session(conninfo)
        self._gateway = gateway

    def lend(self, ask: Ask) -> Grant:
        """At most what is left of the limit, and at least `ask.need`, or nothing."""
        values: dict[str, Any] = {
            "width": WIDTHS_S[ask.kind],
            "gateway": self._gateway,
            **{name: getattr(ask, name) for name in ask.__struct_fields__},
        }
        with self._session.connection() as connection:
            for _ in range(_TRIES):
                found = connection.execute(_LEND, values).fetchone()
                if found is not None:
                    return Grant(*found)
        raise SharedStateUnavailable(  # a span began between its clock and its lock, again and again
            "The database's clock goes back and forth.", hint="Set the clock of the PostgreSQL server."
        )

    def settle(self, changes: Sequence[Change]) -> None:
        """Give back what was lent and not used (negative), or add what was used beyond it; all of them, or none."""
        ordered = sorted(changes, key=lambda one: (one.key, one.kind))  # two gateways take their locks in one order
        values = [{"gateway": self._gateway, **{n: getattr(one, n) for n in one.__struct_fields__}} for one in ordered]
        with self._session.transaction() as connection, connection.cursor() as cursor:
            for at in range(0, len(values), limits.lease_changes_max):
                for one in values[at : at + limits.lease_changes_max]:
                    cursor.execute(_CHARGE, one)
                    cursor.execute(_NOTE, one)

    def held(self) -> list[Held]:
        """What this gateway was lent in spans that are not over; nothing of it is in memory at a start."""
        query = (
            f"SELECT key, kind, span, amount, {_NOW} FROM rempart_shared.held WHERE gateway = %s"
            f" AND span = floor({_NOW} / CASE WHEN kind = 'tokens' THEN {WIDTHS_S['tokens']} ELSE"
            f" {WIDTHS_S['requests']} END)::bigint"
        )
        with self._session.connection() as connection:
            return [Held(*found) for found in connection.execute(query, (self._gateway,))]

    def now(self) -> float:
        """The database's clock, in seconds since 1970."""
        with self._session.connection() as connection:
            found = connection.execute(f"SELECT {_NOW}").fetchone()
        assert found is not None
        return float(found[0])

    def recall(self, key: str) -> None:
        """All other gateways are asked for what they were lent of that key and do not use."""
        with self._session.connection() as connection:
            connection.execute("SELECT pg_notify(%s, %s)", (RECALL_CHANNEL, key))

    def abort(self) -> None:
        """Whoever waits for the database fails now; may be called from another thread."""
        self._session.abort()

    def close(self) -> None:
        self._session.close()


class QuotaThread:
    """`Lender`, asked in a thread. For a second after a failure nobody waits for another one."""

    def __init__(self, asking: Asking[PostgresQuota]) -> None:
        self._asking = asking
        self._away_until = 0.0

    async def lend(self, ask: Ask) -> Grant:
        return await self.ask(lambda quota: quota.lend(ask))

    async def settle(self, changes: Sequence[Change]) -> None:
        await self.ask(lambda quota: quota.settle(changes))

    async def recall(self, key: str) -> None:
        await self.ask(lambda quota: quota.recall(key))

    async def ask(self, question: Callable[[PostgresQuota], R]) -> R:
        """Raises `SharedStateUnavailable`."""
        if time.monotonic() < self._away_until:
            raise late()
        try:
            return await self._asking.ask(question)
        except SharedStateUnavailable:
            self._away_until = time.monotonic() + limits.lease_again_s
            raise

    async def renew(self) -> None:
        """Whoever asks next has a new connection, and does not wait for that."""
        await self._asking.ask(lambda quota: quota.close())
        self._away_until = 0.0

    async def close(self) -> None:
        await self._asking.close()


def late() -> SharedStateUnavailable:
    """It did not answer in time, or just failed."""
    return SharedStateUnavailable(
        "PostgreSQL, which knows what this key may still use, does not answer.",
        hint="Send it again in a moment; see shared.database.",
        retry_after_s=1,
    )
