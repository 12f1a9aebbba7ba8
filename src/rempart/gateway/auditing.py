"""`Auditing.answer`: the ledger is searched and shown over HTTP: `/rempart/v1/ledger/…`, for auditors and admins.

Order of each: permission, the read itself in the archive's own thread, its record in the ledger, the answer. Bodies
are shown to auditors alone, for a stated reason.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Annotated, Final, TypeVar
from urllib.parse import parse_qs

import msgspec

from rempart import limits
from rempart.errors import InvalidRequest, KeystoreError, LedgerUnavailable, MethodNotAllowed, NotFound, Overloaded
from rempart.gateway.http import Budget, Request
from rempart.gateway.reads import Read, Reads, reader_of
from rempart.identity.caller import Caller
from rempart.ledger.log.merkle import leaf_hash
from rempart.ledger.reading.archive import Archive
from rempart.ledger.reading.find import Found
from rempart.ledger.reading.prove import Proven

if TYPE_CHECKING:
    from rempart.gateway.app import Gateway, Parts

T = TypeVar("T")
PREFIX: Final = "/rempart/v1/ledger/"
_EXCHANGE: Final = re.compile(r"exchanges/([0-9a-f]{32})(/bodies)?")
_json = msgspec.json.Encoder()


class _Reason(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    reason: str


class _Search(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One that shows where the words stand."""

    q: str
    reason: str
    limit: Annotated[int, msgspec.Meta(ge=1)] = limits.read_results
    below: Annotated[int, msgspec.Meta(ge=0)] | None = None


class ArchiveThread:
    """The archive in a thread of its own: one read at a time, and so many waiting. It is opened at the first read."""

    def __init__(self, open_archive: Callable[[], Archive]) -> None:
        self._open = open_archive
        self._archive: Archive | None = None
        self._thread = ThreadPoolExecutor(1, "archive")
        self._waiting = 0

    async def ask(self, question: Callable[[Archive], T]) -> T:
        """Raises what the archive raises, `LedgerUnavailable` when the keys cannot be read, `Overloaded`."""
        if self._waiting >= limits.reads_waiting_max:
            raise Overloaded("Too many reads of the ledger are under way.", hint="Try again.", retry_after_s=2)
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, self._ask, question)
        except KeystoreError as error:
            raise LedgerUnavailable(error.message, hint=error.hint) from error
        finally:
            self._waiting -= 1

    def close(self) -> None:
        """Waits for the read that is under way."""
        self._thread.shutdown(cancel_futures=True)
        if self._archive is not None:
            self._archive.close()

    def _ask(self, question: Callable[[Archive], T]) -> T:
        if self._archive is None:
            self._archive = self._open()
        return question(self._archive)


