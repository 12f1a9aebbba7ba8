"""A small server of OpenAI's API over Hugging Face transformers: `python transformers_child.py --model DIR`.

It runs in an environment that has torch and transformers, and imports nothing of Rempart. It listens on loopback
alone, says its address in one line of JSON on stdout, and stops a generation as soon as its client has gone.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import json
import socket
import struct
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).parent))
from transformers_text import CannotBe, Piece, Text, Wanted

_BODY_BYTES_MAX: Final = 16 * 1024 * 1024
_WAIT_S: Final = 0.05
_CANNOT: Final = ("tools", "functions", "logprobs", "top_logprobs", "logit_bias", "suffix", "echo")


class Server(ThreadingHTTPServer):
    """One model; `parallel` requests at once, the others wait."""

    daemon_threads = True

    def __init__(self, text: Text, name: str, api_key: str, port: int, parallel: int) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.text, self.name, self.api_key = text, name, api_key
        self.created = int(time.time())
        self.slots = threading.Semaphore(parallel)
        self.counted = threading.Lock()
        self.waiting = self.running = self.tokens_prompt = self.tokens_completion = 0

    def count(self, waiting: int = 0, running: int = 0, prompt: int = 0, completion: int = 0) -> None:
        with self.counted:
            self.waiting += waiting
            self.running += running
            self.tokens_prompt += prompt
            self.tokens_completion += completion

    def metrics(self) -> str:
        return (
            f"transformers_requests_running {self.running}\n"
            f"transformers_requests_waiting {self.waiting}\n"
            f"transformers_prompt_tokens_total {self.tokens_prompt}\n"
            f"transformers_completion_tokens_total {self.tokens_completion}\n"
        )


class Refused(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        if self.path == "/health":
            self._reply(200, {"status": "ok"})
        elif not self._admitted():
            self._reply(401, _error("the key is wrong"))
        elif self.path == "/v1/models":
            model = {"id": self.server.name, "object": "model", "created": self.server.created, "owned_by": "here"}
            self._reply(200, {"object": "list", "data": [model | {"max_model_len": self.server.text.context_tokens}]})
        elif self.path == "/metrics":
            self._send(200, "text/plain; version=0.0.4", self.server.metrics().encode())
        else:
            self._reply(404, _error("there is nothing here"))

    def do_POST(self) -> None:
        self._streaming = False
        try:
            asked = self._asked()
            with self._slot():
                if self.path == "/v1/embeddings":
                    self._reply(200, self._embeddings(asked))
                else:
                    self._say(asked, chat=self.path == "/v1/chat/completions")
        except Refused as refused:
            self._reply(refused.status, _error(str(refused)))
        except CannotBe as error:
            self._reply(400, _error(str(error)))
        except ConnectionError:
            self.close_connection = True

    def _admitted(self) -> bool:
        return not self.server.api_key or self.headers.get("Authorization") == f"Bearer {self.server.api_key}"

    def _asked(self) -> dict[str, Any]:
        length = int(self.headers.get("Content-Length") or 0)
        if length > _BODY_BYTES_MAX:
            self.close_connection = True
            raise Refused(413, "the body is too large")
        body = self.rfile.read(length)
        if not self._admitted():
            raise Refused(401, "the key is wrong")
        if self.path not in ("/v1/chat/completions", "/v1/completions", "/v1/embeddings"):
            raise Refused(404, "there is nothing here")
        try:
            asked = json.loads(body)
        except ValueError as error:
            raise Refused(400, "the body is not JSON") from error
        if not isinstance(asked, dict):
            raise Refused(400, "the body is no object")
        for name in _CANNOT:
            if asked.get(name):
                raise Refused(400, f"{name} is not supported by this server: transformers has no grammar and no parser")
        if (asked.get("n") or 1) != 1:
            raise Refused(400, "n is not supported by this server: one answer at a time")
        if asked.get("model") != self.server.name:
            raise Refused(404, f"there is no model {asked.get('model')!r}")
        return asked

    @contextlib.contextmanager
    def _slot(self) -> Any:
        """Wait for a place, but not for somebody who has left."""
        self.server.count(waiting=1)
        try:
            while not self.server.slots.acquire(timeout=_WAIT_S):
                if self._gone():
                    raise ConnectionAbortedError
        finally:
            self.server.count(waiting=-1)
        self.server.count(running=1)
        try:
            yield
        finally:
            self.server.count(running=-1)
            self.server.slots.release()

    def _gone(self) -> bool:
        try:
            seen: bytes = self.connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
            return seen == b""
        except BlockingIOError:
            return False
        except OSError:
            return True

    def _embeddings(self, asked: dict[str, Any]) -> dict[str, Any]:
        given = asked.get("input")
        texts = given if isinstance(given, list) else [given]
        if not texts or not all(isinstance(text, str) for text in texts):
            raise Refused(400, "input must be a text or a list of texts")
        if asked.get("encoding_format") not in (None, "float", "base64"):
            raise Refused(400, "encoding_format must be float or base64")
        found = [self.server.text.embed(text) for text in texts]
        tokens = sum(count for _, count in found)
        self.server.count(prompt=tokens)
        vectors = [_base64(one) if asked.get("encoding_format") == "base64" else one for one, _ in found]
        data = [{"object": "embedding", "index": at, "embedding": vector} for at, vector in enumerate(vectors)]
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        return {"object": "list", "data": data, "model": self.server.name, "usage": usage}

    def _say(self, asked: dict[str, Any], chat: bool) -> None:
        text = self.server.text
        if chat:
            if not isinstance(asked.get("messages"), list):
                raise Refused(400, "messages must be a list")
            prompt = text.prompt(asked["messages"])
        else:
            if not isinstance(asked.get("prompt"), str):
                raise Refused(400, "prompt must be a text")
            prompt = text.tokens(asked["prompt"])
        wanted = _wanted(asked)
        text.check(prompt, wanted)
        self.server.count(prompt=len(prompt))
        pieces = text.pieces(prompt, wanted, self._gone)
        try:
            if asked.get("stream"):
                self._stream(pieces, len(prompt), asked, chat)
            else:
                self._whole(pieces, len(prompt), chat)
        finally:
            pieces.close()

    def _whole(self, pieces: Any, prompt: int, chat: bool) -> None:
        parts = [self._counted(piece) for piece in pieces]
        said = "".join(piece.text for piece in parts)
        content = {"message": {"role": "assistant", "content": said}} if chat else {"text": said}
        choice = {"index": 0, **content, "finish_reason": parts[-1].finish}
        kind = "chat.completion" if chat else "text_completion"
        usage = _usage(prompt, sum(piece.tokens for piece in parts))
        self._reply(200, {**self._names(kind), "choices": [choice], "usage": usage})

    def _stream(self, pieces: Any, prompt: int, asked: dict[str, Any], chat: bool) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        names = self._names("chat.completion.chunk" if chat else "text_completion")
        completion = 0
        if chat:
            self._event({**names, "choices": [_choice({"role": "assistant", "content": ""}, None)]})
        try:
            for piece in pieces:
                completion += self._counted(piece).tokens
                content = _choice({"content": piece.text}, piece.finish or None) if chat else None
                plain = {"index": 0, "text": piece.text, "finish_reason": piece.finish or None}
                self._event({**names, "choices": [content or plain]})
        except RuntimeError as error:  # of torch: the answer has begun, so it is said in the stream
            self._event(_error(f"the model failed: {error}"))
        else:
            if (asked.get("stream_options") or {}).get("include_usage"):
                self._event({**names, "choices": [], "usage": _usage(prompt, completion)})
            self._chunk(b"data: [DONE]\n\n")
        self._chunk(b"")

    def _counted(self, piece: Piece) -> Piece:
        self.server.count(completion=piece.tokens)
        return piece

    def _names(self, kind: str) -> dict[str, Any]:
        return {"id": f"tf-{time.time_ns():x}", "object": kind, "created": int(time.time()), "model": self.server.name}

    def _event(self, value: object) -> None:
        self._chunk(b"data: " + json.dumps(value).encode() + b"\n\n")

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))
        self.wfile.flush()

    def _reply(self, status: int, value: object) -> None:
        self._send(status, "application/json", json.dumps(value).encode())

    def _send(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: a line for each request would name what was asked."""


