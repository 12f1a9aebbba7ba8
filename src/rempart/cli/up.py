"""`rempart up`: serve until SIGTERM or SIGINT, then drain; a second one ends at once."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import resource
import shlex
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import click
import msgspec
import uvloop

from rempart.cli.collecting import collect_seldom
from rempart.cli.options import PathOption, common, settings_of, show
from rempart.config.load import with_model
from rempart.config.settings import Settings
from rempart.gateway import control, logs
from rempart.gateway.server import Address, Stop, bind, serve
from rempart.identity.issue import KeyOrder
from rempart.ledger.writing.opening import read_vkey
from rempart.wiring import Site, open_site
from rempart.wiring_engines import Progress
from rempart.wiring_workers import crewed

_log = logging.getLogger("rempart")


class _Ready(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What is told once the server listens."""

    ready: bool
    """Whether it takes exchanges: `/readyz` says from when on, if not now."""
    url: str
    page: str
    vkey: str
    pid: int
    data: str
    model: str = ""
    key: str = ""
    """Of the first start alone."""
    down: Mapping[str, str] = {}
    """Engine -> why it is not ready."""


@click.command(short_help="Start the service.")
@click.option("--host", help="Address to listen on [127.0.0.1].")
@click.option("--port", type=int, help="Port to listen on; 0 takes a free one [8080].")
@click.option("--workers", type=int, help="Processes that answer together, over one ledger [1].")
@click.option("--model", type=PathOption(), help="A GGUF file to serve [the built-in guide].")
@common
def up(
    model: Path | None,
    data: Path | None,
    config_path: Path | None,
    as_json: bool,
    **server: Any,
) -> None:
    """Serve: one OpenAI-compatible door, every exchange in the ledger.

    Prints the address once it is ready, and at the very first start an API key. Ctrl-C or SIGTERM lets running
    answers end; a second one cuts them.
    """
    loaded = settings_of(data, config_path, **{f"server.{name}": given for name, given in server.items()})
    settings = with_model(loaded.settings, model)
    logs.set_up(settings.logging.level)
    _raise_open_files()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            runner.run(_up(settings, _tell_json if as_json else _tell))
        except asyncio.CancelledError:
            raise click.Abort from None  # it was stopped before it had started
    _say_stopped()


async def _up(settings: Settings, tell: Callable[[_Ready], None]) -> None:
    server = settings.server
    address = Address(host=server.host, port=server.port, certificate=server.certificate, key=server.key)
    sock = bind(address, shared=server.workers > 1)
    stop = Stop(drain=asyncio.Event(), cut=asyncio.Event(), draining=_stopping(server.drain_s))
    signals = _Signals(stop)
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, signals.came)
    async with open_site(settings, Progress(reading=_reading)) as site:
        signals.started()
        first = await _first_key(site) if site.first_start else ""

        async def ready() -> None:
            collect_seldom()
            tell(_ready(settings, sock.getsockname(), site, first))

        verbs = {**site.administration.verbs(), **site.reads.verbs()}
        async with (
            control.listening(control.socket_path(settings.data), verbs),
            crewed(settings, site, sock, stop),
            _ending(site, stop),
        ):
            await serve(site.gateway, sock, address, stop=stop, ready=ready)


@contextlib.asynccontextmanager
async def _ending(site: Site, stop: Stop) -> AsyncIterator[None]:
    """A keystore that is another's now ends all at once: what is in memory may be erased there."""

    async def end() -> None:
        await site.taken.wait()
        stop.drain.set()
        stop.cut.set()

    task = asyncio.create_task(end())
    try:
        yield
    finally:
        task.cancel()


class _Signals:
    """The first one ends the start, or drains; the second one cuts."""

    def __init__(self, stop: Stop) -> None:
        self._stop = stop
        self._starting = asyncio.current_task()

    def started(self) -> None:
        self._starting = None

    def came(self) -> None:
        if self._stop.drain.is_set():
            self._stop.cut.set()
        self._stop.drain.set()
        if self._starting is not None:
            self._starting.cancel()


