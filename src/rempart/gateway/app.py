"""`Gateway`: the ASGI application. It finds the route, knows what runs, and is the border where errors become answers.

Order of the checks of one request: Host allow-list, route, API key, then the route's own. Everything after the key of
an exchange is recorded; what is turned away before it is only counted.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import re
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence

import msgspec

from rempart.errors import (
    ClientGone,
    HostNotAllowed,
    LedgerUnavailable,
    MethodNotAllowed,
    NotFound,
    RempartError,
    RequestTimeout,
    ShuttingDown,
    Unauthenticated,
)
from rempart.exchange import events as e
from rempart.gateway.auditing import PREFIX as _AUDITING
from rempart.gateway.auditing import ArchiveThread, Auditing
from rempart.gateway.copies import PREFIX as _COPIES
from rempart.gateway.copies import Copies
from rempart.gateway.counts import Counts
from rempart.gateway.exchanges import Exchanges
from rempart.gateway.heart import Heart
from rempart.gateway.http import Receive, Request, Scope, Send
from rempart.gateway.lookups import Lookups
from rempart.gateway.metrics import Metrics
from rempart.gateway.perform import Performer
from rempart.gateway.ports import Accounts, Console, Journal, LedgerFiles, Others, Router, Tally, Witness
from rempart.gateway.reads import Reads
from rempart.gateway.submissions import Submissions
from rempart.identity.caller import Caller
from rempart.identity.keyring import KeyRing
from rempart.ledger.reading.prove import Proven
from rempart.ledger.writing.draft import Timestamped, Witnessed
from rempart.wire.facts import Fact
from rempart.wire.job import Served

_log = logging.getLogger("rempart.gateway")
_SANE_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}")
_HOST = re.compile(rb"(\[[0-9A-Fa-f:.]+\]|[^:@/\[\]]+)(?::[0-9]{1,5})?")
_MINUTE_S = 60.0
_DAY_S = 86_400
# After the drain's limit everything left is cut; recording that takes moments.
_CUT_S = 5.0
_METER_KEYS = 1_000
_WITNESS_PATH = "/witness/add-checkpoint"


class Parts(msgspec.Struct, frozen=True, kw_only=True):
    """What the gateway works with."""

    journal: Journal
    keyring: KeyRing
    meter: Accounts
    router: Router
    console: Console
    vkey: Callable[[], str]
    """Verifier key of the log."""
    handovers: Callable[[], Sequence[Proven]]
    """Of each change of that key: the entry, under a checkpoint that both have signed."""
    reads: Reads
    archive: ArchiveThread
    prove: Callable[[int], Proven]
    """Index of an entry -> its proof; reads files. Raises `NotFound` while no checkpoint covers it."""
    witnessed: Callable[[], Witnessed] = Witnessed
    """How this log's own witnesses stand to it."""
    timestamped: Callable[[], Timestamped] = Timestamped
    """What the time-stamping authority did."""
    witness: Witness | None = None
    """This gateway as a witness of others."""
    files: LedgerFiles | None = None
    """None: this gateway does not offer them."""
    served: Callable[[], Awaitable[Mapping[str, Served]]] | None = None
    """What engines say that they served."""
    exchanges: Mapping[str, int] = {}
    """Key -> exchanges of this UTC day that the ledger held at the start."""
    boot: str = ""
    """Id of this run, as in its entries."""
    reviewed: Callable[[], float] = lambda: math.nan
    """Days since the last review of the ledger."""
    totals: Callable[[float], Mapping[str, int]] = lambda now: {}
    """Tokens of this UTC day per key, for the ledger."""
    tally: Tally | None = None
    """Another process counts, and writes the heartbeats; None: this one."""
    others: Others | None = None
    """None: this process is the only one."""


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """What the configuration says about the gateway."""

    allowed_hosts: frozenset[str]
    """Host names in lower case, without port."""
    metrics_open: bool
    """`/metrics` needs no key (loopback only)."""
    body_bytes_max: int
    exchanges_max: int
    exchange_s: float
    drain_s: float
    retention: str
    """Retention class of new exchanges."""


