"""`FakeOllama`: Ollama's own API as its documentation has it, strictly, over the scripted engine. For tests alone.

Source: Ollama, docs/api.md. It refuses what the documentation does not name, where the real one would let it pass: what
an adapter sends is then known to be right. `/v1/*` is the scripted engine's. Scripts are those of `scripted`.
"""

from __future__ import annotations

import asyncio
import hashlib
from typing import Any, Final

import msgspec

from rempart.testing.scripted import ScriptedServer, chunked, paced, reply, said_by, send

VERSION: Final = "0.12.6"
_CREATED: Final = "2026-11-01T08:00:00.123456789Z"
_VECTOR: Final = [0.5, 0.25, -0.125]
_json = msgspec.json.Encoder()


class _Strict(msgspec.Struct, forbid_unknown_fields=True):
    pass


class _Options(_Strict):
    num_keep: int | None = None
    seed: int | None = None
    num_predict: int | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    typical_p: float | None = None
    repeat_last_n: int | None = None
    temperature: float | None = None
    repeat_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    stop: list[str] | None = None
    num_ctx: int | None = None
    num_batch: int | None = None
    num_gpu: int | None = None
    num_thread: int | None = None


class _Function(_Strict):
    name: str
    arguments: dict[str, Any]


class _Call(_Strict):
    function: _Function


class _Message(_Strict):
    role: str
    content: str = ""
    thinking: str | None = None
    images: list[str] | None = None
    tool_calls: list[_Call] | None = None
    tool_name: str | None = None


class _Asked(_Strict):
    """What `/api/chat`, `/api/generate` and `/api/embed` have in common."""

    model: str
    options: _Options | None = None
    keep_alive: float | str | None = None


class _Chat(_Asked):
    messages: list[_Message] = []
    tools: list[dict[str, Any]] | None = None
    format: str | dict[str, Any] | None = None
    stream: bool = True
    think: bool | str | None = None


class _Generate(_Asked):
    prompt: str = ""
    suffix: str | None = None
    images: list[str] | None = None
    format: str | dict[str, Any] | None = None
    system: str | None = None
    template: str | None = None
    stream: bool = True
    raw: bool = False
    context: list[int] | None = None
    think: bool | str | None = None


class _Embed(_Asked):
    input: str | list[str] = ""
    truncate: bool = True
    dimensions: int | None = None


class _Named(_Strict):
    model: str
    verbose: bool | None = None


class _Create(_Strict):
    model: str
    from_: str | None = msgspec.field(name="from", default=None)
    files: dict[str, str] | None = None
    template: str | None = None
    system: str | None = None
    parameters: dict[str, Any] | None = None
    quantize: str | None = None
    stream: bool = True


_BODIES: Final[dict[str, Any]] = {
    "POST /api/chat": _Chat,
    "POST /api/generate": _Generate,
    "POST /api/embed": _Embed,
    "POST /api/show": _Named,
    "POST /api/create": _Create,
    "DELETE /api/delete": _Named,
}


