"""The composition root: configuration becomes objects. Nothing else constructs adapters.

`open_site` is the whole server without its socket; `administer` is one command on a data directory, whether a server
runs there or not.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import logging
import re
import time
from collections.abc import AsyncIterator, Callable, Mapping
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from rempart import limits
from rempart.config.check import is_loopback
from rempart.config.secrets import read_secret
from rempart.config.settings import Engine as EngineSettings
from rempart.config.settings import Keys, Server, Settings
from rempart.console.pages import Pages
from rempart.engines.digest import file_digest
from rempart.engines.embedded import EmbeddedEngine
from rempart.engines.llamacpp import EmbeddedModel
from rempart.engines.openai import Endpoint, OpenAIEngine, tls_context
from rempart.engines.port import Engine
from rempart.engines.router import Router
from rempart.errors import ConfigError, DirectoryLocked, KeystoreError, KeystoreTaken, LedgerUnavailable, UsageError
from rempart.formats.gguf import GgufHeader, NotGguf, read_header
from rempart.gateway.administration import Administration, shown
from rempart.gateway.app import Gateway, Parts, Policy
from rempart.gateway.auditing import ArchiveThread
from rempart.gateway.control import NotRunning, ask
from rempart.gateway.erasure import ErasureVerbs
from rempart.gateway.keeping import KeystoreVerbs
from rempart.gateway.reads import Reads
from rempart.gateway.verbs import Verb
from rempart.gateway.workers.crew import Crew
from rempart.ledger.copying.remote import RemoteSource
from rempart.ledger.copying.source import FolderSource
from rempart.ledger.erasing.expire import expire_daily
from rempart.ledger.erasing.fulfil import finish
from rempart.ledger.erasing.records import Records
from rempart.ledger.keys.configured import open_keystore, sealings_of
from rempart.ledger.keys.keystore import Keystore
from rempart.ledger.keys.retention import parse as parse_classes
from rempart.ledger.keys.sealing import kind_of
from rempart.ledger.reading.archive import Archive
from rempart.ledger.reading.handovers import proofs
from rempart.ledger.reading.prove import prove
from rempart.ledger.reading.review import days_since
from rempart.ledger.search.supervision import keeping
from rempart.ledger.store.logfiles import is_replica, ledger_directory
from rempart.ledger.store.ownership import own
from rempart.ledger.writing.draft import Timestamped, Witnessed
from rempart.ledger.writing.journal import Journal
from rempart.ledger.writing.log_key import LogKey
from rempart.ledger.writing.opening import open_ledger, read_vkey
from rempart.wire.facts import Fact
from rempart.wiring_attesting import Attesting, adopted_policy, attested, last_stamp, timestamping
from rempart.wiring_identity import Identity, identified, known_keys, list_rows

_log = logging.getLogger("rempart")
_GUIDE: Final = "guide-f16.gguf"
_CONTEXT_DEFAULT: Final = 4_096
_LOCKED_TRIES: Final = 20


class Site(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that serves, ready but for its socket."""

    gateway: Gateway
    administration: Administration
    reads: Reads
    journal: Journal
    identity: Identity
    embedded: Mapping[str, EmbeddedEngine] = {}
    """By name: the engines that are children of this process."""
    crew: Crew | None = None
    """The other workers; None: this process is the only one."""
    first_start: bool
    """No key exists yet."""
    taken: asyncio.Event
    """Set when the keystore is another's now: nothing may go on with the keys that are in memory."""


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """Whom to tell while something takes long."""

    reading: Callable[[str, int, int], None]
    """(file, bytes done, bytes in all)."""


@contextlib.asynccontextmanager
async def open_site(settings: Settings, progress: Progress | None = None) -> AsyncIterator[Site]:
    """Own the data directory, recover its ledger, start its engines. Raises any `RempartError`."""
    data = settings.data
    _require_keys(data)
    with own(data):
        engines = [_engine(one, data, progress) for one in settings.engines]
        keystore = open_keystore(data, settings.keys, owner=True)
        stamping = timestamping(settings)
        async with (
            last_stamp(stamping),
            _ledger(settings, keystore) as journal,
            attested(settings, journal, stamping) as attesting,
            _running(engines) as router,
            identified(settings, journal) as identity,
        ):
            crew = Crew(settings.server.workers) if settings.server.workers > 1 else None
            assembled = _assemble(settings, journal, router, attesting, identity, crew)
            embedded = {engine.name: engine for engine in engines if isinstance(engine, EmbeddedEngine)}
            site = msgspec.structs.replace(assembled, embedded=embedded)
            await journal.event("config", _settings_facts(settings, keystore))
            await site.gateway.beat()
            try:
                log_key = LogKey(
                    ledger_directory(data), journal, partial(adopted_policy, settings, attesting.witnessing)
                )
                async with (
                    _erasing(settings, journal, site.administration, log_key, daily=True),
                    _indexed(settings),
                    _fenced(settings, journal, site.taken),
                ):
                    yield site
            finally:
                site.gateway.parts.archive.close()
                await site.gateway.record_counts()
                await site.gateway.beat()
                await journal.event("stop", {})
                if crew is not None:
                    crew.close()


