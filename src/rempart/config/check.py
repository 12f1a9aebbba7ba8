"""`check`: what no type can say of the settings: ranges, and what belongs together (pure)."""

from __future__ import annotations

import ipaddress
import math
import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

from rempart import limits
from rempart.config.settings import Engine, Keys, Ledger, Model, Retention, Server, Settings
from rempart.errors import ConfigError

_WORD: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")
_PASSWORD: Final = re.compile(r"//[^/@]*:[^/@]+@|[?&]password=")


def check(settings: Settings, sources: Mapping[str, str]) -> None:
    """`sources`: dotted name of a value -> where it came from. Raises `ConfigError`, which names that."""
    _server(settings.server, sources)
    if not 1 <= settings.ledger.review_days <= limits.review_days_max:
        days = settings.ledger.review_days
        raise _refused(sources, "ledger.review_days", f"is {days}.", f"Whole days, from 1 to {limits.review_days_max}.")
    _retention(settings, sources)
    if not (math.isfinite(settings.ledger.witness_s) and settings.ledger.witness_s >= 1):
        raise _refused(sources, "ledger.witness_s", "must be at least 1.", "Leave it out for its default.")
    _timestamps(settings.ledger, sources)
    if settings.witness.logs and not settings.witness.name:
        raise _refused(sources, "witness.logs", "needs witness.name.", "Such as llm.hospital.example/witness.")
    _keys(settings.keys, sources)
    _index_s(settings.ledger.index_s, sources)
    names = [engine.name for engine in settings.engines]
    if not names or len(set(names)) != len(names):
        raise ConfigError(
            f"{origin(sources, 'engines')}Engines need names of their own.", hint="Give each [[engines]] another name."
        )
    for engine in settings.engines:
        _engine(engine, sources)
    _models(settings.models, sources)


def origin(sources: Mapping[str, str], name: str) -> str:
    """Where the value `name`, or something in it, came from, as an error begins: `REMPART_SERVER_PORT: `, or empty."""
    for dotted, source in sources.items():
        if dotted == name or dotted.startswith(f"{name}."):
            if source == "option":
                return f"--{dotted.rpartition('.')[2]}: "
            return f"{source.removeprefix('environment (').removesuffix(')')}: "
    above = name.rpartition(".")[0] or name.partition("[")[0]
    return origin(sources, above) if above not in ("", name) else ""