class FakeOllama(ScriptedServer):
    """`async with FakeOllama() as server`. One model is there: `guide:latest`."""

    def __init__(self) -> None:
        super().__init__("guide:latest")
        self.digests = {"guide:latest": hashlib.sha256(b"guide").hexdigest()}
        self.loaded: set[str] = set()
        self.blobs: set[str] = set()

    async def _answer(self, writer: asyncio.StreamWriter, asked_for: str, body: bytes) -> bool:
        method, path = asked_for.split()
        if path.startswith("/v1/"):
            return await super()._answer(writer, asked_for, body)
        if path.startswith("/api/blobs/"):
            await self._blob(writer, method, path.rpartition("/")[2], body)
            return True
        match asked_for:
            case "GET /api/version":
                await reply(writer, 200, {"version": VERSION})
            case "GET /api/tags":
                await reply(writer, 200, {"models": [self._tag(name) for name in self.digests]})
            case "GET /api/ps":
                running = [{**self._tag(name), "expires_at": _CREATED, "size_vram": 0} for name in sorted(self.loaded)]
                await reply(writer, 200, {"models": running})
            case _ if asked_for in _BODIES:
                return await self._with_body(writer, asked_for, body)
            case _:
                await send(writer, 404, "text/plain", b"404 page not found")
        return True

    async def _with_body(self, writer: asyncio.StreamWriter, asked_for: str, body: bytes) -> bool:
        try:
            asked = msgspec.json.decode(body, type=_BODIES[asked_for])
        except msgspec.DecodeError as error:
            await reply(writer, 400, {"error": str(error)})
            return True
        name = asked.model if ":" in asked.model else f"{asked.model}:latest"
        if isinstance(asked, _Create):
            await self._create(writer, name, asked)
            return True
        if name not in self.digests:
            await reply(writer, 404, {"error": f"model '{asked.model}' not found"})
            return True
        match asked:
            case _Embed():
                await self._note(body)
                await self._embed(writer, asked)
            case _Named() if asked_for.startswith("DELETE"):
                del self.digests[name]
                await send(writer, 200, "text/plain", b"")
            case _Named():
                await reply(writer, 200, self._shown(name))
            case _:
                await self._note(body)
                self.loaded.add(name)
                return await self._say(writer, asked)
        return True

    async def _embed(self, writer: asyncio.StreamWriter, asked: _Embed) -> None:
        texts = [asked.input] if isinstance(asked.input, str) else asked.input
        if not asked.truncate and any(len(text.split()) > 512 for text in texts):
            await reply(writer, 400, {"error": "the input length exceeds the context length"})
            return
        count = sum(len(text.split()) for text in texts)
        vectors = [_VECTOR[: asked.dimensions] for _ in texts]
        times = {"total_duration": 14143917, "load_duration": 1019500}
        told = {"model": asked.model, "embeddings": vectors, **times, "prompt_eval_count": count}
        await reply(writer, 200, told)

    async def _say(self, writer: asyncio.StreamWriter, asked: _Chat | _Generate) -> bool:
        if isinstance(asked, _Chat) and not asked.messages:
            done = {"message": {"role": "assistant", "content": ""}, "done_reason": "load", "done": True}
            await reply(writer, 200, {"model": asked.model, "created_at": _CREATED, **done})
            return True
        chat, tools = isinstance(asked, _Chat), isinstance(asked, _Chat) and asked.tools
        words = (asked.messages[-1].content if isinstance(asked, _Chat) else asked.prompt).split() or [""]
        verb, numbers = words[0], [int(word) for word in words[1:] if word.isdigit()]
        match verb:
            case "hang":
                await asyncio.Event().wait()
            case "close":
                return False
            case "slow":
                await asyncio.sleep(numbers[0] / 1000)
            case "paced" if not asked.stream:
                await asyncio.sleep(numbers[0] * numbers[1] / 1000)
            case "status":
                await reply(writer, numbers[0], {"error": f"scripted {numbers[0]}"})
                return True
        said = said_by(words, numbers)
        most = asked.options.num_predict if asked.options else None
        if verb == "tool" and tools:
            call = {"function": {"name": words[1], "arguments": {"city": "Lyon"}}}
            parts: list[dict[str, Any]] = [{"message": {"role": "assistant", "content": "", "tool_calls": [call]}}]
        else:
            cut = said if verb == "paced" or not most else said[:most]
            parts = [_part(chat, word if at == 0 else f" {word}") for at, word in enumerate(cut)]
        last = {
            "done": True,
            "done_reason": "length" if len(parts) < len(said) and verb != "tool" else "stop",
            **{"total_duration": 10, "load_duration": 1, "prompt_eval_duration": 4, "eval_duration": 5},
            **{"prompt_eval_count": len(words), "eval_count": len(parts)},
        }
        if not asked.stream:
            whole = parts[0] if verb == "tool" else _part(chat, " ".join(said[: len(parts)]))
            await reply(writer, 200, {"model": asked.model, "created_at": _CREATED, **whole, **last})
            return True
        return await self._lines(writer, asked.model, parts, {**_part(chat, ""), **last}, words)

    async def _lines(
        self, writer: asyncio.StreamWriter, model: str, parts: list[Any], last: dict[str, Any], words: list[str]
    ) -> bool:
        verb, numbers = words[0], [int(word) for word in words[1:] if word.isdigit()]
        head = b"HTTP/1.1 200 OK\r\ncontent-type: application/x-ndjson\r\ntransfer-encoding: chunked\r\n\r\n"
        writer.write(head)
        stop_after = numbers[0] if verb in ("cut", "hang-after", "error-event") else len(parts) + 1
        pause_s = numbers[1] / 1000 if verb == "paced" else 0.0
        async for number, _ in paced([""] * len(parts), pause_s):
            if number == stop_after:
                break
            await self.going.wait()
            self.said += 1
            await _line(writer, {"model": model, "created_at": _CREATED, **parts[number], "done": False})
        match verb:
            case "hang-after":
                await asyncio.Event().wait()
            case "cut":
                return False
            case "error-event":
                await _line(writer, {"error": "an error was encountered while running the model"})
                return False
            case "nonsense" | "not-json" | "not-utf8":
                bad = {"nonsense": b'{"message": 7}', "not-json": b"<html>", "not-utf8": b"\xff\xfe"}[verb]
                await chunked(writer, bad + b"\n")
        await _line(writer, {"model": model, "created_at": _CREATED, **last})
        writer.write(b"0\r\n\r\n")
        await writer.drain()
        return True

    async def _blob(self, writer: asyncio.StreamWriter, method: str, digest: str, body: bytes) -> None:
        match method:
            case "HEAD":
                # No body follows the head of an answer to HEAD (RFC 9110 section 9.3.2).
                await send(writer, 200 if digest in self.blobs else 404, "text/plain", b"")
            case "POST" if digest == f"sha256:{hashlib.sha256(body).hexdigest()}":
                self.blobs.add(digest)
                await send(writer, 201, "text/plain", b"")
            case _:
                await reply(writer, 400, {"error": "digest does not match the content"})

    async def _create(self, writer: asyncio.StreamWriter, name: str, asked: _Create) -> None:
        missing = [digest for digest in (asked.files or {}).values() if digest not in self.blobs]
        if missing or not (asked.files or asked.from_):
            await reply(
                writer, 400, {"error": "neither 'from' or 'files' was specified" if not missing else missing[0]}
            )
            return
        self.digests[name] = hashlib.sha256(_json.encode(asked)).hexdigest()
        if not asked.stream:
            await reply(writer, 200, {"status": "success"})
            return
        head = b"HTTP/1.1 200 OK\r\ncontent-type: application/x-ndjson\r\ntransfer-encoding: chunked\r\n\r\n"
        writer.write(head)
        for status in ("parsing GGUF", "writing manifest", "success"):
            await _line(writer, {"status": status})
        writer.write(b"0\r\n\r\n")
        await writer.drain()

    def _tag(self, name: str) -> dict[str, Any]:
        return {
            **{"name": name, "model": name, "modified_at": _CREATED, "size": 17_451_248},
            "digest": self.digests[name],
            "details": _DETAILS,
        }

    def _shown(self, name: str) -> dict[str, Any]:
        information = {"general.architecture": "llama", "general.parameter_count": 8_721_152}
        return {
            **{"modelfile": f"FROM {name}", "parameters": "", "template": "{{ .Prompt }}", "details": _DETAILS},
            **{"model_info": information, "capabilities": ["completion", "tools"], "modified_at": _CREATED},
        }


_DETAILS: Final = {
    **{"parent_model": "", "format": "gguf", "family": "llama", "families": ["llama"]},
    **{"parameter_size": "8.7M", "quantization_level": "F16"},
}


def _part(chat: bool, text: str) -> dict[str, Any]:
    return {"message": {"role": "assistant", "content": text}} if chat else {"response": text}


async def _line(writer: asyncio.StreamWriter, value: object) -> None:
    await chunked(writer, _json.encode(value) + b"\n")