class Auditing:
    """The reads of one gateway."""

    def __init__(self, gateway: Gateway, reads: Reads, archive: ArchiveThread) -> None:
        self._gateway = gateway
        self._reads = reads
        self._archive = archive
        self._budget = Budget(limits.reads_waiting_max * limits.read_body_bytes_max)

    async def answer(self, request: Request, caller: Caller) -> None:
        """Raises `NotFound`, `Forbidden`, and when the read cannot be recorded `LedgerUnavailable`."""
        found = _EXCHANGE.fullmatch(request.path.removeprefix(PREFIX))
        if request.path == f"{PREFIX}search":
            _only(request, "GET", "POST")
            await (self._search if request.method == "GET" else self._search_disclosed)(request, caller)
        elif request.path == f"{PREFIX}reader":
            _only(request, "GET")
            await self._reader(request, caller)
        elif found is None:
            raise NotFound(f"There is nothing at {request.path}.", hint="See docs/api.md for what there is.")
        elif found[2]:
            _only(request, "POST")
            await self._bodies(request, caller, found[1])
        else:
            _only(request, "GET")
            await self._exchange(request, caller, found[1])

    async def _reader(self, request: Request, caller: Caller) -> None:
        """What this key may do here. Shows nothing of the ledger, and is no read of it."""
        caller.require("read_ledger")
        told = {"role": caller.role, "bodies": caller.may("read_bodies"), "four_eyes": self._reads.four_eyes}
        await request.reply_json(200, _json.encode(told))

    async def _search(self, request: Request, caller: Caller) -> None:
        caller.require("read_ledger")
        asked = parse_qs(request.scope["query_string"].decode("latin-1"), keep_blank_values=True)
        query = _one(asked, "q")
        limit = min(_number(asked, "limit", limits.read_results), limits.read_results_max)
        below = _number(asked, "below", -1)
        page = await self._archive.ask(
            partial(Archive.search, text=query, limit=limit, below=None if below < 0 else below)
        )
        await self._reads.record(reader_of(caller), Read(verb="search", found=len(page.results), query=query))
        await request.reply_json(200, _json.encode(page))

    async def _search_disclosed(self, request: Request, caller: Caller) -> None:
        """With the place where the words stand and who asked, which is what was said: the rules of bodies hold."""
        body = await self._body(request)
        caller.require("read_bodies")
        asked = _decoded(body, _Search, '{"q": "…", "reason": "…"}')
        reader = self._reads.disclosing(caller, _second(request), asked.reason)
        limit = min(asked.limit, limits.read_results_max)
        page = await self._archive.ask(
            partial(Archive.search, text=asked.q, limit=limit, below=asked.below, disclosed=True)
        )
        shown = sum(bool(one.snippet) for one in page.results)
        read = Read(verb="search", found=len(page.results), bodies=shown, query=asked.q, reason=asked.reason)
        await self._reads.record(reader, read)
        await request.reply_json(200, _json.encode(page))

    async def _exchange(self, request: Request, caller: Caller, exchange: str) -> None:
        caller.require("read_ledger")
        found = await self._found(caller, exchange, "show")
        proven = await self._archive.ask(partial(_proven, prove=self._gateway.parts.prove, found=found))
        await self._reads.record(reader_of(caller), Read(verb="show", found=len(found), exchange=exchange))
        state = self._gateway.parts.journal.state()
        told = {
            "exchange": exchange,
            "entries": [
                {
                    "index": one.index,
                    "type": one.entry["type"],
                    "leaf_hash": leaf_hash(proof.entry).hex(),
                    "fields": one.entry,
                }
                for one, proof in zip(found, proven, strict=True)
            ],
            "checkpoint": {"origin": state.origin, "size": state.tree_size, "root": state.root.hex()},
            "integrated": True,
            **await asyncio.to_thread(keys_of, self._gateway.parts),
            "proofs": [told_of(one) for one in proven],
        }
        await request.reply_json(200, _json.encode(told))

    async def _bodies(self, request: Request, caller: Caller, exchange: str) -> None:
        body = await self._body(request)
        caller.require("read_bodies")
        reason = _decoded(body, _Reason, '{"reason": "…"}').reason
        reader = self._reads.disclosing(caller, _second(request), reason)
        found = await self._found(caller, exchange, "bodies", reason)
        identity = await self._archive.ask(partial(Archive.identity, actor=str(found[0].entry["actor"])))
        shown = sum(one.body is not None for one in found)
        read = Read(verb="bodies", found=len(found), bodies=shown, exchange=exchange, reason=reason)
        await self._reads.record(reader, read)
        bodies = [
            {"index": one.index, "type": one.entry["type"], "body": one.body, "unreadable": one.unreadable}
            for one in found
        ]
        await request.reply_json(200, _json.encode({"exchange": exchange, "identity": identity, "bodies": bodies}))

    async def _body(self, request: Request) -> bytes:
        share = self._budget.share()
        try:
            return await request.body(limits.read_body_bytes_max, share)
        finally:
            share.give_back()

    async def _found(self, caller: Caller, exchange: str, verb: str, reason: str = "") -> list[Found]:
        """That there is no such exchange is told, and recorded, too."""
        try:
            return await self._archive.ask(partial(Archive.exchange, exchange=exchange, disclosed=verb == "bodies"))
        except NotFound:
            read = msgspec.convert({"verb": verb, "found": 0, "exchange": exchange, "reason": reason}, Read)
            await self._reads.record(reader_of(caller), read)
            raise


def told_of(proven: Proven) -> dict[str, object]:
    """What whoever asked needs to check it without trusting this server."""
    return {
        "index": proven.index,
        "entry": proven.entry.decode(),
        "hashes": [hash_.hex() for hash_ in proven.hashes],
        "checkpoint": proven.checkpoint.decode(),
    }


def keys_of(parts: Parts) -> dict[str, object]:
    """The log's key, and how whoever knows an earlier one is led to it. Blocking."""
    return {"vkey": parts.vkey(), "handovers": [told_of(one) for one in parts.handovers()]}


def _proven(_: Archive, prove: Callable[[int], Proven], found: Sequence[Found]) -> list[Proven]:
    return [prove(one.index) for one in found]


def _second(request: Request) -> str:
    return request.single(b"x-rempart-second").decode("latin-1")


def _decoded(body: bytes, kind: type[T], form: str) -> T:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidRequest(
            "The body is not what this takes.", hint=f"Send {form} as JSON.", param="reason"
        ) from error


def _one(asked: dict[str, list[str]], name: str) -> str:
    values = asked.get(name, [""])
    if len(values) > 1:
        raise InvalidRequest(f"{name} is given twice.", hint="Give it once.", param=name)
    return values[0]


def _number(asked: dict[str, list[str]], name: str, default: int) -> int:
    text = _one(asked, name)
    if not text:
        return default
    with contextlib.suppress(ValueError):
        if text.isascii() and text.isdecimal() and len(text) < 20 and (name != "limit" or int(text)):
            return int(text)
    raise InvalidRequest(f"{name} is not a number that can be used.", hint="Give a whole number.", param=name)


def _only(request: Request, *methods: str) -> None:
    if request.method not in methods:
        request.answer_headers.append((b"allow", ", ".join(methods).encode()))
        raise MethodNotAllowed(f"{request.path} takes {' or '.join(methods)} only.", hint=f"Send {methods[0]}.")
