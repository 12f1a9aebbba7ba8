"""`python -m rempart.cli.worker`: a worker of a site, started by `rempart up --workers` with four descriptors.

SIGTERM and SIGINT are the primary's affair: service managers send them to every process, and it tells us to drain.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Sequence
from typing import NoReturn

import uvloop

from rempart.cli.collecting import collect_seldom
from rempart.config.settings import Settings
from rempart.errors import RempartError
from rempart.gateway import logs
from rempart.wiring_workers import Descriptors, work

_log = logging.getLogger("rempart")


def main(arguments: Sequence[str]) -> int:
    """0 when it was told to end, 3 when it cannot serve, or its primary is gone."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    ledger, desk, listening, slots = map(int, arguments)
    given = Descriptors(ledger=ledger, desk=desk, listening=listening, slots=slots)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            runner.run(work(given, _begin, _orphaned))
        except RempartError as error:
            _log.error("worker cannot serve: %s %s", error.message, error.hint)
            return error.exit_code
    return 0


def _begin(settings: Settings) -> None:
    logs.set_up(settings.logging.level)
    collect_seldom()


def _orphaned() -> NoReturn:
    """At once: what the primary has not recorded cannot be recorded any more, and nobody may be answered without."""
    os._exit(RempartError.exit_code)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
