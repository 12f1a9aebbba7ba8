"""`set_up`: operational logs on stderr: JSON lines, or plain text when a person reads them on a terminal.

No prompt, completion or key ever goes into one.
"""

from __future__ import annotations

import logging
import sys
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

_STANDARD: Final = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime"}


class JsonFormatter(logging.Formatter):
    """`time`, `level`, `logger`, `message`, and what was given as `extra`."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line.update(_extra(record))
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return msgspec.json.encode(_tellable(line), enc_hook=str).decode()


class TextFormatter(logging.Formatter):
    """`12:00:05 warning  engine down  engine=vllm`: local time, one line, what was given as `extra` behind it."""

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created).strftime("%H:%M:%S")
        extra = "".join(f"  {name}={_plain(value)}" for name, value in _extra(record).items())
        line = f"{time} {record.levelname.lower():<8} {_plain(record.getMessage())}{extra}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def _extra(record: logging.LogRecord) -> dict[str, Any]:
    return {name: value for name, value in record.__dict__.items() if name not in _STANDARD}


def _plain(value: object) -> str:
    """What a terminal may be given: no control sequence out of somebody's text."""
    text = str(_tellable(value))
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


def _tellable(value: Any) -> Any:
    """File names may hold bytes that are no UTF-8 (lone surrogates in Python): a log line must not fail on them."""
    if isinstance(value, str):
        return value.encode(errors="backslashreplace").decode()
    if isinstance(value, dict):
        return {_tellable(name): _tellable(inner) for name, inner in value.items()}
    return value if isinstance(value, int | float | bool | None) else _tellable(str(value))


def set_up(level: str) -> None:
    """Of this process."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(TextFormatter() if sys.stderr.isatty() else JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    logging.getLogger("asyncio").setLevel(logging.WARNING)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
