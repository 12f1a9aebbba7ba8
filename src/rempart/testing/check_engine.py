"""`check_engine`: the conformance suite of the port `rempart.engines.port.Engine`, on an engine that really runs.

Every adapter passes it on its engine, and on the scripted one all of it. A case passes, fails, or is skipped because
the engine refuses what the port does not require; then its own words are the reason.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from typing import Any, Final

import msgspec

from rempart import limits
from rempart.engines.port import Engine
from rempart.errors import EngineError, EngineRefused, EngineTimeout, EngineUnavailable
from rempart.testing.conformance import Outcome, Report, State, Subject
from rempart.testing.relay import Relay, Spoil
from rempart.wire.answers import parse_answer
from rempart.wire.assemble import Assembler
from rempart.wire.job import Job

LONG_TOKENS: Final = 400
_CHAT: Final = "/v1/chat/completions"
_AT_ONCE: Final = 24
"""So many that even a fast engine works for seconds."""
_FAULT_S: Final = 60.0
"""What takes longer never happens."""
_PATIENCE_S: Final = 1.0
_TOOLS: Final = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "strict": True,
            "description": "The weather of a city.",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string", "enum": ["Lyon", "Paris"]}},
                "required": ["city"],
                "additionalProperties": False,
            },
        },
    }
]


async def check_engine(subject: Subject) -> Report:
    """Never raises for what the engine does; stops, kills and starts it, and leaves it running."""
    async with Relay(lambda: subject.url) as relay:
        outcomes = [await _try(name, case, _Bench(subject, relay)) for name, case in _CASES.items()]
    return Report(engine=subject.name, version=subject.version, outcomes=tuple(outcomes))


class _Bench:
    """What a case works with: an adapter of its own, and the way to spoil what it gets."""

    def __init__(self, subject: Subject, relay: Relay) -> None:
        self.subject = subject
        self.relay = relay
        self.engine: Engine = subject.adapter(relay.url)

    def chat(self, text: str = "Say something.", **more: Any) -> Job:
        return self.job(_CHAT, messages=[{"role": "user", "content": text}], **{"max_tokens": 16, **more})

    def long(self, **more: Any) -> Job:
        return self.chat(self.subject.long_prompt, **{"max_tokens": LONG_TOKENS, "ignore_eos": True, **more})

    def call(self) -> dict[str, Any]:
        """What forces a call of `_TOOLS`, so that the model does not matter.

        JSON may hold any number of spaces: the penalty keeps a small model from saying nothing else.
        """
        forced = {"tools": _TOOLS, "tool_choice": self.subject.tool_choice}
        return {**forced, "max_tokens": 300, "temperature": 0, "frequency_penalty": 2.0}

    def job(self, path: str, **body: Any) -> Job:
        return Job(path=path, body=msgspec.json.encode({"model": self.subject.model, **body}), exchange="0" * 32)

    async def follow(self, job: Job, operation: str = "chat") -> Assembler:
        assembler = Assembler(operation, self.subject.model, wants_usage=True)
        async for payloads in self.engine.stream(job):
            assert payloads, "a batch is never empty"
            broken = assembler.feed(payloads).broken
            if broken is not None:
                raise broken
        return assembler

    @contextlib.contextmanager
    def spoiled(self, spoil: Spoil) -> Iterator[None]:
        self.relay.spoil = spoil
        try:
            yield
        finally:
            self.relay.spoil = None

    async def busy(self) -> None:
        """Wait until the engine says that it does something."""
        while not (await self.subject.load()).running:
            await asyncio.sleep(0.01)

    async def idle(self) -> float:
        """Seconds until the engine says that it does nothing."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        while (await self.subject.load()).running:
            await asyncio.sleep(0.02)
        return loop.time() - began


Case = Callable[[_Bench], Awaitable[float | None]]


async def _try(feature: str, case: Case, bench: _Bench) -> Outcome:
    lacks = bench.subject.lacks.get(feature)
    (seconds,) = await asyncio.gather(asyncio.wait_for(case(bench), _FAULT_S * 4), return_exceptions=True)
    await bench.engine.close()
    if lacks is not None:
        state: State = "skipped" if isinstance(seconds, Exception) else "failed"
        return Outcome(feature=feature, state=state, reason=lacks if state == "skipped" else f"passes, though {lacks}")
    if not isinstance(seconds, BaseException):
        return Outcome(feature=feature, state="passed", seconds=None if seconds is None else round(seconds, 3))
    if isinstance(seconds, EngineRefused) and feature in _OPTIONAL:
        return Outcome(feature=feature, state="skipped", reason=seconds.message)
    if not isinstance(seconds, Exception):
        raise seconds
    reason = seconds.message if isinstance(seconds, EngineError) else str(seconds)
    return Outcome(feature=feature, state="failed", reason=f"{type(seconds).__name__}: {reason}")


