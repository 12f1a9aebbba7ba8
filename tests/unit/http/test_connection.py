"""`rempart.http.connection` on both event loops, against engines that say bytes written here."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import pytest
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from rempart import limits
from rempart.errors import EngineError, EngineTimeout, EngineUnavailable
from rempart.http import connection
from rempart.http.connection import Client, Response

ASKED: Final = b"GET /x HTTP/1.1\r\nHost: far\r\n\r\n"
KEPT: Final = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello"
LENGTHLESS: Final = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n\r\nhello"
CHUNKED: Final = (
    b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nhel\r\n2;note=x\r\nlo\r\n0\r\nx-trailer: yes\r\n\r\n"
)
CHUNKS_BEGUN: Final = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n"
INTERIM: Final = (
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\ncontent-type: text/early\r\nlink: </x>\r\n\r\n"
)
BYTES_MAX: Final = 1 << 20
WAIT_S: Final = 20


pytestmark = pytest.mark.filterwarnings("ignore:Overriding the .event_loop_policy. fixture")


@pytest.fixture(params=["asyncio", "uvloop"])
def event_loop_policy(request: pytest.FixtureRequest) -> asyncio.AbstractEventLoopPolicy:
    """The server runs on uvloop; what pauses, ends and breaks a connection differs between the two."""
    return uvloop.EventLoopPolicy() if request.param == "uvloop" else asyncio.DefaultEventLoopPolicy()


@pytest.fixture(autouse=True)
def deadlines(monkeypatch: pytest.MonkeyPatch) -> None:
    """What should happen and does not is an error of the test, soon."""
    monkeypatch.setattr(limits, "engine_first_byte_s", WAIT_S)
    monkeypatch.setattr(limits, "engine_between_bytes_s", WAIT_S)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not condition():
            await asyncio.sleep(0)


class Peer:
    """One connection at the engine's end."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer

    async def asked(self, body: bytes = b"") -> None:
        async with asyncio.timeout(WAIT_S):
            assert await self._reader.readexactly(len(ASKED + body)) == ASKED + body

    def say(self, data: bytes) -> None:
        self.writer.write(data)

    async def push(self, data: bytes) -> None:
        """As fast as the client lets it."""
        for at in range(0, len(data), 1 << 16):
            self.say(data[at : at + (1 << 16)])
            await self.writer.drain()

    def end(self) -> None:
        self.writer.close()

    def reset(self) -> None:
        """It dies: the other end gets a reset."""
        self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def gone(self) -> None:
        """Returns once the client has closed the connection, however it did."""
        assert await self.rest() == b""

    async def rest(self) -> bytes:
        """What comes until then."""
        came = b""
        with suppress(ConnectionError):
            async with asyncio.timeout(WAIT_S):
                while data := await self._reader.read(1 << 16):
                    came += data
        return came


class Counting(connection._Connection):
    """The client's end, and how many bytes have come in."""

    came = 0

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self.came += len(data)

    @property
    def transport(self) -> asyncio.Transport:
        assert self._transport is not None
        return self._transport


