"""Who is asking, composed: API keys and limits, of this site alone or shared with other gateways (ADR 0006)."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Final

import msgspec

from rempart import limits
from rempart.config.secrets import read_secret
from rempart.config.settings import Settings, Shared
from rempart.errors import SharedStateUnavailable
from rempart.gateway.ports import AccountsHere
from rempart.identity.following import Following, Started
from rempart.identity.keyring import KeyRing
from rempart.identity.keys import KeyRow, Keys, KeyTable, read_keys
from rempart.identity.leases import LeasedMeter
from rempart.identity.postgres_keys import News, PostgresKeys, Stored
from rempart.identity.postgres_quota import PostgresQuota, QuotaThread, late
from rempart.identity.quota import Meter
from rempart.identity.shared_secret import SharedSecret, derive
from rempart.ipc.asking import Asking, Bound
from rempart.ipc.ending import tell_end
from rempart.ledger.keys.configured import open_keystore
from rempart.ledger.keys.keystore import Keystore
from rempart.ledger.reading.usage import Used, used_of_day
from rempart.ledger.store.logfiles import ledger_directory
from rempart.ledger.writing.journal import Journal
from rempart.ledger.writing.opening import read_vkey

_log = logging.getLogger("rempart")
_DAY_S: Final = 86_400


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """The API keys of this site."""

    table: Asking[Keys]
    ring: KeyRing
    news: News | None = None
    """What the ring was filled from, where keys are shared."""


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """Keys and limits of a server."""

    known: Known
    meter: AccountsHere
    totals: Callable[[float], Mapping[str, int]]
    used: Used
    following: Following | None = None
    """None: nothing is shared."""


@contextlib.asynccontextmanager
async def known_keys(settings: Settings, journal: Journal) -> AsyncIterator[Known]:
    """Raises `KeystoreError`, `SharedStateUnavailable`, `ConfigError`."""
    if not settings.shared.database:
        pepper = await journal.vault.ask(lambda keystore: keystore.one("pepper"))
        table: Asking[Keys] = Asking(KeyTable(settings.data / "state.db"), "keys")
        try:
            yield Known(table=table, ring=KeyRing(pepper, await table.ask(lambda keys: keys.all())))
        finally:
            await table.close()
        return
    secret = _secret(settings.shared)
    shared = await _opened(settings.shared, secret)
    try:
        news = await shared.ask(lambda keys: keys.news(0, 0))
        stored = sorted(news.rows, key=lambda one: one.row.created)
        rows = await journal.vault.ask(lambda keystore: [_named(keystore, one) for one in stored])
        ring = KeyRing(secret.pepper, zip(rows, (one.mac for one in stored), strict=True))
        yield Known(table=shared, ring=ring, news=news)
    finally:
        await shared.close()


@contextlib.asynccontextmanager
async def identified(settings: Settings, journal: Journal) -> AsyncIterator[Identity]:
    """While the context lasts, changes of shared keys come in. Raises as `known_keys` does."""
    async with known_keys(settings, journal) as known:
        now = time.time()
        used = used_of_day(ledger_directory(settings.data), now)
        meter = Meter(int(now // _DAY_S), used.tokens)
        if known.news is None:
            yield Identity(known=known, meter=meter, totals=meter.totals, used=used)
            return
        async with _lending(settings) as lender, _leased(lender, meter, used, now) as leased:
            watching = await _opened(settings.shared, _secret(settings.shared), listens=True)
            news, believed_s = known.news, settings.shared.believed_s
            started = Started(version=news.version, asked=news.asked, believed_s=believed_s)
            following = Following(watching, known.ring, lambda one: _local(journal, one), leased, started)
            following.back = partial(_renew, lender, known)
            task = asyncio.create_task(following.follow(), name="shared state")
            # Keys are then believed no more after `shared.believed_s`.
            tell_end(task, _log, "Shared keys are no longer followed")
            try:
                yield Identity(known=known, meter=leased, totals=leased.totals, used=used, following=following)
            finally:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
                await watching.close()


async def _renew(lender: QuotaThread, known: Known) -> None:
    await lender.renew()
    await known.table.ask(lambda keys: keys.close())


@contextlib.asynccontextmanager
async def _lending(settings: Settings) -> AsyncIterator[QuotaThread]:
    gateway = sha256(read_vkey(settings.data).encode()).hexdigest()[:32]
    quota = PostgresQuota(settings.shared.database, gateway)
    bound = Bound(within_s=limits.shared_quota_s, abort=quota.abort, late=late)
    lender = QuotaThread(Asking(quota, "quota", bound))
    try:
        yield lender
    finally:
        await lender.close()


@contextlib.asynccontextmanager
async def _leased(lender: QuotaThread, local: Meter, used: Used, now: float) -> AsyncIterator[LeasedMeter]:
    """`used`: of the day of `now`, as the ledger has it."""
    lenders_now = await lender.ask(lambda quota: quota.now())
    leased = LeasedMeter(lender, local, lenders_now)
    if int(now // _DAY_S) == int(lenders_now // _DAY_S):  # else the ledger cannot tell what that day's loans became
        await leased.restore(await lender.ask(lambda quota: quota.held()), used.tokens)
    yield leased
    try:
        await leased.close()
    except SharedStateUnavailable as error:
        _log.warning("what was lent of limits is not given back", extra={"why": error.message})


async def _opened(shared: Shared, secret: SharedSecret, *, listens: bool = False) -> Asking[PostgresKeys]:
    def connect() -> PostgresKeys:
        return PostgresKeys(shared.database, secret, listens=listens)

    keys = await asyncio.to_thread(connect)
    bound = Bound(within_s=limits.shared_call_s + 1 + limits.shared_poll_s, abort=keys.abort, late=_late)
    return Asking(keys, "shared keys", bound)


def _late() -> SharedStateUnavailable:
    return SharedStateUnavailable(
        "PostgreSQL, where the API keys are, does not answer.", hint="See shared.database.", retry_after_s=1
    )


async def _local(journal: Journal, one: Stored) -> KeyRow:
    """Raises `LedgerUnavailable`."""
    return await journal.vault.ask(lambda keystore: _named(keystore, one))


def _named(keystore: Keystore, one: Stored, *, read_only: bool = False) -> KeyRow:
    """Under the pseudonyms of this gateway's own keystore. They are made for a key that works, and not made anew for
    one that was revoked: its owner may have been erased here."""
    if not one.owner:
        return one.row
    names: list[str] = []
    for prefix in ("a", "s"):
        found = keystore.get(*keystore.lookup(prefix, one.owner))
        if found is None and not (read_only or one.row.revoked):
            found = keystore.pseudonym(prefix, one.owner)[0].encode()
        names.append("" if found is None else found.decode())
    return msgspec.structs.replace(one.row, actor=names[0], subject=names[1])


def list_rows(settings: Settings) -> list[KeyRow]:
    """As they are kept; nothing is written. Raises `KeystoreError`, `SharedStateUnavailable`, `ConfigError`."""
    if not settings.shared.database:
        return [row for row, _ in read_keys(settings.data / "state.db")]
    keys = PostgresKeys(settings.shared.database, _secret(settings.shared))
    try:
        stored = keys.stored()
    finally:
        keys.close()
    if not (settings.data / "keys" / "root.key").exists():
        return [msgspec.structs.replace(one.row, actor="", subject="") if one.owner else one.row for one in stored]
    keystore = open_keystore(settings.data, settings.keys)
    try:
        return [_named(keystore, one, read_only=True) for one in stored]
    finally:
        keystore.close()


def _secret(shared: Shared) -> SharedSecret:
    """Raises `ConfigError`, `KeystoreError` when others may read it."""
    return derive(read_secret(shared.secret_file or Path(), "shared.secret_file", limits.root_bytes_max))
