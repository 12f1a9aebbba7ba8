"""`translate`: a job in OpenAI's terms becomes a request of Triton's, its answer becomes OpenAI's (pure).

Source: Triton, docs/protocol/extension_generate.md and the V2 inference protocol; names of inputs and outputs are those
of its vLLM backend, docs/additional_outputs.md. Triton knows tensors, not conversations: a model that takes one has an
input `messages`, its JSON. What a model has no input for is refused. Whole answers are asked for as streams too: while
`generate` works on one, Triton does not notice that nobody waits for it any more.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote

import msgspec

from rempart.errors import EngineError, EngineRefused
from rempart.wire.answers import nonsense
from rempart.wire.job import Job
from rempart.wire.vectors import in_base64, wants_base64

_CANNOT: Final = ("tools", "functions", "logprobs", "top_logprobs", "logit_bias", "suffix", "echo", "best_of")
_SAMPLING: Final = (
    *("temperature", "top_p", "top_k", "min_p", "seed", "stop", "frequency_penalty", "presence_penalty"),
    "ignore_eos",
)
_ASKED_FOR: Final = (
    *("exclude_input_in_output", "return_finish_reason", "return_num_input_tokens", "return_num_output_tokens"),
)
"""Switches of the vLLM backend's models: what they leave out unless it is asked for."""
_json = msgspec.json.Encoder()


class _Tensor(msgspec.Struct):
    name: str
    datatype: str = ""


