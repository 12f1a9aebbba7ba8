"""`parse`: the bytes of a request become a `Call`, or an `InvalidRequest` that says what to mend (pure).

Only what Rempart itself needs is read. All else, unknown fields too, goes to the engine byte for byte.
Source: OpenAI API reference, `chat/completions`, `completions`, `embeddings`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final, TypeAlias

import msgspec

from rempart import limits
from rempart.errors import InvalidRequest
from rempart.wire.facts import Scalar

Number: TypeAlias = int | float

BYTES_A_TOKEN: Final = 4
CHAT: Final = "/v1/chat/completions"
OPERATIONS: Final = {CHAT: "chat", "/v1/completions": "completion", "/v1/embeddings": "embedding"}

# Fields that belong to the gateway, and why a client may not send them on.
OWNED: Final = frozenset(
    {
        "cache_salt",  # vLLM: separates tenants in the prefix cache (CVE-2025-46570)
        "lora",  # llama.cpp: chooses adapters
        "id_slot",  # llama.cpp: another client's cache
        "slot_id",
        "kv_transfer_params",  # vLLM: addresses of other nodes
        "n_predict",  # llama.cpp: stands above max_tokens, by which quotas are reserved
        "n_cmpl",  # llama.cpp: the same for n
    }
)

# Strings that may stand in clear in an entry: these values and no others, since any other may name a person.
_WORDS: Final = {
    "encoding_format": frozenset({"float", "base64"}),
    "reasoning_effort": frozenset({"none", "minimal", "low", "medium", "high", "xhigh"}),
    "tool_choice": frozenset({"none", "auto", "required"}),
}
_NUMBERS: Final = (
    "temperature",
    "top_p",
    "n",
    "max_tokens",
    "max_completion_tokens",
    "presence_penalty",
    "frequency_penalty",
    "seed",
    "top_logprobs",
    "best_of",
    "dimensions",
    "parallel_tool_calls",
    "echo",
)
_INTEGER_MAX: Final = 2**53 - 1
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(\w+)`")
_WHERE = re.compile(r" - at `\$\.?(.*?)`$")


class _Message(msgspec.Struct):
    role: str


class _StreamOptions(msgspec.Struct):
    include_usage: bool | None = None


class _Fields(msgspec.Struct):
    """What is read of every kind of request; absent and null are the same."""

    model: str
    messages: list[_Message] | None = None
    prompt: str | list[str | int | list[int]] | None = None
    input: str | list[str | int | list[int]] | None = None
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    n: int | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    temperature: Number | None = None
    top_p: Number | None = None
    presence_penalty: Number | None = None
    frequency_penalty: Number | None = None
    seed: int | None = None
    logprobs: bool | int | None = None
    top_logprobs: int | None = None
    best_of: int | None = None
    dimensions: int | None = None
    parallel_tool_calls: bool | None = None
    echo: bool | None = None
    encoding_format: str | None = None
    reasoning_effort: str | None = None
    tool_choice: Any = None
    tools: list[msgspec.Raw] | None = None
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """What a client asks, understood."""

    operation: str
    """`chat`, `completion` or `embedding`."""
    path: str
    model: str
    stream: bool
    wants_usage: bool
    """The client itself asked for `stream_options.include_usage`."""
    choices: int
    subject: str
    """Whom the client says this is about: `safety_identifier`, else `user`, else empty."""
    session: str = ""
    """What belongs together, as the client says: `prompt_cache_key`, else `user`, else empty."""
    parameters: Mapping[str, Scalar]
    """Allow-listed scalars for the ledger's entry; decimals as strings (ADR 0001)."""
    tokens_asked: int
    """Upper bound of completion tokens of all choices, 0 when the client set none."""
    received: bytes

    @property
    def tokens_prompt(self) -> int:
        """An estimate: text is about four bytes a token."""
        return len(self.received) // BYTES_A_TOKEN


_KNOWN: Final = OWNED | frozenset(_Fields.__struct_fields__)
_fields = msgspec.json.Decoder(_Fields)
_members = msgspec.json.Decoder(dict[str, msgspec.Raw])
_json = msgspec.json.Encoder()


def parse(path: str, body: bytes) -> Call:
    """Raises `InvalidRequest` with the name of the field that is wrong."""
    fields = _decode(body)
    operation = OPERATIONS[path]
    _check(operation, fields)
    choices = (fields.n or 1) * _texts("prompt", fields.prompt)
    if choices > limits.prompts_max:
        raise InvalidRequest(f"{choices} choices are asked for.", hint=f"At most {limits.prompts_max} at once.")
    return Call(
        operation=operation,
        path=path,
        model=fields.model,
        stream=bool(fields.stream) and operation != "embedding",
        wants_usage=bool(fields.stream_options and fields.stream_options.include_usage),
        choices=choices,
        subject=(fields.safety_identifier or fields.user or "")[: limits.subject_chars_max],
        session=(fields.prompt_cache_key or fields.user or "")[: limits.session_chars_max],
        parameters=_parameters(fields),
        # Engines disagree on which of the two stands above the other.
        tokens_asked=max(fields.max_completion_tokens or 0, fields.max_tokens or 0) * choices,
        received=body,
    )


def _texts(name: str, given: str | list[str | int | list[int]] | None) -> int:
    """How many there are: a list of texts or of token lists is several, a list of tokens is one."""
    if not isinstance(given, list) or not given:
        return 1
    kinds = set(map(type, given))
    if len(kinds) > 1:
        raise InvalidRequest(f"{name} mixes texts and tokens.", hint="Send a list of one kind.", param=name)
    if kinds == {int}:
        return 1
    if len(given) > limits.prompts_max:
        raise InvalidRequest(f"{name} has {len(given)} parts.", hint=f"At most {limits.prompts_max}.", param=name)
    return len(given)