class Gateway:
    """One per process. Call `tick` once a second and `drain` before the end."""

    def __init__(self, parts: Parts, policy: Policy) -> None:
        self._parts = parts
        self._policy = policy
        self.metrics = Metrics(
            parts.journal.state, parts.witnessed, parts.reviewed, parts.timestamped, parts.router.figures
        )
        self.running: set[Performer] = set()
        self.draining = False
        self._refusals: Counter[str] = Counter()
        self.turned_away: Counter[str] = Counter()
        """Error code -> requests that were refused before any exchange, since the start."""
        self._minute_began = 0.0
        self._metered: object = None
        self.counts = Counts(parts.router.states(), int(time.time() // _DAY_S), parts.exchanges)
        self.tally: Tally = parts.tally or self.counts
        self._heart = Heart(parts.journal, self.counts, parts.served, parts.others)
        self._exchanges = Exchanges(self)
        self._lookups = Lookups(self)
        self._submissions = Submissions(parts.witness) if parts.witness is not None else None
        self._auditing = Auditing(self, parts.reads, parts.archive)
        self._copies = Copies(self)
        post = self._exchanges.answer
        self._routes: dict[str, tuple[str, Callable[[Request, Caller], Awaitable[None]]]] = {
            "/v1/chat/completions": ("POST", post),
            "/v1/completions": ("POST", post),
            "/v1/embeddings": ("POST", post),
            "/v1/models": ("GET", self._lookups.models),
            "/rempart/v1/count": ("GET", self._lookups.count),
        }
        self._open_routes: dict[str, Callable[[Request], Awaitable[None]]] = {
            "/healthz": self._lookups.healthz,
            "/readyz": self._lookups.readyz,
            "/metrics": self._metrics,
        }

    @property
    def parts(self) -> Parts:
        return self._parts

    @property
    def policy(self) -> Policy:
        return self._policy

    def full(self) -> bool:
        """As many exchanges run as may."""
        return self.count_running() > self._policy.exchanges_max

    def count_running(self) -> int:
        """Exchanges under way, in all workers."""
        return len(self.running) if self._parts.others is None else self._parts.others.running()

    def begin(self, performer: Performer) -> None:
        """It is under way."""
        self.running.add(performer)
        self.metrics.running.inc()
        if self._parts.others is not None:
            self._parts.others.runs(len(self.running))

    def end(self, performer: Performer) -> None:
        self.running.discard(performer)
        self.metrics.running.dec()
        if self._parts.others is not None:
            self._parts.others.runs(len(self.running))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive, send)
        try:
            _name(request)
            await self._answer(request)
        except ClientGone:
            return
        except RempartError as error:
            await self._refuse(request, error)
        except Exception:  # the request edge: one broken request must not show its insides, nor stop the others
            _log.exception("A request failed in a way that was not foreseen.")
            if request.started:
                raise
            await request.reply_error(RempartError("Something failed inside Rempart.", hint="See the server's log."))

    async def _answer(self, request: Request) -> None:
        open_route = self._open_routes.get(request.path)
        if open_route is not None:
            _only(request, "GET")
            await open_route(request)
            return
        if self._submissions is not None and request.path == _WITNESS_PATH:
            _only(request, "POST")  # under any name: what counts is the signature of the log that is shown
            await self._submissions.answer(request)
            return
        self._check_host(request)
        route = self._routes.get(request.path)
        if route is not None:
            _only(request, route[0])
            await route[1](request, self.authenticate(request))
        elif request.path.startswith("/v1/models/"):
            _only(request, "GET")
            await self._lookups.model(request, self.authenticate(request))
        elif request.path.startswith("/rempart/v1/exchanges/"):
            _only(request, "GET")
            await self._lookups.exchange(request, self.authenticate(request))
        elif request.path.startswith(_COPIES):
            _only(request, "GET")
            await self._copies.answer(request, self.authenticate(request))
        elif request.path.startswith(_AUDITING):
            await self._auditing.answer(request, self.authenticate(request))
        else:
            await self._page(request)

    async def _refuse(self, request: Request, error: RempartError) -> None:
        if isinstance(error, Unauthenticated | HostNotAllowed):
            self._refusals[error.code] += 1
            self.turned_away[error.code] += 1
            self.metrics.refused.labels(error.code).inc()
        if not request.started:
            await request.reply_error(error)

    def _check_host(self, request: Request) -> None:
        if not self.knows_host(request):
            raise HostNotAllowed(
                "This server does not answer to that Host name.",
                hint="Use one of its own names, or add the name to server.allowed_hosts.",
            )

    def knows_host(self, request: Request) -> bool:
        host = _HOST.fullmatch(request.single(b"host"))
        return host is not None and host[1].decode("latin-1").lower() in self._policy.allowed_hosts

    def authenticate(self, request: Request) -> Caller:
        """Raises `Unauthenticated`."""
        scheme, _, presented = request.single(b"authorization").partition(b" ")
        if scheme.lower() != b"bearer":
            raise Unauthenticated(
                "The Authorization header holds no bearer token." if scheme else "No API key was sent.",
                hint="Send the header 'Authorization: Bearer rp_…'; ask an admin for a key.",
            )
        return self._parts.keyring.authenticate(presented.strip().decode("latin-1"), time.time())

    async def _metrics(self, request: Request) -> None:
        self._check_host(request)
        if not self._policy.metrics_open:
            self.authenticate(request).require("read_metrics")
        await self._lookups.metrics(request)

    async def _page(self, request: Request) -> None:
        page = self._parts.console.page(request.path, request.header(b"if-none-match").decode("latin-1"))
        if page is None:
            raise NotFound(f"There is nothing at {request.path}.", hint="See docs/api.md for what there is.")
        if request.method not in ("GET", "HEAD"):
            raise _method(request, "GET")
        await request.reply(page.status, page.body, list(page.headers))

    async def tick(self, now: float) -> None:
        """Once a second, `now` in loop time: cut what is past its deadline; each minute, record what was counted."""
        for performer in tuple(self.running):
            if now > performer.deadline:
                performer.interrupt(e.Cut(error=_too_long(self._policy.exchange_s)))
            elif not self._parts.keyring.holds(performer.key):
                performer.interrupt(e.Cut(error=Unauthenticated("The API key was revoked.", hint="Ask for a new one.")))
        if not self._minute_began:
            self._minute_began = now
        if now - self._minute_began >= _MINUTE_S:
            self._minute_began = now
            await self.record_counts()
            await self.beat()

    async def record_counts(self) -> None:
        """Write the refusals and the meters of the last minute, if there were any."""
        refusals, self._refusals = self._refusals, Counter()
        try:
            if refusals:
                await self._parts.journal.event("refusals", {"counts": dict(refusals)})
            totals = self._parts.totals(time.time())
            exchanges = self.counts.today(time.time())
            if (totals or exchanges) and (totals, exchanges) != self._metered:
                await self._record_meter(totals, exchanges)
                self._metered = (totals, exchanges)
        except LedgerUnavailable:
            self._refusals.update(refusals)  # kept for when it can be written; `/readyz` tells the reason

    async def _record_meter(self, totals: Mapping[str, int], exchanges: Mapping[str, int]) -> None:
        sets = list(_parts([*totals, *(key for key in exchanges if key not in totals)]))
        for part, keys in enumerate(sets):
            told: dict[str, Fact] = {"part": part, "parts": len(sets)}
            for name, counts in (("totals", totals), ("exchanges", exchanges)):
                told[name] = {key: counts[key] for key in keys if key in counts}
            await self._parts.journal.event("meter", told)

    async def beat(self) -> None:
        """Tell the ledger that the server is up, and what it did; one process does it for all."""
        if self._parts.tally is None:
            await self._heart.beat()

    async def drain(self) -> None:
        """Take nothing new, let what runs end, and cut what is left after `drain_s`."""
        self.draining = True
        if not await self._idle(self._policy.drain_s):
            self.cut()
            await self._idle(_CUT_S)

    def cut(self) -> None:
        """End what runs, now."""
        for performer in tuple(self.running):
            performer.interrupt(e.Cut(error=ShuttingDown("The server is stopping.", hint="Send it again.")))

    async def _idle(self, most_s: float) -> bool:
        until = asyncio.get_running_loop().time() + most_s
        while self.running:
            if asyncio.get_running_loop().time() > until:
                return False
            await asyncio.sleep(0.02)
        return True


def _name(request: Request) -> None:
    """Every answer carries `x-request-id`: the client's own when it is sane, else a new one."""
    given = request.header(b"x-request-id")
    if not _SANE_ID.fullmatch(given):
        given = os.urandom(16).hex().encode()
    request.answer_headers.append((b"x-request-id", given))


def _only(request: Request, method: str) -> None:
    if request.method != method and not (method == "GET" and request.method == "HEAD"):
        raise _method(request, method)


def _method(request: Request, method: str) -> MethodNotAllowed:
    request.answer_headers.append((b"allow", method.encode()))
    return MethodNotAllowed(f"{request.path} takes {method} only.", hint=f"Send {method}.")


def _parts(keys: list[str]) -> Iterator[list[str]]:
    """An entry has 64 KiB: a thousand keys and their counts are well within it."""
    for at in range(0, len(keys), _METER_KEYS):
        yield keys[at : at + _METER_KEYS]


def _too_long(exchange_s: float) -> RequestTimeout:
    return RequestTimeout(
        f"The exchange took longer than {exchange_s:g} s.", hint="Ask for fewer tokens, or raise server.exchange_s."
    )
