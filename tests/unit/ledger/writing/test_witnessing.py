"""`rempart.ledger.writing.witnessing`: a real log, real witnesses on loopback, and witnesses that misbehave."""

from __future__ import annotations

import asyncio
import datetime
import logging
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from rempart import limits
from rempart.engines.asking import tls_context
from rempart.errors import ConfigError, LedgerCorrupt
from rempart.gateway.plain import serve_plain
from rempart.gateway.server import Address, bind
from rempart.ledger.keys.configured import open_keystore
from rempart.ledger.log.checkpoint import Signer, Verifier, parse_note
from rempart.ledger.log.cosignature import Cosigner
from rempart.ledger.log.policy import Log, Policy
from rempart.ledger.reading.find import newest_first
from rempart.ledger.reading.witnessed import check_own_line, check_witnessed, read_witnessed, witnessed_path
from rempart.ledger.writing.journal import Journal
from rempart.ledger.writing.opening import open_ledger, read_vkey
from rempart.ledger.writing.witness_client import clients
from rempart.ledger.writing.witnessing import Witnessing
from rempart.testing.trees import Trees
from rempart.witness.app import WitnessApp
from rempart.witness.clerk import Desk
from rempart.witness.opening import open_witness

LOOPBACK = Address(host="127.0.0.1", port=0)
W1 = Cosigner("witness.example/w1", b"\1" * 32)


async def open_log(data: Path) -> Journal:
    return await open_ledger(data, open_keystore(data), origin="log.example/log", strict=False)


async def write(journal: Journal, count: int) -> None:
    """Entries, and the checkpoint over them."""
    for _ in range(count):
        await journal.event("refusals", {"counts": {"invalid_api_key": 1}})
    async with asyncio.timeout(20):
        while journal.state().tree_size < journal.state().entries:
            await asyncio.sleep(0.01)


class Real:
    """A witness that serves."""

    def __init__(self, url: str, vkeys: list[str]) -> None:
        self.url = url
        self.vkeys = vkeys


@asynccontextmanager
async def real_witness(data: Path, name: str, vkey: str, address: Address = LOOPBACK) -> AsyncIterator[Real]:
    sock = bind(address)
    stop, ready = asyncio.Event(), asyncio.Event()
    with open_witness(data, name, (Log(Verifier.from_vkey(vkey)),)) as clerk:
        desk = Desk(clerk)
        serving = asyncio.create_task(serve_plain(WitnessApp(desk), sock, address, stop=stop, ready=ready.set))
        try:
            await ready.wait()
            scheme = "https" if address.certificate else "http"
            yield Real(f"{scheme}://127.0.0.1:{sock.getsockname()[1]}", clerk.vkeys)
        finally:
            stop.set()
            await serving
            desk.close()


@asynccontextmanager
async def scripted(*answers: bytes) -> AsyncIterator[str]:
    """A peer that gives these answers, one a connection, the last one for ever."""
    waiting = list(answers)

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        await reader.readexactly(length)
        writer.write(waiting.pop(0) if len(waiting) > 1 else waiting[0])
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/prefix"
    finally:
        server.close()


def http(status: int, body: bytes, kind: bytes = b"text/plain") -> bytes:
    return b"HTTP/1.1 %d X\r\ncontent-type: %b\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%b" % (
        status,
        kind,
        len(body),
        body,
    )


def policy(data: Path, *lines: str) -> Policy:
    return Policy.parse("\n".join([f"log {read_vkey(data)}", *lines, ""]).encode())


def of_one(data: Path, url: str, vkey: str = W1.verifier.vkey) -> Policy:
    return policy(data, f"witness w1 {vkey} {url}", "quorum w1")


def witnessing(data: Path, of: Policy, journal: Journal) -> Witnessing:
    return Witnessing(data / "ledger", of, clients(of, None), journal)


def alarms(data: Path) -> list[tuple[str, str, int]]:
    found = [fields for _, fields in newest_first(data / "ledger") if fields["type"] == "alarm"]
    return [(fields["kind"], fields["witness"], fields["size"]) for fields in found]


