"""The door: TLS, many connections, slow and rude clients, and what is counted of those who may not come in."""

import asyncio
import datetime
import ipaddress
import json
import resource
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from rempart.bench.running import Running, rempart, running
from rempart.ledger.keys.keystore import Keystore
from rempart.testing.scripted import ScriptedServer

CONNECTIONS = 10_000
ENGINE = '[[engines]]\nname = "scripted"\nkind = "openai"\nurl = "{url}"\n'
CHAT = {"model": "scripted", "messages": [{"role": "user", "content": "hello"}]}


async def _up(data: Path, engine: ScriptedServer, settings: str = "") -> AsyncIterator[Running]:
    data.mkdir(mode=0o700)
    (data / "rempart.toml").write_text(settings + ENGINE.format(url=engine.url))
    async for server in _again(data):
        yield server


async def _again(data: Path) -> AsyncIterator[Running]:
    context = running(data)
    server = await asyncio.to_thread(context.__enter__)
    try:
        yield server
    finally:
        await asyncio.to_thread(context.__exit__, None, None, None)


@pytest.fixture
async def site(engine: ScriptedServer, tmp_path: Path) -> AsyncIterator[Running]:
    async for server in _up(tmp_path / "data", engine):
        yield server


def _http(site: Running, key: str = "") -> aiohttp.ClientSession:
    return aiohttp.ClientSession(site.url, headers={"Authorization": f"Bearer {key or site.key}"})


