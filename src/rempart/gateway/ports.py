"""What the gateway needs of other rooms, as protocols; `wiring.py` brings the parts that fit.

The gateway imports neither engines nor the ledger's insides. A part that keeps these contracts can stand in.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Mapping, Sequence
from typing import Protocol

from rempart.identity.caller import Caller
from rempart.identity.quota import Reservation, Wanted
from rempart.ledger.writing.draft import LogState, Receipt, Trace
from rempart.routing.ask import Ask, Figures, Verdict
from rempart.wire.facts import Fact
from rempart.wire.job import Job, Target


class Engine(Protocol):
    """Somebody else's inference server. Cancelling the task that awaits, or closing the generator, closes the
    engine's connection at once: engines stop generating when their client is gone.

    Raises only `EngineError` and its kin: unreachable or dying -> `EngineUnavailable`, a 4xx of the engine's own ->
    `EngineRefused` with its status and message, silence past the deadline -> `EngineTimeout`, nonsense or a stream
    that ends without `[DONE]` -> `EngineError`. Never a partial answer without an error.
    """

    @property
    def name(self) -> str: ...

    async def answer(self, job: Job) -> bytes:
        """The whole JSON answer of a request with `stream` false; at most `limits.answer_bytes_max`."""
        ...

    def stream(self, job: Job) -> AsyncGenerator[list[bytes], None]:
        """The `data:` payloads of the engine's server-sent events, in batches as they arrive, without `[DONE]`."""
        ...


class Lease(Protocol):
    """An engine has a place for one exchange."""

    @property
    def engine(self) -> Engine: ...
    @property
    def target(self) -> Target: ...
    @property
    def others(self) -> int:
        """How often the exchange may still be handed to another engine, should this one fail."""
        ...

    def heard(self) -> None:
        """The first piece of its answer came."""
        ...

    def end(self, verdict: Verdict) -> None:
        """It is done; the place is free. What comes after the first time changes nothing."""
        ...


class Router(Protocol):
    """Which engine answers, now."""

    def named(self, model: str) -> str:
        """The model that an alias stands for; any other name as it is."""
        ...

    def check(self, ask: Ask) -> str:
        """Name of the model that would answer. Raises `ModelNotFound`, or `EngineUnavailable` when none is up."""
        ...

    def lease(self, ask: Ask, tried: Sequence[str]) -> Lease | Awaitable[Lease]:
        """At once when an engine has room, else in its turn, which raises `Overloaded` when it does not come.
        `tried`: engines that failed this exchange. Raises as `check` does, too."""
        ...

    def figures(self) -> Figures:
        """What was routed, for `/metrics`."""
        ...

    def models(self) -> Sequence[Target]:
        """All that is served, up or not, each under all its names."""
        ...

    def states(self) -> Mapping[str, str]:
        """Engine name -> why it is not ready; empty when it is."""
        ...


class Record(Protocol):
    """The ledger's side of one exchange: request, pieces, response, in this order; never two at once."""

    async def request(self, facts: Mapping[str, Fact], body: bytes) -> Receipt:
        """Durable when it returns. Raises `LedgerUnavailable`."""
        ...

    def piece(self, data: bytes) -> Awaitable[None] | None:
        """Written when it returns (`kill -9` loses nothing), durable within 250 ms; if strict, await the answer."""
        ...

    async def response(self, facts: Mapping[str, Fact], body: bytes) -> Receipt:
        """Durable when it returns; closes the exchange. Also without a request before it (refused)."""
        ...


class Journal(Protocol):
    """The ledger as the gateway sees it."""

    async def open(
        self, exchange: str, *, actor: str, role: str, key: str, subject: str, people: Sequence[str], retention: str
    ) -> Record:
        """`subject` is the pseudonym of the key's owner, or empty. `people` are identities in clear; they become
        pseudonyms here and are written nowhere else.
        Raises `LedgerUnavailable` when nothing can be recorded, before any work is done."""
        ...

    async def event(self, type: str, facts: Mapping[str, Fact]) -> Receipt:
        """An entry that is no exchange: start, stop, key, config, meter, refusals."""
        ...

    def state(self) -> LogState: ...

    def recent(self, exchange: str) -> Trace | None:
        """What a recent exchange became; None when it is unknown or long ago."""
        ...


class Accounts(Protocol):
    """Requests of the minute and tokens of the day, per key: here, or where all workers' are. What is awaitable
    is asked of another process; of a key without limits nothing ever is."""

    def admit(self, caller: Caller, wanted: Wanted, now: float, steady: float) -> Reservation | Awaitable[Reservation]:
        """Raises `RateLimited` or `QuotaExceeded`, and then counts nothing."""
        ...

    def settle(self, reservation: Reservation, tokens: int, now: float) -> Awaitable[None] | None:
        """Replace what was reserved by what was used: once for each reservation."""
        ...


class Tally(Protocol):
    """What the gateway did, counted beside the ledger."""

    def dispatched(self, engine: str) -> None: ...

    def retried(self, engine: str) -> None:
        """It is handed to this engine after another one failed: only its response will say so."""
        ...

    def ended(
        self, engine: str, *, answered: bool, tokens_prompt: int, tokens_completion: int, retried: bool = False
    ) -> None:
        """`retried`: it had come to this engine by `retried`."""
        ...

    def recorded(self, key: str, now: float) -> None: ...


class Others(Protocol):
    """All workers of this site, as one of them sees them. Raises `LedgerUnavailable` when they cannot be asked."""

    def runs(self, exchanges: int) -> None:
        """So many are under way here."""
        ...

    def running(self) -> int:
        """In all of them together."""
        ...

    async def count_of(self, key: str) -> tuple[int, int]:
        """Exchanges of that key recorded since the boot, and on this UTC day."""
        ...

    async def metrics(self) -> bytes:
        """The Prometheus text exposition format 0.0.4."""
        ...

    async def recent(self, exchange: str) -> Trace | None:
        """As of a `Journal`, of any other one."""
        ...

    async def settled(self) -> None:
        """What was told to the `Tally` until now is counted."""
        ...


class LedgerFiles(Protocol):
    """The files of the ledger, for those who keep a copy. Both raise `UsageError` at a name that is not one of them,
    `NotFound` when it is not there."""

    def inventory_of(self, prefix: str) -> object:
        """What there is, as a value for JSON; `prefix` is empty, or names a log that this one continues."""
        ...

    def open(self, name: str) -> int:
        """A descriptor to read from, which the caller closes."""
        ...


class Page(Protocol):
    """One static answer."""

    @property
    def status(self) -> int: ...
    @property
    def body(self) -> bytes: ...
    @property
    def headers(self) -> tuple[tuple[bytes, bytes], ...]: ...


class Console(Protocol):
    """The pages."""

    def page(self, path: str, if_none_match: str) -> Page | None:
        """None when there is no such page. Never touches the disk."""
        ...


class WitnessAnswer(Protocol):
    """What a witness answers to a submission."""

    @property
    def status(self) -> int: ...
    @property
    def body(self) -> bytes: ...
    @property
    def content_type(self) -> bytes: ...


class Witness(Protocol):
    """It cosigns checkpoints of other logs."""

    async def add_checkpoint(self, body: bytes) -> WitnessAnswer:
        """What it cosigned is remembered durably when this returns. Raises `LedgerUnavailable`, `Overloaded`."""
        ...
