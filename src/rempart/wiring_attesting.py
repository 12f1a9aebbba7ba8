"""What others attest of this log, and this gateway of theirs: witnesses and time stamps, as the settings ask."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections.abc import AsyncIterator, Coroutine, Iterator
from typing import Any

import msgspec

from rempart.config.settings import Settings
from rempart.engines.openai import tls_context
from rempart.errors import ConfigError
from rempart.ipc.ending import tell_end
from rempart.ledger.log.checkpoint import Verifier
from rempart.ledger.log.policy import Policy
from rempart.ledger.reading.timestamps import read_authority
from rempart.ledger.reading.witnessed import check_own_line
from rempart.ledger.store.logfiles import ledger_directory
from rempart.ledger.store.ownership import own
from rempart.ledger.writing.journal import Journal
from rempart.ledger.writing.opening import read_vkey
from rempart.ledger.writing.timestamp_client import TimestampClient
from rempart.ledger.writing.timestamping import Timestamping
from rempart.ledger.writing.witness_client import clients
from rempart.ledger.writing.witnessing import Witnessing
from rempart.witness.app import WitnessApp
from rempart.witness.clerk import Desk
from rempart.witness.opening import open_witness, read_logs

_log = logging.getLogger("rempart")


class Attesting(msgspec.Struct, frozen=True, kw_only=True):
    """What is set up of it."""

    witnessing: Witnessing | None
    stamping: Timestamping | None
    desk: Desk | None
    """Where this gateway is a witness of others."""


@contextlib.asynccontextmanager
async def attested(settings: Settings, journal: Journal, stamping: Timestamping | None) -> AsyncIterator[Attesting]:
    """This log is shown to its witnesses and its time-stamping authority, and this gateway is a witness of others."""
    async with contextlib.AsyncExitStack() as stack:
        policy = read_policy(settings)
        witnessing = None
        if policy is not None:
            witnessing = _witnessing(settings, policy, journal)
            _keep_running(stack, witnessing.run(settings.ledger.witness_s), "shown to its witnesses")
        if stamping is not None:
            _keep_running(stack, stamping.run(settings.ledger.timestamp_s), "time-stamped")
        desk = None
        if settings.witness.name:
            keys = "".join(f"{vkey}\n" for vkey in settings.witness.logs).encode()
            logs = read_logs(keys) if keys else ()
            desk = Desk(stack.enter_context(open_witness(settings.data, settings.witness.name, logs)))
            stack.callback(desk.close)
        yield Attesting(witnessing=witnessing, stamping=stamping, desk=desk)


def adopted_policy(settings: Settings, witnessing: Witnessing | None = None) -> Policy | None:
    """As the file says now: a log that changes its key stands in it with both. Raises `ConfigError`."""
    policy = read_policy(settings)
    if policy is not None and witnessing is not None:
        witnessing.adopt(policy)
    return policy


def _witnessing(settings: Settings, policy: Policy, journal: Journal) -> Witnessing:
    check_own_line(policy, Verifier.from_vkey(read_vkey(settings.data)))
    asked = clients(policy, tls_context(settings.ledger.witness_ca_file))
    return Witnessing(ledger_directory(settings.data), policy, asked, journal)


def timestamping(settings: Settings) -> Timestamping | None:
    """Raises `ConfigError`, `MissingDependency`."""
    url, certificates = settings.ledger.timestamp_url, settings.ledger.timestamp_ca_file
    if not url or certificates is None:
        return None
    tls = ssl.create_default_context() if url.startswith("https:") else None
    authority = read_authority(certificates)
    if tls is not None:
        tls.load_verify_locations(certificates)
    return Timestamping(ledger_directory(settings.data), TimestampClient(url, authority, tls))


@contextlib.asynccontextmanager
async def last_stamp(stamping: Timestamping | None) -> AsyncIterator[None]:
    """Around the ledger: what is stamped last is the checkpoint over the stop."""
    yield
    if stamping is not None:
        await stamping.finish()


def _keep_running(stack: contextlib.AsyncExitStack, work: Coroutine[Any, Any, None], done: str) -> None:
    """In the background, until the stack ends. A mistake of ours in there must be seen, and must not end the rest."""
    running = asyncio.create_task(work)
    tell_end(running, _log, f"The log is no longer {done}")
    stack.push_async_callback(_end, running)


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait({task})


def read_policy(settings: Settings) -> Policy | None:
    """Of the log's witnesses; None when it has none. Raises `ConfigError`."""
    path = settings.ledger.policy
    if path is None:
        return None
    try:
        return Policy.parse(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}.", hint="See ledger.policy.") from error


@contextlib.contextmanager
def open_witness_app(settings: Settings, name: str, logs: bytes) -> Iterator[tuple[WitnessApp, list[str]]]:
    """A witness of its own, and its verifier keys. `logs`: a tlog-policy, or verifier keys, one a line."""
    with own(settings.data), open_witness(settings.data, name, read_logs(logs)) as clerk:
        desk = Desk(clerk)
        try:
            yield WitnessApp(desk), clerk.vkeys
        finally:
            desk.close()
