"""`recount`: usage of an answer of several choices from llama.cpp, which tells that of the first one alone;
`check_stream`: what it cannot stream; `as_stream`: the same job, streamed.

The other choices, and the other prompts of a list, are counted by llama.cpp's own tokenizer (`POST /tokenize`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeAlias

import msgspec

from rempart.errors import EngineRefused
from rempart.wire.answers import nonsense
from rempart.wire.job import Job

Ask: TypeAlias = Callable[[Job], Awaitable[bytes]]
_STREAMED: Final = ("/v1/chat/completions", "/v1/completions")
_TEXTS: Final = ("content", "reasoning_content", "tool_calls")


class _Choice(msgspec.Struct):
    message: dict[str, Any] = {}
    text: str = ""

    def said(self) -> str:
        parts = [self.text, *(self.message.get(name) or "" for name in _TEXTS)]
        return "".join(part if isinstance(part, str) else msgspec.json.encode(part).decode() for part in parts)


class _Usage(msgspec.Struct):
    prompt_tokens: int
    completion_tokens: int


class _Answer(msgspec.Struct):
    choices: list[_Choice] = []
    usage: _Usage | None = None


class _Named(msgspec.Struct):
    model: str = ""


class _Prompts(msgspec.Struct):
    prompt: Any = None


class _Tokens(msgspec.Struct):
    tokens: list[Any]


_answer = msgspec.json.Decoder(_Answer)
_members = msgspec.json.Decoder(dict[str, msgspec.Raw])


async def recount(job: Job, body: bytes, ask: Ask) -> bytes:
    """`body`, or the same with a whole count. Raises what `ask` raises."""
    try:
        answer = _answer.decode(body)
    except msgspec.DecodeError:
        return body  # it is judged elsewhere
    usage = answer.usage
    if len(answer.choices) < 2 or usage is None:
        return body
    completion = usage.completion_tokens
    for choice in answer.choices[1:]:
        completion += await _count(choice.said(), job, ask)
    prompt = usage.prompt_tokens
    prompts = msgspec.json.decode(job.body, type=_Prompts).prompt
    if isinstance(prompts, list) and not isinstance(prompts[0], int):
        for other in prompts[1:]:
            prompt += await _count(other, job, ask)
    members = _members.decode(body)
    counts = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
    members["usage"] = msgspec.Raw(msgspec.json.encode(msgspec.json.decode(members["usage"]) | counts))
    return msgspec.json.encode(members)


def check_stream(job: Job) -> None:
    """llama.cpp streams the answers to several prompts as lists, which are no events of OpenAI's shape.

    Raises `EngineRefused`.
    """
    prompts = msgspec.json.decode(job.body, type=_Prompts).prompt
    if isinstance(prompts, list) and len(prompts) > 1 and not isinstance(prompts[0], int):
        raise EngineRefused(
            f"This engine streams the answer to one prompt at a time, not to {len(prompts)}.",
            status=400,
            hint="Ask without stream, or once for each prompt.",
            param="prompt",
        )


def as_stream(job: Job) -> Job | None:
    """None when it has no form as a stream."""
    if job.path not in _STREAMED:
        return None
    prompts = msgspec.json.decode(job.body, type=_Prompts).prompt
    if isinstance(prompts, list) and len(prompts) > 1 and not isinstance(prompts[0], int):
        return None
    members = _members.decode(job.body)
    members["stream"] = msgspec.Raw(b"true")
    members["stream_options"] = msgspec.Raw(b'{"include_usage":true}')
    return msgspec.structs.replace(job, body=msgspec.json.encode(members))


def model_of(job: Job) -> str:
    """The name that its answer is to bear."""
    return msgspec.json.decode(job.body, type=_Named).model


async def _count(text: str | list[int], job: Job, ask: Ask) -> int:
    if not isinstance(text, str):
        return len(text)
    body = msgspec.json.encode({"content": text})
    told = await ask(Job(path="/tokenize", body=body, exchange=job.exchange))
    try:
        return len(msgspec.json.decode(told, type=_Tokens).tokens)
    except msgspec.DecodeError as error:
        raise nonsense() from error
