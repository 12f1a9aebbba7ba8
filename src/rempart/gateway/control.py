"""`Control`: the owner's Unix socket of a running server, `<data>/run/control.sock`. One JSON line in, one out."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from rempart import limits
from rempart.errors import EngineUnavailable, RempartError, UsageError
from rempart.gateway.verbs import Verb

_log = logging.getLogger("rempart.gateway")
_LINE_BYTES_MAX: Final = 1024 * 1024
_ANSWER_S: Final = 30.0
_LONG: Final = ("erasure.", "hold.", "keys.")
"""Commands that look through the ledger, or at a token."""


class Failure(RempartError):
    """What the server answered, as it would have been raised there."""

    def __init__(self, message: str, hint: str, code: str, exit_code: int) -> None:
        super().__init__(message, hint=hint)
        self.code = code  # type: ignore[misc]
        self.exit_code = exit_code  # type: ignore[misc]


class NotRunning(EngineUnavailable):
    """No server listens there."""

    code = "not_running"


def socket_path(data: Path) -> Path:
    return data / "run" / "control.sock"


@contextlib.asynccontextmanager
async def listening(path: Path, verbs: Mapping[str, Verb]) -> AsyncIterator[None]:
    """Answer `verbs` while the context lasts. The caller owns the directory: a socket that stands there is stale."""
    path.unlink(missing_ok=True)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        with _short(path) as address:
            sock.bind(address)
    finally:
        os.umask(before)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, ValueError):  # the asker left, or sent an endless line
            line = await reader.readline()
            writer.write(msgspec.json.encode(await _answer(line, verbs)) + b"\n")
            await writer.drain()
        writer.close()

    server = await asyncio.start_unix_server(answer, sock=sock, limit=_LINE_BYTES_MAX)
    try:
        yield
    finally:
        server.close()
        path.unlink(missing_ok=True)


async def _answer(line: bytes, verbs: Mapping[str, Verb]) -> dict[str, Any]:
    try:
        asked = msgspec.json.decode(line, type=dict[str, Any])
        verb = verbs.get(str(asked.get("verb")))
        if verb is None:
            raise UsageError(f"There is no command {asked.get('verb')!r}.", hint="Use one version of rempart.")
        return {"result": await verb(asked.get("args") or {})}
    except msgspec.DecodeError:
        error: RempartError = UsageError("That is not JSON.")
    except RempartError as raised:
        error = raised
    except Exception:  # the request edge
        _log.exception("A control command failed in a way that was not foreseen.")
        error = RempartError("Something failed inside the server.", hint="See its log.")
    return {
        "error": {
            "message": error.message,
            "hint": error.hint,
            "code": error.code,
            "exit_code": error.exit_code,
        }
    }


def ask(data: Path, verb: str, args: Mapping[str, Any]) -> Any:
    """Ask the server that runs on `data`. Raises `NotRunning`, or what the server raised."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(limits.erasure_answer_s if verb.startswith(_LONG) else _ANSWER_S)
        try:
            with _short(socket_path(data)) as address:
                sock.connect(address)
            sock.sendall(msgspec.json.encode({"verb": verb, "args": dict(args)}) + b"\n")
            with sock.makefile("rb") as file:
                line = file.readline()
        except (FileNotFoundError, ConnectionRefusedError) as error:
            raise NotRunning(f"No server runs on {data}.", hint="Start it with 'rempart up'.") from error
        except OSError as error:
            raise RempartError(f"The server does not answer: {error}.", hint="Are you its owner?") from error
    try:
        answer = msgspec.json.decode(line, type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise RempartError("The server ended before it answered.", hint="See its log, and try again.") from error
    if "error" in answer:
        raise Failure(**answer["error"])
    return answer["result"]


@contextlib.contextmanager
def _short(path: Path) -> Iterator[str]:
    """Unix socket addresses end at 107 bytes: from inside the directory, names are short."""
    text = str(path)
    if len(text.encode()) < 107:
        yield text
        return
    descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}/{path.name}"
    finally:
        os.close(descriptor)
