"""What a worker has of the primary process: keys, accounts, counts, the other workers: ports over the desk's socket.

Each is held to what its local form is held to (`rempart.testing.check_keys`, `rempart.testing.check_accounts`).
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TypeVar

from rempart.errors import LedgerUnavailable
from rempart.gateway.workers import messages as m
from rempart.gateway.workers.slots import Slots
from rempart.identity.caller import Caller
from rempart.identity.quota import Reservation, Wanted
from rempart.ipc.channel import ChannelClosed
from rempart.ipc.talk import Talk
from rempart.ledger.keys.source import Person, Seed
from rempart.ledger.writing.draft import Trace

T = TypeVar("T")


async def _ask(talk: Talk, question: object, kind: type[T]) -> T:
    """Raises what the primary raised, `LedgerUnavailable` when it is gone: then nothing can be recorded either."""
    try:
        return await talk.ask(question, kind)
    except ChannelClosed as error:
        raise LedgerUnavailable("The primary process is gone.", hint="See the server's log.") from error


class RemoteKeys:
    """The contract is that of `KeySource`."""

    def __init__(self, talk: Talk) -> None:
        self._talk = talk

    async def new_seed(self) -> Seed:
        return await _ask(self._talk, m.NewSeed(), Seed)

    async def bucket(self, retention: str, day: str) -> bytes:
        return await _ask(self._talk, m.BucketKey(retention, day), bytes)

    async def subject(self, pseudonym: str) -> bytes:
        return await _ask(self._talk, m.SubjectKey(pseudonym), bytes)

    async def person(self, identity: str) -> Person:
        return await _ask(self._talk, m.AskPerson(identity), Person)


class RemoteAccounts:
    """The contract is that of `Accounts`; the clock is the primary's."""

    def __init__(self, talk: Talk) -> None:
        self._talk = talk

    def admit(self, caller: Caller, wanted: Wanted, now: float, steady: float) -> Reservation | Awaitable[Reservation]:
        limits = caller.limits
        if limits.requests_per_minute is None and limits.tokens_per_day is None:
            return Reservation(caller.key, 0)
        return self._reserve(m.Reserve(caller.key, limits, wanted))

    async def _reserve(self, asked: m.Reserve) -> Reservation:
        return Reservation(asked.key, await _ask(self._talk, asked, int))

    def settle(self, reservation: Reservation, tokens: int, now: float) -> Awaitable[None] | None:
        spend = m.Spend(reservation.key, reservation.tokens, tokens)
        if reservation.tokens:
            return _ask(self._talk, spend, type(None))
        self._talk.tell(spend)
        return None


class RemoteTally:
    """The contract is that of `Tally`: each is a word, which outlives this process."""

    def __init__(self, talk: Talk) -> None:
        self._talk = talk

    def dispatched(self, engine: str) -> None:
        self._talk.tell(m.Dispatched(engine))

    def retried(self, engine: str) -> None:
        self._talk.tell(m.Retried(engine))

    def ended(
        self, engine: str, *, answered: bool, tokens_prompt: int, tokens_completion: int, retried: bool = False
    ) -> None:
        self._talk.tell(m.Ended(engine, answered, tokens_prompt, tokens_completion, retried))

    def recorded(self, key: str, now: float) -> None:
        self._talk.tell(m.Recorded(key))


class RemoteOthers:
    """The contract is that of `Others`."""

    def __init__(self, talk: Talk, slots: Slots) -> None:
        self._talk = talk
        self._slots = slots

    def runs(self, exchanges: int) -> None:
        self._slots.put(exchanges)

    def running(self) -> int:
        return self._slots.total()

    async def count_of(self, key: str) -> tuple[int, int]:
        return await _ask(self._talk, m.CountOf(key), tuple[int, int])

    async def metrics(self) -> bytes:
        return await _ask(self._talk, m.AllMetrics(), bytes)

    async def recent(self, exchange: str) -> Trace | None:
        found = await _ask(self._talk, m.AnyTrace(exchange), list[Trace])
        return found[0] if found else None

    async def settled(self) -> None:
        """The primary alone writes what is counted; it asks for this itself."""


class RemoteWitness:
    """This site as a witness of others: the primary has its memory."""

    def __init__(self, talk: Talk) -> None:
        self._talk = talk

    async def add_checkpoint(self, body: bytes) -> m.Cosigned:
        return await _ask(self._talk, m.AddCheckpoint(body), m.Cosigned)
