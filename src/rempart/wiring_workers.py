"""The composition root of a site with several workers: its primary process (`crewed`), and one of the others (`work`).

What one process is made of stands in `wiring`; here is only what is between processes (ADR 0004).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncIterator, Callable, Collection
from functools import partial
from typing import NoReturn

import msgspec

from rempart import limits
from rempart.config import passing
from rempart.config.settings import Settings
from rempart.console.pages import Pages
from rempart.engines.embedded import EmbeddedEngine
from rempart.engines.llamacpp import EmbeddedModel, LlamaCppEngine, not_there
from rempart.engines.openai import Endpoint
from rempart.engines.port import Engine
from rempart.engines.router import Router
from rempart.gateway.app import Gateway, Parts
from rempart.gateway.auditing import ArchiveThread
from rempart.gateway.reads import Reads
from rempart.gateway.server import Address, Stop, bind_beside, serve
from rempart.gateway.workers import messages as m
from rempart.gateway.workers.desk import Books
from rempart.gateway.workers.remote import RemoteAccounts, RemoteKeys, RemoteOthers, RemoteTally, RemoteWitness
from rempart.gateway.workers.slots import Slots
from rempart.gateway.workers.supervision import Staff, staffed
from rempart.gateway.workers.worker import Worker
from rempart.ipc.talk import Talk
from rempart.ledger.copying.source import FolderSource
from rempart.ledger.keys.cache import KeyCache
from rempart.ledger.reading.handovers import proofs
from rempart.ledger.reading.prove import prove
from rempart.ledger.store.logfiles import ledger_directory
from rempart.ledger.writing.journal import WorkerJournal
from rempart.ledger.writing.lost import close_lost
from rempart.ledger.writing.opening import read_vkey
from rempart.ledger.writing.recover import find_lost
from rempart.ledger.writing.remote import RemoteSequencer
from rempart.wiring import Site, open_archive, openai_engine, policy_of

_log = logging.getLogger("rempart")


@contextlib.asynccontextmanager
async def crewed(settings: Settings, site: Site, sock: socket.socket, stop: Stop) -> AsyncIterator[None]:
    """While the context lasts, the other workers of `site` answer on `sock` too. Of a site with one: nothing."""
    crew = site.crew
    if crew is None:
        yield
        return
    gateway, vault, keyring = site.gateway, site.journal.vault, site.gateway.parts.keyring

    def told() -> m.Told:
        return m.Told(
            engines={name: _place(one) for name, one in site.embedded.items()},
            witnessed=parts.witnessed(),
            believed_until=keyring.believed_until,
        )

    def start(number: int) -> m.Start:
        return m.Start(
            number=number,
            settings=passing.encode(settings),
            models={name: msgspec.json.encode(one.model, enc_hook=str) for name, one in site.embedded.items()},
            voice=msgspec.structs.replace(site.journal.voice, worker=f"w{number}"),
            pepper=keyring.pepper,
            keys=keyring.rows(),
            told=told(),
        )

    parts = gateway.parts
    staff = Staff(
        numbers=range(1, settings.server.workers),
        sequencer=site.journal.sequencer,
        books=Books(keys=vault.source, meter=site.identity.meter, counts=gateway.counts, witness=parts.witness),
        listening=partial(bind_beside, sock, _address(settings)),
        slots=crew.descriptor,
        start=start,
        told=told,
        going=vault.going,
        lost=partial(_close_lost, settings, site),
        end_s=settings.server.drain_s + limits.worker_end_s,
    )
    vault.others = crew
    async with staffed(crew, staff, stop):
        yield


def _address(settings: Settings) -> Address:
    server = settings.server
    return Address(host=server.host, port=server.port, certificate=server.certificate, key=server.key)


def _place(engine: EmbeddedEngine) -> m.Place:
    endpoint, why = engine.place()
    return m.Place("", "", why) if endpoint is None else m.Place(endpoint.url, endpoint.api_key, "")


async def _close_lost(settings: Settings, site: Site, left: Collection[str]) -> None:
    known = site.journal.sequencer.open_exchanges()
    exchanges = [known[id_] for id_ in left if id_ in known]
    found = await asyncio.to_thread(find_lost, ledger_directory(settings.data), exchanges)
    for lost in found:
        await close_lost(site.journal, lost)
    _log.warning("exchanges lost", extra={"count": len(found)})


class Descriptors(msgspec.Struct, frozen=True):
    """What a worker inherits."""

    ledger: int
    desk: int
    listening: int
    slots: int


async def work(given: Descriptors, begin: Callable[[Settings], None], orphaned: Callable[[], NoReturn]) -> None:
    """Be a worker until the primary says that it is to end. `orphaned` is called when the primary is gone.

    `begin`: the process is made ready, once its settings are known. Raises any `RempartError`.
    """
    talk = await Talk.over(
        socket.socket(fileno=given.desk),
        m.TO_WORKER,
        lambda question: worker.answer(question),
        lambda word: worker.hear(word),
    )
    worker = Worker(KeyCache(RemoteKeys(talk)))
    talking = asyncio.create_task(talk.run())
    ending = False

    def gone(_: asyncio.Task[None]) -> None:
        if not ending:
            orphaned()

    talking.add_done_callback(gone)
    try:
        start = await worker.start
        settings = passing.decode(start.settings)
        begin(settings)
        async with _journal(given, worker, start) as journal, _routing(settings, worker, start) as router:
            others = RemoteOthers(talk, Slots(given.slots, start.number))
            await _serve(given, settings, worker, _parts(settings, worker, talk, journal, router, others))
    finally:
        ending = True
        talking.cancel()
        await asyncio.gather(talking, return_exceptions=True)


@contextlib.asynccontextmanager
async def _journal(given: Descriptors, worker: Worker, start: m.Start) -> AsyncIterator[WorkerJournal]:
    sequencer = await RemoteSequencer.over(socket.socket(fileno=given.ledger))
    journal = WorkerJournal(sequencer, worker.keys, start.voice)
    worker.journal = journal
    try:
        yield journal
    finally:
        await journal.close()


@contextlib.asynccontextmanager
async def _routing(settings: Settings, worker: Worker, start: m.Start) -> AsyncIterator[Router]:
    engines: list[Engine] = []
    for one in settings.engines:
        if one.kind == "embedded":
            told = start.models[one.name]
            model = msgspec.json.decode(told, type=EmbeddedModel, dec_hook=lambda kind, value: kind(value))
            engines.append(LlamaCppEngine(one.name, model, partial(_where, worker, one.name)))
        else:
            engines.append(openai_engine(one))
    router = Router(engines)
    try:
        await router.start()
        yield router
    finally:
        await router.close()


def _where(worker: Worker, name: str) -> Endpoint:
    assert worker.told is not None, "a worker is told before it routes"
    place = worker.told.engines[name]
    if not place.url:
        raise not_there(name, place.why)
    return Endpoint(place.url, place.api_key)


def _parts(
    settings: Settings, worker: Worker, talk: Talk, journal: WorkerJournal, router: Router, others: RemoteOthers
) -> Parts:
    assert worker.ring is not None, "a worker is told its keys as it starts"
    ledger = ledger_directory(settings.data)
    return Parts(
        journal=journal,
        keyring=worker.ring,
        meter=RemoteAccounts(talk),
        router=router,
        console=Pages(),
        vkey=partial(read_vkey, settings.data),
        handovers=partial(proofs, ledger),
        reads=Reads(journal, worker.ring, four_eyes=settings.ledger.four_eyes),
        archive=ArchiveThread(partial(open_archive, settings)),
        prove=partial(prove, ledger / "log"),
        witnessed=worker.witnessed,
        witness=RemoteWitness(talk) if settings.witness.name else None,
        files=FolderSource(ledger),
        boot=journal.boot,
        tally=RemoteTally(talk),
        others=others,
    )


async def _serve(given: Descriptors, settings: Settings, worker: Worker, parts: Parts) -> None:
    gateway = Gateway(parts, policy_of(settings))
    worker.gateway = gateway

    async def ready() -> None:
        worker.listens.set()

    stop = Stop(drain=worker.drain, cut=worker.cut, draining=lambda running: None)
    try:
        await serve(gateway, socket.socket(fileno=given.listening), _address(settings), stop=stop, ready=ready)
    finally:
        parts.archive.close()
        await gateway.record_counts()
