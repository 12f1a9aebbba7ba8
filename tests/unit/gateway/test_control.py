"""`rempart.gateway.control`: the owner asks a running server over a socket that nobody else may open."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from rempart.errors import EngineUnavailable, NotFound, RempartError
from rempart.gateway import control
from rempart.gateway.control import Failure, NotRunning, ask, listening, socket_path

Args = dict[str, Any]


async def echo(args: Args) -> Any:
    return {"echo": args}


async def missing(args: Args) -> Any:
    raise NotFound("There is no such thing.", hint="Look elsewhere.")


async def broken(args: Args) -> Any:
    raise ZeroDivisionError("inside")


VERBS: dict[str, Callable[[Args], Awaitable[Any]]] = {"echo": echo, "missing": missing, "broken": broken}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "run").mkdir()
    return tmp_path


async def asked(data: Path, verb: str, args: Args | None = None) -> Any:
    return await asyncio.to_thread(ask, data, verb, args or {})


async def raised(data: Path, verb: str) -> RempartError:
    with pytest.raises(RempartError) as caught:
        await asked(data, verb)
    return caught.value


async def test_what_is_asked_is_answered(data: Path) -> None:
    async with listening(socket_path(data), VERBS):
        assert await asked(data, "echo", {"a": [1, "\u00e9\n"]}) == {"echo": {"a": [1, "\u00e9\n"]}}
        assert await asked(data, "echo") == {"echo": {}}


async def test_askers_side_by_side_get_their_own_answers(data: Path) -> None:
    async with listening(socket_path(data), VERBS):
        answers = await asyncio.gather(*(asked(data, "echo", {"n": number}) for number in range(8)))
    assert answers == [{"echo": {"n": number}} for number in range(8)]


async def test_only_the_owner_may_open_it(data: Path) -> None:
    async with listening(socket_path(data), VERBS):
        status = socket_path(data).stat()
        assert stat.S_ISSOCK(status.st_mode)
        assert stat.S_IMODE(status.st_mode) == 0o600


async def test_the_umask_is_as_it_was(data: Path) -> None:
    before = os.umask(0o022)
    try:
        async with listening(socket_path(data), VERBS):
            assert os.umask(0o022) == 0o022
    finally:
        os.umask(before)


async def test_an_unknown_verb_is_wrong_use(data: Path) -> None:
    async with listening(socket_path(data), VERBS):
        error = await raised(data, "fly")
    assert isinstance(error, Failure)
    assert (error.code, error.exit_code) == ("usage", 2)
    assert "fly" in error.message


async def test_the_error_of_the_server_comes_through(data: Path) -> None:
    async with listening(socket_path(data), VERBS):
        error = await raised(data, "missing")
    assert (error.message, error.hint) == ("There is no such thing.", "Look elsewhere.")
    assert (error.code, error.exit_code) == ("not_found", 2)
    assert (Failure.code, RempartError.code) == ("internal_error", "internal_error")


async def test_what_was_not_foreseen_shows_no_insides_and_stops_nothing(
    data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with listening(socket_path(data), VERBS):
        error = await raised(data, "broken")
        assert await asked(data, "echo") == {"echo": {}}
    assert (error.code, error.exit_code) == ("internal_error", 3)
    assert "inside" not in error.message.replace("inside the server", "")
    assert "ZeroDivisionError" in caplog.text


@pytest.mark.parametrize(
    "line", [b"\n", b"nonsense\n", b"[]\n", b"7\n", b"\xff\n", b'{"args":[]}\n', b"[" * 100_000 + b"\n"]
)
async def test_a_line_that_makes_no_sense_is_told(data: Path, line: bytes, caplog: pytest.LogCaptureFixture) -> None:
    async with listening(socket_path(data), VERBS):
        reader, writer = await asyncio.open_unix_connection(str(socket_path(data)))
        writer.write(line)
        answer = msgspec.json.decode(await reader.readline())
        writer.close()
    assert answer["error"]["message"]


async def test_an_endless_line_is_cut(data: Path) -> None:
    async with listening(socket_path(data), VERBS):
        error = None
        try:
            await asked(data, "echo", {"text": "x" * (2 << 20)})
        except RempartError as caught:
            error = caught
        assert error is not None
        assert await asked(data, "echo") == {"echo": {}}


async def test_an_asker_that_leaves_harms_nobody(data: Path) -> None:
    async with listening(socket_path(data), VERBS):
        _, writer = await asyncio.open_unix_connection(str(socket_path(data)))
        writer.write(b'{"verb":')
        writer.close()
        assert await asked(data, "echo") == {"echo": {}}


async def test_where_no_server_runs_it_is_not_running(data: Path) -> None:
    error = await raised(data, "echo")
    assert isinstance(error, NotRunning)
    assert isinstance(error, EngineUnavailable)
    assert str(data) in error.message
    assert isinstance(await raised(data / "nowhere", "echo"), NotRunning)


async def test_a_server_that_has_ended_is_not_running(data: Path) -> None:
    async with listening(socket_path(data), VERBS):
        pass
    assert not socket_path(data).exists()
    assert isinstance(await raised(data, "echo"), NotRunning)


def stale(path: Path) -> None:
    """What a server that was killed leaves."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.bind(str(path))


async def test_a_socket_that_a_killed_server_left_is_not_running(data: Path) -> None:
    stale(socket_path(data))
    assert isinstance(await raised(data, "echo"), NotRunning)


async def test_a_socket_that_a_killed_server_left_is_replaced(data: Path) -> None:
    stale(socket_path(data))
    async with listening(socket_path(data), VERBS):
        assert await asked(data, "echo") == {"echo": {}}


async def test_a_server_that_is_killed_before_it_answers_is_an_error(data: Path) -> None:
    async def close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.close()

    server = await asyncio.start_unix_server(close, str(socket_path(data)))
    assert (await raised(data, "echo")).message
    server.close()


async def test_a_server_that_is_silent_is_an_error(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "_ANSWER_S", 0.05)
    over = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await over.wait()
        writer.close()

    server = await asyncio.start_unix_server(silent, str(socket_path(data)))
    assert "does not answer" in (await raised(data, "echo")).message
    over.set()
    server.close()


async def test_a_path_longer_than_an_address_works(tmp_path: Path) -> None:
    data = tmp_path / ("x" * 120)
    (data / "run").mkdir(parents=True)
    async with listening(socket_path(data), VERBS):
        assert await asked(data, "echo") == {"echo": {}}
        assert stat.S_IMODE(socket_path(data).stat().st_mode) == 0o600
    assert isinstance(await raised(data, "echo"), NotRunning)


async def test_a_long_path_keeps_no_file_open(tmp_path: Path) -> None:
    data = tmp_path / ("x" * 120)
    (data / "run").mkdir(parents=True)
    async with listening(socket_path(data), VERBS):
        await asked(data, "echo")
    before = set(os.listdir("/proc/self/fd"))
    for _ in range(5):
        await raised(data, "echo")
    assert len(set(os.listdir("/proc/self/fd")) - before) < 5
