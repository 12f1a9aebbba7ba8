"""What PostgreSQL lends of limits: exactly the limit, whoever asks at once, and what is given back is lent again."""

from __future__ import annotations

from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import psycopg
import pytest

from rempart.errors import SharedStateUnavailable
from rempart.identity.leases import WIDTHS_S, Ask, Change, Kind, LeasedMeter
from rempart.identity.postgres_keys import PostgresKeys
from rempart.identity.postgres_quota import PostgresQuota, QuotaThread
from rempart.identity.quota import Meter
from rempart.identity.shared_secret import derive
from rempart.ipc.asking import Asking
from rempart.testing.check_accounts import check_accounts

if TYPE_CHECKING:
    from tests.conftest import Postgres

SECRET = derive(b"0123456789abcdef" * 4)


@pytest.fixture
def database(postgres: Postgres, request: pytest.FixtureRequest) -> str:
    conninfo = postgres.database(request.node.name[-60:])
    PostgresKeys(conninfo, SECRET).close()
    return conninfo


def asked(kind: Kind = "tokens", *, limit: int = 1_000, need: int = 1, block: int = 100) -> Ask:
    return Ask(key="k", kind=kind, limit=limit, need=need, block=block)


def taken(database: str) -> int:
    with psycopg.connect(database) as connection:
        found = connection.execute("SELECT taken FROM rempart_shared.used").fetchone()
    assert found is not None
    return int(found[0])


@pytest.fixture
async def accounts(database: str) -> AsyncIterator[LeasedMeter]:
    lender = QuotaThread(Asking(PostgresQuota(database, "one"), "quota"))
    meter = LeasedMeter(lender, Meter(), await lender.ask(lambda quota: quota.now()))
    yield meter
    await meter.close()
    await lender.close()


async def test_accounts_that_are_shared_are_accounts(accounts: LeasedMeter) -> None:
    await check_accounts(accounts)


def test_two_that_ask_at_once_are_lent_no_more_than_the_limit_and_all_of_it(database: str) -> None:
    def borrow(gateway: str) -> int:
        quota, sum_ = PostgresQuota(database, gateway), 0
        while grant := quota.lend(asked(limit=997, block=7)).granted:
            sum_ += grant
        quota.close()
        return sum_

    with ThreadPoolExecutor(4) as threads:
        assert sum(threads.map(borrow, "abcd")) == 997
    assert taken(database) == 997


def test_less_than_is_needed_is_not_lent_and_more_than_is_wanted_neither(database: str) -> None:
    quota = PostgresQuota(database, "one")
    assert quota.lend(asked(limit=50, need=51)).granted == 0
    assert quota.lend(asked(limit=50, block=30)).granted == 30
    assert quota.lend(asked(limit=50, need=21)).granted == 0
    last = quota.lend(asked(limit=50, need=20, block=100))
    assert (last.granted, last.taken) == (20, 50)
    assert last.span == int(last.now // WIDTHS_S["tokens"])
    assert quota.lend(asked(limit=10)).granted == 0  # the limit was lowered meanwhile
    quota.close()


def test_what_is_given_back_is_lent_again_and_what_is_charged_is_not(database: str) -> None:
    one, other = PostgresQuota(database, "one"), PostgresQuota(database, "other")
    grant = one.lend(asked(limit=100, block=100))
    assert other.lend(asked(limit=100)).granted == 0
    one.settle([Change(key="k", kind="tokens", span=grant.span, amount=-60)])
    assert [held.amount for held in one.held()] == [40]
    assert other.lend(asked(limit=100, block=50)).granted == 50
    other.settle([Change(key="k", kind="tokens", span=grant.span, amount=25)])
    assert taken(database) == 115
    assert other.lend(asked(limit=100)).granted == 0
    assert [(held.key, held.amount) for held in other.held()] == [("k", 75)]
    one.close()
    other.close()


def test_a_span_that_is_over_takes_nothing_from_the_next_one(database: str) -> None:
    quota = PostgresQuota(database, "one")
    span = quota.lend(asked(limit=100, block=100)).span
    with psycopg.connect(database) as connection:  # as if that had been yesterday
        connection.execute("UPDATE rempart_shared.used SET span = span - 1")
        connection.execute("UPDATE rempart_shared.held SET span = span - 1")
    assert quota.held() == []
    quota.settle([Change(key="k", kind="tokens", span=span - 1, amount=-100)])
    grant = quota.lend(asked(limit=100, block=70))
    assert (grant.span, grant.granted, grant.taken) == (span, 70, 70)
    quota.settle([Change(key="k", kind="tokens", span=span - 1, amount=-70)])
    assert taken(database) == 70
    quota.close()


def test_a_span_that_has_not_begun_by_this_clock_is_not_put_back(database: str) -> None:
    quota = PostgresQuota(database, "one")
    quota.lend(asked())
    with psycopg.connect(database) as connection:
        connection.execute("UPDATE rempart_shared.used SET span = span + 1")
    with pytest.raises(SharedStateUnavailable, match="back and forth"):
        quota.lend(asked())
    quota.close()


async def test_for_a_second_after_a_failure_nobody_waits_for_another(postgres: Postgres, database: str) -> None:
    lender = QuotaThread(Asking(PostgresQuota(database, "one"), "quota"))
    await lender.lend(asked())
    with psycopg.connect(postgres.conninfo, autocommit=True) as connection:
        name = psycopg.conninfo.conninfo_to_dict(database)["dbname"]
        connection.execute("SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = %s", (name,))
    with pytest.raises(SharedStateUnavailable, match="PostgreSQL failed"):
        await lender.lend(asked())
    with pytest.raises(SharedStateUnavailable, match="does not answer"):
        await lender.lend(asked())
    await lender.renew()
    assert (await lender.lend(asked())).granted == 100
    await lender.close()
