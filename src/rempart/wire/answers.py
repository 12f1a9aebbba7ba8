"""`parse_answer`: what an engine answered, checked and counted (pure)."""

from __future__ import annotations

from typing import Any

import msgspec

from rempart.errors import EngineError


class Usage(msgspec.Struct, frozen=True):
    """Token counts as the engine gives them; some give none of completions."""

    prompt_tokens: int | None = 0
    completion_tokens: int | None = 0


class _Choice(msgspec.Struct):
    finish_reason: str | None = None


class _Whole(msgspec.Struct):
    choices: list[_Choice] | None = None
    data: list[msgspec.Raw] | None = None
    usage: Usage | None = None
    model: str = ""
    error: Any = None


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What the ledger and the account need of an answer."""

    usage: Usage | None
    finish: tuple[str, ...]
    model: str


_whole = msgspec.json.Decoder(_Whole)
_members = msgspec.json.Decoder(dict[str, msgspec.Raw])
_json = msgspec.json.Encoder()


def parse_answer(operation: str, body: bytes) -> Answer:
    """Raises `EngineError` when it is not an answer of that operation, or an error in an answer's clothes."""
    try:
        body.decode()
        whole = _whole.decode(body)
    except (UnicodeDecodeError, msgspec.DecodeError, RecursionError) as error:
        raise nonsense() from error
    if whole.error is not None:
        raise EngineError("The engine answered with an error.", hint="See the engine's log.")
    if (whole.data if operation == "embedding" else whole.choices) is None:
        raise nonsense()
    finish = tuple(choice.finish_reason or "" for choice in whole.choices or ())
    return Answer(usage=whole.usage, finish=finish, model=whole.model)


def nonsense() -> EngineError:
    """What an engine sent is no answer of OpenAI's shape."""
    return EngineError("The engine's answer is not of OpenAI's shape.", hint="Check the engine's version and its log.")


def renamed(body: bytes, model: str) -> bytes:
    """The same JSON object with another `model`, all other members byte for byte."""
    members = _members.decode(body)
    members["model"] = msgspec.Raw(_json.encode(model))
    return _json.encode(members)
