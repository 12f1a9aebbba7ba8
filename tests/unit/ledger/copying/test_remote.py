"""`RemoteSource`: what a gateway that is none, or a hostile one, answers ends with one clear error, and in time."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from rempart import limits
from rempart.cli.main import main
from rempart.errors import LedgerUnavailable
from rempart.ledger.copying.remote import RemoteSource
from rempart.testing.small_ledger import SIGNER

OK = b"HTTP/1.1 200 OK\r\n"


@pytest.fixture
def serve() -> Iterator[Callable[..., str]]:
    """Each connection gets `first`, and then `again` for as long as it takes it; the address."""
    stop = threading.Event()
    threads: list[threading.Thread] = []
    listening: list[socket.socket] = []

    def start(first: bytes, again: bytes = b"", pause_s: float = 0.0) -> str:
        listener = socket.create_server(("127.0.0.1", 0))
        listening.append(listener)

        def talk() -> None:
            with contextlib.suppress(OSError):
                while not stop.is_set():
                    connection, _ = listener.accept()
                    with connection, contextlib.suppress(OSError):
                        connection.recv(65_536)
                        connection.sendall(first)
                        while again and not stop.wait(pause_s):
                            connection.sendall(again)

        thread = threading.Thread(target=talk)
        thread.start()
        threads.append(thread)
        return f"http://127.0.0.1:{listener.getsockname()[1]}"

    yield start
    stop.set()
    for listener in listening:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
    for thread in threads:
        thread.join()


@pytest.mark.parametrize(
    ("first", "again", "pause_s"),
    [
        (OK + b"Content-Length: 1000\r\n\r\n", b"x", 0.05),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n", 0.001),
        (OK, b"X", 0.05),
    ],
)
def test_an_answer_without_end_is_cut(
    serve: Callable[..., str], monkeypatch: pytest.MonkeyPatch, first: bytes, again: bytes, pause_s: float
) -> None:
    monkeypatch.setattr(limits, "replica_whole_answer_s", 0.3)
    with pytest.raises(LedgerUnavailable, match="takes too long"):
        RemoteSource(serve(first, again, pause_s), "key").read("log/checkpoint", 0, 2_000)


@pytest.mark.parametrize(
    "answer",
    [
        OK + b"Content-Length: 1000\r\n\r\nhalf",
        OK + b"Content-Length: -1\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\nabc\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhal",
        b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n",
        OK + b"Content-Length: 3000\r\n\r\n" + bytes(3_000),
    ],
)
def test_an_answer_that_is_none_is_no_part_of_a_ledger(serve: Callable[..., str], answer: bytes) -> None:
    """Above all, half of a file is not taken for the file: that the log was changed would be told of it."""
    with pytest.raises(LedgerUnavailable):
        RemoteSource(serve(answer), "key").read("log/checkpoint", 0, 2_000)


def test_what_it_says_moves_no_cursor(
    serve: Callable[..., str], tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path_factory.mktemp("copy")
    (folder / "key").write_text("rp_key\n")
    (folder / "key").chmod(0o600)
    trusted = ("--vkey", SIGNER.verifier.vkey)
    url = serve(b"\x1b[2J\x1b[HCopied: 500 entries\r\n\r\n")
    with pytest.raises(SystemExit):
        main(["ledger", "replicate", str(folder / "to"), "--from", url, "--key-file", str(folder / "key"), *trusted])
    told = capsys.readouterr().err
    assert "\\x1b[2J" in told
    assert "\x1b" not in told