class Shape(msgspec.Struct):
    """What a model takes and gives: `GET /v2/models/NAME`."""

    name: str
    inputs: list[_Tensor] = []
    outputs: list[_Tensor] = []

    def takes(self, name: str) -> bool:
        return any(tensor.name == name for tensor in self.inputs)

    def gives(self, name: str) -> bool:
        return any(tensor.name == name for tensor in self.outputs)


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What to send, and what is needed to understand the answer."""

    path: str
    body: bytes
    model: str
    chat: bool = False
    wants_usage: bool = False
    finishes: bool = False
    """The model says why it ended, so that a stream without that was cut."""
    base64: bool = False


class _Said(msgspec.Struct):
    text_output: str | None = None
    finish_reason: str = ""
    num_input_tokens: int | None = None
    num_output_tokens: int | None = None
    error: str | None = None


class _Output(msgspec.Struct):
    name: str
    shape: list[int]
    data: list[Any]


class _Inferred(msgspec.Struct):
    outputs: list[_Output]


class _Indexed(msgspec.Struct):
    name: str
    state: str = ""


def read_shape(body: bytes) -> Shape:
    """Raises `EngineError`."""
    shape: Shape = _read(body, Shape)
    return shape


def read_index(body: bytes) -> list[str]:
    """Names of the models that are ready: `POST /v2/repository/index`. Raises `EngineError`."""
    return sorted({model.name for model in _read(body, list[_Indexed]) if model.state == "READY"})


def shape_path(model: str) -> str:
    return f"/v2/models/{quote(model, safe='')}"


def translate(job: Job, shape: Shape) -> Request:
    """Raises `EngineRefused` for what the model cannot be asked."""
    asked = msgspec.json.decode(job.body, type=dict[str, Any])
    if job.path == "/v1/embeddings":
        return _inference(asked, shape)
    for name in _CANNOT:
        if asked.get(name):
            raise _cannot(shape, f"cannot be asked for {name}", name)
    if (asked.get("n") or 1) != 1:
        raise _cannot(shape, "gives one answer at a time", "n")
    if (asked.get("response_format") or {}).get("type", "text") != "text":
        raise _cannot(shape, "cannot be held to a form", "response_format")
    if not shape.gives("text_output"):
        raise _cannot(shape, "gives no text", "model")
    chat = job.path == "/v1/chat/completions"
    body = {
        **(_conversation(asked, shape) if chat else _prompt(asked, shape)),
        **({"stream": True} if shape.takes("stream") else {}),
        **_sampling(asked, shape),
        **{name: True for name in _ASKED_FOR if shape.takes(name)},
    }
    return Request(
        path=f"{shape_path(shape.name)}/generate_stream",
        body=_json.encode(body),
        model=shape.name,
        chat=chat,
        wants_usage=bool((asked.get("stream_options") or {}).get("include_usage")),
        finishes=shape.gives("finish_reason"),
    )


def _cannot(shape: Shape, what: str, param: str) -> EngineRefused:
    return EngineRefused(
        f"Triton's model {shape.name} {what}.", status=400, hint="Leave it out, or use another engine.", param=param
    )


def _conversation(asked: Mapping[str, Any], shape: Shape) -> dict[str, Any]:
    if not isinstance(asked.get("messages"), list):
        raise EngineRefused("messages must be a list of messages.", status=400, param="messages")
    if not shape.takes("messages"):
        raise _cannot(shape, "takes a text, not a conversation: it has no input `messages`", "messages")
    return {"messages": _json.encode(asked["messages"]).decode()}


def _prompt(asked: Mapping[str, Any], shape: Shape) -> dict[str, Any]:
    prompt = asked.get("prompt")
    if isinstance(prompt, list) and len(prompt) == 1:
        prompt = prompt[0]
    if not isinstance(prompt, str):
        raise _cannot(shape, "takes one text as its prompt", "prompt")
    return {"text_input": prompt}


def _sampling(asked: Mapping[str, Any], shape: Shape) -> dict[str, Any]:
    found = {name: asked[name] for name in _SAMPLING if asked.get(name) is not None}
    most = asked.get("max_completion_tokens") or asked.get("max_tokens")
    if most:
        found["max_tokens"] = most
    if not found:
        return {}
    if shape.takes("sampling_parameters"):
        return {"sampling_parameters": _json.encode(found).decode()}
    if not all(isinstance(value, str | int | float) for value in found.values()):
        raise _cannot(shape, "takes no lists among its parameters", "stop")
    return {"parameters": found}


def _inference(asked: Mapping[str, Any], shape: Shape) -> Request:
    given = asked.get("input")
    texts = given if isinstance(given, list) else [given]
    if not texts or not all(isinstance(text, str) for text in texts):
        raise _cannot(shape, "takes texts", "input")
    if not (shape.gives("embedding") and shape.takes("text_input")):
        raise _cannot(shape, "gives no embeddings", "model")
    tensor = {"name": "text_input", "shape": [len(texts)], "datatype": "BYTES", "data": texts}
    return Request(
        path=f"{shape_path(shape.name)}/infer",
        body=_json.encode({"inputs": [tensor]}),
        model=shape.name,
        base64=wants_base64(asked),
    )


class Translation:
    """Of one answer: counts its tokens, and knows whether it has ended."""

    def __init__(self, request: Request, exchange: str, created: int) -> None:
        self._request = request
        self._names = {
            "id": f"{'chatcmpl' if request.chat else 'cmpl'}-{exchange}",
            "created": created,
            "model": request.model,
        }
        self._prompt: int | None = None
        self._completion: int | None = None
        self._finish = ""
        self._texts: list[str] = []

    def chunk(self, payload: bytes) -> bytes:
        """One event of `generate_stream` as one of OpenAI's. Raises `EngineError`."""
        said = self._take(_read(payload, _Said))
        return self._chunk(said.text_output or "", None)

    def take(self, payload: bytes) -> None:
        """One event of an answer that is told as a whole. Raises `EngineError`."""
        self._texts.append(self._take(_read(payload, _Said)).text_output or "")

    def whole(self) -> bytes:
        """What all events said. Raises `EngineError` when the last one was not the end of the answer."""
        self._check_end()
        text = "".join(self._texts)
        content = {"message": {"role": "assistant", "content": text}} if self._request.chat else {"text": text}
        kind = "chat.completion" if self._request.chat else "text_completion"
        return self._told(kind, [{"index": 0, **content, "finish_reason": self._finish or "stop"}], usage=True)

    def last(self) -> list[bytes]:
        """What follows the last event. Raises `EngineError` when that was not the end of the answer."""
        self._check_end()
        told = [self._chunk("", self._finish or "stop")]
        return [*told, self._told(self._kind, [], usage=True)] if self._request.wants_usage else told

    def embeddings(self, body: bytes) -> bytes:
        """Raises `EngineError`."""
        outputs = {output.name: output for output in _read(body, _Inferred).outputs}
        found = outputs.get("embedding")
        if found is None or len(found.shape) != 2 or len(found.data) != found.shape[0] * found.shape[1]:
            raise nonsense()
        size = found.shape[1]
        vectors = [found.data[at : at + size] for at in range(0, len(found.data), size)]
        data = [
            {"object": "embedding", "index": at, "embedding": in_base64(vector) if self._request.base64 else vector}
            for at, vector in enumerate(vectors)
        ]
        counted = outputs.get("num_input_tokens")
        tokens = int(counted.data[0]) if counted is not None else None
        usage = {} if tokens is None else {"usage": {"prompt_tokens": tokens, "total_tokens": tokens}}
        return _json.encode({"object": "list", "data": data, "model": self._request.model, **usage})

    def _check_end(self) -> None:
        if self._request.finishes and not self._finish:
            raise EngineError("The engine's stream ended in the middle.", hint="See the engine's log.")

    @property
    def _kind(self) -> str:
        return "chat.completion.chunk" if self._request.chat else "text_completion"

    def _take(self, said: _Said) -> _Said:
        if said.error is not None:
            raise EngineError("The engine broke off its answer with an error.", hint="See the engine's log.")
        if said.text_output is None:
            raise nonsense()
        self._prompt = said.num_input_tokens if said.num_input_tokens is not None else self._prompt
        if said.num_output_tokens is not None:
            self._completion = (self._completion or 0) + said.num_output_tokens
        self._finish = said.finish_reason or self._finish
        return said

    def _chunk(self, text: str, finish: str | None) -> bytes:
        delta = {"role": "assistant", "content": text} if text else {}
        content: dict[str, Any] = {"delta": delta} if self._request.chat else {"text": text}
        return self._told(self._kind, [{"index": 0, **content, "finish_reason": finish}])

    def _told(self, kind: str, choices: list[dict[str, Any]], usage: bool = False) -> bytes:
        told: dict[str, Any] = {**self._names, "object": kind, "choices": choices}
        if usage and self._prompt is not None and self._completion is not None:
            total = self._prompt + self._completion
            counts = {"prompt_tokens": self._prompt, "completion_tokens": self._completion, "total_tokens": total}
            told["usage"] = counts
        return _json.encode(told)


def _read(body: bytes, kind: Any) -> Any:
    try:
        body.decode()
        return msgspec.json.decode(body, type=kind)
    except (UnicodeDecodeError, msgspec.DecodeError, RecursionError) as error:
        raise nonsense() from error