@pytest.fixture(autouse=True)
def small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    """Faster to make."""
    monkeypatch.setattr(limits, "segment_bytes", 1 << 20)


@pytest.fixture
async def journal(tmp_path: Path) -> AsyncIterator[Journal]:
    made = await open_log(tmp_path / "data")
    yield made
    await made.close()


async def test_a_log_that_grows_is_cosigned_and_the_note_is_kept(tmp_path: Path, journal: Journal) -> None:
    data = tmp_path / "data"
    async with real_witness(tmp_path / "w", "w.example/1", read_vkey(data)) as witness:
        lines = [f"witness w{number} {vkey} {witness.url}" for number, vkey in enumerate(witness.vkeys)]
        of = policy(data, *lines, "group both all w0 w1", "quorum both")
        asking = witnessing(data, of, journal)
        for count in (1, 300, 5):
            await write(journal, count)
            await asking.round()
            standing = check_witnessed(data / "ledger", of)
            assert (standing.size, standing.witnesses) == (journal.state().tree_size, ("w0", "w1"))
            assert asking.state().size == standing.size
    assert asking.state().failures == {"w0": 0}, "one address is asked once"
    assert asking.state().alarm == ""
    again = witnessing(data, of, journal)
    assert again.state().size == journal.state().tree_size


async def test_what_a_witness_has_is_remembered_and_else_corrected(tmp_path: Path, journal: Journal) -> None:
    data = tmp_path / "data"
    async with real_witness(tmp_path / "w", "w.example/1", read_vkey(data)) as witness:
        of = of_one(data, witness.url, witness.vkeys[0])
        await write(journal, 3)
        await witnessing(data, of, journal).round(always=True)
        await write(journal, 3)
        forgetful = Witnessing(data / "ledger", of, clients(of, None), journal)
        for client in forgetful._clients:
            client._size = 0
        await forgetful.round()
        assert forgetful.state().size == journal.state().tree_size
        assert forgetful.state().failures == {"w1": 0}


async def test_nothing_is_asked_while_the_log_does_not_grow(tmp_path: Path, journal: Journal) -> None:
    data = tmp_path / "data"
    await write(journal, 1)
    async with real_witness(tmp_path / "w", "w.example/1", read_vkey(data)) as witness:
        asking = witnessing(data, of_one(data, witness.url, witness.vkeys[0]), journal)
        await asking.round()
    await asking.round()
    assert asking.state().failures == {"w1": 0}, "the witness is away, and nobody has asked it"
    await asking.round(always=True)
    assert asking.state().failures == {"w1": 1}


MISBEHAVIOURS: dict[str, tuple[bytes, ...]] = {
    "an unknown log": (http(404, b"no"),),
    "an untrusted key": (http(403, b"no"),),
    "broken": (http(500, b"x"),),
    "a redirect": (http(302, b""),),
    "no HTTP": (b"hello\r\n\r\n",),
    "it closes": (b"",),
    "an answer without end": (http(200, b"x" * (limits.witness_answer_bytes_max + 1)),),
    "no line": (http(200, b""),),
    "no cosignature": (http(200, b"thanks\n"),),
    "a line by another key": (http(200, Signer("w.example/2", bytes(32)).line(b"x")),),
    "its line over another text": (http(200, W1.cosign(Trees("log.example/log", bytes(32)).checkpoint([]).text(), 5)),),
    "a conflict without a size": (http(409, b"none\n", b"text/x.tlog.size"),),
    "a conflict of another type": (http(409, b"1\n"),),
    "another size at each try": tuple(http(409, b"%d\n" % size, b"text/x.tlog.size") for size in (1, 2, 1, 2)),
}