def _stopping(drain_s: float) -> Callable[[int], None]:
    """What is said as it begins to drain: to a person on the terminal, else to the log."""

    def say(running: int) -> None:
        if not sys.stderr.isatty():
            _log.info("stopping", extra={"running": running, "drain_s": drain_s})
        elif running:
            answers = "1 answer" if running == 1 else f"{running} answers"
            click.echo(f"\nStopping: {answers} still running, up to {drain_s:g} s; Ctrl-C again cuts them.", err=True)
        else:
            click.echo("\nStopping.", err=True)

    return say


def _say_stopped() -> None:
    if sys.stderr.isatty():
        click.echo("Stopped.", err=True)
    else:
        _log.info("stopped")


async def _first_key(site: Site) -> str:
    text, _ = await site.administration.create_key(KeyOrder(name="first key", role="admin"))
    return text


def _ready(settings: Settings, name: tuple[Any, ...], site: Site, key: str) -> _Ready:
    scheme = "https" if settings.server.certificate is not None else "http"
    host = settings.server.host
    url = f"{scheme}://{f'[{host}]' if ':' in host else host}:{name[1]}"
    router = site.gateway.parts.router
    models, engines = router.models(), router.states()
    down = {name: why for name, why in engines.items() if why}
    return _Ready(
        ready=not all(engines.values()),
        url=url,
        page=f"{url}/",
        vkey=read_vkey(settings.data),
        pid=os.getpid(),
        data=str(settings.data),
        model=next((target.model for target in models if target.engine not in down), ""),
        key=key,
        down=down,
    )


def _tell_json(ready: _Ready) -> None:
    show(ready)
    sys.stdout.flush()


def _tell(ready: _Ready) -> None:
    engines = ", ".join(f"engine {name}" for name in ready.down)
    facts = [
        ("API key (shown this once)", ready.key) if ready.key else ("API keys", _key_create(ready.data)),
        ("Page", ready.page),
        ("Verifier key of the ledger", ready.vkey),
        *((f"Engine {name} is down", why) for name, why in ready.down.items()),
    ]
    wide = max(len(name) for name, _ in facts)
    lines = [
        f"Rempart is ready at {ready.url}"
        if ready.ready
        else f"Rempart is listening at {ready.url}, but not ready: {engines} cannot be reached",
        "",
        *(f"  {name:<{wide}}  {value}" for name, value in facts),
        "",
        *(_question(ready) if ready.model else ["The engines serve no model yet."] if ready.ready else []),
    ]
    click.echo("\n".join(lines))
    sys.stdout.flush()


def _question(ready: _Ready) -> list[str]:
    """A line to paste. In double quotes the shell expands the variable, where no key can be shown."""
    message = {"model": ready.model, "messages": [{"role": "user", "content": "What is Rempart?"}]}
    body = shlex.quote(msgspec.json.encode(message).decode())
    key = ready.key or "$REMPART_KEY"
    return [
        "Ask it something:" if ready.key else "Ask it something, with your API key in REMPART_KEY:",
        "",
        f"  curl -w '\\n' {ready.url}/v1/chat/completions -H \"Authorization: Bearer {key}\" \\",
        f"    -H 'Content-Type: application/json' -d {body}",
        "",
    ]


def _key_create(data: str) -> str:
    where = "" if Path(data) == Settings().data else f" --data {shlex.quote(data)}"
    return f"{_called()} key create --name NAME{where}"


def _called() -> str:
    """This command as it was called, for the shell: it may not be on its path."""
    program = Path(sys.argv[0])
    if program.name != "rempart":
        return f"{shlex.quote(sys.executable)} -m rempart.cli.main"
    found = shutil.which("rempart")
    return "rempart" if found and Path(found) == program else shlex.quote(sys.argv[0])


def _raise_open_files() -> None:
    """Connections are files: the usual soft limit of 1,024 is for programs that use select()."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _reading(name: str, done: int, total: int) -> None:
    """Weights are large: show how far their digest is."""
    if sys.stderr.isatty() and total > 1 << 30:
        click.echo(f"\rReading {name}: {100 * done // total} %", nl=done == total, err=True)