class Far:
    """An engine, and a client of it."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.url = ""
        self.ends: list[Counting] = []
        """All connections of the test at the client's end."""
        self.peers: list[Peer] = []
        self._arrived: asyncio.Queue[Peer] = asyncio.Queue()

    def count(self, loop: asyncio.AbstractEventLoop, client: Client, netloc: str) -> Counting:
        self.ends.append(Counting(loop, client, netloc))
        return self.ends[-1]

    def arrive(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.peers.append(Peer(reader, writer))
        self._arrived.put_nowait(self.peers[-1])

    async def accept(self) -> Peer:
        async with asyncio.timeout(WAIT_S):
            return await self._arrived.get()

    def ask(self, body: bytes = b"") -> asyncio.Task[Response]:
        return asyncio.create_task(self.client.request(urlsplit(self.url), ASKED, body))

    async def opened(self, answer: bytes) -> tuple[Peer, Response]:
        """A request that opens a connection, and what `answer` is read as."""
        asking = self.ask()
        peer = await self.accept()
        await peer.asked()
        peer.say(answer)
        return peer, await asking

    async def again(self, peer: Peer, answer: bytes) -> Response:
        """A request on a connection that was kept."""
        asking = self.ask()
        await peer.asked()
        peer.say(answer)
        return await asking

    async def deliver(self, peer: Peer, pieces: Iterable[bytes]) -> None:
        """Each as a piece of its own."""
        for piece in pieces:
            due = self.ends[-1].came + len(piece)
            peer.say(piece)
            await until(partial(self._has, due))

    def _has(self, due: int) -> bool:
        return self.ends[-1].came == due


def certified(folder: Path, *names: str, days: int = 1) -> tuple[ssl.SSLContext, Path]:
    """For a server under these names; and the file that a client has to trust."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "an engine")])
    end = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=days)
    known = [x509.IPAddress(ipaddress.ip_address(one)) if one[0].isdigit() else x509.DNSName(one) for one in names]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(end - datetime.timedelta(days=3))
        .not_valid_after(end)
        .add_extension(x509.SubjectAlternativeName(known), critical=False)
        .sign(key, hashes.SHA256())
    )
    public, private = folder / "engine.pem", folder / "engine.key"
    public.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(public, private)
    return server, public


@asynccontextmanager
async def listening(
    client: Client | None = None, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None
) -> AsyncIterator[Far]:
    far = Far(client or Client("far"))
    server = await asyncio.start_server(far.arrive, host, 0, ssl=tls)
    port = server.sockets[0].getsockname()[1]
    far.url = f"{'https' if tls else 'http'}://{f'[{host}]' if ':' in host else host}:{port}"
    try:
        yield far
    finally:
        far.client.close()
        for peer in far.peers:
            peer.writer.transport.abort()
        server.close()


@pytest.fixture
async def far(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Far]:
    async with listening() as far:
        monkeypatch.setattr(connection, "_Connection", far.count)
        yield far


@pytest.fixture(params=["http", "https"])
async def either(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> AsyncIterator[Far]:
    """In the clear and over TLS."""
    tls, trusted = certified(tmp_path, "127.0.0.1")
    client = Client("far", ssl.create_default_context(cafile=trusted))
    async with listening(client, tls=tls if request.param == "https" else None) as far:
        monkeypatch.setattr(connection, "_Connection", far.count)
        yield far


async def finish(response: Response) -> bytes:
    try:
        return await response.whole(BYTES_MAX)
    finally:
        response.close()


# What an answer is, and where it ends.


@pytest.mark.parametrize("answer", [KEPT, LENGTHLESS.replace(b"\r\n\r\n", b"\r\ncontent-length: 5\r\n\r\n"), CHUNKED])
async def test_an_answer_is_read_and_its_connection_kept(far: Far, answer: bytes) -> None:
    peer, response = await far.opened(answer)
    assert (response.status, await finish(response)) == (200, b"hello")
    for _ in range(3):
        assert await finish(await far.again(peer, answer)) == b"hello"
    assert len(far.peers) == 1


@pytest.mark.parametrize("answer", [KEPT, CHUNKED, INTERIM + KEPT, INTERIM + CHUNKED])
async def test_an_answer_cut_anywhere_is_the_same_answer(far: Far, answer: bytes) -> None:
    peer, response = await far.opened(answer)
    assert await finish(response) == b"hello"
    cuts = [[answer[:cut], answer[cut:]] for cut in range(1, len(answer))]
    for pieces in (*cuts, [answer[at : at + 1] for at in range(len(answer))]):
        asking = far.ask()
        await peer.asked()
        await far.deliver(peer, pieces)
        response = await asking
        assert (response.status, response.content_type, await finish(response)) == (200, b"", b"hello")
    assert len(far.peers) == 1


async def test_the_body_comes_as_it_is_sent(far: Far) -> None:
    peer, response = await far.opened(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
    for word in (b"one", b"two", b"three"):
        peer.say(b"%x\r\n%s\r\n" % (len(word), word))
        assert await response.read() == word
    peer.say(b"0\r\n\r\n")
    assert await response.read() == b""
    assert await response.read() == b""


async def test_many_small_chunks_are_no_overlong_head(far: Far) -> None:
    peer, response = await far.opened(CHUNKS_BEGUN)
    peer.say(b"1\r\nx\r\n" * 40_000 + b"0\r\n\r\n")
    assert await finish(response) == b"hello" + b"x" * 40_000


async def test_interim_answers_are_skipped(far: Far) -> None:
    _, response = await far.opened(INTERIM + KEPT)
    assert (response.status, response.content_type, await finish(response)) == (200, b"", b"hello")


@pytest.mark.parametrize("answer", [LENGTHLESS, LENGTHLESS.replace(b"1.1", b"1.0"), INTERIM + LENGTHLESS])
async def test_an_answer_without_length_ends_with_the_connection(either: Far, answer: bytes) -> None:
    asking = either.ask()
    peer = await either.accept()
    await peer.asked()
    await either.deliver(peer, (answer[at : at + 1] for at in range(len(answer))))
    response = await asking
    assert (response.content_type, await response.read()) == (b"text/plain", b"hello")
    peer.end()
    assert await finish(response) == b""
    peer, response = await either.opened(KEPT)
    assert await finish(response) == b"hello"


async def test_an_answer_without_length_that_is_reset_has_not_ended(either: Far) -> None:
    peer, response = await either.opened(LENGTHLESS)
    assert await response.read() == b"hello"
    peer.reset()
    with pytest.raises(EngineUnavailable, match="closed its connection"):
        await response.read()


async def test_an_answer_without_length_that_falls_silent_has_not_ended(
    either: Far, monkeypatch: pytest.MonkeyPatch
) -> None:
    peer, response = await either.opened(LENGTHLESS)
    assert await response.read() == b"hello"
    monkeypatch.setattr(limits, "engine_between_bytes_s", 0.05)
    with pytest.raises(EngineTimeout):
        await response.read()
    await peer.gone()


@pytest.mark.parametrize("end", [Peer.end, Peer.reset])
@pytest.mark.parametrize("answer", [KEPT[:-1], CHUNKED[:-2], CHUNKS_BEGUN])
async def test_an_answer_that_says_its_end_and_is_cut_has_not_ended(
    far: Far, answer: bytes, end: Callable[[Peer], None]
) -> None:
    peer, response = await far.opened(answer)
    assert await response.read()
    end(peer)
    with pytest.raises(EngineUnavailable, match="far closed its connection"):
        await response.read()


async def test_a_head_that_is_cut_is_not_asked_for_again(far: Far) -> None:
    asking = far.ask()
    peer = await far.accept()
    await peer.asked()
    peer.say(b"HTTP/1.1 200 OK\r\ncontent-")
    peer.end()
    with pytest.raises(EngineUnavailable, match="far closed its connection"):
        await asking
    assert len(far.peers) == 1


@pytest.mark.parametrize("name", [b"content-type", b"Content-Type", b"CONTENT-TYPE"])
async def test_names_of_headers_are_read_in_any_case(far: Far, name: bytes) -> None:
    value = b": Text/Event-Stream ; charset=UTF-8\r\nCONTENT-LENGTH: 5\r\n\r\nhello"
    _, response = await far.opened(b"HTTP/1.1 200 OK\r\n" + name + value)
    assert (response.content_type, await finish(response)) == (b"text/event-stream", b"hello")


async def test_a_whole_request_is_sent(far: Far) -> None:
    body = bytes(range(256)) * 16_384
    asking = far.ask(body)
    peer = await far.accept()
    await peer.asked(body)
    peer.say(KEPT)
    assert await finish(await asking) == b"hello"


# What no engine should answer.


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
        b"HTTP/1.1 099 Early\r\ncontent-length: 5\r\n\r\nearly",
    ],
)
@pytest.mark.parametrize("more", [b"", KEPT])
async def test_what_is_neither_interim_nor_an_answer_is_an_engine_error(far: Far, answer: bytes, more: bytes) -> None:
    with pytest.raises(EngineError, match="far does not speak HTTP"):
        await far.opened(answer + more)
    await far.peers[0].gone()


@pytest.mark.parametrize(
    ("begin", "line"),
    [
        (b"HTTP/1.1 200 OK\r\n", b"x-more: and more\r\n"),
        (b"HTTP/1.1 200 OK\r\nx-more: ", b"and more"),
        (b"HTTP/1.1 200 ", b"very OK "),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    ],
)
async def test_a_head_that_never_ends_is_an_engine_error(far: Far, begin: bytes, line: bytes) -> None:
    with pytest.raises(EngineError, match="far does not speak HTTP"):
        await far.opened(begin + line * (80_000 // len(line)))
    await far.peers[0].gone()


@pytest.mark.parametrize("begin", [b"0\r\nx-trailer: ", b"0\r\n", b"5;"])
async def test_what_stands_between_pieces_of_a_body_and_never_ends_is_an_engine_error(far: Far, begin: bytes) -> None:
    peer, response = await far.opened(CHUNKS_BEGUN)
    assert await response.read() == b"hello"
    peer.say(begin + (b"x: y\r\n" if begin == b"0\r\n" else b"more") * 40_000)
    with pytest.raises(EngineError, match="far does not speak HTTP"):
        await response.read()
    await peer.gone()


@pytest.mark.parametrize("chunk", [b"x\r\n", b"5\r\nhello!", b"-1\r\n", b"fffffffffffffffff\r\n"])
async def test_a_body_in_broken_chunks_is_an_engine_error(far: Far, chunk: bytes) -> None:
    peer, response = await far.opened(CHUNKS_BEGUN)
    assert await response.read() == b"hello"
    peer.say(chunk)
    with pytest.raises(EngineError, match="far does not speak HTTP"):
        await response.whole(BYTES_MAX)
    await peer.gone()


async def test_an_answer_over_what_is_asked_for_is_too_large(far: Far) -> None:
    _, response = await far.opened(KEPT)
    with pytest.raises(EngineError, match="too large"):
        await response.whole(4)


# Which connections are kept.


@pytest.mark.parametrize(
    "answer",
    [
        KEPT.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n"),
        KEPT.replace(b"\r\n\r\n", b"\r\nCONNECTION: Close\r\n\r\n"),
        CHUNKED.replace(b"\r\n", b"\r\nconnection: close\r\n", 1),
        KEPT.replace(b"1.1", b"1.0"),
    ],
)
async def test_an_engine_that_will_close_is_not_asked_there_again(far: Far, answer: bytes) -> None:
    for _ in range(2):
        peer, response = await far.opened(answer)
        assert await finish(response) == b"hello"
        await peer.gone()


async def test_two_at_once_have_two_connections_and_both_are_kept(far: Far) -> None:
    for _ in range(2):
        askings = [far.ask(), far.ask()]
        while len(far.peers) < 2:
            await far.accept()
        for peer in far.peers:
            await peer.asked()
            peer.say(KEPT)
        assert [await finish(await asking) for asking in askings] == [b"hello", b"hello"]
    assert len(far.peers) == 2


async def test_a_connection_kept_too_long_is_not_used(far: Far, monkeypatch: pytest.MonkeyPatch) -> None:
    old, response = await far.opened(KEPT)
    await finish(response)
    monkeypatch.setattr(connection, "_KEEP_ALIVE_S", 0.0)
    _, response = await far.opened(KEPT)
    assert await finish(response) == b"hello"
    await old.gone()


async def test_those_kept_too_long_are_closed_when_another_comes_back(
    far: Far, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, first = await far.opened(KEPT)
    _, second = await far.opened(KEPT)
    await finish(first)
    loop = asyncio.get_running_loop()
    then = loop.time()
    await until(lambda: loop.time() > then)
    monkeypatch.setattr(connection, "_KEEP_ALIVE_S", 0.0)
    await finish(second)
    await old.gone()


async def test_an_engine_that_moved_is_asked_where_it_is_now(far: Far) -> None:
    old, response = await far.opened(KEPT)
    await finish(response)
    async with listening(far.client) as moved:
        _, response = await moved.opened(KEPT)
        assert await finish(response) == b"hello"
        await old.gone()


@pytest.mark.parametrize("end", [Peer.end, Peer.reset])
async def test_a_kept_connection_that_the_engine_ended_is_not_used(far: Far, end: Callable[[Peer], None]) -> None:
    peer, response = await far.opened(KEPT)
    await finish(response)
    end(peer)
    await until(lambda: not far.ends[0].usable)
    _, response = await far.opened(KEPT)
    assert await finish(response) == b"hello"
    assert len(far.peers) == 2


async def test_of_many_kept_ones_that_all_fail_the_last_try_is_on_a_new_one(far: Far) -> None:
    _, one = await far.opened(KEPT)
    second, two = await far.opened(KEPT)
    await finish(one)
    await finish(two)
    asking = far.ask()
    await second.asked()
    second.end()
    peer = await far.accept()
    await peer.asked()
    peer.say(KEPT)
    assert await finish(await asking) == b"hello"
    assert len(far.peers) == 3
    assert await finish(await far.again(peer, KEPT)) == b"hello"


@pytest.mark.parametrize("said", [KEPT, b"H", b"\r\n"])
async def test_a_connection_on_which_the_engine_speaks_unasked_is_not_used(far: Far, said: bytes) -> None:
    peer, response = await far.opened(KEPT)
    await finish(response)
    peer.say(said)
    await peer.gone()
    _, response = await far.opened(KEPT)
    assert await finish(response) == b"hello"


@pytest.mark.parametrize("more", [KEPT, INTERIM, b"H", b"nonsense\r\n\r\n", b"x" * 100_000])
@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("answer", [KEPT, CHUNKED])
async def test_an_answer_with_more_behind_it_stands_and_is_the_last(
    far: Far, answer: bytes, apart: bool, more: bytes
) -> None:
    peer, response = await far.opened(answer if apart else answer + more)
    if apart:
        peer.say(more)
        await until(lambda: far.ends[0].came > len(answer))
    assert await finish(response) == b"hello"
    await peer.gone()
    _, response = await far.opened(KEPT)
    assert await finish(response) == b"hello"


# Who waits for whom.


async def test_an_engine_waits_for_a_reader_that_does_not_read(either: Far) -> None:
    body = bytes(range(256)) * (1 << 17)
    peer, response = await either.opened(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body))
    pushing = asyncio.create_task(peer.push(body))
    await until(lambda: not either.ends[0].transport.is_reading())
    for _ in range(1_000):  # turns of the loop, in which all would come
        await asyncio.sleep(0)
    assert either.ends[0].came < BYTES_MAX
    assert not pushing.done()
    came = bytearray()
    while data := await response.read():
        came += data
    assert came == body
    await pushing
    response.close()
    assert await finish(await either.again(peer, KEPT)) == b"hello"


async def test_what_came_before_an_end_is_read_by_a_slow_reader(either: Far) -> None:
    body = b"x" * BYTES_MAX
    peer, response = await either.opened(b"HTTP/1.1 200 OK\r\n\r\n" + body)
    peer.end()
    await until(lambda: not either.ends[0].transport.is_reading())
    assert await finish(response) == body


@pytest.mark.parametrize("answer", [KEPT[:-1], KEPT[:-5], CHUNKS_BEGUN, CHUNKED[:-2], LENGTHLESS])
async def test_a_response_closed_before_its_end_closes_the_connection(either: Far, answer: bytes) -> None:
    peer, response = await either.opened(answer)
    response.close()
    await peer.gone()
    _, response = await either.opened(KEPT)
    assert await finish(response) == b"hello"


async def test_a_response_closed_while_the_engine_waits_closes_the_connection(either: Far) -> None:
    peer, response = await either.opened(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % BYTES_MAX)
    peer.say(b"x" * BYTES_MAX)
    await until(lambda: not either.ends[0].transport.is_reading())
    response.close()
    await peer.gone()


async def test_a_connection_that_was_made_to_wait_is_not_kept_unread(either: Far) -> None:
    body = b"x" * (connection._BUFFER_BYTES + 1)
    peer, response = await either.opened(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body))
    await either.deliver(peer, [body])
    response.close()
    await peer.gone()
    _, response = await either.opened(KEPT)
    assert await finish(response) == b"hello"


async def test_an_answer_may_end_before_its_request_is_read(far: Far) -> None:
    asking = far.ask(b"x" * (16 * BYTES_MAX))
    peer = await far.accept()
    peer.say(LENGTHLESS)
    response = await asking
    assert await response.read() == b"hello"
    peer.writer.write_eof()
    assert await response.read() == b""
    assert far.ends[0].transport.get_write_buffer_size() > 0
    response.close()


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 200 OK\r\n"])
async def test_a_request_that_is_cancelled_closes_its_connection(far: Far, said: bytes) -> None:
    asking = far.ask()
    peer = await far.accept()
    await peer.asked()
    await far.deliver(peer, [said] if said else [])
    asking.cancel()
    await peer.gone()
    with pytest.raises(asyncio.CancelledError):
        await asking


@pytest.mark.parametrize("answer", [KEPT[:-1], CHUNKS_BEGUN, LENGTHLESS])
async def test_a_reader_that_is_cancelled_closes_its_connection(far: Far, answer: bytes) -> None:
    peer, response = await far.opened(answer)
    reading = asyncio.create_task(finish(response))
    await asyncio.sleep(0)
    reading.cancel()
    await peer.gone()
    with pytest.raises(asyncio.CancelledError):
        await reading


# The end of a client.


async def test_a_closed_client_closes_what_is_idle_and_what_is_used(either: Far) -> None:
    idle, one = await either.opened(KEPT)
    used, two = await either.opened(LENGTHLESS)
    await finish(one)
    asking = asyncio.create_task(two.whole(BYTES_MAX))
    await asyncio.sleep(0)
    either.client.close()
    await idle.gone()
    await used.gone()
    with pytest.raises(EngineUnavailable):
        await asking
    two.close()
    either.client.close()


async def test_a_closed_client_asks_nothing_more(far: Far) -> None:
    asking = far.ask()
    peer = await far.accept()
    await peer.asked()
    far.client.close()
    for request in (asking, far.ask(), far.ask()):
        with pytest.raises(EngineUnavailable, match="far is closed"):
            await request
    await peer.gone()
    assert len(far.peers) == 1


async def test_a_client_that_is_closed_while_it_connects_asks_nothing(far: Far) -> None:
    asking = far.ask()
    await asyncio.sleep(0)
    far.client.close()
    with pytest.raises(EngineUnavailable, match="far is closed"):
        await asking
    await (await far.accept()).gone()


async def test_an_answer_that_was_whole_at_the_end_of_the_client_is_read_and_its_connection_closed(far: Far) -> None:
    peer, response = await far.opened(KEPT)
    far.client.close()
    assert await finish(response) == b"hello"
    await peer.gone()


# Where an engine is, and whether it is the one.


def free_port() -> tuple[socket.socket, int]:
    """Where nobody listens, as long as the socket is open."""
    bound = socket.socket()
    bound.bind(("127.0.0.1", 0))
    return bound, bound.getsockname()[1]


@pytest.mark.parametrize("host", ["nowhere.invalid", "x" * 64 + ".invalid", "no..where.invalid"])
async def test_a_name_that_leads_nowhere_cannot_be_reached(host: str) -> None:
    with pytest.raises(EngineUnavailable, match="far cannot be reached"):
        await Client("far").request(urlsplit(f"http://{host}:8000"), ASKED, b"")


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_where_nobody_listens_an_engine_cannot_be_reached(scheme: str) -> None:
    bound, port = free_port()
    with bound, pytest.raises(EngineUnavailable, match="far cannot be reached"):
        await Client("far").request(urlsplit(f"{scheme}://127.0.0.1:{port}"), ASKED, b"")


async def test_an_engine_is_asked_over_ipv6() -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError as error:
        pytest.skip(f"no IPv6 here: {error}")
    async with listening(host="::1") as far:
        peer, response = await far.opened(KEPT)
        assert await finish(response) == b"hello"
        assert await finish(await far.again(peer, KEPT)) == b"hello"


async def test_an_engine_with_the_right_certificate_is_asked_over_tls(tmp_path: Path) -> None:
    tls, trusted = certified(tmp_path, "127.0.0.1")
    async with listening(Client("far", ssl.create_default_context(cafile=trusted)), tls=tls) as far:
        peer, response = await far.opened(CHUNKED)
        assert await finish(response) == b"hello"
        assert await finish(await far.again(peer, KEPT)) == b"hello"
        response = await far.again(peer, CHUNKS_BEGUN)
        response.close()
        await peer.gone()
        peer, response = await far.opened(LENGTHLESS)
        peer.end()
        assert await finish(response) == b"hello"
        assert len(far.peers) == 2


@pytest.mark.parametrize(
    ("name", "days", "trusts"), [("127.0.0.1", 1, False), ("127.0.0.2", 1, True), ("127.0.0.1", -1, True)]
)
async def test_an_engine_with_a_wrong_certificate_is_not_asked(
    tmp_path: Path, name: str, days: int, trusts: bool
) -> None:
    tls, trusted = certified(tmp_path, name, days=days)
    client = Client("far", ssl.create_default_context(cafile=trusted if trusts else None))
    async with listening(client, tls=tls) as far:
        with pytest.raises(EngineUnavailable, match="far shows a certificate that cannot be trusted: "):
            await far.ask()


async def test_an_engine_under_https_is_never_asked_in_the_clear(far: Far) -> None:
    far.url = far.url.replace("http:", "https:")
    asking = far.ask()
    peer = await far.accept()
    peer.say(KEPT)
    with pytest.raises(EngineUnavailable, match="far cannot be reached"):
        await asking


async def test_an_engine_that_is_silent_in_the_handshake_cannot_be_reached(
    far: Far, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "engine_connect_s", 0.05)
    far.url = far.url.replace("http:", "https:")
    with pytest.raises(EngineUnavailable, match="far cannot be reached"):
        await far.ask()


async def test_a_handshake_that_nobody_waits_for_is_left(far: Far) -> None:
    far.url = far.url.replace("http:", "https:")
    asking = far.ask()
    peer = await far.accept()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert ASKED not in await peer.rest()
