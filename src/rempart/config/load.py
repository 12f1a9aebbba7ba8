"""`load`: options, environment, rempart.toml and defaults become one `Settings`, and where each value came from.

The only reader of files and environment for settings. Precedence: option, `REMPART_<SECTION>_<NAME>`, file, default.
"""

from __future__ import annotations

import ipaddress
import math
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args, get_origin
from urllib.parse import urlsplit

import msgspec

from rempart import limits
from rempart.config.settings import Engine, Settings
from rempart.errors import ConfigError

_PREFIX = "REMPART_"
_WORD = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")
_SECTIONS = ("server", "ledger", "witness", "logging")
# Not settings: where settings are, what the documents keep a key in, and how often a test kills.
_OTHERS = frozenset({"REMPART_CONFIG", "REMPART_KEY", "REMPART_KILLS"})


class Loaded(msgspec.Struct, frozen=True):
    """The settings, and of each value (`server.port`) where it came from."""

    settings: Settings
    sources: dict[str, str]


def load(options: Mapping[str, Any], environment: Mapping[str, str], config: Path | None = None) -> Loaded:
    """`options`: dotted names to values, None where not given. Raises `ConfigError`."""
    given = {name: value for name, value in options.items() if value is not None}
    sources: dict[str, str] = {}
    tree: dict[str, Any] = {}
    path = config or _config_path(given, environment)
    if path is not None:
        tree = _read(path)
        _note(tree, sources, str(path))
    for name, text in sorted(environment.items()):
        if name.startswith(_PREFIX) and name not in _OTHERS:
            dotted = _dotted(name)
            _put(tree, dotted, text)
            sources[dotted] = f"environment ({name})"
    for dotted, value in given.items():
        _put(tree, dotted, value)
        sources[dotted] = "option"
    settings = _convert(tree, sources)
    _check(settings)
    return Loaded(settings, sources)


def with_model(settings: Settings, model: Path | None) -> Settings:
    """`--model PATH.gguf`: the embedded engine serves that file."""
    if model is None:
        return settings
    others = tuple(engine for engine in settings.engines if engine.kind != "embedded")
    embedded = [engine for engine in settings.engines if engine.kind == "embedded"] or [Engine(name="embedded")]
    changed = msgspec.structs.replace(embedded[0], model=model)
    return msgspec.structs.replace(settings, engines=(changed, *others))


def explain(loaded: Loaded) -> list[tuple[str, str, str]]:
    """(name, value, source) of every setting, in order."""
    rows: list[tuple[str, str, str]] = []
    for name in Settings.__struct_fields__:
        value = getattr(loaded.settings, name)
        if isinstance(value, msgspec.Struct):
            for inner in value.__struct_fields__:
                rows.append(_row(f"{name}.{inner}", getattr(value, inner), loaded))
        elif name == "engines":
            for engine in value:
                for inner in engine.__struct_fields__:
                    rows.append(_row(f"engines.{engine.name}.{inner}", getattr(engine, inner), loaded))
        else:
            rows.append(_row(name, value, loaded))
    return rows


def _row(name: str, value: object, loaded: Loaded) -> tuple[str, str, str]:
    shown = msgspec.json.encode(value, enc_hook=str).decode()
    return name, shown, loaded.sources.get(name, "default")


def _config_path(given: Mapping[str, Any], environment: Mapping[str, str]) -> Path | None:
    named = environment.get("REMPART_CONFIG")
    if named:
        return Path(named)
    data = Path(given.get("data") or environment.get("REMPART_DATA") or Settings().data)
    usual = data / "rempart.toml"
    return usual if usual.exists() else None


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}.", hint="Check the path and its rights.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}.", hint="See docs/configuration.md.") from error


def _dotted(variable: str) -> str:
    name = variable.removeprefix(_PREFIX).lower()
    section, _, rest = name.partition("_")
    return f"{section}.{rest}" if section in _SECTIONS and rest else name


def _put(tree: dict[str, Any], dotted: str, value: Any) -> None:
    section, _, name = dotted.partition(".")
    if not name:
        tree[section] = value
        return
    inner = tree.setdefault(section, {})
    if not isinstance(inner, dict):
        raise ConfigError(f"{section} must be a table.", hint="See docs/configuration.md.")
    inner[name] = value


