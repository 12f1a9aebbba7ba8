"""`rempart up` as an operator meets it: starting, refusing to, dying and coming back."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import openai
import pytest

from rempart.bench.running import DidNotStart, Running, disclosed, rempart, running, start


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
    refused = rempart("up", "--port", "0", data=server.data)
    assert refused.returncode == 3
    assert refused.stderr.startswith(f"Error: Another process ({server.process.pid}) is using {server.data}.\n")
    assert _ask(_client(server))


def test_beyond_loopback_tls_is_required(tmp_path: Path) -> None:
    with pytest.raises(DidNotStart, match="certificate"):
        start(tmp_path / "data", "--host", "0.0.0.0")


def test_a_port_that_is_taken_is_said_to_be(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        refused = rempart("up", "--port", str(taken.getsockname()[1]), data=tmp_path / "data")
    assert refused.returncode == 3
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
    refused = rempart("up", "--port", "0", data=server.data)
    assert refused.returncode == 2
    assert "chmod" in refused.stderr


def _told(data: Path) -> tuple[str, str]:
    """What `rempart up` says on a terminal's stdout, and its logs, of a start that is stopped at once."""
    process = subprocess.Popen(
        [sys.executable, "-m", "rempart.cli.main", "up", "--port", "0", "--data", str(data)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,  # what is not read by the line is left to `communicate`
    )
    assert process.stdout is not None
    first = process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0
    return (first + out).decode(), err.decode()


def test_the_curl_that_is_printed_works_when_pasted(tmp_path: Path) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is what is printed")
    with running(tmp_path / "data") as first:
        key = first.key
    command = [sys.executable, "-m", "rempart.cli.main", "up", "--port", "0", "--data", str(tmp_path / "data")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    lines: list[str] = []
    while not (lines and lines[-1].strip().startswith("-H")):
        lines.append(process.stdout.readline())
    try:
        pasted = "".join(lines[-2:])
        environment = {**os.environ, "REMPART_KEY": key}
        done = subprocess.run(["sh", "-c", pasted], env=environment, capture_output=True, text=True, check=False)
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
    assert '"choices"' in done.stdout
    assert done.stdout.endswith("}\n")


def test_the_block_is_aligned_and_names_the_command_as_it_was_called(tmp_path: Path) -> None:
    with running(tmp_path / "data"):
        pass
    out, _ = _told(tmp_path / "data")
    facts = [line for line in out.splitlines() if re.match(r"  (API keys|Page|Verifier)", line)]
    assert len(facts) == 3
    assert len({re.search(r"\S\s{2,}(?=\S)", line).end() for line in facts}) == 1  # type: ignore[union-attr]
    assert facts[0].endswith(f"{sys.executable} -m rempart.cli.main key create --name NAME --data {tmp_path / 'data'}")


FAR = """
[[engines]]
name = "far"
kind = "openai"
url = "http://127.0.0.1:9"
"""


def test_an_engine_that_cannot_be_reached_is_told(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "rempart.toml").write_text(FAR)
    out, err = _told(tmp_path / "data")
    assert re.match(r"Rempart is listening at \S+, but not ready: engine far cannot be reached\n", out)
    assert "ready at" not in out
    assert "curl" not in out
    assert re.search(r"^  Engine far is down +\S", out, re.MULTILINE)
    logged = [msgspec.json.decode(line) for line in err.splitlines()]
    down = [line for line in logged if line["message"] == "engine down"]
    assert [(line["level"], line["engine"]) for line in down] == [("warning", "far")]
    with running(tmp_path / "data") as server:
        assert server.model == ""
        with pytest.raises(urllib.error.HTTPError) as unready:
            urllib.request.urlopen(f"{server.url}/readyz")
        assert unready.value.code == 503


def test_one_engine_of_two_is_enough_to_be_ready(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "rempart.toml").write_text(f'{FAR}[[engines]]\nname = "near"\n')
    out, _ = _told(tmp_path / "data")
    assert out.startswith("Rempart is ready at ")
    assert "  Engine far is down" in out
    assert '"model":"guide"' in out


def test_an_engine_elsewhere_in_clear_is_refused_or_recorded(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    file = tmp_path / "data" / "rempart.toml"
    file.write_text(FAR.replace("127.0.0.1:9", "192.0.2.1:9"))
    refused = rempart("up", "--port", "0", data=tmp_path / "data")
    assert refused.returncode == 2
    assert "plain_http = true" in refused.stderr
    assert list((tmp_path / "data").iterdir()) == [file]
    file.write_text(f"{FAR}plain_http = true\n")
    with running(tmp_path / "data"):
        pass
    tail = rempart("ledger", "tail", data=tmp_path / "data").stdout
    assert "engines.plain_http=1" in tail


def test_starting_stopping_keys_and_refused_keys_are_logged(server: Running) -> None:
    for key in ("rp_nonsense", "rp_other"):
        request = urllib.request.Request(f"{server.url}/v1/models", headers={"Authorization": f"Bearer {key}"})
        with pytest.raises(urllib.error.HTTPError):
            urllib.request.urlopen(request)
    made = rempart("key", "create", "--name", "nightly", "--json", data=server.data)
    id_ = msgspec.json.decode(made.stdout)["id"]
    assert rempart("key", "revoke", id_, data=server.data).returncode == 0
    server.stop()
    text = server.data.with_name("data.stderr").read_text()
    logged = [msgspec.json.decode(line) for line in text.splitlines()]
    messages = [line["message"] for line in logged]
    assert messages[-1] == "stopped"
    assert "stopping" in messages
    changes = [(line["message"], line["key"]) for line in logged if "key" in line]
    assert changes[1:] == [("key created", id_), ("key revoked", id_)]
    refused = [line["counts"]["invalid_api_key"] for line in logged if line["message"] == "requests refused"]
    assert sum(refused) == 2
    assert "nonsense" not in text
    assert "nightly" not in text


def test_a_conversation_that_is_too_long_is_said_to_be(server: Running) -> None:
    long = [{"role": "user", "content": "word " * 600}]
    for stream in (False, True):
        with pytest.raises(openai.BadRequestError) as refused:
            _client(server).chat.completions.create(model="guide", messages=long, stream=stream)  # type: ignore[call-overload]
        assert refused.value.code == "context_length_exceeded"
        assert "the model's context has 512. Shorten the conversation, or start a new one." in refused.value.message


def test_an_exchange_is_shown_as_it_was(server: Running) -> None:
    answer = _client(server).chat.completions.with_raw_response.create(
        model="guide", messages=[{"role": "user", "content": "What is Rempart?"}], max_tokens=8
    )
    exchange = answer.headers["x-rempart-exchange"]
    said = answer.parse().choices[0].message.content
    shown = disclosed(exchange, data=server.data).stdout
    head, named, rest = shown.split("\n", 2)
    assert re.fullmatch(r"\S+Z · role admin · model guide · outcome ok · \d+ \+ 8 tokens", head)
    assert named.startswith(f"exchange {exchange} · entries ")
    assert rest == f"\nuser:\nWhat is Rempart?\n\nanswer:\n{said}\n"
    sealed = rempart("ledger", "show", exchange, "--sealed", data=server.data).stdout
    assert sealed == f"{head}\n{named}\n"
    assert '"commitment"' in rempart("ledger", "show", exchange, "--full", data=server.data).stdout
