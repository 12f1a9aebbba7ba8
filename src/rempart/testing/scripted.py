"""`ScriptedServer`: an OpenAI-compatible server that does what the prompt tells it, faults too. For tests alone.

The last message's text is the script: words and numbers separated by spaces.

| script | what happens |
|---|---|
| anything else | it is said again, one word a chunk |
| `words N` | N words |
| `paced N MS` | N words, MS milliseconds apart |
| `slow MS` | the answer comes after MS milliseconds |
| `hang` | no byte ever |
| `hang-after N` | N chunks, then silence |
| `cut N` | N chunks, then the connection is closed |
| `nonsense` | JSON of another shape |
| `not-json`, `not-utf8` | bytes that are neither |
| `error-event N` | N chunks, then an error as an event |
| `status N` | that HTTP status, with an error in OpenAI's shape |
| `tool NAME` | a call of that tool, with the arguments `{"city": "Lyon"}`, streamed in parts |
| `close` | the connection is closed without an answer |
| `large` | an answer over every limit |
| `lies` | an answer whose usage no engine can mean |
| `choices N` | N choices |
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

import msgspec

from rempart.testing.conformance import Load

_REASON: Final = {200: "OK"}
_ARGUMENTS: Final = '{"city": "Lyon"}'
_json = msgspec.json.Encoder()


class ScriptedServer:
    """`async with ScriptedServer() as server`: then `server.url` is its address."""

    def __init__(self, model: str = "scripted") -> None:
        self.model = model
        self.url = ""
        self.running = 0
        """Answers under way: what an engine still works on."""
        self.asked: list[dict[str, Any]] = []
        """Bodies received."""
        self.said = 0
        """Words, in all streams."""
        self.going = asyncio.Event()
        """While it is cleared, connections stay and nothing is answered."""
        self.going.set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self._idle = asyncio.Event()
        self._idle.set()
        self._came = asyncio.Condition()

    async def __aenter__(self) -> ScriptedServer:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self.kill()

    def kill(self) -> None:
        """Gone without a word, until it is entered again."""
        assert self._server is not None
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()

    async def start(self) -> None:
        """Again, after `kill`; at another port."""
        await self.__aenter__()

    def pause(self) -> None:
        self.going.clear()

    def resume(self) -> None:
        self.going.set()

    async def load(self) -> Load:
        return Load(running=self.running, generated=self.said)

    async def idle(self) -> None:
        """Wait until nothing is under way."""
        await self._idle.wait()

    async def more_asked_than(self, count: int) -> None:
        """Wait until more than `count` bodies were received."""
        async with self._came:
            await self._came.wait_for(lambda: len(self.asked) > count)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                asked_for, body = await _read(reader)
                await self.going.wait()
                if not await self._watched(reader, writer, asked_for, body):
                    break
        self._writers.discard(writer)
        writer.close()

    async def _watched(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, asked_for: str, body: bytes
    ) -> bool:
        """Answer, but stop as an engine does when the client closes its connection."""
        self.running += 1
        self._idle.clear()
        answering = asyncio.ensure_future(self._answer(writer, asked_for, body))
        gone = asyncio.ensure_future(reader.read(1))
        try:
            await asyncio.wait({answering, gone}, return_when=asyncio.FIRST_COMPLETED)
            return answering.done() and await answering and not gone.done()
        finally:
            for task in (answering, gone):
                task.cancel()
            await asyncio.gather(answering, gone, return_exceptions=True)
            self.running -= 1
            if not self.running:
                self._idle.set()

    async def _answer(self, writer: asyncio.StreamWriter, asked_for: str, body: bytes) -> bool:
        """`asked_for`: method and path. False when the connection is to be closed."""
        path = asked_for.split()[1]
        if path == "/v1/models":
            await reply(writer, 200, {"object": "list", "data": [{"id": self.model, "object": "model", "created": 1}]})
            return True
        asked = await self._note(body)
        if asked.get("messages") == "wrong":
            await reply(writer, 400, _error("messages must be a list"))
            return True
        if path == "/v1/embeddings":
            await reply(writer, 200, _vectors(self.model, asked.get("input")))
            return True
        words = script_of(asked).split()
        return await self._perform(writer, words or [""], asked, chat=path.endswith("chat/completions"))

    async def _note(self, body: bytes) -> dict[str, Any]:
        asked = msgspec.json.decode(body, type=dict[str, Any])
        self.asked.append(asked)
        async with self._came:
            self._came.notify_all()
        return asked

    async def _perform(
        self, writer: asyncio.StreamWriter, words: list[str], asked: Mapping[str, Any], chat: bool
    ) -> bool:
        verb, numbers = words[0], [int(word) for word in words[1:] if word.isdigit()]
        match verb:
            case "hang":
                await asyncio.Event().wait()
            case "close":
                return False
            case "slow":
                await asyncio.sleep(numbers[0] / 1000)
            case "paced" if not asked.get("stream"):
                await asyncio.sleep(numbers[0] * numbers[1] / 1000)
            case "status":
                await reply(writer, numbers[0], _error(f"scripted {numbers[0]}"))
                return True
            case "nonsense" if not asked.get("stream"):
                await reply(writer, 200, {"hello": ["world"]})
                return True
            case "not-json" | "not-utf8" if not asked.get("stream"):
                await send(writer, 200, "application/json", b"\xff\xfe" if verb == "not-utf8" else b"<html>")
                return True
            case "large" if not asked.get("stream"):
                await reply(writer, 200, {"choices": [{"message": {"content": "x" * (40 << 20)}}]})
                return True
        if asked.get("stream"):
            return await self._stream(writer, words, numbers, asked, chat)
        if verb == "tool":
            await reply(writer, 200, self._tool_call(words[1]))
            return True
        whole = self._whole(said_by(words, numbers), chat, len(words))
        if verb == "lies":
            whole["usage"] = _usage(2**53 - 1, 2**63 - 1)
        if verb == "choices":
            whole["choices"] = [{**whole["choices"][0], "index": number} for number in range(numbers[0])]
        await reply(writer, 200, whole)
        return True

    def _tool_call(self, name: str) -> dict[str, Any]:
        call = {"id": "call-1", "type": "function", "function": {"name": name, "arguments": _ARGUMENTS}}
        whole = self._whole([], chat=True, prompt=2)
        message = {"role": "assistant", "content": None, "tool_calls": [call]}
        whole["choices"] = [{"index": 0, "message": message, "finish_reason": "tool_calls"}]
        return whole

    async def _stream_tool_call(self, writer: asyncio.StreamWriter, name: str) -> None:
        head = {"index": 0, "id": "call-1", "type": "function", "function": {"name": name, "arguments": ""}}
        parts = [{"index": 0, "function": {"arguments": part}} for part in (_ARGUMENTS[:5], _ARGUMENTS[5:])]
        for call in (head, *parts):
            chunk = self._chunk({}, None, chat=True)
            chunk["choices"][0]["delta"] = {"tool_calls": [call]}
            await self._event(writer, chunk)

    def _whole(self, said: list[str], chat: bool, prompt: int) -> dict[str, Any]:
        text = " ".join(said)
        content = {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
        return {
            "id": "scripted-1",
            "object": "chat.completion" if chat else "text_completion",
            "created": 1,
            "model": self.model,
            "choices": [{"index": 0, **content, "finish_reason": "stop"}],
            "usage": _usage(prompt, len(said)),
        }

    async def _stream(
        self, writer: asyncio.StreamWriter, words: list[str], numbers: list[int], asked: Mapping[str, Any], chat: bool
    ) -> bool:
        verb = words[0]
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        if verb == "tool":
            await self._stream_tool_call(writer, words[1])
        said = [] if verb == "tool" else said_by(words, numbers)
        stop_after = numbers[0] if verb in ("cut", "hang-after", "error-event") else len(said) + 1
        async for number, word in paced(said, numbers[1] / 1000 if verb == "paced" else 0.0):
            if number == stop_after:
                break
            await self.going.wait()
            self.said += 1
            await self._event(writer, self._chunk({"content": word + " "}, None, chat))
        if verb == "hang-after":
            await asyncio.Event().wait()
        if verb == "cut":
            return False
        if verb == "error-event":
            await self._event(writer, _error("scripted"))
            return False
        if verb in ("nonsense", "not-json", "not-utf8"):
            bad = {"nonsense": b'{"choices": 7}', "not-json": b"<html>", "not-utf8": b"\xff\xfe"}[verb]
            await chunked(writer, b"data: " + bad + b"\n\n")
        await self._event(writer, self._chunk({}, "tool_calls" if verb == "tool" else "stop", chat))
        if (asked.get("stream_options") or {}).get("include_usage"):
            await self._event(
                writer, {**self._chunk({}, None, chat), "choices": [], "usage": _usage(len(words), len(said))}
            )
        await chunked(writer, b"data: [DONE]\n\n")
        writer.write(b"0\r\n\r\n")
        await writer.drain()
        return True

    def _chunk(self, delta: dict[str, str], finish: str | None, chat: bool) -> dict[str, Any]:
        content: dict[str, Any] = {"delta": delta} if chat else {"text": delta.get("content", "")}
        return {
            "id": "scripted-1",
            "object": "chat.completion.chunk" if chat else "text_completion",
            "created": 1,
            "model": self.model,
            "choices": [{"index": 0, **content, "finish_reason": finish}],
        }

    async def _event(self, writer: asyncio.StreamWriter, value: object) -> None:
        await chunked(writer, b"data: " + _json.encode(value) + b"\n\n")


async def _read(reader: asyncio.StreamReader) -> tuple[str, bytes]:
    head = await reader.readuntil(b"\r\n\r\n")
    method, path, _ = head.decode("latin-1").split(" ", 2)
    length = 0
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            length = int(line.split(b":")[1])
    return f"{method} {path}", await reader.readexactly(length)


def script_of(asked: Mapping[str, Any]) -> str:
    if asked.get("messages"):
        content = asked["messages"][-1].get("content")
        return content if isinstance(content, str) else ""
    text = asked.get("prompt", asked.get("input", ""))
    return text if isinstance(text, str) else ""


def _vectors(model: str, given: object) -> dict[str, Any]:
    """One for each text."""
    texts = given if isinstance(given, list) else [given]
    data = [{"object": "embedding", "index": at, "embedding": [0.5, 0.25]} for at, _ in enumerate(texts)]
    count = sum(len(text.split()) for text in texts if isinstance(text, str))
    usage = {"prompt_tokens": count, "total_tokens": count}
    return {"object": "list", "data": data, "model": model, "usage": usage}


def said_by(words: list[str], numbers: list[int]) -> list[str]:
    if words[0] in ("words", "paced"):
        return [f"w{number}" for number in range(numbers[0])]
    if words[0] in ("cut", "hang-after", "error-event"):
        return [f"w{number}" for number in range(numbers[0] + 1)]
    return words


def _usage(prompt: int, completion: int) -> dict[str, int]:
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def _error(message: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": None}}


async def paced(said: list[str], pause_s: float) -> AsyncIterator[tuple[int, str]]:
    """Each word at its own time from the start, so that delays do not add up."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    for number, word in enumerate(said):
        if pause_s:
            await asyncio.sleep(max(began + number * pause_s - loop.time(), 0))
        yield number, word


async def reply(writer: asyncio.StreamWriter, status: int, value: object) -> None:
    await send(writer, status, "application/json", _json.encode(value))


async def send(writer: asyncio.StreamWriter, status: int, kind: str, body: bytes) -> None:
    head = f"HTTP/1.1 {status} {_REASON.get(status, 'Scripted')}\r\ncontent-type: {kind}\r\n"
    writer.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
    await writer.drain()


async def chunked(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(b"%x\r\n%b\r\n" % (len(data), data))
    await writer.drain()
