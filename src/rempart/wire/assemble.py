"""`Assembler`: the chunks of a stream, relayed byte for byte and put together again for the ledger (pure).

Source: OpenAI API reference, "chat completion chunk" and streamed completions. Fields it does not know are merged by
their kind: texts are joined, lists are joined or merged by their `index`, of all else the last one stands.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, Literal

import msgspec

from rempart import limits
from rempart.errors import EngineError
from rempart.wire.answers import Usage, nonsense, renamed
from rempart.wire.sse import frame

# Texts that come whole, though some engines repeat them in each chunk.
_WHOLE: Final = frozenset({"role", "id", "type", "name", "object", "finish_reason", "stop_reason"})


class _Choice(msgspec.Struct):
    delta: dict[str, Any] | None = None
    index: int = 0
    text: str | None = None
    finish_reason: str | None = None


class _Chunk(msgspec.Struct):
    choices: list[_Choice] | None = None
    usage: Usage | None = None
    model: str = ""
    error: Any = None


class _Content(msgspec.Struct, forbid_unknown_fields=True):
    content: str


class _PlainChoice(msgspec.Struct, forbid_unknown_fields=True):
    index: Literal[0] = 0
    delta: _Content | None = None
    text: str | None = None
    finish_reason: None = None
    logprobs: None = None
    stop_reason: None = None


class _Plain(msgspec.Struct, forbid_unknown_fields=True):
    """What nearly all chunks are: a text of the first choice, and nothing else that another chunk does not repeat."""

    choices: list[_PlainChoice]
    id: str = ""
    object: str = ""
    created: int = 0
    model: str = ""
    system_fingerprint: str | None = None
    usage: None = None

    def text(self) -> str | None:
        if len(self.choices) != 1:
            return None
        choice = self.choices[0]
        return choice.delta.content if choice.delta is not None else choice.text


class Fed(msgspec.Struct, frozen=True):
    """What became of a batch of payloads."""

    out: bytes
    """Server-sent events for the client."""
    piece: bytes
    """The same for the ledger, as JSON lines: a text is content of the first choice, an object is a chunk as it was."""
    broken: EngineError | None = None
    """What was wrong with the payload after these; it and what follows it are dropped."""


_chunk = msgspec.json.Decoder(_Chunk)
_plain = msgspec.json.Decoder(_Plain)
_any = msgspec.json.Decoder()
_json = msgspec.json.Encoder()


class Assembler:
    """One stream. `model` is the name that the client used; chunks that bear another are renamed."""

    __slots__ = (
        *("_bytes", "_choices", "_engines_name", "_model", "_operation", "_texts", "_top", "_wants_usage"),
        *("_headed", "counted", "usage"),
    )

    def __init__(self, operation: str, model: str, wants_usage: bool) -> None:
        self._operation = operation
        self._model = model
        self._wants_usage = wants_usage
        self._top: dict[str, Any] = {}
        self._choices: dict[int, dict[str, Any]] = {}
        self._texts: list[str] = []
        self._bytes = 0
        self._engines_name = ""
        self._headed = False
        """The pieces hold an object: the names of the stream, which texts do not repeat."""
        self.usage: Usage | None = None
        self.counted = 0
        """Chunks with text: the count of tokens when the engine gives none."""

    def feed(self, payloads: Iterable[bytes]) -> Fed:
        """Stops at the first payload that is no chunk."""
        out: list[bytes] = []
        pieces: list[bytes] = []
        broken: EngineError | None = None
        for payload in payloads:
            try:
                piece = self._take(payload)
                if piece:
                    out.append(frame(self._named(payload)))
                    pieces.append(piece)
            except EngineError as error:
                broken = error
                break
            except (UnicodeDecodeError, msgspec.DecodeError, RecursionError):
                broken = nonsense()
                break
        return Fed(b"".join(out), b"\n".join(pieces) + b"\n" if pieces else b"", broken)

    def _take(self, payload: bytes) -> bytes:
        """Its piece; empty when it is not for the client, who did not ask for usage."""
        self._bytes += len(payload)
        if self._bytes > limits.answer_bytes_max:
            raise EngineError("The engine's answer is too large.", hint="Ask for fewer tokens.")
        if self._headed:
            text = self._plain_text(payload)
            if text is not None:
                self._texts.append(text)
                self.counted += bool(text)
                return _json.encode(text)
        chunk = self._decode(payload)
        self._merge(payload)
        if chunk.usage is not None:
            self.usage = chunk.usage
            if not chunk.choices and not self._wants_usage:
                return b""
        self.counted += sum(map(_says_something, chunk.choices or ()))
        self._headed = True
        return payload if b"\n" not in payload else _json.encode(_any.decode(payload))

    def _plain_text(self, payload: bytes) -> str | None:
        try:
            plain = _plain.decode(payload)
        except msgspec.ValidationError:
            return None  # it says more
        self._engines_name = plain.model
        return plain.text()

    def _named(self, payload: bytes) -> bytes:
        return payload if self._engines_name in ("", self._model) else renamed(payload, self._model)

    def _decode(self, payload: bytes) -> _Chunk:
        if not payload.isascii():
            payload.decode()  # the decoder does not look at what it skips
        chunk = _chunk.decode(payload)
        if chunk.error is not None:
            raise EngineError("The engine broke off its stream with an error.", hint="See the engine's log.")
        self._engines_name = chunk.model
        return chunk

    def _merge(self, payload: bytes) -> None:
        self._join_texts()
        chunk = _any.decode(payload)
        for choice in chunk.pop("choices", None) or ():
            index = choice.pop("index", 0)
            _merge(self._choices.setdefault(index, {}), choice)
        for name, value in chunk.items():
            if value is not None or name not in self._top:
                self._top[name] = value

    def _join_texts(self) -> None:
        if not self._texts:
            return
        text = "".join(self._texts)
        self._texts.clear()
        merged = {"text": text} if self._operation == "completion" else {"delta": {"content": text}}
        _merge(self._choices.setdefault(0, {}), merged)

    @property
    def finish(self) -> tuple[str, ...]:
        """Finish reasons in order of the choices; empty texts where a choice has not ended."""
        return tuple(self._choices[index].get("finish_reason") or "" for index in sorted(self._choices))

    def whole(self) -> bytes:
        """The answer as it would have been without streaming, as far as it came."""
        self._join_texts()
        chat = self._operation == "chat"
        whole = dict(self._top)
        whole["object"] = "chat.completion" if chat else "text_completion"
        whole["model"] = self._model
        whole["choices"] = [self._choice(index, chat) for index in sorted(self._choices)]
        return _json.encode(whole)

    def _choice(self, index: int, chat: bool) -> dict[str, Any]:
        choice = {"index": index, **self._choices[index]}
        if chat:
            choice["message"] = _unindexed(choice.pop("delta", None) or {})
        return choice


def from_pieces(operation: str, model: str, pieces: Iterable[bytes]) -> bytes:
    """The answer that a crash cut off, from what the ledger kept of it."""
    assembler = Assembler(operation, model, wants_usage=True)
    for piece in pieces:
        assembler.feed(_payload(operation, line) for line in piece.split(b"\n") if line)
    return assembler.whole()


def _payload(operation: str, line: bytes) -> bytes:
    if not line.startswith(b'"'):
        return line
    text = msgspec.Raw(line)
    choice = {"text": text} if operation == "completion" else {"delta": {"content": text}}
    return _json.encode({"choices": [{"index": 0, **choice}]})


def _merge(into: dict[str, Any], new: dict[str, Any]) -> None:
    for name, value in new.items():
        old = into.get(name)
        if old is None and isinstance(value, list):
            into[name] = []
            _merge_lists(into[name], value)
        elif old is None:
            into[name] = value
        elif isinstance(old, str) and isinstance(value, str):
            into[name] = (old or value) if name in _WHOLE else old + value
        elif isinstance(old, dict) and isinstance(value, dict):
            _merge(old, value)
        elif isinstance(old, list) and isinstance(value, list):
            _merge_lists(old, value)
        elif value is not None:
            into[name] = value


def _merge_lists(old: list[Any], new: list[Any]) -> None:
    places = {item["index"]: item for item in old if _indexed(item)}
    for item in new:
        place = places.get(item["index"]) if _indexed(item) else None
        if place is not None:
            _merge(place, {name: value for name, value in item.items() if name != "index"})
            continue
        old.append(item)
        if _indexed(item):
            places[item["index"]] = item


def _indexed(item: Any) -> bool:
    return isinstance(item, dict) and isinstance(item.get("index"), int)


def _says_something(choice: _Choice) -> bool:
    """Text, reasoning or a part of a tool call: about one token. A role alone is none."""
    delta = choice.delta or {}
    return bool(choice.text) or any(value for name, value in delta.items() if name != "role")


def _unindexed(message: dict[str, Any]) -> dict[str, Any]:
    """Tool calls bear an `index` only in streams."""
    calls = message.get("tool_calls")
    if isinstance(calls, list):
        message = dict(message)
        message["tool_calls"] = [
            {name: value for name, value in call.items() if name != "index"} if isinstance(call, dict) else call
            for call in calls
        ]
    return message
