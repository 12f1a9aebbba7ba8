"""`rempart up`: serve until SIGTERM or SIGINT, then drain."""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import click
import msgspec
import uvloop

from rempart.cli.options import common, settings_of, show
from rempart.config.load import with_model
from rempart.config.settings import Settings
from rempart.gateway import control, logs
from rempart.gateway.server import Address, bind, serve
from rempart.identity.issue import KeyOrder
from rempart.ledger.writing.opening import read_vkey
from rempart.wiring import Progress, Site, open_site

_GARBAGE: Final = 20_000
"""Objects that may be in cycles before the collector looks."""


class _Ready(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What is told once the server takes requests."""

    url: str
    page: str
    vkey: str
    pid: int
    model: str = ""
    key: str = ""
    """Of the first start alone."""


@click.command()
@click.option("--host", help="Address to listen on [127.0.0.1].")
@click.option("--port", type=int, help="Port to listen on; 0 takes a free one [8080].")
@click.option("--model", type=click.Path(path_type=Path), help="A GGUF file to serve [the built-in guide].")
@common
def up(
    host: str | None,
    port: int | None,
    model: Path | None,
    data: Path | None,
    config_path: Path | None,
    as_json: bool,
) -> None:
    """Serve: one OpenAI-compatible door, every exchange in the ledger.

    Prints the address once it is ready, and at the very first start an API key. SIGTERM lets running answers end.
    """
    loaded = settings_of(data, config_path, **{"server.host": host, "server.port": port})
    settings = with_model(loaded.settings, model)
    logs.set_up(settings.logging.level)
    _raise_open_files()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_up(settings, _tell_json if as_json else _tell))


async def _up(settings: Settings, tell: Callable[[_Ready], None]) -> None:
    server = settings.server
    address = Address(host=server.host, port=server.port, certificate=server.certificate, key=server.key)
    sock = bind(address)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with open_site(settings, Progress(reading=_reading)) as site:
        first = await _first_key(site) if site.first_start else ""

        async def ready() -> None:
            _collect_seldom()
            tell(_ready(settings, sock.getsockname(), site, first))

        async with control.listening(control.socket_path(settings.data), site.administration.verbs()):
            await serve(site.gateway, sock, address, stop=stop, ready=ready)


async def _first_key(site: Site) -> str:
    text, _ = await site.administration.create_key(KeyOrder(name="first key", role="admin"))
    return text


def _ready(settings: Settings, name: tuple[Any, ...], site: Site, key: str) -> _Ready:
    scheme = "https" if settings.server.certificate is not None else "http"
    host = settings.server.host
    url = f"{scheme}://{f'[{host}]' if ':' in host else host}:{name[1]}"
    models = site.gateway.parts.router.models()
    return _Ready(
        url=url,
        page=f"{url}/",
        vkey=read_vkey(settings.data),
        pid=os.getpid(),
        model=models[0].model if models else "",
        key=key,
    )


def _tell_json(ready: _Ready) -> None:
    show(ready)
    sys.stdout.flush()


def _tell(ready: _Ready) -> None:
    key = ready.key or "$REMPART_KEY"
    body = f'{{"model":"{ready.model}","messages":[{{"role":"user","content":"What is Rempart?"}}]}}'
    lines = [
        f"Rempart is ready at {ready.url}",
        "",
        *(
            [f"  API key (shown this once)   {ready.key}"]
            if ready.key
            else ["  API keys   rempart key create --name NAME"]
        ),
        f"  Page                        {ready.page}",
        f"  Verifier key of the ledger  {ready.vkey}",
        "",
        "Ask it something:",
        "",
        f"  curl {ready.url}/v1/chat/completions -H 'Authorization: Bearer {key}' \\",
        f"    -H 'Content-Type: application/json' -d '{body}'",
        "",
    ]
    click.echo("\n".join(lines))
    sys.stdout.flush()


def _raise_open_files() -> None:
    """Connections are files: the usual soft limit of 1,024 is for programs that use select()."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _collect_seldom() -> None:
    """What is loaded by now stays; of an exchange hardly anything is left to the collector of cycles."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_GARBAGE)


def _reading(name: str, done: int, total: int) -> None:
    """Weights are large: show how far their digest is."""
    if sys.stderr.isatty() and total > 1 << 30:
        click.echo(f"\rReading {name}: {100 * done // total} %", nl=done == total, err=True)
