"""What clients and engines may do wrong, over real sockets: a clear error, an entry, and the next request works."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import openai
import pytest

from rempart import limits
from rempart.bench.running import Running, disclosed, rempart, running
from rempart.testing.scripted import ScriptedServer

SETTINGS = """
[server]
exchange_s = 3.0
drain_s = 2.0
body_bytes_max = 100000

[[engines]]
name = "scripted"
kind = "openai"
url = "{url}"
"""


@pytest.fixture
async def site(engine: ScriptedServer, tmp_path: Path) -> AsyncIterator[Running]:
    data = tmp_path / "data"
    data.mkdir(mode=0o700)
    (data / "rempart.toml").write_text(SETTINGS.format(url=engine.url))
    context = running(data)
    server = await asyncio.to_thread(context.__enter__)
    try:
        yield server
    finally:
        await asyncio.to_thread(context.__exit__, None, None, None)


@pytest.fixture
async def http(site: Running) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(site.url, headers={"Authorization": f"Bearer {site.key}"}) as session:
        yield session


def _chat(script: str, **more: Any) -> dict[str, Any]:
    return {"model": "scripted", "messages": [{"role": "user", "content": script}], **more}


async def _ask(http: aiohttp.ClientSession, script: str, **more: Any) -> tuple[int, bytes, str]:
    async with http.post("/v1/chat/completions", json=_chat(script, **more)) as response:
        return response.status, await response.read(), response.headers["x-rempart-exchange"]


async def _outcome(site: Running, exchange: str) -> dict[str, Any]:
    """The response entry of an exchange, once it is there."""
    for _ in range(100):
        shown = await asyncio.to_thread(disclosed, exchange, "--json", data=site.data)
        lines = [json.loads(line) for line in shown.stdout.splitlines()]
        if lines and lines[-1]["entry"]["type"] == "response":
            return {**lines[-1]["entry"], "said": lines[-1]["body"]}
        await asyncio.sleep(0.05)
    raise AssertionError(f"no response entry of {exchange}")


@pytest.mark.parametrize(
    ("script", "stream", "status", "code"),
    [
        ("nonsense", False, 502, "engine_error"),
        ("not-json", False, 502, "engine_error"),
        ("not-utf8", False, 502, "engine_error"),
        ("large", False, 502, "engine_error"),
        ("status 500", False, 502, "engine_error"),
        ("status 503", False, 503, "engine_unavailable"),
        ("status 422", False, 422, "engine_refused"),
        ("status 401", False, 502, "engine_error"),
        ("close", False, 503, "engine_unavailable"),
        ("hang", False, 408, "request_timeout"),
        ("status 429", True, 429, "engine_refused"),
        ("hang", True, 408, "request_timeout"),
    ],
)
async def test_an_engine_that_misbehaves(
    http: aiohttp.ClientSession, site: Running, script: str, stream: bool, status: int, code: str
) -> None:
    found, body, exchange = await _ask(http, script, stream=stream)
    assert found == status
    assert json.loads(body)["error"]["code"] == code
    entry = await _outcome(site, exchange)
    assert entry["outcome"] == ("cut" if script == "hang" else "failed")
    assert entry["error"] == code
    assert (await _ask(http, "still there"))[0] == 200


@pytest.mark.parametrize("script", ["cut 3", "error-event 3", "hang-after 3", "nonsense", "not-json", "not-utf8"])
async def test_a_stream_that_breaks_ends_in_an_error_event(
    http: aiohttp.ClientSession, site: Running, script: str
) -> None:
    status, body, exchange = await _ask(http, script, stream=True)
    events = [line.removeprefix(b"data: ") for line in body.split(b"\n\n") if line]
    assert status == 200
    assert "error" in json.loads(events[-1])
    assert b"[DONE]" not in body
    entry = await _outcome(site, exchange)
    assert entry["outcome"] == ("cut" if script.startswith("hang") else "failed")
    if " " in script:
        assert entry["said"]["response"]["choices"][0]["message"]["content"] == "w0 w1 w2 "
    assert (await _ask(http, "still there"))[0] == 200


@pytest.mark.parametrize("script", ["paced 500 10", "hang"])
@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_leaves_stops_the_engine_and_is_recorded(
    http: aiohttp.ClientSession, engine: ScriptedServer, site: Running, script: str, stream: bool
) -> None:
    if script == "paced 500 10" and not stream:
        script = "slow 2500"
    asked = len(engine.asked)
    task = asyncio.create_task(_ask(http, script, stream=stream))
    await engine.more_asked_than(asked)
    await asyncio.sleep(0.1)
    task.cancel()
    async with asyncio.timeout(1.0):  # the promise: limits.cancel_s
        await engine.idle()
    shown = await asyncio.to_thread(rempart, "ledger", "tail", "-n", "1", "--json", data=site.data)
    assert json.loads(shown.stdout)["entry"]["outcome"] == "cancelled"
    assert (await _ask(http, "still there"))[0] == 200


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b"{", None),
        (b"[]", None),
        (b"\xff\xfe", None),
        (b'{"model":"scripted","model":"other","messages":[{"role":"user"}]}', None),
        (b'{"model":"scripted","messages":"hello"}', "messages"),
        (b'{"model":"scripted","messages":[{"role":"user"}],"n":0}', "n"),
        (b'{"model":"scripted","messages":[{"role":"user"}],"n":"two"}', "n"),
        (b'{"messages":[{"role":"user"}]}', "model"),
        (b"[" * 100_000, None),
        (b"", None),
    ],
)
async def test_a_request_that_is_wrong_is_refused_and_recorded(
    http: aiohttp.ClientSession, site: Running, body: bytes, param: str | None
) -> None:
    async with http.post("/v1/chat/completions", data=body) as response:
        assert response.status == 400
        error = (await response.json())["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert error["param"] == param
        exchange = response.headers["x-rempart-exchange"]
        assert response.headers["x-request-id"]
    assert (await _outcome(site, exchange))["outcome"] == "refused"


async def test_a_body_that_is_too_large_is_refused(http: aiohttp.ClientSession, site: Running) -> None:
    status, body, exchange = await _ask(http, "x" * 200_000)
    assert status == 413
    assert json.loads(body)["error"]["code"] == "request_too_large"
    assert (await _outcome(site, exchange))["error"] == "request_too_large"


async def test_what_is_unknown_or_forbidden(http: aiohttp.ClientSession, site: Running) -> None:
    async with http.get("/v1/nothing") as response:
        assert response.status == 404
    async with http.get("/v1/chat/completions") as response:
        assert response.status == 405
        assert response.headers["allow"] == "POST"
    async with http.get("/v1/models", headers={"Host": "evil.example"}) as response:
        assert response.status == 421
    twice = [("Authorization", f"Bearer {site.key}"), ("Authorization", "Bearer x")]
    async with aiohttp.ClientSession(site.url) as bare, bare.get("/v1/models", headers=twice) as response:
        assert response.status == 400
    async with http.get("/v1/models", headers={"Authorization": "Bearer rp_nothing"}) as response:
        assert response.status == 401
        assert "x-rempart-exchange" not in response.headers


async def test_sigterm_lets_a_stream_end_and_refuses_new_work(http: aiohttp.ClientSession, site: Running) -> None:
    stream = asyncio.create_task(_ask(http, "paced 20 50", stream=True))
    await asyncio.sleep(0.3)
    site.process.terminate()
    await asyncio.sleep(0.1)
    async with http.get("/readyz") as response:
        assert response.status == 503
    status, body, _ = await _ask(http, "one more")
    assert status == 503
    assert json.loads(body)["error"]["code"] == "shutting_down"
    status, body, _ = await stream
    assert status == 200
    assert body.endswith(b"data: [DONE]\n\n")
    assert await asyncio.to_thread(site.process.wait) == 0


async def test_sigterm_cuts_what_takes_too_long_and_records_it(http: aiohttp.ClientSession, site: Running) -> None:
    asked = asyncio.create_task(_ask(http, "paced 1000 100", stream=True))
    await asyncio.sleep(0.3)
    site.process.terminate()
    _, body, exchange = await asked
    assert b'"shutting_down"' in body or b'"request_timeout"' in body
    assert await asyncio.to_thread(site.process.wait) == 0
    assert (await _outcome(site, exchange))["outcome"] == "cut"
    assert (await asyncio.to_thread(rempart, "ledger", "verify", data=site.data)).returncode == 0


async def test_tools_reach_the_engine_and_their_calls_the_official_client(
    site: Running, engine: ScriptedServer
) -> None:
    """The guide was never taught to call tools: here the engine is scripted, the client and all between are real."""
    parameters = {"type": "object", "properties": {"city": {"type": "string"}}}
    tools: list[Any] = [{"type": "function", "function": {"name": "weather", "parameters": parameters}}]
    client = openai.AsyncOpenAI(base_url=f"{site.url}/v1", api_key=site.key, max_retries=0)
    messages: list[Any] = [{"role": "user", "content": "tool weather"}]
    whole = await client.chat.completions.create(model="scripted", messages=messages, tools=tools)
    assert engine.asked[-1]["tools"] == tools
    calls = whole.choices[0].message.tool_calls
    assert calls
    assert calls[0].type == "function"
    assert (calls[0].function.name, calls[0].function.arguments) == ("weather", '{"city": "Lyon"}')
    async with client.chat.completions.stream(model="scripted", messages=messages, tools=tools) as stream:
        final = await stream.get_final_completion()
    assert final.choices[0].finish_reason == "tool_calls"
    streamed = final.choices[0].message.tool_calls
    assert streamed
    assert streamed[0].function.arguments == '{"city": "Lyon"}'
    shown = await asyncio.to_thread(rempart, "ledger", "tail", "-n", "1", "--json", data=site.data)
    entry = await _outcome(site, json.loads(shown.stdout)["entry"]["exchange"])
    assert entry["finish"] == ["tool_calls"]
    recorded = entry["said"]["response"]["choices"][0]["message"]["tool_calls"][0]["function"]
    assert recorded == {"name": "weather", "arguments": '{"city": "Lyon"}'}


async def test_a_stream_ends_when_its_key_is_revoked(site: Running) -> None:
    made = json.loads(
        (await asyncio.to_thread(rempart, "key", "create", "--name", "x", "--json", data=site.data)).stdout
    )
    async with (
        aiohttp.ClientSession(site.url, headers={"Authorization": f"Bearer {made['key']}"}) as http,
        http.post("/v1/chat/completions", json=_chat("hang-after 2", stream=True)) as response,
    ):
        assert await response.content.readuntil(b"\n\n")
        await asyncio.to_thread(rempart, "key", "revoke", made["id"], data=site.data)
        rest = await response.content.read()
    assert b'"code":"invalid_api_key"' in rest
    assert not rest.rstrip().endswith(b"[DONE]")
    assert (await _outcome(site, response.headers["x-rempart-exchange"]))["outcome"] == "cut"


async def test_an_engine_that_lies_about_its_tokens_stops_nothing(http: aiohttp.ClientSession, site: Running) -> None:
    status, _, exchange = await _ask(http, "lies")
    assert status == 200
    said = await _outcome(site, exchange)
    assert said["tokens_prompt"] <= limits.tokens_per_exchange_max
    assert await asyncio.to_thread(site.stop) == 0


async def test_an_answer_of_countless_choices_is_recorded_and_charged(
    http: aiohttp.ClientSession, site: Running
) -> None:
    status, _, exchange = await _ask(http, "choices 20000")
    assert status == 200
    said = await _outcome(site, exchange)
    assert (said["outcome"], said["finish"]) == ("ok", ["stop"])