def _indexed(settings: Settings) -> contextlib.AbstractAsyncContextManager[None]:
    if not settings.ledger.index:
        return contextlib.nullcontext()
    return keeping(settings.data, settings.keys, settings.ledger.index_s)


@contextlib.asynccontextmanager
async def _ledger(settings: Settings, keystore: Keystore) -> AsyncIterator[Journal]:
    journal = await open_ledger(settings.data, keystore, origin=settings.ledger.origin, strict=settings.ledger.strict)
    try:
        yield journal
    finally:
        await journal.close()


@contextlib.asynccontextmanager
async def _running(engines: list[Engine]) -> AsyncIterator[Router]:
    router = Router(engines)
    try:
        await asyncio.gather(*(engine.start() for engine in engines if isinstance(engine, EmbeddedEngine)))
        await router.start()
        yield router
    finally:
        await router.close()


def _assemble(
    settings: Settings,
    journal: Journal,
    router: Router,
    attesting: Attesting,
    identity: Identity,
    crew: Crew | None,
) -> Site:
    ring, following = identity.known.ring, identity.following
    reads = Reads(journal, ring, four_eyes=settings.ledger.four_eyes)
    gateway = Gateway(
        Parts(
            journal=journal,
            keyring=ring,
            meter=identity.meter,
            totals=identity.totals,
            router=router,
            console=Pages(),
            vkey=partial(read_vkey, settings.data),
            handovers=partial(proofs, ledger_directory(settings.data)),
            reads=reads,
            archive=ArchiveThread(partial(open_archive, settings)),
            prove=partial(prove, ledger_directory(settings.data) / "log"),
            timestamped=attesting.stamping.state if attesting.stamping else Timestamped,
            witnessed=attesting.witnessing.state if attesting.witnessing else Witnessed,
            witness=attesting.desk,
            files=FolderSource(ledger_directory(settings.data)),
            served=router.served,
            exchanges=identity.used.exchanges,
            boot=journal.boot,
            epoch=partial(journal.vault.ask, lambda keystore: keystore.epoch),
            reviewed=lambda: days_since(ledger_directory(settings.data), time.time()),
            others=crew,
        ),
        policy_of(settings),
    )
    administration = Administration(journal, identity.known.table, ring, partial(_served, router))
    if crew is not None:
        crew.gateway = gateway
        administration.spread = crew.put_key
        if following is not None:
            following.spread = crew.put_key
    if following is not None:
        following.changed = gateway.cut_revoked
    return Site(
        gateway=gateway,
        administration=administration,
        reads=reads,
        journal=journal,
        identity=identity,
        crew=crew,
        first_start=not ring.rows(),
        taken=asyncio.Event(),
    )


@contextlib.asynccontextmanager
async def _erasing(
    settings: Settings, journal: Journal, administration: Administration, log_key: LogKey, *, daily: bool
) -> AsyncIterator[None]:
    """What a crash left of an erasure, or of a change of the log's key, is finished first.

    `daily`: buckets expire while the context lasts.
    """
    classes = parse_classes(settings.retention)
    records = Records(ledger_directory(settings.data), journal, classes, revoke=administration.revoke_all)
    await finish(records)
    root = settings.data / "keys" / "root.key"
    await log_key.resume()
    keeping = KeystoreVerbs(
        records,
        log_key,
        kind=lambda: kind_of(root.read_bytes()),
        sealings=lambda given: sealings_of(msgspec.convert(given, Keys, dec_hook=lambda kind, value: kind(value))),
    )
    administration.others |= {**ErasureVerbs(records, administration).verbs(), **keeping.verbs()}
    stop = asyncio.Event()
    expiring = asyncio.create_task(expire_daily(records, stop)) if daily else None
    try:
        yield
    finally:
        stop.set()
        if expiring is not None:
            await expiring


