"""What README tells a first user to paste works as it stands there."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from rempart.bench.running import Running

README = (Path(__file__).resolve().parents[2] / "README.md").read_text()


def _blocks(language: str, site: Running) -> list[str]:
    """As they stand there, but for the port."""
    blocks = re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)
    return [block.replace("http://127.0.0.1:8080", site.url) for block in blocks]


def _run(command: list[str], key: str) -> str:
    done = subprocess.run(
        command, env={**os.environ, "REMPART_KEY": key}, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_python_answers(site: Running) -> None:
    (program,) = _blocks("python", site)
    assert "ledger" in _run([sys.executable, "-c", program], site.key)


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is what README pastes into the shell")
def test_the_curl_answers_on_a_line_of_its_own(site: Running) -> None:
    (line,) = [block for block in _blocks("sh", site) if block.startswith("curl")]
    out = _run(["sh", "-c", line], site.key)
    assert '"choices"' in out
    assert out.endswith("}\n")