def _decode(body: bytes) -> _Fields:
    if not body.strip():
        raise InvalidRequest("The body is empty.", hint="Send one JSON object.")
    try:
        text = body.decode()
        _check_values(body)
        fields = _fields.decode(body)
        _check_names(_members.decode(body), _KNOWN)
        _once.decode(text)
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"The body is not UTF-8 (byte {error.start}).", hint="Send JSON in UTF-8.") from error
    except msgspec.ValidationError as error:
        raise _wrong_type(str(error)) from error
    except msgspec.DecodeError as error:
        raise InvalidRequest(f"The body is not JSON: {error}.", hint="Send one JSON object.") from error
    except RecursionError as error:
        raise InvalidRequest("The body is nested too deeply.", hint="Send flatter JSON.") from error
    except ValueError as error:
        raise InvalidRequest("The body holds a number that is too long.", hint="Send shorter numbers.") from error
    return fields


def _check_values(body: bytes) -> None:
    """A body of millions of tiny values would hold up everyone else while it is read."""
    if len(body) > limits.json_values_max:
        bare = _STRING.sub(b"", body)
        if bare.count(b",") + bare.count(b"[") + bare.count(b"{") > limits.json_values_max:
            raise InvalidRequest("The body holds too many values.", hint=f"At most {limits.json_values_max}.")


def _check_names(names: Iterable[str], known: frozenset[str]) -> None:
    """Some engines (Go's encoding/json) read `Model` as `model`: the gateway and they must read the same."""
    for name in names:
        if name not in known and name.casefold() in known:
            raise InvalidRequest(f"The body has a field {name!r}.", hint=f"Write it {name.casefold()!r}.", param=name)


def _object(members: list[tuple[str, Any]]) -> None:
    """Refuses an object that names a field twice: the gateway, a guard and the engine may not read different ones."""
    names = {name for name, _ in members}
    if len(names) != len(members):
        raise InvalidRequest(
            "The body names a field twice.", hint="Send each field once: readers disagree on which one counts."
        )


_once = json.JSONDecoder(object_pairs_hook=_object)


def _wrong_type(message: str) -> InvalidRequest:
    missing = _MISSING.fullmatch(message)
    if missing:
        return InvalidRequest(f"{missing[1]} is missing.", hint="See docs/api.md.", param=missing[1])
    where = _WHERE.search(message)
    param = where[1] if where else None
    what = message[: where.start()] if where else message
    return InvalidRequest(
        f"{param or 'The body'}: {what}.", hint="See the OpenAI API reference for its type.", param=param or None
    )


def _check(operation: str, fields: _Fields) -> None:
    if not fields.model:
        raise InvalidRequest("model is empty.", hint="Choose one from GET /v1/models.", param="model")
    if len(fields.model) > limits.model_name_chars_max:
        raise InvalidRequest("model is too long.", hint="Choose one from GET /v1/models.", param="model")
    if operation == "chat" and not fields.messages:
        raise InvalidRequest("messages is missing or empty.", hint="Send at least one message.", param="messages")
    if operation == "completion" and fields.prompt is None:
        raise InvalidRequest("prompt is missing.", hint="Send a text.", param="prompt")
    if operation == "embedding" and not fields.input:
        raise InvalidRequest("input is missing or empty.", hint="Send a text or a list of texts.", param="input")
    _texts("input", fields.input)
    if fields.n is not None and not 1 <= fields.n <= limits.choices_max:
        raise InvalidRequest(f"n must be 1 to {limits.choices_max}.", hint="Ask for fewer choices.", param="n")
    for name in ("max_tokens", "max_completion_tokens"):
        if not 0 <= (getattr(fields, name) or 0) <= _INTEGER_MAX:
            raise InvalidRequest(
                f"{name} is out of range.", hint="Leave it out, or send a positive number.", param=name
            )


def _parameters(fields: _Fields) -> dict[str, Scalar]:
    found: dict[str, Scalar] = {}
    if fields.stream:
        found["stream"] = True
    for name in _NUMBERS:
        value = getattr(fields, name)
        if value is not None:
            found[name] = value if isinstance(value, int) and abs(value) <= _INTEGER_MAX else str(value)
    for name, words in _WORDS.items():
        value = getattr(fields, name)
        if isinstance(value, str) and value in words:
            found[name] = value
    if fields.tools:
        found["tools"] = len(fields.tools)
    if fields.messages:
        found["messages"] = len(fields.messages)
    return found


def engine_body(call: Call, served_name: str) -> bytes:
    """The body for the engine: the very same bytes, but for the model's name there, the fields that belong to the
    gateway, and `stream_options.include_usage`, which a stream always asks for, so that its tokens can be counted."""
    members = _members.decode(call.received)
    owned = OWNED.intersection(members)
    if served_name == call.model and not owned and (not call.stream or call.wants_usage):
        return call.received
    for name in owned:
        del members[name]
    members["model"] = msgspec.Raw(_json.encode(served_name))
    if call.stream and not call.wants_usage:
        given = members.get("stream_options")
        options = _members.decode(given) if given is not None and bytes(given) != b"null" else {}
        options["include_usage"] = msgspec.Raw(b"true")
        members["stream_options"] = msgspec.Raw(_json.encode(options))
    return _json.encode(members)