@contextlib.asynccontextmanager
async def _fenced(settings: Settings, journal: Journal, taken: asyncio.Event) -> AsyncIterator[None]:
    """Where the keystore's rows are on a server: `taken` is set within seconds when another gateway has them."""
    if not settings.keys.database:
        yield
        return
    watch = asyncio.create_task(_watch_keystore(journal, taken), name="keystore")
    try:
        yield
    finally:
        watch.cancel()
        await asyncio.gather(watch, return_exceptions=True)


async def _watch_keystore(journal: Journal, taken: asyncio.Event) -> None:
    """While the server is away nobody destroys keys there, and what is known goes on being used."""
    while not taken.is_set():
        await asyncio.sleep(limits.keystore_watch_s)
        try:
            await journal.vault.ask(Keystore.check_current)
        except LedgerUnavailable as error:
            if isinstance(error.__cause__, KeystoreTaken):
                _log.critical("The keystore was taken; stopping.", extra={"why": error.message})
                taken.set()


def open_archive(settings: Settings) -> Archive:
    """The ledger for those who may read it, with a keystore of its own. Raises `KeystoreError`."""
    _require_keys(settings.data)
    return Archive(ledger_directory(settings.data), open_keystore(settings.data, settings.keys))


def _served(router: Router) -> set[str]:
    return {target.model for target in router.models()}


def _require_keys(data: Path) -> None:
    """A ledger without its keys is a copy: new keys would not fit it. Raises `KeystoreError` or `UsageError`."""
    if is_replica(ledger_directory(data)):
        raise UsageError(
            f"{data} is a copy of a ledger: nothing writes entries there.",
            hint="Restore it to another directory: rempart backup restore.",
        )
    if (ledger_directory(data) / "log.vkey").exists() and not (data / "keys" / "root.key").exists():
        raise KeystoreError(
            "This directory has no keys (keys/ is missing).",
            hint="Restore keys/ from its backup. Without it the ledger can be verified, but not go on.",
        )


def policy_of(settings: Settings) -> Policy:
    server = settings.server
    return Policy(
        allowed_hosts=_allowed_hosts(server),
        metrics_open=is_loopback(server.host),
        body_bytes_max=server.body_bytes_max,
        exchanges_max=server.exchanges_max,
        exchange_s=server.exchange_s,
        drain_s=server.drain_s,
        retention=settings.ledger.retention,
    )


def _allowed_hosts(server: Server) -> frozenset[str]:
    host = server.host.lower()
    own_name = f"[{host}]" if ":" in host else host
    return frozenset({"localhost", "127.0.0.1", "[::1]", own_name, *(name.lower() for name in server.allowed_hosts)})


def _engine(settings: EngineSettings, data: Path, progress: Progress | None) -> Engine:
    if settings.kind == "embedded":
        model = _embedded_model(settings, data, progress)
        return EmbeddedEngine(settings.name, model, data / "engines" / f"{settings.name}.log")
    return openai_engine(settings)


def openai_engine(settings: EngineSettings) -> OpenAIEngine:
    """Raises `ConfigError`, `KeystoreError`."""
    endpoint = Endpoint(settings.url.rstrip("/").removesuffix("/v1"), _secret(settings.api_key_file))
    tls = tls_context(settings.ca_file) if urlsplit(settings.url).scheme == "https" else None
    return OpenAIEngine(settings.name, lambda: endpoint, tls=tls, names=settings.models)


def _embedded_model(settings: EngineSettings, data: Path, progress: Progress | None) -> EmbeddedModel:
    path = settings.model or guide_path()
    try:
        with path.open("rb") as file:
            header = read_header(file)
        reading = None if progress is None else (lambda done, total: progress.reading(path.name, done, total))
        digest = file_digest(path, data / "engines" / "digests.json", reading)
        created = int(path.stat().st_mtime)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}.", hint="Give a GGUF file with --model.") from error
    return EmbeddedModel(
        path=path.resolve(),
        name=_model_name(settings),
        digest=digest,
        created=created,
        context_tokens=_context(settings, header),
        parallel=settings.parallel,
        threads=settings.threads,
    )


def context_of(settings: EngineSettings) -> int | None:
    """Tokens that one sequence of an embedded engine will have; None when its file cannot be read."""
    try:
        with (settings.model or guide_path()).open("rb") as file:
            return _context(settings, read_header(file))
    except (OSError, NotGguf):
        return None


def _context(settings: EngineSettings, header: GgufHeader) -> int:
    return min(settings.context_tokens, header.context_tokens or _CONTEXT_DEFAULT)


