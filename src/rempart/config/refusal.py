"""`refusal`: what the decoder says of a tree that is no `Settings`, for those who wrote it (pure).

It names the setting as the documents do, the file, variable or option it came from, and what would be right.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from typing import Any, Final, Literal, get_args, get_origin, get_type_hints

import msgspec

from rempart.config.check import origin
from rempart.config.settings import Engine, Model, Retention, Settings
from rempart.errors import ConfigError

_ERROR: Final = re.compile(r"(?P<what>.*?)(?: - at `(?:key in )?\$\.?(?P<where>.*)`)?", re.DOTALL)
_UNKNOWN: Final = re.compile(r"Object contains unknown field `(.*)`", re.DOTALL)
_MISSING: Final = re.compile(r"Object missing required field `(.*)`")
_EXPECTED: Final = re.compile(r"Expected `(.*)`, got `(.*)`")
_ENUM: Final = re.compile(r"Invalid enum value (.*)", re.DOTALL)
_ENGINE: Final = re.compile(r"engines\[(\d+)\](.*)")
_KINDS: Final = {
    "int": "a whole number",
    "float": "a number",
    "str": "text",
    "bool": "true or false",
    "object": "a table",
    "array": "a list",
    "path": "a path",
    "null": "nothing",
}
_SEE: Final = "See docs/configuration.md."


def refusal(error: msgspec.ValidationError, tree: Mapping[str, Any], sources: Mapping[str, str]) -> ConfigError:
    """`tree` is what was decoded; `sources`: dotted name -> where it came from."""
    match = _ERROR.fullmatch(str(error))
    what, where = (match["what"], match["where"] or "") if match else (str(error), "")
    name = _named(where, tree)
    if unknown := _UNKNOWN.fullmatch(what):
        name = f"{name}.{unknown[1]}" if name else unknown[1]
        return _error(sources, name, f"there is no setting `{name}`.", _nearest(name, where))
    if missing := _MISSING.fullmatch(what):
        return _error(sources, name, f"{name} lacks its `{missing[1]}`.", _SEE)
    if wrong := _ENUM.fullmatch(what):
        return _error(sources, name, f"{name} is {wrong[1]}.", f"Allowed: {', '.join(_allowed(name, where))}.")
    if expected := _EXPECTED.fullmatch(what):
        wanted, got = (_kinds(text) for text in expected.groups())
        return _error(sources, name, f"{name} must be {wanted}, not {got}.", _SEE)
    return _error(sources, name, f"{name} {what}.", _SEE)


def _error(sources: Mapping[str, str], name: str, text: str, hint: str) -> ConfigError:
    return ConfigError(f"{origin(sources, name)}{text}", hint=hint)


def _named(where: str, tree: Mapping[str, Any]) -> str:
    """`engines[0].url` -> `engines.vllm.url`, as the other messages say it; as it is when the engine has no name."""
    match = _ENGINE.fullmatch(where)
    if match is None:
        # the decoder does not tell which
        return where.replace("retention[...]", "retention.<class>").replace("models[...]", "models.<name>")
    engine = tree["engines"][int(match[1])]
    name = engine.get("name") if isinstance(engine, dict) else None
    return f"engines.{name}{match[2]}" if isinstance(name, str) and name else where


def _struct(where: str) -> type[msgspec.Struct]:
    """The type that stands at that place."""
    if where.startswith("engines["):
        return Engine
    if where.startswith("retention["):
        return Retention
    if where.startswith("models["):
        return Model
    found = get_type_hints(Settings).get(where.partition(".")[0])
    return found if isinstance(found, type) and issubclass(found, msgspec.Struct) else Settings


def _nearest(name: str, where: str) -> str:
    above, _, wrong = name.rpartition(".")
    fields = _struct(where).__struct_fields__
    near = difflib.get_close_matches(wrong, fields, n=1)
    if near:
        return f"Did you mean {f'{above}.' if above else ''}{near[0]}?"
    return f"There are: {', '.join(fields)}. {_SEE}"


def _allowed(name: str, where: str) -> list[str]:
    kind = get_type_hints(_struct(where)).get(name.rpartition(".")[2])
    return [str(one) for one in get_args(kind)] if get_origin(kind) is Literal else []


def _kinds(text: str) -> str:
    return " or ".join(_KINDS.get(kind, kind) for kind in text.split(" | ") if kind != "null" or text == "null")
