"""`translate`: a job in OpenAI's terms becomes a request of Ollama's own API, its answer becomes OpenAI's (pure).

Source: Ollama, docs/api.md: `/api/chat`, `/api/generate`, `/api/embed`, `/api/tags`. What Ollama cannot do is refused
by name, never left out silently: an answer that looks right and is not is worse than none.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

import msgspec

from rempart.errors import EngineError, EngineRefused
from rempart.wire.answers import nonsense
from rempart.wire.job import Job
from rempart.wire.vectors import in_base64, wants_base64

_OPTIONS: Final = {
    "temperature": "temperature",
    "top_p": "top_p",
    "seed": "seed",
    "stop": "stop",
    "frequency_penalty": "frequency_penalty",
    "presence_penalty": "presence_penalty",
}
_CANNOT: Final = ("logit_bias", "echo", "best_of", "logprobs", "top_logprobs")
_THINKS: Final = {"none": False, "minimal": "low", "low": "low", "medium": "medium", "high": "high", "xhigh": "high"}
_json = msgspec.json.Encoder()
_DATA_URL: Final = ";base64,"


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What to send, and what is needed to understand the answer."""

    path: str
    """`/api/chat`, `/api/generate` or `/api/embed`."""
    body: bytes
    model: str
    stream: bool
    wants_usage: bool
    base64: bool = False
    """Vectors are asked for as base64 of little-endian float32, which OpenAI's own client prefers."""


class _Function(msgspec.Struct):
    name: str
    arguments: Any = None


class _Call(msgspec.Struct):
    function: _Function
    id: str = ""


class _Message(msgspec.Struct):
    content: str = ""
    thinking: str = ""
    tool_calls: list[_Call] | None = None


class Line(msgspec.Struct):
    """One object of a stream, or the only one of an answer."""

    message: _Message | None = None
    """Of `/api/chat`."""
    response: str | None = None
    """Of `/api/generate`."""
    thinking: str = ""
    done: bool = False
    done_reason: str = ""
    created_at: str = ""
    prompt_eval_count: int = 0
    eval_count: int = 0
    error: str | None = None


class _Embedded(msgspec.Struct):
    embeddings: list[list[float]]
    prompt_eval_count: int = 0


class _Tag(msgspec.Struct):
    name: str
    digest: str = ""
    modified_at: str = ""


class _Tags(msgspec.Struct):
    models: list[_Tag] | None


class Tag(msgspec.Struct, frozen=True, kw_only=True):
    """A model that lies there."""

    name: str
    digest: str
    """`sha256:<hex>` of its manifest, or empty."""
    created: int
    """Unix seconds; 0 when it does not say."""


_line = msgspec.json.Decoder(Line)


def translate(job: Job) -> Request:
    """Raises `EngineRefused` for what Ollama's API has no word for."""
    asked = msgspec.json.decode(job.body, type=dict[str, Any])
    for name in _CANNOT:
        if asked.get(name):
            raise _cannot(name)
    if (asked.get("n") or 1) != 1:
        raise _cannot("n")
    if job.path == "/v1/embeddings":
        return _embed(asked)
    chat = job.path == "/v1/chat/completions"
    body: dict[str, Any] = {
        "model": asked["model"],
        "stream": bool(asked.get("stream")),
        "options": _options(asked),
        **(_conversation(asked) if chat else _prompt(asked)),
        **_format(asked),
    }
    if asked.get("reasoning_effort") is not None:
        body["think"] = _THINKS.get(asked["reasoning_effort"], True)
    usage = (asked.get("stream_options") or {}).get("include_usage")
    return Request(
        path="/api/chat" if chat else "/api/generate",
        body=_json.encode(body),
        model=asked["model"],
        stream=body["stream"],
        wants_usage=bool(usage),
    )


def _cannot(name: str, more: str = "") -> EngineRefused:
    return EngineRefused(
        f"Ollama's API has no {name}{more}.", status=400, hint="Leave it out, or use another engine.", param=name
    )


def _options(asked: Mapping[str, Any]) -> dict[str, Any]:
    options = {own: asked[name] for name, own in _OPTIONS.items() if asked.get(name) is not None}
    if isinstance(options.get("stop"), str):
        options["stop"] = [options["stop"]]
    most = asked.get("max_completion_tokens") or asked.get("max_tokens")
    return {**options, "num_predict": most} if most else options


