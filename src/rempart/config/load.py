"""`load`: options, environment, rempart.toml and defaults become one `Settings`, and where each value came from.

The only reader of files and environment for settings. Precedence: option, `REMPART_<SECTION>_<NAME>`, file, default.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, get_args, get_origin

import msgspec

from rempart.config.check import check
from rempart.config.refusal import refusal
from rempart.config.settings import Engine, Settings, standard_retention
from rempart.errors import ConfigError

_PREFIX = "REMPART_"
_SECTIONS = ("server", "ledger", "keys", "witness", "logging")
_BY_NAME = ("retention", "models")  # tables of tables, whose names the user gives
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
    classes = {**standard_retention(), **settings.retention}
    settings = msgspec.structs.replace(settings, retention=classes)
    check(settings, sources)
    return Loaded(settings, sources)


def with_model(settings: Settings, model: Path | None) -> Settings:
    """`--model PATH.gguf`: the embedded engine serves that file."""
    if model is None:
        return settings
    others = tuple(engine for engine in settings.engines if engine.kind != "embedded")
    embedded = [engine for engine in settings.engines if engine.kind == "embedded"] or [Engine(name="embedded")]
    changed = msgspec.structs.replace(embedded[0], model=model)
    return msgspec.structs.replace(settings, engines=(changed, *others))


class Row(NamedTuple):
    """One setting: its value in terms of JSON, and where it came from."""

    name: str
    value: Any
    source: str


def explain(loaded: Loaded) -> list[Row]:
    """Every setting, in order."""
    rows: list[Row] = []
    for name in Settings.__struct_fields__:
        value = getattr(loaded.settings, name)
        if isinstance(value, msgspec.Struct):
            for inner in value.__struct_fields__:
                rows.append(_row(f"{name}.{inner}", getattr(value, inner), loaded))
        elif name in _BY_NAME:
            for inner_name, one in value.items():
                for inner in one.__struct_fields__:
                    rows.append(_row(f"{name}.{inner_name}.{inner}", getattr(one, inner), loaded))
        elif name == "engines":
            for engine in value:
                for inner in engine.__struct_fields__:
                    rows.append(_row(f"engines.{engine.name}.{inner}", getattr(engine, inner), loaded))
        else:
            rows.append(_row(name, value, loaded))
    return rows


def _row(name: str, value: object, loaded: Loaded) -> Row:
    return Row(name, msgspec.to_builtins(value, enc_hook=str), loaded.sources.get(name, "default"))


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
        raise ConfigError(f"{section} must be a table, for {dotted}.", hint="See docs/configuration.md.")
    inner[name] = value


def _note(tree: Mapping[str, Any], sources: dict[str, str], source: str) -> None:
    for name, value in tree.items():
        if name in _BY_NAME and isinstance(value, dict):
            sources[name] = source
            for inner_name, one in value.items():
                sources.update(
                    {f"{name}.{inner_name}.{inner}": source for inner in one} if isinstance(one, dict) else {}
                )
        elif isinstance(value, dict):
            sources.update({f"{name}.{inner}": source for inner in value})
        elif name == "engines" and isinstance(value, list):
            sources[name] = source
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
        raise refusal(error, tree, sources) from error


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
    if kind is not Path or not isinstance(value, str | Path):
        raise TypeError(f"Expected `path`, got `{type(value).__name__}`")
    if value == "":
        raise ValueError("is empty")  # it would mean the directory that one happens to stand in
    return Path(value)
