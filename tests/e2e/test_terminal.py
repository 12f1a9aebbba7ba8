"""`rempart up` in a real terminal: Ctrl-C reaches every process of the foreground, and still no answer is broken."""

import fcntl
import os
import re
import select
import signal
import subprocess
import sys
import termios
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import openai
import pytest

CTRL_C = b"\x03"
DRAIN_S = "3600"
"""Longer than any test may take: a server that waits it out fails."""


class Terminal:
    """A pseudo-terminal with `rempart up` as its foreground, as a shell would start it."""

    def __init__(self, data: Path, *arguments: str) -> None:
        self._controller, terminal = os.openpty()
        command = [sys.executable, "-m", "rempart.cli.main", "up", "--port", "0", "--data", str(data), *arguments]
        self.process = subprocess.Popen(
            command,
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # type: ignore[arg-type,return-value]
            env={**os.environ, "REMPART_SERVER_DRAIN_S": DRAIN_S},
        )
        os.close(terminal)
        self.shown = ""

    def type(self, keys: bytes) -> None:
        os.write(self._controller, keys)

    def until(self, pattern: str) -> re.Match[str]:
        """What is shown once `pattern` is."""
        deadline = time.monotonic() + 60
        while not (match := re.search(pattern, self.shown)):
            assert time.monotonic() < deadline, self.shown
            assert self._read(), f"it ended: {self.shown}"
        return match

    def end(self) -> int:
        """Its exit status; what it said last is in `shown`."""
        while self._read():
            pass
        return self.process.wait(60)

    def _read(self) -> bool:
        """False once nobody writes to the terminal any more."""
        if not select.select([self._controller], [], [], 1)[0]:
            return True
        try:
            read = os.read(self._controller, 65_536)
        except OSError:
            return False
        self.shown += read.decode().replace("\r\n", "\n")
        return bool(read)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._controller)


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Callable[..., Terminal]]:
    terminals: list[Terminal] = []

    def _open(*arguments: str) -> Terminal:
        terminals.append(Terminal(tmp_path / "data", *arguments))
        return terminals[-1]

    yield _open
    for terminal in terminals:
        terminal.close()


class Answering:
    """A terminal, and a stream that has begun and whose engine holds still."""

    def __init__(self, terminal: Terminal) -> None:
        self.terminal = terminal
        url = terminal.until(r"Rempart is ready at (\S+)")[1]
        key = terminal.until(r"\(shown this once\)\s+(\S+)")[1]
        terminal.until("json")
        self.engine = int(terminal.until(r"engine ready .*pid=(\d+)")[1])
        self._url = url
        self._client = openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0)
        while not self._begun():
            self.rest()  # on a busy machine it may have ended before its engine could be held

    def _begun(self) -> bool:
        self.stream = self._client.chat.completions.create(
            model="guide",
            messages=[{"role": "user", "content": "What is Rempart?"}],
            max_tokens=300,
            stream=True,
            extra_body={"ignore_eos": True},
        )
        next(self.stream)
        os.kill(self.engine, signal.SIGSTOP)
        with urllib.request.urlopen(f"{self._url}/metrics") as metrics:
            if b"rempart_exchanges_running 1.0" in metrics.read():
                return True
        os.kill(self.engine, signal.SIGCONT)
        return False

    def rest(self) -> str:
        return "".join(chunk.choices[0].delta.content or "" for chunk in self.stream if chunk.choices)


@pytest.fixture
def answering(opened: Callable[..., Terminal]) -> Answering:
    return Answering(opened())


def test_ctrl_c_lets_a_running_answer_end(answering: Answering) -> None:
    terminal = answering.terminal
    terminal.type(CTRL_C)
    terminal.until("Stopping: 1 answer still running, up to 3600 s; Ctrl-C again cuts them.\n")
    os.kill(answering.engine, signal.SIGCONT)
    assert answering.rest()  # raises when the stream breaks off
    assert terminal.end() == 0
    assert terminal.shown.endswith("Stopped.\n")


@pytest.mark.parametrize("again", [CTRL_C, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_a_second_one_cuts_at_once(answering: Answering, again: bytes | signal.Signals) -> None:
    terminal = answering.terminal
    terminal.type(CTRL_C)
    terminal.until("Stopping: 1 answer")
    if isinstance(again, bytes):
        terminal.type(again)
    else:
        terminal.process.send_signal(again)
    with pytest.raises(openai.APIError, match="The server is stopping"):
        answering.rest()
    assert terminal.end() == 0
    assert not Path(f"/proc/{answering.engine}/cmdline").exists()


def test_an_answer_whose_engine_died_is_not_waited_for(answering: Answering) -> None:
    terminal = answering.terminal
    terminal.type(CTRL_C)
    terminal.until("Stopping: 1 answer")
    os.kill(answering.engine, signal.SIGKILL)
    with pytest.raises(openai.APIError):
        answering.rest()
    assert terminal.end() == 0


def test_the_engine_has_a_session_of_its_own(opened: Callable[..., Terminal]) -> None:
    terminal = opened()
    engine = int(terminal.until(r"engine ready .*pid=(\d+)")[1])
    assert os.getsid(engine) == engine
    assert os.getsid(terminal.process.pid) == terminal.process.pid


def test_ctrl_c_without_an_answer_stops_at_once(opened: Callable[..., Terminal]) -> None:
    terminal = opened()
    terminal.until("json")
    terminal.type(CTRL_C)
    assert terminal.end() == 0
    assert terminal.shown.endswith("Stopping.\nStopped.\n")


def _loading(terminal: Terminal) -> int:
    """The engine's process, from when it runs a program of its own."""
    children = Path(f"/proc/{terminal.process.pid}/task/{terminal.process.pid}/children")
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for pid in children.read_text().split():
            if b"llamacpp_child" in Path(f"/proc/{pid}/cmdline").read_bytes() and os.getsid(int(pid)) == int(pid):
                return int(pid)
    raise AssertionError(terminal.shown)


def test_ctrl_c_ends_a_start_that_takes_long(opened: Callable[..., Terminal]) -> None:
    """As with a large model: here the engine is held before it has told its address."""
    terminal = opened()
    engine = _loading(terminal)
    os.kill(engine, signal.SIGSTOP)
    terminal.type(CTRL_C)
    assert terminal.end() == 130
    assert "Rempart is ready" not in terminal.shown
    assert "Traceback" not in terminal.shown
    assert not Path(f"/proc/{engine}/cmdline").exists()


def test_on_a_terminal_logs_are_text(opened: Callable[..., Terminal]) -> None:
    terminal = opened()
    terminal.until("json")
    assert re.search(
        r"^\d\d:\d\d:\d\d info     engine ready  engine=embedded  model=guide  pid=\d+$", terminal.shown, re.M
    )
    assert '"level"' not in terminal.shown
