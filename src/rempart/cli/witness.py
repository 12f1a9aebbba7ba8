"""`rempart witness`: cosign the checkpoints of other logs."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any

import click
import uvloop

from rempart.cli.options import common, settings_of, show
from rempart.config.settings import Settings
from rempart.gateway import logs as gateway_logs
from rempart.gateway.plain import serve_plain
from rempart.gateway.server import Address, bind
from rempart.ledger.store.ownership import own
from rempart.wiring_attesting import open_witness_app
from rempart.witness.opening import make_keys, read_vkeys


@click.group()
def witness() -> None:
    """Be a witness: cosign checkpoints of logs that only grow."""


@witness.command()
@click.option(
    "--logs",
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A C2SP tlog-policy with 'log' lines, or verifier keys, one a line.",
)
@click.option("--name", default="", help="Name of the witness; it is fixed when its keys are made.")
@click.option("--host", help="Address to listen on [127.0.0.1].")
@click.option("--port", type=int, help="Port to listen on; 0 takes a free one [8080].")
@common
def serve(logs: Path, name: str, data: Path | None, config_path: Path | None, as_json: bool, **address: Any) -> None:
    """Cosign what the logs send, until SIGTERM. Beyond loopback it needs server.certificate and server.key."""
    options = {f"server.{option}": value for option, value in address.items()}
    settings = settings_of(data, config_path, **options).settings
    gateway_logs.set_up(settings.logging.level)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(settings, name, logs.read_bytes(), as_json))


async def _serve(settings: Settings, name: str, logs: bytes, as_json: bool) -> None:
    server = settings.server
    address = Address(host=server.host, port=server.port, certificate=server.certificate, key=server.key)
    sock = bind(address)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    scheme = "https" if server.certificate is not None else "http"
    host = f"[{server.host}]" if ":" in server.host else server.host
    url = f"{scheme}://{host}:{sock.getsockname()[1]}"
    with open_witness_app(settings, name, logs) as (app, vkeys):

        def ready() -> None:
            if as_json:
                show({"url": url, "vkeys": vkeys, "pid": os.getpid()})
            else:
                click.echo("\n".join([f"The witness is ready at {url}", *(f"  {vkey}" for vkey in vkeys)]))
            sys.stdout.flush()

        await serve_plain(app, sock, address, stop=stop, ready=ready)


@witness.command(short_help="Print the witness's verifier keys.")
@click.option("--name", default="", help="Name of the witness, to make its keys where there are none yet.")
@common
def key(name: str, data: Path | None, config_path: Path | None, as_json: bool) -> None:
    """Print the verifier keys of the witness, for the policies of the logs that it cosigns."""
    directory = settings_of(data, config_path).settings.data
    vkeys = read_vkeys(directory)
    if not vkeys:
        with own(directory):
            vkeys = make_keys(directory, name)
    if as_json:
        show({"vkeys": vkeys})
        return
    for vkey in vkeys:
        click.echo(vkey)
