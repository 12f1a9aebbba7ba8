"""`rempart up`: what it says when it listens, for any shell that it is pasted into."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import msgspec
import pytest

from rempart.cli.up import _Ready, _tell


def told(capsys: pytest.CaptureFixture[str], **fields: object) -> list[str]:
    ready = {
        **{"ready": True, "url": "http://127.0.0.1:1", "page": "http://127.0.0.1:1/", "vkey": "v", "pid": 1},
        **{"data": "data", "model": "guide", **fields},
    }
    _tell(msgspec.convert(ready, _Ready))
    return capsys.readouterr().out.splitlines()


def fact(lines: list[str], name: str) -> str:
    (line,) = [line for line in lines if line.startswith(f"  {name} ")]
    return line.removeprefix(f"  {name}").strip()


@pytest.mark.parametrize(
    ("called", "shown"),
    [
        (".venv/bin/rempart", ".venv/bin/rempart"),
        ("/opt/my apps/bin/rempart", "'/opt/my apps/bin/rempart'"),
        ("/src/rempart/cli/main.py", f"{shlex.quote(sys.executable)} -m rempart.cli.main"),
    ],
)
def test_the_command_is_named_as_it_was_called(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, called: str, shown: str
) -> None:
    monkeypatch.setattr(sys, "argv", [called, "up"])
    assert fact(told(capsys), "API keys") == f"{shown} key create --name NAME"
    assert fact(told(capsys, data="/srv/my data"), "API keys").endswith("--name NAME --data '/srv/my data'")


def test_a_command_on_the_path_is_named_by_its_name(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program = tmp_path / "rempart"
    program.touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "argv", [str(program), "up"])
    assert fact(told(capsys), "API keys") == "rempart key create --name NAME"


def test_the_key_is_expanded_by_the_shell_or_stands_there(capsys: pytest.CaptureFixture[str]) -> None:
    for fields, key in (({}, "$REMPART_KEY"), ({"key": "rp_1"}, "rp_1")):
        text = "\n".join(told(capsys, **fields))
        assert f'-H "Authorization: Bearer {key}"' in text


def test_any_name_of_a_model_can_be_pasted(capsys: pytest.CaptureFixture[str]) -> None:
    name = 'it\'s "one" $HOME `x`'
    lines = told(capsys, model=name)
    pasted = "\n".join(lines[lines.index(next(line for line in lines if "curl" in line)) :])
    words = shlex.split(pasted)
    assert msgspec.json.decode(words[words.index("-d") + 1])["model"] == name


def test_without_a_model_there_is_nothing_to_paste(capsys: pytest.CaptureFixture[str]) -> None:
    assert told(capsys, model="")[-1] == "The engines serve no model yet."
    lines = told(capsys, model="", ready=False, down={"v": "The engine v cannot be reached."})
    assert lines[0] == "Rempart is listening at http://127.0.0.1:1, but not ready: engine v cannot be reached"
    assert fact(lines, "Engine v is down") == "The engine v cannot be reached."
    assert "curl" not in "\n".join(lines)
