"""`rempart.gateway.logs`: a record is one line of JSON, whatever it holds."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from rempart.gateway.logs import JsonFormatter, TextFormatter, set_up


def line(message: str, *args: object, extra: dict[str, object] | None = None, error: bool = False) -> dict[str, Any]:
    logger = logging.getLogger("rempart.tests")
    failure = sys.exc_info() if error else None
    record = logger.makeRecord(logger.name, logging.WARNING, "file.py", 1, message, args, failure, extra=extra)
    record.created = 0.5
    text = JsonFormatter().format(record)
    assert "\n" not in text
    found: dict[str, Any] = msgspec.json.decode(text)
    return found


def test_a_record_is_time_level_logger_and_message() -> None:
    assert line("engine %s", "down") == {
        "time": "1970-01-01T00:00:00.500+00:00",
        "level": "warning",
        "logger": "rempart.tests",
        "message": "engine down",
    }


def test_the_time_can_be_read() -> None:
    assert datetime.fromisoformat(line("x")["time"]) == datetime.fromtimestamp(0.5, UTC)


def test_what_was_given_as_extra_stands_beside_it() -> None:
    found = line("engine down", extra={"engine": "far", "exit_status": 9, "path": Path("/tmp/x")})
    assert (found["engine"], found["exit_status"], found["path"]) == ("far", 9, "/tmp/x")


def test_a_message_cannot_begin_a_line_of_its_own() -> None:
    assert line("one\ntwo\r\n\u2028three")["message"] == "one\ntwo\r\n\u2028three"


def test_an_exception_is_told_in_its_record() -> None:
    try:
        raise ValueError("it broke")
    except ValueError:
        found = line("failed", error=True)
    assert found["exception"].startswith("Traceback")
    assert found["exception"].endswith("ValueError: it broke")


@pytest.mark.parametrize("value", [b"bytes", {1, 2}, 2**70, float("nan"), None, Exception("x"), object])
def test_any_value_can_be_told(value: object) -> None:
    assert "value" in line("x", extra={"value": value})


@pytest.mark.parametrize("text", ["\udcff", "a\x00b", "\x1b[31m"])
def test_any_text_can_be_told(text: str) -> None:
    """Such as a file name that is not UTF-8."""
    assert line("no file %s", text)["level"] == "warning"


def text(message: str, extra: dict[str, object] | None = None) -> str:
    """As on a terminal, without the time."""
    logger = logging.getLogger("rempart.tests")
    shown = TextFormatter().format(
        logger.makeRecord(logger.name, logging.WARNING, "f.py", 1, message, (), None, extra=extra)
    )
    assert re.match(r"\d\d:\d\d:\d\d ", shown)
    return shown[9:]


def test_on_a_terminal_a_record_is_text() -> None:
    assert text("engine down", {"engine": "far", "exit_status": 9}) == "warning  engine down  engine=far  exit_status=9"


@pytest.mark.parametrize("value", ["a\nb", "\x1b[31m", "\u2028", "\u202e", "\udcff", "a\x00b"])
def test_on_a_terminal_no_value_moves_the_cursor(value: str) -> None:
    shown = text(value, {"value": value, "more": {"inner": value}})
    assert shown.isprintable()


def test_on_a_terminal_an_exception_stands_below_its_record() -> None:
    logger = logging.getLogger("rempart.tests")
    try:
        raise ValueError("it broke")
    except ValueError:
        record = logger.makeRecord(logger.name, logging.ERROR, "f.py", 1, "failed", (), sys.exc_info())
    shown = TextFormatter().format(record).splitlines()
    assert shown[0].endswith("error    failed")
    assert shown[1].startswith("Traceback")


def test_a_terminal_gets_text_and_all_else_gets_json(root: logging.Logger, monkeypatch: pytest.MonkeyPatch) -> None:
    for terminal, kind in ((True, TextFormatter), (False, JsonFormatter)):
        monkeypatch.setattr(sys.stderr, "isatty", lambda terminal=terminal: terminal, raising=False)
        set_up("info")
        assert isinstance(root.handlers[0].formatter, kind)


@pytest.fixture
def root() -> Iterator[logging.Logger]:
    """The root logger, put back afterwards."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    others = {name: logging.getLogger(name).level for name in ("asyncio", "uvicorn")}
    yield root
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, before in others.items():
        logging.getLogger(name).setLevel(before)


def test_set_up_writes_to_stderr_from_the_level_on(root: logging.Logger, capsys: pytest.CaptureFixture[str]) -> None:
    set_up("info")
    logging.getLogger("rempart.tests").info("told")
    logging.getLogger("rempart.tests").debug("not told")
    out, err = capsys.readouterr()
    assert out == ""
    assert [msgspec.json.decode(one)["message"] for one in err.splitlines()] == ["told"]


def test_set_up_twice_writes_once(root: logging.Logger, capsys: pytest.CaptureFixture[str]) -> None:
    set_up("info")
    set_up("error")
    logging.getLogger("rempart.tests").warning("not told")
    logging.getLogger("rempart.tests").error("told")
    assert len(capsys.readouterr().err.splitlines()) == 1
