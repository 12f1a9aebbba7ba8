"""Triton's text model over Hugging Face transformers, for its Python backend.

`REMPART_TRITON_PATH` leads to numpy, torch and transformers, and to the folder of `transformers_text.py`.
"""

import json
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

# The backend's interpreter is isolated: PYTHONPATH does not reach it.
sys.path[:0] = os.environ["REMPART_TRITON_PATH"].split(":")
import numpy as np
import triton_python_backend_utils as pb_utils
from transformers_text import CannotBe, Text, Wanted


class TritonPythonModel:
    """Decoupled: a response for each piece; with `stream` false one response in all."""

    def initialize(self, args):
        parameters = {
            name: value["string_value"] for name, value in json.loads(args["model_config"])["parameters"].items()
        }
        self._text = Text(parameters["model"], int(parameters["threads"]))
        self._talks = threading.Lock()
        self._pool = ThreadPoolExecutor(int(parameters["parallel"]))
        family = pb_utils.MetricFamily(
            name="text_requests_running", description="requests under way", kind=pb_utils.MetricFamily.GAUGE
        )
        counter = pb_utils.MetricFamily(
            name="text_tokens_total", description="tokens said", kind=pb_utils.MetricFamily.COUNTER
        )
        self._families = family, counter  # a metric goes with its family
        self._tokens = counter.Metric(labels={"model": args["model_name"]})
        self._running = family.Metric(labels={"model": args["model_name"]})

    def execute(self, requests):
        for request in requests:
            self._count(running=1)
            self._pool.submit(self._answer, request, request.get_response_sender())
        return None

    def _answer(self, request, sender):
        try:
            if not self._gone(sender):
                self._say(request, sender)
        except CannotBe as error:
            self._fail(sender, f"invalid request: {error}")
        except Exception as error:
            self._fail(sender, f"the model failed: {error}")
            raise
        finally:
            self._count(running=-1)
            with self._talks:
                sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)

    def _say(self, request, sender):
        text = self._text
        messages = _input(request, "messages")
        if messages is not None:
            prompt = text.prompt(_json(messages, list, "messages"))
        else:
            prompt = text.tokens(_input(request, "text_input") or "")
        stream = bool(_input(request, "stream"))
        wanted = _wanted(_json(_input(request, "sampling_parameters") or "{}", dict, "sampling_parameters"))
        text.check(prompt, wanted)
        parts = []
        pieces = text.pieces(prompt, wanted, lambda: self._gone(sender))
        try:
            for piece in pieces:
                if stream:
                    self._send(sender, _response(piece.text, piece.finish, len(prompt), piece.tokens))
                parts.append(piece)
                self._count(tokens=piece.tokens)
        finally:
            pieces.close()
        if not stream:
            said, tokens = "".join(piece.text for piece in parts), sum(piece.tokens for piece in parts)
            self._send(sender, _response(said, parts[-1].finish, len(prompt), tokens))

    # The server crashes (Triton 2.51, with signal 11) when threads of a model talk to it at the same time.

    def _gone(self, sender):
        with self._talks:
            return sender.is_cancelled()

    def _send(self, sender, response):
        with self._talks:
            if not sender.is_cancelled():
                sender.send(response)

    def _fail(self, sender, message):
        self._send(sender, pb_utils.InferenceResponse(error=pb_utils.TritonError(message)))

    def _count(self, running=0, tokens=0):
        with self._talks:
            if running:
                self._running.increment(running)
            if tokens:
                self._tokens.increment(tokens)

    def finalize(self):
        self._pool.shutdown()


def _input(request, name):
    tensor = pb_utils.get_input_tensor_by_name(request, name)
    if tensor is None:
        return None
    value = tensor.as_numpy().flatten()[0]
    return value.decode() if isinstance(value, bytes) else value


def _json(text, kind, name):
    try:
        value = json.loads(text)
    except ValueError as error:
        raise CannotBe(f"{name} is not JSON") from error
    if not isinstance(value, kind):
        raise CannotBe(f"{name} is no {'list' if kind is list else 'object'}")
    return value


def _wanted(given):
    stop = given.get("stop") or ()
    return Wanted(
        max_tokens=given.get("max_tokens"),
        temperature=float(given.get("temperature", 1.0)),
        top_p=float(given.get("top_p", 1.0)),
        stop=(stop,) if isinstance(stop, str) else tuple(stop),
        ignore_eos=bool(given.get("ignore_eos")),
    )


def _response(text, finish, prompt, tokens):
    return pb_utils.InferenceResponse(
        output_tensors=[
            pb_utils.Tensor("text_output", np.array([text.encode()], dtype=np.object_)),
            pb_utils.Tensor("finish_reason", np.array([finish.encode()], dtype=np.object_)),
            pb_utils.Tensor("num_input_tokens", np.array([prompt], dtype=np.int32)),
            pb_utils.Tensor("num_output_tokens", np.array([tokens], dtype=np.int32)),
        ]
    )