async def _health(bench: _Bench) -> None:
    """An engine that is ready serves its models, under its name."""
    targets = await bench.engine.models()
    assert bench.subject.model in {target.served_name for target in targets}, "it does not list its model"
    assert all(target.engine == bench.engine.name for target in targets)


async def _answer(bench: _Bench) -> None:
    answer = parse_answer("chat", await bench.engine.answer(bench.chat()))
    assert answer.finish[0] in ("stop", "length"), f"finish_reason is {answer.finish}"


async def _stream(bench: _Bench) -> None:
    assembler = await bench.follow(bench.chat(stream=True))
    assert assembler.finish[0] in ("stop", "length"), f"finish_reason is {assembler.finish}"
    assert assembler.counted > 1, "it comes in pieces"


async def _completion(bench: _Bench) -> None:
    job = bench.job("/v1/completions", prompt="Rempart is", max_tokens=8)
    answer = parse_answer("completion", await bench.engine.answer(job))
    assert answer.finish[0] in ("stop", "length"), f"finish_reason is {answer.finish}"
    job = bench.job("/v1/completions", prompt="Rempart is", max_tokens=8, stream=True)
    assert (await bench.follow(job, "completion")).finish[0] in ("stop", "length")


async def _usage(bench: _Bench) -> None:
    """The same prompt has as many tokens in an answer and in a stream; no more are said than were asked for."""
    answer = parse_answer("chat", await bench.engine.answer(bench.chat()))
    stream = await bench.follow(bench.chat(stream=True, stream_options={"include_usage": True}))
    assert answer.usage is not None, "an answer tells its tokens"
    assert stream.usage is not None, "a stream tells its tokens when that is asked for"
    assert (answer.usage.prompt_tokens or 0) > 0, "a prompt has tokens"
    assert answer.usage.prompt_tokens == stream.usage.prompt_tokens, "a prompt has as many tokens, streamed or not"
    for usage in (answer.usage, stream.usage):
        assert 0 < (usage.completion_tokens or 0) <= 16, f"{usage.completion_tokens} tokens, of at most 16"


async def _choices(bench: _Bench) -> None:
    answer = parse_answer("chat", await bench.engine.answer(bench.chat("choices 2", n=2)))
    assert len(answer.finish) == 2, f"{len(answer.finish)} choices, 2 were asked for"


async def _tools(bench: _Bench) -> None:
    job = bench.chat("tool weather", **bench.call())
    body = await bench.engine.answer(job)
    _check_call(msgspec.json.decode(body)["choices"][0]["message"])


async def _tools_streamed(bench: _Bench) -> None:
    job = bench.chat("tool weather", **bench.call(), stream=True)
    whole = (await bench.follow(job)).whole()
    _check_call(msgspec.json.decode(whole)["choices"][0]["message"])


def _check_call(message: dict[str, Any]) -> None:
    calls = message.get("tool_calls") or []
    assert len(calls) == 1, f"{len(calls)} calls, one was asked for"
    assert calls[0]["function"]["name"] == "weather"
    arguments = msgspec.json.decode(calls[0]["function"]["arguments"])
    assert arguments["city"] in ("Lyon", "Paris"), f"the arguments are {arguments}"


async def _embeddings(bench: _Bench) -> None:
    vectors: list[list[float]] = []
    for given in ("a text", ["a text", "another"]):
        job = bench.job("/v1/embeddings", model=bench.subject.embedding_model, input=given)
        body = await bench.engine.answer(job)
        usage = parse_answer("embedding", body).usage
        assert usage is not None
        assert (usage.prompt_tokens or 0) > 0, "a text has tokens"
        vectors = [one["embedding"] for one in msgspec.json.decode(body)["data"]]
    assert len(vectors) == 2, "one vector for each text"
    assert len({len(vector) for vector in vectors}) == 1, "all of one length"


async def _refusal(bench: _Bench) -> None:
    """A request that makes no sense is refused, and the refusal says why."""
    with _raises(EngineRefused) as refused:
        await bench.engine.answer(bench.job(_CHAT, messages="wrong"))
    assert refused[0].message


async def _side_by_side(bench: _Bench) -> None:
    answers = await asyncio.gather(*(bench.engine.answer(bench.chat(f"Number {number}.")) for number in range(8)))
    for answer in answers:
        parse_answer("chat", answer)


async def _cancelled_streams(bench: _Bench) -> float:
    """Many leave at once as the first words come; the engine stops long before it would have been done.

    Seconds: until the engine says that it does nothing.
    """
    came = asyncio.Event()
    return await _leave(bench, [_read(bench, came) for _ in range(_AT_ONCE)], came.wait)


async def _read(bench: _Bench, came: asyncio.Event) -> None:
    """A long stream; `came` is set by its first words."""
    async with contextlib.aclosing(bench.engine.stream(bench.long(stream=True))) as batches:
        async for _ in batches:
            came.set()


