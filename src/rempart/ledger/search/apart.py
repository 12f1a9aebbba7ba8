"""`build_apart`: builds the index in a nice process of its own: the gateway's is not slowed, and a crash of one is none
of the other."""

from __future__ import annotations

import gc
import multiprocessing
import os
from collections.abc import Callable, Sequence
from contextlib import closing
from multiprocessing.connection import Connection
from typing import Any, Final

import msgspec

from rempart.errors import LedgerUnavailable, RempartError
from rempart.ledger.search.build import Built, Progress

_NICE: Final = 10

Job = Callable[..., Built]
"""A function of a module (it is sent by its name), that takes its arguments and then `progress=`."""


def build_apart(job: Job, arguments: Sequence[Any], progress: Progress = lambda index: None) -> Built:
    """Run `job(*arguments, progress=…)`, which calls `build`, in a nice child, and wait for it.

    A started interpreter, not a fork: threads of this process do not matter. Raises `LedgerUnavailable` with what the
    child raised or died of. When the caller is interrupted, the child is ended.
    """
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe(duplex=False)
    child = context.Process(target=_child, args=(job, tuple(arguments), there), daemon=True, name="rempart-index")
    with closing(here):
        child.start()
        there.close()
        try:
            return _wait(here, progress)
        except EOFError as error:
            child.join()
            raise LedgerUnavailable(
                f"The builder of the search index ended with status {child.exitcode}.",
                hint="`rempart ledger index` goes on where it was.",
            ) from error
        finally:
            child.terminate()
            child.join()


def _wait(here: Connection, progress: Progress) -> Built:
    while True:
        kind, value = here.recv()
        if kind == "done":
            return msgspec.convert(value, Built)
        if kind == "failed":
            message, hint = value
            raise LedgerUnavailable(f"The search index was not built: {message}", hint=hint)
        progress(value)


def _child(job: Job, arguments: tuple[Any, ...], there: Connection) -> None:
    os.nice(_NICE)
    gc.disable()  # millions of strings and arrays, none in a cycle: looking through them takes a fifth of the time
    try:
        built = job(*arguments, progress=lambda index: there.send(("at", index)))
    except (RempartError, OSError) as error:
        hint = error.hint if isinstance(error, RempartError) else ""
        there.send(("failed", (str(error), hint)))
    else:
        there.send(("done", msgspec.to_builtins(built)))