def _format(asked: Mapping[str, Any]) -> dict[str, Any]:
    given = asked.get("response_format") or {}
    match given.get("type", "text"):
        case "text":
            return {}
        case "json_object":
            return {"format": "json"}
        case "json_schema":
            return {"format": (given.get("json_schema") or {}).get("schema")}
    raise _cannot("response_format", f" of type {given['type']!r}")


def _prompt(asked: Mapping[str, Any]) -> dict[str, Any]:
    prompt = asked.get("prompt")
    if isinstance(prompt, list) and len(prompt) == 1:
        prompt = prompt[0]
    if not isinstance(prompt, str):
        raise _cannot("prompt", " but one text")
    # OpenAI's completions go to the model as they are: `raw` leaves the model's template out.
    suffix = {"suffix": asked["suffix"]} if asked.get("suffix") else {"raw": True}
    return {"prompt": prompt, **suffix}


def _conversation(asked: Mapping[str, Any]) -> dict[str, Any]:
    messages = asked.get("messages")
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        raise EngineRefused("messages must be a list of messages.", status=400, param="messages")
    names: dict[str, str] = {}
    told = {"messages": [_message(message, names) for message in messages]}
    choice = asked.get("tool_choice")
    if choice not in (None, "auto", "none"):
        raise _cannot("tool_choice", " that forces a call")
    return {**told, "tools": asked["tools"]} if asked.get("tools") and choice != "none" else told


def _message(message: Mapping[str, Any], names: dict[str, str]) -> dict[str, Any]:
    """`names`: tool calls that earlier messages made, by id; an answer of a tool names its tool in Ollama's API."""
    told: dict[str, Any] = {"role": "system" if message.get("role") == "developer" else message.get("role")}
    told["content"], images = _content(message.get("content"))
    if images:
        told["images"] = images
    if message.get("tool_calls"):
        told["tool_calls"] = [_call(call, names) for call in message["tool_calls"]]
    if told["role"] == "tool":
        told["tool_name"] = names.get(message.get("tool_call_id") or "", "")
    return told


def _call(call: Mapping[str, Any], names: dict[str, str]) -> dict[str, Any]:
    function = call.get("function") or {}
    names[call.get("id") or ""] = function.get("name") or ""
    try:
        arguments = msgspec.json.decode(function.get("arguments") or "{}")
    except msgspec.DecodeError as error:
        raise EngineRefused("A tool call's arguments are not JSON.", status=400, param="messages") from error
    return {"function": {"name": function.get("name"), "arguments": arguments}}


def _content(content: Any) -> tuple[str, list[str]]:
    """The text, and images in base64."""
    if content is None or isinstance(content, str):
        return content or "", []
    texts: list[str] = []
    images: list[str] = []
    for part in content if isinstance(content, list) else [content]:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind == "text" and isinstance(part.get("text"), str):
            texts.append(part["text"])
        elif kind == "image_url":
            url = (part.get("image_url") or {}).get("url", "")
            if not url.startswith("data:") or _DATA_URL not in url:
                raise _cannot("image_url", " but a data: URL in base64")
            images.append(url.partition(_DATA_URL)[2])
        else:
            raise _cannot("content", f" of type {kind!r}")
    return "\n".join(texts), images


def _embed(asked: Mapping[str, Any]) -> Request:
    given = asked.get("input")
    if not isinstance(given, str) and not (isinstance(given, list) and all(isinstance(one, str) for one in given)):
        raise _cannot("input", " but texts")
    # Ollama cuts what is too long unless it is told not to: then the vector would be of another text.
    body = {"model": asked["model"], "input": given, "truncate": False}
    if asked.get("dimensions"):
        body["dimensions"] = asked["dimensions"]
    return Request(
        path="/api/embed",
        body=_json.encode(body),
        model=asked["model"],
        stream=False,
        wants_usage=True,
        base64=wants_base64(asked),
    )


def read_line(data: bytes) -> Line:
    """Raises `EngineError` when it is none, or is an error in a stream."""
    try:
        data.decode()
        line = _line.decode(data)
    except (UnicodeDecodeError, msgspec.DecodeError, RecursionError) as error:
        raise nonsense() from error
    if line.error is not None:
        raise EngineError("The engine broke off its answer with an error.", hint="See the engine's log.")
    if not line.done and line.message is None and line.response is None:
        raise nonsense()
    return line


