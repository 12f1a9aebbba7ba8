"""`Reading.record`: a read on the command line becomes an entry of the ledger before anything of it is printed."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import click
import msgspec

from rempart.cli.options import PathOption
from rempart.config.settings import Settings
from rempart.errors import UsageError
from rempart.wiring import administer

F = TypeVar("F", bound=Callable[..., Any])
HOW: Final = "What was said is shown with --reason TEXT and an auditor's key in REMPART_KEY or --key-file."
_UNRECORDED: Final = "Not recorded: this directory has no keys, so it is a copy."
_EXCHANGE: Final = re.compile(r"[0-9a-f]{32}")
_VARIABLE: Final = "REMPART_KEY"


def reader(command: F) -> F:
    """`--reason`, `--key-file` and `--second-key-file`, for `Reading.of`."""
    for name, said in (
        ("second_key_file", "File with a second auditor's key, where the settings ask for four eyes."),
        ("key_file", "File with the reader's API key [REMPART_KEY, with --reason]."),
    ):
        command = click.option(f"--{name.replace('_', '-')}", name, type=PathOption(), help=said)(command)
    return click.option("--reason", default="", help="Show what was said, for this reason; it is recorded.")(command)


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """Who reads on the command line, and why."""

    settings: Settings
    reason: str
    """Why what was said is shown; empty: it is not."""
    key: str
    second: str

    @classmethod
    def of(cls, settings: Settings, *, reason: str, key_file: Path | None, second_key_file: Path | None) -> Reading:
        """Raises `UsageError`. Without a reason the variable is left alone: it is there for asking models."""
        key = _text(key_file) or (os.environ.get(_VARIABLE, "") if reason else "")
        if reason and not key:
            raise UsageError("What was said is shown to auditors alone, and no key was given.", hint=HOW)
        return cls(settings=settings, reason=reason, key=key, second=_text(second_key_file))

    def record(self, verb: str, *, found: int, bodies: int = 0, query: str = "") -> None:
        """Durable when it returns. `query`: an exchange's id, or what else was asked for.

        Raises `LedgerUnavailable`, `Forbidden`, `Unauthenticated`; then nothing may be shown. A copy without keys
        cannot be written to: that is said.
        """
        if not (self.settings.data / "keys" / "root.key").exists():
            click.echo(_UNRECORDED, err=True)
            return
        order = {
            **{"verb": verb, "found": found, "bodies": bodies, "query": query, "reason": self.reason},
            **{"disclosed": bool(self.reason), "key": self.key, "second": self.second},
            "exchange": query if _EXCHANGE.fullmatch(query) else "",
        }
        asyncio.run(administer(self.settings, "read.record", order))


def _text(path: Path | None) -> str:
    if path is None:
        return ""
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read as a key: {error}.", hint="Give a file that holds a key.") from error