def _note(tree: Mapping[str, Any], sources: dict[str, str], source: str) -> None:
    for name, value in tree.items():
        if isinstance(value, dict):
            sources.update({f"{name}.{inner}": source for inner in value})
        elif name == "engines" and isinstance(value, list):
            for engine in value:
                if isinstance(engine, dict):
                    sources.update({f"engines.{engine.get('name')}.{inner}": source for inner in engine})
        else:
            sources[name] = source


def _convert(tree: dict[str, Any], sources: Mapping[str, str]) -> Settings:
    # Environment variables are texts: they are read as the field's type says; what stands in a file must be of it.
    for dotted, source in sources.items():
        section, _, name = dotted.partition(".")
        if source.startswith("environment") and name and isinstance(tree.get(section), dict):
            tree[section][name] = _typed(section, name, tree[section][name])
    try:
        return msgspec.convert(tree, Settings, dec_hook=_path)
    except msgspec.ValidationError as error:
        raise ConfigError(
            f"The configuration cannot be used: {error}.",
            hint="See docs/configuration.md, or 'rempart config explain'.",
        ) from error


def _typed(section: str, name: str, text: Any) -> Any:
    """What a variable's text means for that field; the text itself when that cannot be told, for a later error."""
    fields = {field.name: field.type for field in msgspec.structs.fields(type(getattr(Settings(), section)))}
    kind = fields.get(name, str)
    if not isinstance(text, str) or kind is str or Path in (kind, *get_args(kind)):
        return text
    if get_origin(kind) is tuple:
        return [part.strip() for part in text.split(",") if part.strip()]
    try:
        return msgspec.convert(text, kind, strict=False)
    except msgspec.ValidationError:
        return text


def _path(kind: type, value: object) -> object:
    if kind is Path and isinstance(value, str | Path):
        return Path(value)
    raise TypeError(f"expected a path, got a {type(value).__name__}")


def is_loopback(host: str) -> bool:
    """Whether an address reaches only this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _check(settings: Settings) -> None:
    server = settings.server
    if not 0 <= server.port <= 65_535:
        raise ConfigError(f"server.port is {server.port}.", hint="Ports are 0 to 65535.")
    if (server.certificate is None) != (server.key is None):
        raise ConfigError("server.certificate and server.key belong together.", hint="Give both, or neither.")
    if server.certificate is None and not is_loopback(server.host):
        raise ConfigError(
            f"server.host is {server.host}, without a certificate: keys and prompts would cross the network in clear.",
            hint="Give server.certificate and server.key, or listen on 127.0.0.1 behind a TLS proxy.",
        )
    for name in ("body_bytes_max", "exchanges_max", "exchange_s", "drain_s"):
        value = getattr(server, name)
        if not math.isfinite(value) or value < 0 or (value == 0 and name != "drain_s"):
            raise ConfigError(f"server.{name} must be positive.", hint="Leave it out for its default.")
    if server.body_bytes_max > limits.segment_bytes // 3:
        raise ConfigError(
            f"server.body_bytes_max is {server.body_bytes_max}: the ledger could not record such a request.",
            hint=f"At most {limits.segment_bytes // 3}.",
        )
    if not _WORD.fullmatch(settings.ledger.retention):
        raise ConfigError("ledger.retention must be a short word.", hint="Such as standard, or medical-6y.")
    if not (math.isfinite(settings.ledger.witness_s) and settings.ledger.witness_s >= 1):
        raise ConfigError("ledger.witness_s must be at least 1.", hint="Leave it out for its default.")
    if settings.witness.logs and not settings.witness.name:
        raise ConfigError("witness.logs needs witness.name.", hint="Such as llm.hospital.example/witness.")
    names = [engine.name for engine in settings.engines]
    if not names or len(set(names)) != len(names):
        raise ConfigError("Engines need names of their own.", hint="Give each [[engines]] another name.")
    for engine in settings.engines:
        if not _WORD.fullmatch(engine.name):
            raise ConfigError(f"The engine's name {engine.name!r} is no short word.", hint="Such as vllm or gpu-1.")
        if engine.parallel < 1 or engine.context_tokens < 1 or engine.threads < 0:
            raise ConfigError(
                f"engines.{engine.name}: parallel and context_tokens are at least 1, threads at least 0.",
                hint="Leave them out for their defaults.",
            )
        if engine.kind == "openai" and not _is_address(engine.url):
            raise ConfigError(
                f"engines.{engine.name}.url is {engine.url!r}.", hint="Give its address, such as https://10.0.0.7:8000."
            )


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