def _certificate(folder: Path) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(key, hashes.SHA256())
    )
    (folder / "server.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "server.key").write_bytes(private)
    return folder / "server.pem", folder / "server.key"


async def test_over_tls_and_beyond_loopback_metrics_need_a_role(engine: ScriptedServer, tmp_path: Path) -> None:
    certificate, key = _certificate(tmp_path)
    settings = f'[server]\nhost = "0.0.0.0"\ncertificate = "{certificate}"\nkey = "{key}"\n'
    async for site in _up(tmp_path / "data", engine, settings):
        made = await asyncio.to_thread(rempart, "key", "create", "--name", "user", data=site.data)
        url = site.url.replace("0.0.0.0", "localhost")
        trusted = ssl.create_default_context(cafile=str(certificate))
        async with aiohttp.ClientSession(url, connector=aiohttp.TCPConnector(ssl=trusted)) as http:
            user = {"Authorization": f"Bearer {made.stdout.strip()}"}
            admin = {"Authorization": f"Bearer {site.key}"}
            async with http.post("/v1/chat/completions", json=CHAT, headers=user) as response:
                assert response.status == 200
            async with http.get("/metrics") as response:
                assert response.status == 401
            async with http.get("/metrics", headers=user) as response:
                assert response.status == 403
            async with http.get("/metrics", headers=admin) as response:
                assert response.status == 200
                assert "rempart_requests_total" in await response.text()


async def test_ten_thousand_open_connections_and_the_next_request_works(site: Running) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < CONNECTIONS + 1_000:
        pytest.skip(f"this machine allows {hard} open files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    host, port = site.url.removeprefix("http://").split(":")
    writers = []
    for _ in range(CONNECTIONS // 100):
        opened = await asyncio.gather(*(asyncio.open_connection(host, int(port)) for _ in range(100)))
        writers += [writer for _, writer in opened]
    async with _http(site) as http:
        for _ in range(10):
            async with http.post("/v1/chat/completions", json=CHAT) as response:
                assert response.status == 200
    for writer in writers:
        writer.close()


async def test_a_client_that_sends_its_head_byte_by_byte_is_turned_away(site: Running) -> None:
    host, port = site.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    answer = asyncio.create_task(reader.read())
    for byte in b"GET / HTTP/1.1\r\n" + b"x" * 1000:
        if answer.done():
            break
        writer.write(bytes([byte]))
        await asyncio.sleep(0.05)
    assert b"408" in (await answer).split(b"\r\n")[0]


async def test_unauthenticated_refusals_are_counted_not_recorded_one_by_one(site: Running) -> None:
    async with _http(site, "rp_wrong") as http:
        for _ in range(30):
            async with http.get("/v1/models") as response:
                assert response.status == 401
    await asyncio.to_thread(site.stop)
    tail = await asyncio.to_thread(rempart, "ledger", "tail", "-n", "100", "--json", data=site.data)
    entries = [json.loads(line)["entry"] for line in tail.stdout.splitlines()]
    assert [entry["counts"] for entry in entries if entry["type"] == "refusals"] == [{"invalid_api_key": 30}]
    assert not [entry for entry in entries if entry["type"] == "response"]


@pytest.mark.parametrize(
    ("headers", "said"),
    [({}, "No API key was sent."), ({"Authorization": "Basic cnA6cnA="}, "The Authorization header holds no bearer")],
    ids=["none", "another scheme"],
)
async def test_what_is_wrong_with_the_credentials_is_said(site: Running, headers: dict[str, str], said: str) -> None:
    async with aiohttp.ClientSession(site.url) as http, http.get("/v1/models", headers=headers) as response:
        assert response.status == 401
        assert (await response.json())["error"]["message"].startswith(said)


async def test_subjects_are_pseudonyms_that_the_keystore_can_name(site: Running) -> None:
    made = await asyncio.to_thread(
        rempart, "key", "create", "--name", "proxy", "--owner", "The Owner", "--trust-subject-header", data=site.data
    )
    async with _http(site, made.stdout.strip()) as http:
        body = {**CHAT, "user": "user@hospital.example", "safety_identifier": "safe-7"}
        async with http.post(
            "/v1/chat/completions", json=body, headers={"X-Rempart-Subject": "patient 12"}
        ) as response:
            exchange = response.headers["x-rempart-exchange"]
            assert response.status == 200
    named = {"X-Rempart-Subject": "patient 12"}  # this key may not name anyone by header
    async with _http(site) as http, http.post("/v1/chat/completions", json=CHAT, headers=named) as response:
        other = response.headers["x-rempart-exchange"]
    shown = await asyncio.to_thread(rempart, "ledger", "show", exchange, "--json", data=site.data)
    subjects = json.loads(shown.stdout.splitlines()[0])["entry"]["subjects"]
    keystore = Keystore.open(site.data / "keys")
    assert sorted(keystore.identity(name) for name in subjects) == ["The Owner", "patient 12", "safe-7"]
    shown = await asyncio.to_thread(rempart, "ledger", "show", other, "--json", data=site.data)
    assert "subjects" not in json.loads(shown.stdout.splitlines()[0])["entry"]


async def test_strict_mode_streams_too(engine: ScriptedServer, tmp_path: Path) -> None:
    async for site in _up(tmp_path / "data", engine, "[ledger]\nstrict = true\n"):
        async with _http(site) as http:
            body = {"model": "scripted", "messages": [{"role": "user", "content": "words 50"}], "stream": True}
            async with http.post("/v1/chat/completions", json=body) as response:
                text = await response.text()
        assert "w49 " in text
        assert text.endswith("data: [DONE]\n\n")


async def test_tokens_of_the_day_survive_a_restart(engine: ScriptedServer, tmp_path: Path) -> None:
    data = tmp_path / "data"
    async for site in _up(data, engine):
        made = await asyncio.to_thread(
            rempart, "key", "create", "--name", "small", "--tokens-per-day", "40", data=site.data
        )
        async with _http(site, made.stdout.strip()) as http:
            body = {"model": "scripted", "messages": [{"role": "user", "content": "words 45"}]}
            async with http.post("/v1/chat/completions", json=body) as response:
                assert response.status == 200
        site.kill()
    async for again in _again(data):
        async with _http(again, made.stdout.strip()) as http, http.post("/v1/chat/completions", json=CHAT) as response:
            assert response.status == 429
            assert (await response.json())["error"]["code"] == "insufficient_quota"
            assert int(response.headers["retry-after"]) > 0