def _model_name(settings: EngineSettings) -> str:
    """What clients call the model of an embedded engine."""
    return settings.model_name or ("guide" if settings.model is None else settings.model.stem)


def guide_path() -> Path:
    """The built-in model: beside the package when it is installed, in `models/guide` when it is a checkout."""
    installed = Path(str(files("rempart"))) / "models" / _GUIDE
    return installed if installed.exists() else Path(__file__).parents[2] / "models" / "guide" / _GUIDE


def _secret(path: Path | None) -> str:
    if path is None:
        return ""
    secret = read_secret(path, "engines.api_key_file").strip()
    if not re.fullmatch(rb"[!-~]*", secret):
        raise ConfigError(
            f"{path} holds more than a key.", hint="One line of printable ASCII; see engines.api_key_file."
        )
    return secret.decode()


def _settings_facts(settings: Settings, keystore: Keystore) -> dict[str, Fact]:
    """Scalars by value; names and paths by keyed hash: they may name a person or a place."""
    secret = keystore.one("lookup")
    shown: dict[str, str | bool | int] = {}
    for section in ("server", "ledger", "keys", "shared", "witness", "logging"):
        for name, value in msgspec.structs.asdict(getattr(settings, section)).items():
            if isinstance(value, bool | int):
                shown[f"{section}.{name}"] = value
            elif isinstance(value, float):
                shown[f"{section}.{name}"] = str(value)
            else:
                text = msgspec.json.encode(value, enc_hook=str)
                shown[f"{section}.{name}"] = "hmac:" + hmac.digest(secret, text, "sha256").hex()
    for name, one in settings.retention.items():
        shown[f"retention.{name}.days"] = one.days
        shown[f"retention.{name}.worm"] = one.worm
        shown[f"retention.{name}.erase_with_actor"] = one.erase_with_actor
        shown[f"retention.{name}.basis"] = "hmac:" + hmac.digest(secret, one.basis.encode(), "sha256").hex()
    shown["engines"] = len(settings.engines)
    shown["engines.plain_http"] = sum(engine.plain_http for engine in settings.engines)
    text = msgspec.json.encode(settings.engines, enc_hook=str)
    shown["engines.digest"] = "hmac:" + hmac.digest(secret, text, "sha256").hex()
    return {"settings": shown}


def ledger_source(url: str, key_file: Path | None, ca_file: Path | None) -> RemoteSource:
    """The ledger behind a gateway, to be copied. Raises `UsageError`, `ConfigError`, `KeystoreError`."""
    return RemoteSource(url, _secret(key_file), None if ca_file is None else tls_context(ca_file))


async def administer(settings: Settings, verb: str, args: Mapping[str, Any]) -> Any:
    """Ask the server that runs on the directory; when none does, do it here. Raises any `RempartError`."""
    for _ in range(_LOCKED_TRIES):
        try:
            return await asyncio.to_thread(ask, settings.data, verb, args)
        except NotRunning:
            try:
                return await _administer_here(settings, verb, args)
            except DirectoryLocked:
                await asyncio.sleep(0.25)  # a server is just starting or stopping
    return await _administer_here(settings, verb, args)


def _configured(settings: Settings) -> set[str] | None:
    """Names of models that the settings tell; None when an engine would have to be asked."""
    if any(engine.kind == "openai" and not engine.models for engine in settings.engines):
        return None
    embedded = {_model_name(engine) for engine in settings.engines if engine.kind == "embedded"}
    return embedded.union(*(engine.models for engine in settings.engines))


async def list_keys(settings: Settings) -> list[dict[str, Any]]:
    """The keys as they are kept; nothing is written, and a server may run on the directory or not."""
    return [shown(row) for row in await asyncio.to_thread(list_rows, settings)]


async def _administer_here(settings: Settings, verb: str, args: Mapping[str, Any]) -> Any:
    _require_keys(settings.data)
    with own(settings.data):
        keystore = open_keystore(settings.data, settings.keys, owner=True)
        async with _ledger(settings, keystore) as journal, known_keys(settings, journal) as known:
            administration = Administration(journal, known.table, known.ring, partial(_configured, settings))
            reads = Reads(journal, known.ring, four_eyes=settings.ledger.four_eyes)
            log_key = LogKey(ledger_directory(settings.data), journal, partial(adopted_policy, settings))
            async with _erasing(settings, journal, administration, log_key, daily=False):
                verbs: dict[str, Verb] = {**administration.verbs(), **reads.verbs()}
                result = await verbs[verb](dict(args))
            await journal.event("stop", {})
            return result