@pytest.mark.parametrize("what", MISBEHAVIOURS)
async def test_a_witness_that_misbehaves_is_counted_and_told_once(
    tmp_path: Path, journal: Journal, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    data = tmp_path / "data"
    await write(journal, 5)
    async with scripted(*MISBEHAVIOURS[what]) as url:
        asking = witnessing(data, of_one(data, url), journal)
        with caplog.at_level(logging.INFO):
            for _ in range(3):
                await asking.round()
    state = asking.state()
    assert (state.size, state.failures, state.alarm) == (0, {"w1": 3}, "")
    assert read_witnessed(data / "ledger") is None
    told = [record.getMessage() for record in caplog.records if "witness" in record.getMessage().lower()]
    assert len([line for line in told if line.startswith("The witness")]) == 1, told
    assert alarms(data) == []


async def test_a_witness_that_is_silent_is_not_waited_for(
    tmp_path: Path, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "data"
    monkeypatch.setattr(limits, "witness_ask_s", 0.05)

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    await write(journal, 1)
    server = await asyncio.start_server(listen, "127.0.0.1", 0)
    asking = witnessing(data, of_one(data, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"), journal)
    await asking.round()
    server.close()
    assert asking.state().failures == {"w1": 1}


async def test_one_that_is_away_does_not_hold_up_a_quorum_of_others(tmp_path: Path, journal: Journal) -> None:
    data = tmp_path / "data"
    await write(journal, 2)
    async with real_witness(tmp_path / "w", "w.example/1", read_vkey(data)) as witness:
        of = policy(
            data,
            f"witness here {witness.vkeys[0]} {witness.url}",
            f"witness away {W1.verifier.vkey} http://127.0.0.1:1",
            "group any any here away",
            "quorum any",
        )
        asking = witnessing(data, of, journal)
        await asking.round()
    assert asking.state().size == journal.state().tree_size
    assert asking.state().failures == {"here": 0, "away": 1}
    assert check_witnessed(data / "ledger", of).witnesses == ("here",)


def certified(folder: Path) -> tuple[Path, Path]:
    """Certificate and key of 127.0.0.1."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "a witness")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    public, private = folder / "w.pem", folder / "w.key"
    public.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return public, private


async def test_a_witness_behind_tls_must_show_a_certificate_that_is_trusted(
    tmp_path: Path, journal: Journal, caplog: pytest.LogCaptureFixture
) -> None:
    data = tmp_path / "data"
    await write(journal, 1)
    public, private = certified(tmp_path)
    address = Address(host="127.0.0.1", port=0, certificate=public, key=private)
    async with real_witness(tmp_path / "w", "w.example/1", read_vkey(data), address) as witness:
        of = of_one(data, witness.url, witness.vkeys[0])
        stranger = Witnessing(data / "ledger", of, clients(of, None), journal)
        await stranger.round()
        assert stranger.state().failures == {"w1": 1}
        assert "Check ledger.witness_ca_file" in caplog.text
        trusting = Witnessing(data / "ledger", of, clients(of, tls_context(public)), journal)
        await trusting.round()
        assert (trusting.state().size, trusting.state().failures) == (journal.state().tree_size, {"w1": 0})


CONFLICTS: dict[str, tuple[Callable[[int], tuple[bytes, ...]], Callable[[int], int]]] = {
    "roll-back": (lambda size: (http(409, b"%d\n" % (size + 30), b"text/x.tlog.size"),), lambda size: size + 30),
    "split-view": (lambda size: (http(409, b"%d\n" % size, b"text/x.tlog.size"),), lambda size: size),
    "truncation": (lambda size: (http(409, b"2\n", b"text/x.tlog.size"), http(422, b"no")), lambda size: 2),
}


@pytest.mark.parametrize("kind", CONFLICTS)
async def test_what_a_witness_refuses_is_named_and_recorded_once(tmp_path: Path, journal: Journal, kind: str) -> None:
    data = tmp_path / "data"
    await write(journal, 5)
    size = journal.state().tree_size
    answers, witnessed = CONFLICTS[kind]
    async with scripted(*answers(size)) as url:
        asking = witnessing(data, of_one(data, url), journal)
        await asking.round()
        assert kind in asking.state().alarm
        assert f"w1 has cosigned {witnessed(size)} entries" in asking.state().alarm or kind == "split-view"
    assert alarms(data) == [(kind, "w1", witnessed(size))]
    assert asking.state().failures == {"w1": 1}


async def test_a_split_view_is_refused_by_a_real_witness(tmp_path: Path) -> None:
    """The same log, copied, goes two ways: the witness follows the first it was shown."""
    one, other = tmp_path / "one", tmp_path / "other"
    journal = await open_log(one)
    await write(journal, 3)
    await journal.close()
    shutil.copytree(one, other)
    first, second = await open_log(one), await open_log(other)
    try:
        async with real_witness(tmp_path / "w", "w.example/1", read_vkey(one)) as witness:
            await write(first, 2)
            await write(second, 2)
            assert first.state().tree_size == second.state().tree_size
            for data, log in ((one, first), (other, second)):
                asking = witnessing(data, of_one(data, witness.url, witness.vkeys[0]), log)
                await asking.round()
            assert "another tree" in asking.state().alarm
            await write(second, 2)
            await asking.round()
            assert "not the first ones" in asking.state().alarm
    finally:
        await first.close()
        await second.close()
    assert read_witnessed(other / "ledger") is None
    assert [kind for kind, _, _ in alarms(other)] == ["truncation", "split-view"]
    assert alarms(one) == []


async def test_a_log_that_is_put_back_from_a_copy_does_not_start(tmp_path: Path) -> None:
    """Its witnessed checkpoint was not put back with it; no network is needed."""
    data = tmp_path / "data"
    journal = await open_log(data)
    await write(journal, 3)
    shutil.copytree(data / "ledger", tmp_path / "copy")
    async with real_witness(tmp_path / "w", "w.example/1", read_vkey(data)) as witness:
        of = of_one(data, witness.url, witness.vkeys[0])
        await write(journal, 5)
        await witnessing(data, of, journal).round()
    await journal.close()
    note = witnessed_path(data / "ledger").read_bytes()
    shutil.rmtree(data / "ledger")
    shutil.copytree(tmp_path / "copy", data / "ledger")
    witnessed_path(data / "ledger").parent.mkdir()
    witnessed_path(data / "ledger").write_bytes(note)
    with pytest.raises(LedgerCorrupt, match="roll-back") as refused:
        check_witnessed(data / "ledger", of)
    assert f"cosigned {parse_note(note)[1].size} entries" in refused.value.message
    with pytest.raises(LedgerCorrupt, match="roll-back"):
        await open_log(data)
    witnessed_path(data / "ledger").write_bytes(b"damaged")
    with pytest.raises(LedgerCorrupt, match="damaged"):
        await open_log(data)


async def test_a_quorum_is_asked_for_when_it_is_checked(tmp_path: Path, journal: Journal) -> None:
    data = tmp_path / "data"
    with pytest.raises(LedgerCorrupt, match="No checkpoint"):
        check_witnessed(data / "ledger", of_one(data, "http://w"))
    assert check_witnessed(data / "ledger", policy(data, "quorum none")).size == 0
    async with real_witness(tmp_path / "w", "w.example/1", read_vkey(data)) as witness:
        await write(journal, 1)
        await witnessing(data, of_one(data, witness.url, witness.vkeys[0]), journal).round()
    with pytest.raises(LedgerCorrupt, match="quorum"):
        check_witnessed(data / "ledger", of_one(data, "http://w"))


async def test_a_policy_must_name_this_log_and_an_address(tmp_path: Path, journal: Journal) -> None:
    data = tmp_path / "data"
    own = Verifier.from_vkey(read_vkey(data))
    check_own_line(policy(data, "quorum none"), own)
    other = Signer("log.example/log", bytes(32)).verifier.vkey
    with pytest.raises(ConfigError, match="does not name this log"):
        check_own_line(Policy.parse(f"log {other}\nquorum none\n".encode()), own)
    with pytest.raises(ConfigError, match="address"):
        clients(policy(data, f"witness w1 {W1.verifier.vkey}", "quorum w1"), None)
    for url in ("ftp://w", "w.example", "http://", "http://u:p@w", "http://w:99999", "http://w/?q"):
        with pytest.raises(ConfigError, match="w1"):
            clients(of_one(data, url), None)