async def _cancelled_answers(bench: _Bench) -> float:
    """The same for answers that are not streamed."""
    return await _leave(bench, [bench.engine.answer(bench.long()) for _ in range(_AT_ONCE)], bench.busy)


async def _leave(
    bench: _Bench, asking: Sequence[Coroutine[Any, Any, object]], until: Callable[[], Awaitable[object]]
) -> float:
    before = await bench.subject.load()
    tasks = [asyncio.ensure_future(one) for one in asking]
    try:
        await _or_error(tasks, until())
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    seconds = await bench.idle()
    said, asked = (await bench.subject.load()).generated - before.generated, len(asking) * LONG_TOKENS
    assert said < asked // 2, f"the engine said {said} of {asked} tokens though nobody listened"
    return seconds


async def _or_error(tasks: Sequence[asyncio.Future[Any]], event: Awaitable[object]) -> None:
    """Wait for the event; what is raised by a task before that is raised here."""
    happens = asyncio.ensure_future(event)
    try:
        done, _ = await asyncio.wait({*tasks, happens}, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
        assert happens.done(), "an answer was whole before anyone could leave"
    finally:
        happens.cancel()


async def _error_in_stream(bench: _Bench) -> None:
    with bench.spoiled(Spoil(inject=bench.subject.failure)), _raises(EngineError):
        await bench.follow(bench.long(stream=True))


async def _nonsense(bench: _Bench) -> None:
    with bench.spoiled(Spoil(inject=bench.subject.nonsense, stall=True)), _raises(EngineError):
        await bench.follow(bench.long(stream=True))


async def _cut(bench: _Bench) -> None:
    """A stream that just ends is an error."""
    with bench.spoiled(Spoil()), _raises(EngineError):
        await bench.follow(bench.long(stream=True))


async def _hang(bench: _Bench) -> None:
    """Silence is noticed before the first byte, in the middle, and when it is asked what it serves."""
    with _impatient():
        with bench.spoiled(Spoil(stall=True)), _raises(EngineTimeout):
            await bench.follow(bench.long(stream=True))
        bench.subject.pause()
        try:
            with _raises(EngineTimeout):
                await bench.engine.models()
            with _raises(EngineTimeout):
                await bench.engine.answer(bench.chat())
        finally:
            bench.subject.resume()
    await bench.idle()
    parse_answer("chat", await bench.engine.answer(bench.chat()))


async def _death(bench: _Bench) -> float:
    """Whoever is waiting learns it at once; until it is back it is unavailable, and then it works as before.

    Seconds: from its death until a stream that ran was told.
    """
    came = asyncio.Event()
    reading = [asyncio.create_task(_read(bench, came)) for _ in range(_AT_ONCE)]
    await _or_error(reading, came.wait())
    loop = asyncio.get_running_loop()
    bench.subject.kill()
    died = loop.time()
    ended = await asyncio.gather(*reading, return_exceptions=True)
    seconds = loop.time() - died
    assert all(isinstance(one, EngineError) for one in ended), f"they ended with {ended[0]!r}"
    with _raises(EngineUnavailable):
        await bench.engine.models()
    await bench.subject.start()
    await _answer(bench)
    return seconds


async def _closed(bench: _Bench) -> None:
    await bench.engine.close()
    with _raises(EngineUnavailable):
        await bench.engine.answer(bench.chat())


@contextlib.contextmanager
def _raises(kind: type[EngineError]) -> Iterator[list[EngineError]]:
    """That error or a kind of it; another one goes on."""
    caught: list[EngineError] = []
    try:
        yield caught
    except kind as error:
        caught.append(error)
        return
    raise AssertionError(f"{kind.__name__} was to be raised")


@contextlib.contextmanager
def _impatient() -> Iterator[None]:
    """Nobody waits minutes for an engine that was told to be silent."""
    names = ("engine_first_byte_s", "engine_between_bytes_s", "engine_list_s")
    before = {name: getattr(limits, name) for name in names}
    try:
        for name in names:
            setattr(limits, name, _PATIENCE_S)
        yield
    finally:
        for name, value in before.items():
            setattr(limits, name, value)


_CASES: Final[dict[str, Case]] = {
    "health": _health,
    "chat": _answer,
    "streaming": _stream,
    "completions": _completion,
    "usage counts": _usage,
    "several choices": _choices,
    "tools": _tools,
    "tools in a stream": _tools_streamed,
    "embeddings": _embeddings,
    "refusals": _refusal,
    "side by side": _side_by_side,
    "cancelled streams": _cancelled_streams,
    "cancelled answers": _cancelled_answers,
    "error in mid-stream": _error_in_stream,
    "nonsense in mid-stream": _nonsense,
    "cut streams": _cut,
    "hang": _hang,
    "death and return": _death,
    "closing": _closed,
}
FEATURES: Final = tuple(_CASES)
_OPTIONAL: Final = frozenset({"completions", "several choices", "tools", "tools in a stream", "embeddings"})