def is_loopback(host: str) -> bool:
    """Whether an address reaches only this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _refused(sources: Mapping[str, str], name: str, what: str, hint: str) -> ConfigError:
    return ConfigError(f"{origin(sources, name)}{name} {what}", hint=hint)


def _server(server: Server, sources: Mapping[str, str]) -> None:
    if not 0 <= server.port <= 65_535:
        raise _refused(sources, "server.port", f"is {server.port}.", "Ports are 0 to 65535.")
    if (server.certificate is None) != (server.key is None):
        raise ConfigError("server.certificate and server.key belong together.", hint="Give both, or neither.")
    if server.certificate is None and not is_loopback(server.host):
        raise _refused(
            sources,
            "server.host",
            f"is {server.host}, without a certificate: keys and prompts would cross the network in clear.",
            "Give server.certificate and server.key, or listen on 127.0.0.1 behind a TLS proxy.",
        )
    if not 1 <= server.workers <= limits.workers_max:
        raise _refused(sources, "server.workers", f"is {server.workers}.", f"From 1 to {limits.workers_max}.")
    for name in ("body_bytes_max", "exchanges_max", "exchange_s", "drain_s"):
        value = getattr(server, name)
        if not math.isfinite(value) or value < 0 or (value == 0 and name != "drain_s"):
            raise _refused(sources, f"server.{name}", "must be positive.", "Leave it out for its default.")
    if server.queue_max < 0:
        raise _refused(sources, "server.queue_max", f"is {server.queue_max}.", "0: nobody waits for an engine.")
    if not (math.isfinite(server.queue_s) and server.queue_s > 0):
        raise _refused(sources, "server.queue_s", "must be positive.", "Leave it out for its default.")
    if server.body_bytes_max > limits.segment_bytes // 3:
        raise _refused(
            sources,
            "server.body_bytes_max",
            f"is {server.body_bytes_max}: the ledger could not record such a request.",
            f"At most {limits.segment_bytes // 3}.",
        )


def _index_s(value: float, sources: Mapping[str, str]) -> None:
    if not (math.isfinite(value) and value > 0):
        raise _refused(sources, "ledger.index_s", f"is {value:g}.", "Seconds, such as 2.0; index = false needs none.")


def _timestamps(ledger: Ledger, sources: Mapping[str, str]) -> None:
    if not (math.isfinite(ledger.timestamp_s) and ledger.timestamp_s >= 1):
        raise _refused(sources, "ledger.timestamp_s", "must be at least 1.", "Leave it out for its default.")
    url = ledger.timestamp_url
    if not url:
        return
    if not _is_address(url):
        hint = "Give the authority's address, such as https://tsa.example/ts."
        raise _refused(sources, "ledger.timestamp_url", f"is {url!r}.", hint)
    if urlsplit(url).scheme == "http" and not is_loopback(urlsplit(url).hostname or ""):
        what = f"is {url}, without TLS: anyone on the way could keep its answers back."
        raise _refused(sources, "ledger.timestamp_url", what, "Give an https:// address, or one on this machine.")
    if ledger.timestamp_ca_file is None:
        what = "needs ledger.timestamp_ca_file: a stamp that nobody can check proves nothing."
        hint = "A PEM file of the authority's certificates, its root among them."
        raise _refused(sources, "ledger.timestamp_url", what, hint)


def _retention(settings: Settings, sources: Mapping[str, str]) -> None:
    classes, chosen = settings.retention, settings.ledger.retention
    if chosen not in classes:
        raise _refused(
            sources,
            "ledger.retention",
            f"is {chosen!r}, and there is no such class.",
            f"Give a section [retention.<class>], or one of: {', '.join(sorted(classes))}.",
        )
    if len(classes) > limits.retention_classes_max:
        raise ConfigError(
            f"{origin(sources, 'retention')}There are {len(classes)} retention classes.",
            hint=f"At most {limits.retention_classes_max}.",
        )
    for name, one in classes.items():
        _class(name, one, sources)


def _class(name: str, one: Retention, sources: Mapping[str, str]) -> None:
    setting = f"retention.{name}"
    if not _WORD.fullmatch(name) or name == "held":
        raise ConfigError(
            f"{origin(sources, setting)}The retention class {name!r} is no short word.",
            hint="Such as standard, or medical-6y.",
        )
    if not 1 <= one.days <= limits.retention_days_max:
        hint = f"Whole days, from 1 to {limits.retention_days_max}."
        raise _refused(sources, f"{setting}.days", f"is {one.days}.", hint)
    if not one.basis.strip() or len(one.basis) > limits.retention_basis_chars_max:
        hint = "The clause, such as 45 CFR 164.316(b)(2)(i)."
        raise _refused(sources, f"{setting}.basis", "must name the ground.", hint)
    if one.worm and one.erase_with_actor:
        hint = "Nothing in a worm class is erased."
        raise _refused(sources, setting, "cannot be both worm and erase_with_actor.", hint)


def _keys(keys: Keys, sources: Mapping[str, str]) -> None:
    needed: dict[str, dict[str, object]] = {
        "passphrase": {"passphrase_file": keys.passphrase_file},
        "pkcs11": {
            "pkcs11_library": keys.pkcs11_library,
            "pkcs11_token": keys.pkcs11_token,
            "pkcs11_pin_file": keys.pkcs11_pin_file,
        },
    }
    for name, value in needed.get(keys.sealing, {}).items():
        if not value:
            raise _refused(sources, "keys.sealing", f"is {keys.sealing}, without keys.{name}.", f"Give keys.{name}.")
    if not keys.database:
        return
    if not keys.database.startswith(("postgresql://", "postgres://")):
        raise _refused(sources, "keys.database", "is no postgresql:// address.", "Such as postgresql:///rempart.")
    if _PASSWORD.search(keys.database):
        raise _refused(
            sources,
            "keys.database",
            "holds a password, which settings would show.",
            "Put it into a file: postgresql://rempart@db/rempart?passfile=/etc/rempart/pgpass",
        )


def _engine(engine: Engine, sources: Mapping[str, str]) -> None:
    name = f"engines.{engine.name}"
    if not _WORD.fullmatch(engine.name):
        raise ConfigError(
            f"{origin(sources, 'engines')}The engine's name {engine.name!r} is no short word.",
            hint="Such as vllm or gpu-1.",
        )
    if engine.parallel < 1 or engine.context_tokens < 1 or engine.threads < 0:
        raise ConfigError(
            f"{origin(sources, name)}{name}: parallel and context_tokens are at least 1, threads at least 0.",
            hint="Leave them out for their defaults.",
        )
    if not 0 < engine.weight <= limits.engine_weight_max:
        hint = f"More than 0, at most {limits.engine_weight_max:g}."
        raise _refused(sources, f"{name}.weight", f"is {engine.weight:g}.", hint)
    if engine.max_concurrent < 0:
        raise _refused(sources, f"{name}.max_concurrent", f"is {engine.max_concurrent}.", "0: no bound.")
    if engine.kind != "openai":
        return
    if not _is_address(engine.url):
        raise _refused(
            sources, f"{name}.url", f"is {engine.url!r}.", "Give its address, such as https://10.0.0.7:8000."
        )
    parts = urlsplit(engine.url)
    if parts.scheme == "http" and not is_loopback(parts.hostname or "") and not engine.plain_http:
        raise _refused(
            sources,
            f"{name}.url",
            f"is {engine.url}, without TLS: prompts and the engine's key would cross the network in clear.",
            "Give an https:// address (and ca_file for an authority of your own). If that network is trusted, "
            "say plain_http = true for this engine; the ledger records it.",
        )


def _models(models: Mapping[str, Model], sources: Mapping[str, str]) -> None:
    """A name must mean one model, and what answers in another's place must be said once."""
    meant: dict[str, str] = {name: name for name in models}
    for name, model in models.items():
        setting = f"models.{name}"
        for alias in model.aliases:
            if not alias or len(alias) > limits.model_name_chars_max:
                raise _refused(sources, f"{setting}.aliases", f"has {alias!r}.", "Names that clients can send.")
            if alias in meant:
                hint = "Each name may stand for one model."
                raise _refused(sources, f"{setting}.aliases", f"has {alias!r}, which names {meant[alias]!r}.", hint)
            meant[alias] = name
    for name, model in models.items():
        setting = f"models.{name}.fallbacks"
        if name in model.fallbacks or len(set(model.fallbacks)) != len(model.fallbacks):
            raise _refused(sources, setting, "names a model twice.", "Name others, each once.")
        if len(model.fallbacks) > limits.fallbacks_max:
            raise _refused(sources, setting, f"has {len(model.fallbacks)}.", f"At most {limits.fallbacks_max}.")
        for fallback in model.fallbacks:
            if meant.get(fallback, fallback) != fallback:
                hint = f"Say {meant[fallback]!r}."
                raise _refused(sources, setting, f"has {fallback!r}, which is an alias.", hint)


def _is_address(url: str) -> bool:
    """A key has a setting of its own: an address with one in it would be shown."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return False
    plain = url.isascii() and url.isprintable() and " " not in url
    whole = parts.scheme in ("http", "https") and bool(parts.hostname) and port != 0
    return plain and whole and not (parts.username or parts.password or parts.query or parts.fragment)