class Translation:
    """Of one answer: keeps what its parts have in common."""

    def __init__(self, request: Request, exchange: str) -> None:
        self._request = request
        self._chat = request.path == "/api/chat"
        self._id = f"chatcmpl-{exchange}" if self._chat else f"cmpl-{exchange}"
        self._calls = 0
        self._created = 0

    def whole(self, body: bytes) -> bytes:
        """Raises `EngineError`."""
        if self._request.path == "/api/embed":
            return self._embeddings(body)
        line = read_line(body)
        if not line.done:
            raise nonsense()
        self._date(line)
        calls = self._tool_calls(line)
        if self._chat:
            message = line.message or _Message()
            said: dict[str, Any] = {"role": "assistant", "content": message.content or (None if calls else "")}
            said |= {"reasoning_content": message.thinking} if message.thinking else {}
            said |= {"tool_calls": [_unindexed(call) for call in calls]} if calls else {}
            content: dict[str, Any] = {"message": said}
        else:
            content = {"text": line.response or ""}
        choice = {"index": 0, **content, "finish_reason": self._finish(line)}
        kind = "chat.completion" if self._chat else "text_completion"
        return _json.encode({**self._names(kind), "choices": [choice], "usage": _usage(line)})

    def chunks(self, line: Line) -> list[bytes]:
        """What a line of a stream says, as OpenAI's chunks."""
        self._date(line)
        kind = "chat.completion.chunk" if self._chat else "text_completion"
        found: list[dict[str, Any]] = []
        calls = self._tool_calls(line)
        if self._chat and line.message is not None:
            delta: dict[str, Any] = {"content": line.message.content} if line.message.content else {}
            delta |= {"reasoning_content": line.message.thinking} if line.message.thinking else {}
            delta |= {"tool_calls": calls} if calls else {}
            found += [{"delta": {"role": "assistant", **delta}}] if delta else []
        elif line.response:
            found.append({"text": line.response})
        if line.done:
            found.append({**({"delta": {}} if self._chat else {"text": ""}), "finish_reason": self._finish(line)})
        names = self._names(kind)
        told = [_json.encode({**names, "choices": [{"index": 0, "finish_reason": None, **one}]}) for one in found]
        if line.done and self._request.wants_usage:
            told.append(_json.encode({**names, "choices": [], "usage": _usage(line)}))
        return told

    def _names(self, kind: str) -> dict[str, Any]:
        return {"id": self._id, "object": kind, "created": self._created, "model": self._request.model}

    def _date(self, line: Line) -> None:
        self._created = self._created or _seconds(line.created_at)

    def _tool_calls(self, line: Line) -> list[dict[str, Any]]:
        """Ollama's come whole, each with its arguments as an object."""
        told: list[dict[str, Any]] = []
        for call in (line.message and line.message.tool_calls) or ():
            function = {"name": call.function.name, "arguments": _json.encode(call.function.arguments or {}).decode()}
            id_ = call.id or f"call_{self._calls}"
            told.append({"index": self._calls, "id": id_, "type": "function", "function": function})
            self._calls += 1
        return told

    def _finish(self, line: Line) -> str:
        if self._calls:
            return "tool_calls"
        return "length" if line.done_reason == "length" else "stop"

    def _embeddings(self, body: bytes) -> bytes:
        try:
            told = msgspec.json.decode(body, type=_Embedded)
        except (msgspec.DecodeError, RecursionError) as error:
            raise nonsense() from error
        data = [
            {"object": "embedding", "index": at, "embedding": self._vector(one)}
            for at, one in enumerate(told.embeddings)
        ]
        usage = {"prompt_tokens": told.prompt_eval_count, "total_tokens": told.prompt_eval_count}
        return _json.encode({"object": "list", "data": data, "model": self._request.model, "usage": usage})

    def _vector(self, values: list[float]) -> list[float] | str:
        return in_base64(values) if self._request.base64 else values


def read_tags(body: bytes) -> list[Tag]:
    """What `/api/tags` answers. Raises `EngineError`."""
    try:
        tags = msgspec.json.decode(body, type=_Tags).models or []
    except (msgspec.DecodeError, RecursionError) as error:
        raise nonsense() from error
    return [
        Tag(name=tag.name, digest=f"sha256:{tag.digest}" if tag.digest else "", created=_seconds(tag.modified_at))
        for tag in tags
    ]


def _usage(line: Line) -> dict[str, int]:
    prompt, completion = line.prompt_eval_count, line.eval_count
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def _unindexed(call: Mapping[str, Any]) -> dict[str, Any]:
    """`index` belongs to streams alone."""
    return {name: value for name, value in call.items() if name != "index"}


def _seconds(time: str) -> int:
    try:
        return int(datetime.fromisoformat(time).timestamp())
    except ValueError:
        return 0  # it is told for information only
