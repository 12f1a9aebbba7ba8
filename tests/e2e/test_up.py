"""`rempart up` as an operator meets it: starting, refusing to, dying and coming back."""

import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import openai
import pytest

from rempart.bench.running import DidNotStart, Running, rempart, running, start


def _gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z"
    except FileNotFoundError:
        return True


def _engine_pid(server: Running) -> int:
    children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text().split()
    (pid,) = [int(pid) for pid in children if b"llamacpp_child" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    return pid


def _within(seconds: float, condition: Callable[[], bool]) -> bool:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if condition():
            return True
        time.sleep(0.05)
    return False


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Running]:
    with running(tmp_path / "data") as made:
        yield made


def _client(server: Running) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key=server.key, max_retries=0)


def _ask(client: openai.OpenAI) -> str:
    answer = client.chat.completions.create(
        model="guide", messages=[{"role": "user", "content": "What is Rempart?"}], max_tokens=8
    )
    return answer.choices[0].message.content or ""


def test_only_the_first_start_prints_a_key(tmp_path: Path) -> None:
    with running(tmp_path / "data") as first:
        assert first.key.startswith("rp_")
        assert _ask(_client(first))
    with running(tmp_path / "data") as second:
        assert second.key == ""
        assert second.vkey == first.vkey
    assert rempart("ledger", "verify", data=tmp_path / "data").returncode == 0


def test_a_second_up_on_the_same_directory_is_refused(server: Running) -> None:
    with pytest.raises(DidNotStart, match=r"is using|another process"):
        start(server.data)
    assert _ask(_client(server))


def test_beyond_loopback_tls_is_required(tmp_path: Path) -> None:
    with pytest.raises(DidNotStart, match="certificate"):
        start(tmp_path / "data", "--host", "0.0.0.0")


def test_a_port_that_is_taken_is_said_to_be(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        refused = rempart("up", "--port", str(taken.getsockname()[1]), data=tmp_path / "data")
    assert refused.returncode == 2
    assert "--port" in refused.stderr


def test_a_file_that_is_no_gguf_is_refused_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(b"not a model")
    refused = rempart("up", "--model", str(tmp_path / "model.gguf"), data=tmp_path / "data")
    assert refused.returncode == 2
    assert "GGUF" in refused.stderr
    refused = rempart("up", "--model", str(tmp_path / "nothing.gguf"), data=tmp_path / "data")
    assert refused.returncode == 2


def test_an_engine_that_dies_is_started_again(server: Running) -> None:
    client = _client(server)
    first = _engine_pid(server)
    os.kill(first, signal.SIGKILL)
    assert _within(10, lambda: _gone(first))

    def answers() -> bool:
        try:
            return bool(_ask(client))
        except openai.InternalServerError:  # 503 while it is being started
            return False

    assert _within(30, answers)
    assert _engine_pid(server) != first


def test_the_engine_goes_when_its_parent_is_killed(server: Running) -> None:
    engine = _engine_pid(server)
    server.kill()
    assert _within(5, lambda: _gone(engine))


def test_the_engine_is_closed_to_others(server: Running) -> None:
    """Loopback only, and it wants a secret that no argument list shows."""
    pid = _engine_pid(server)
    arguments = Path(f"/proc/{pid}/cmdline").read_bytes()
    assert b"api" not in arguments
    listening = subprocess.run(["ss", "-ltnpH"], capture_output=True, text=True, check=False).stdout
    ports = [line.split()[3] for line in listening.splitlines() if f"pid={pid}," in line]
    if not ports:
        pytest.skip("`ss` (package iproute2) is needed to see who listens where")
    assert all(port.startswith("127.0.0.1:") for port in ports)
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(urllib.request.Request(f"http://{ports[0]}/v1/completions", data=b"{}"))
    assert refused.value.code == 401


def test_no_key_and_no_prompt_is_in_any_file_in_clear(server: Running) -> None:
    secret = "a-sentence-that-nobody-else-writes"
    _client(server).chat.completions.create(
        model="guide", messages=[{"role": "user", "content": secret}], max_tokens=4, user="somebody@hospital.example"
    )
    server.stop()
    for path in [*server.data.rglob("*"), server.data.with_name("data.stderr")]:
        if path.is_file():
            held = path.read_bytes()
            assert secret.encode() not in held, path
            assert server.key.encode() not in held, path
            assert b"somebody@hospital.example" not in held, path


def test_owner_only_modes(server: Running) -> None:
    for name in ("keys/root.key", "keys/keystore.db", "state.db", "run/control.sock"):
        assert (server.data / name).stat().st_mode & 0o077 == 0, name
    server.stop()
    (server.data / "keys" / "root.key").chmod(0o644)
    with pytest.raises(DidNotStart, match="chmod"):
        start(server.data)
