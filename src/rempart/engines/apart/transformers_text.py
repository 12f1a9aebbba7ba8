"""`Text.pieces`: what a Hugging Face model says, piece by piece, for as long as somebody listens.

Used by `transformers_child` and by Triton's text model, in environments that have torch and transformers and nothing
of Rempart: so it imports nothing of Rempart. It is the plain baseline: `generate` of transformers, one call for each
request, no batching across requests, no grammar.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


class CannotBe(Exception):
    """The request is the client's mistake; the text says what to mend."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """How to say it, in the terms of OpenAI's and vLLM's sampling parameters."""

    max_tokens: int | None = None
    temperature: float = 1.0
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    ignore_eos: bool = False


@dataclass(frozen=True, slots=True)
class Piece:
    """A text and the tokens that it stands for. The last one has a reason."""

    text: str
    tokens: int
    finish: str = ""
    """`stop` or `length`."""


class Text:
    """One model in memory; safe for several threads."""

    def __init__(self, model: str, threads: int) -> None:
        if threads:
            torch.set_num_threads(threads)
        self._tokenizer: Any = AutoTokenizer.from_pretrained(model, local_files_only=True)
        self._model: Any = AutoModelForCausalLM.from_pretrained(model, local_files_only=True, dtype=torch.float32)
        self._model.eval()
        self.context_tokens: int = self._model.config.max_position_embeddings

    def prompt(self, messages: Sequence[dict[str, Any]]) -> list[int]:
        """Token ids of a conversation in the model's chat form. Raises `CannotBe`."""
        try:
            text = self._tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True)
        except Exception as error:  # templates raise whatever they like
            raise CannotBe(f"the chat template cannot take these messages: {error}") from error
        return self.tokens(text)

    def tokens(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        if not ids:
            raise CannotBe("the prompt is empty")
        return ids

    def check(self, prompt: list[int], wanted: Wanted) -> int:
        """Tokens that may be said. Raises `CannotBe`."""
        room = self.context_tokens - len(prompt)
        if room < 1 or (wanted.max_tokens or 0) > room:
            asked = f" and {wanted.max_tokens} are asked for" if wanted.max_tokens else ""
            limit = f"the model's maximum context length is {self.context_tokens} tokens"
            raise CannotBe(f"{limit}: the prompt has {len(prompt)} tokens{asked}")
        return wanted.max_tokens or room

    def pieces(self, prompt: list[int], wanted: Wanted, gone: Callable[[], bool]) -> Iterator[Piece]:
        """`gone` is asked at each token. Leaving the iterator ends the generation too."""
        most = self.check(prompt, wanted)
        stream = _Stream(gone)
        options: dict[str, Any] = {"max_new_tokens": most, "do_sample": wanted.temperature > 0}
        if wanted.temperature > 0:
            options |= {"temperature": wanted.temperature, "top_p": wanted.top_p, "top_k": 0}
        if wanted.ignore_eos:
            options |= {"min_new_tokens": most}
        worker = threading.Thread(target=self._generate, args=(prompt, options, stream), daemon=True)
        worker.start()
        try:
            yield from self._told(stream, wanted.stop, most)
        finally:
            stream.left.set()
            worker.join()

    def embed(self, text: str) -> tuple[list[float], int]:
        """The mean of the last hidden states, of length 1; and the tokens of the text."""
        ids = self.tokens(text)
        if len(ids) > self.context_tokens:
            raise CannotBe(f"the model's maximum context length is {self.context_tokens} tokens, this has {len(ids)}")
        with torch.inference_mode():
            states = self._model.model(input_ids=torch.tensor([ids])).last_hidden_state[0]
        mean = states.mean(dim=0)
        vector: list[float] = (mean / mean.norm()).tolist()
        return vector, len(ids)

    def _generate(self, prompt: list[int], options: dict[str, Any], stream: _Stream) -> None:
        ids = torch.tensor([prompt])
        try:
            with torch.inference_mode():
                self._model.generate(
                    input_ids=ids,
                    attention_mask=torch.ones_like(ids),
                    streamer=stream,
                    stopping_criteria=[stream.stops],
                    **options,
                )
        except Exception as error:
            stream.ids.put(error)  # for who reads the pieces; the log has where it was
            raise
        finally:
            stream.ids.put(None)

    def _told(self, stream: _Stream, stop: Sequence[str], most: int) -> Iterator[Piece]:
        said: list[int] = []
        ends: set[int] = set(self._ends())
        text, shown, told = "", 0, 0
        held = max((len(one) for one in stop), default=1) - 1
        while True:
            token = stream.ids.get()
            if isinstance(token, Exception):
                raise token
            if token is None or token in ends:
                counted = len(said) + (token is not None)
                finish = "stop" if token is not None or len(said) < most else "length"
                yield Piece(text[shown:], counted - told, finish)
                return
            said.append(token)
            text = self._tokenizer.decode(said, skip_special_tokens=True)
            cut = min((text.find(one) for one in stop if one in text), default=-1)
            if cut >= 0:
                yield Piece(text[shown:cut], len(said) - told, "stop")
                return
            until = len(text) - held
            if until > shown and not text.endswith("\ufffd"):
                yield Piece(text[shown:until], len(said) - told)
                shown, told = until, len(said)

    def _ends(self) -> list[int]:
        ends = self._model.generation_config.eos_token_id
        return ends if isinstance(ends, list) else [] if ends is None else [ends]


class _Stream:
    """transformers' streamer: token ids as they come."""

    def __init__(self, gone: Callable[[], bool]) -> None:
        self.ids: queue.SimpleQueue[int | Exception | None] = queue.SimpleQueue()
        self.left = threading.Event()
        self._gone = gone
        self._prompt_seen = False

    def put(self, value: Any) -> None:
        if self._prompt_seen:
            for token in value.flatten().tolist():
                self.ids.put(token)
        self._prompt_seen = True

    def end(self) -> None:
        """Said by `_generate`, which also ends when this is never called."""

    def stops(self, ids: Any, scores: Any, **_: Any) -> Any:
        over = self.left.is_set() or self._gone()
        return torch.full((ids.shape[0],), over, dtype=torch.bool)
