"""The process that runs llama.cpp: `python -m rempart.engines.llamacpp_child`, started by `embedded`.

It reads one line of JSON from stdin (a secret must not stand in an argument list), answers one line with its port,
and lives as long as its parent: the kernel kills it when the parent dies, and it leaves when stdin is closed. It has
a session of its own, so that the signals of the parent's terminal do not reach it.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from typing import Any, Final

import msgspec

_PR_SET_PDEATHSIG: Final = 1
_POOLING_MEAN: Final = 1
_HTTP_THREADS: Final = 256
_LOG_WARNINGS: Final = 2


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What to serve."""

    parent: int
    model: str
    alias: str
    api_key: str
    context_tokens: int
    parallel: int
    threads: int


def main() -> None:
    """Serve until stdin ends."""
    order = msgspec.json.decode(sys.stdin.buffer.readline(), type=Order)
    _die_with(order.parent)
    # llama.cpp writes to stdout what it likes: the answer line needs a way of its own.
    answer = os.dup(1)
    os.dup2(2, 1)
    server = _serve(order)  # it stops when it is collected
    os.write(answer, msgspec.json.encode({"url": server.listening_address}) + b"\n")
    os.close(answer)
    sys.stdin.buffer.read()
    os._exit(0)


def _die_with(parent: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL) != 0 or os.getppid() != parent:
        os._exit(1)


def _serve(order: Order) -> Any:
    import xllamacpp  # 100 MB of libraries, needed in this process alone

    params = xllamacpp.CommonParams()
    params.model.path = order.model
    params.model_alias = {order.alias}
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.api_keys = [order.api_key]
    params.n_ctx = order.context_tokens * order.parallel
    params.n_parallel = order.parallel
    params.cont_batching = True
    params.embedding = True
    params.pooling_type = xllamacpp.llama_pooling_type(_POOLING_MEAN)
    params.use_jinja = True
    params.offline = True
    # Each answer that is waited for holds a thread; without some to spare nobody learns that the engine lives.
    params.n_threads_http = _HTTP_THREADS
    params.ui = False
    params.endpoint_metrics = True  # what it says it served is held against the ledger
    params.endpoint_slots = False
    params.endpoint_props = False
    params.verbosity = _LOG_WARNINGS
    if order.threads:
        params.cpuparams.n_threads = order.threads
        params.cpuparams_batch.n_threads = order.threads
    return xllamacpp.Server(params)


if __name__ == "__main__":
    main()