def _wanted(asked: dict[str, Any]) -> Wanted:
    kind = (asked.get("response_format") or {}).get("type", "text")
    if kind != "text":
        raise Refused(400, f"response_format {kind} is not supported by this server: transformers has no grammar")
    stop = asked.get("stop") or ()
    try:
        return Wanted(
            max_tokens=asked.get("max_completion_tokens") or asked.get("max_tokens"),
            temperature=float(asked["temperature"]) if asked.get("temperature") is not None else 1.0,
            top_p=float(asked["top_p"]) if asked.get("top_p") is not None else 1.0,
            stop=(stop,) if isinstance(stop, str) else tuple(stop),
            ignore_eos=bool(asked.get("ignore_eos")),
        )
    except (TypeError, ValueError) as error:
        raise Refused(400, f"a parameter is of the wrong type: {error}") from error


def _base64(vector: list[float]) -> str:
    """OpenAI's form: float32, little-endian."""
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


def _choice(delta: dict[str, Any], finish: str | None) -> dict[str, Any]:
    return {"index": 0, "delta": delta, "finish_reason": finish}


def _usage(prompt: int, completion: int) -> dict[str, int]:
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def _error(message: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": None}}


def main() -> None:
    """Serve until the process is ended."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True, help="directory of a Hugging Face model")
    parser.add_argument("--name", default="", help="name that clients use; else the directory's")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--api-key-file", type=Path)
    parser.add_argument("--parallel", type=int, default=4)
    parser.add_argument("--threads", type=int, default=0)
    given = parser.parse_args()
    key = given.api_key_file.read_text().strip() if given.api_key_file else ""
    text = Text(given.model, given.threads)
    server = Server(text, given.name or Path(given.model).name, key, given.port, given.parallel)
    print(json.dumps({"url": f"http://127.0.0.1:{server.server_port}"}), flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
