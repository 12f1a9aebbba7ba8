"""`upstreams` and `proxying`: nginx as the upstream with canned answers, and nginx as the proxy to measure against."""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from rempart.bench.canned import json_answer, models_answer, stream_answer

MODEL: Final = "canned"
_PLACES: Final = (None, "/usr/sbin:/usr/local/sbin:/usr/local/bin")
_READY_S: Final = 10.0
_MAIN: Final = """daemon off; {user}worker_processes 1; pid {root}/nginx.pid; error_log {root}/error.log;
events {{ worker_connections 4096; }}
http {{
  access_log off; keepalive_requests 100000000; tcp_nodelay on; sendfile on; root {root};
  client_body_temp_path {root}/body; proxy_temp_path {root}/proxy; fastcgi_temp_path {root}/fastcgi;
  uwsgi_temp_path {root}/uwsgi; scgi_temp_path {root}/scgi;
{servers}}}
"""
_CANNED: Final = """  server {{
    listen 127.0.0.1:{port} backlog=4096; error_page 405 =200 $uri;
    location = /v1/models {{ rewrite ^ /models.json last; }}
    location = /models.json {{ types {{}} default_type application/json; }}
    location = /v1/chat/completions {{ rewrite ^ /{file} last; }}
    location = /{file} {{ types {{}} default_type {type}; }}
  }}
"""
_PROXY: Final = """  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location / {{
      proxy_pass http://{name}; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off;
    }}
  }}
  upstream {name} {{ server 127.0.0.1:{upstream}; keepalive 512; }}
"""


class NginxMissing(Exception):
    """There is no nginx, or it did not start; the text says which."""


def find() -> str:
    """Its path. Raises `NginxMissing`."""
    for place in _PLACES:
        found = shutil.which("nginx", path=place)
        if found:
            return found
    raise NginxMissing("nginx is not installed")


def version() -> str:
    """Such as `nginx/1.22.1`. Raises `NginxMissing`."""
    said = subprocess.run([find(), "-v"], capture_output=True, text=True, check=False).stderr
    return said.rpartition(" ")[2].strip()


@contextlib.contextmanager
def upstreams(root: Path) -> Iterator[dict[str, int]]:
    """Ports by kind of answer: `json` and `stream`. Raises `NginxMissing`."""
    ports = {"json": free_port(), "stream": free_port()}
    root.mkdir(parents=True)
    (root / "models.json").write_bytes(models_answer(MODEL))
    (root / "answer.json").write_bytes(json_answer(MODEL))
    (root / "stream.txt").write_bytes(stream_answer(MODEL))
    servers = _CANNED.format(port=ports["json"], file="answer.json", type="application/json")
    servers += _CANNED.format(port=ports["stream"], file="stream.txt", type="text/event-stream")
    with _running(root, servers, tuple(ports.values())):
        yield ports


@contextlib.contextmanager
def proxying(root: Path, to: Mapping[str, int]) -> Iterator[tuple[dict[str, int], int]]:
    """(ports by kind of answer, process id of the master) for upstreams at `to`. Raises `NginxMissing`."""
    ports = {kind: free_port() for kind in to}
    root.mkdir(parents=True)
    servers = "".join(_PROXY.format(port=ports[kind], name=f"to_{kind}", upstream=port) for kind, port in to.items())
    with _running(root, servers, tuple(ports.values())) as pid:
        yield ports, pid


@contextlib.contextmanager
def _running(root: Path, servers: str, ports: tuple[int, ...]) -> Iterator[int]:
    config = root / "nginx.conf"
    config.write_text(_MAIN.format(root=root, servers=servers, user=_user()))
    with subprocess.Popen(
        [find(), "-c", str(config), "-e", str(root / "error.log")],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            for port in ports:
                if not listens(port, _READY_S, process):
                    raise NginxMissing(f"nginx did not start: {(root / 'error.log').read_text()[-400:]}")
            yield process.pid
        finally:
            process.terminate()


def _user() -> str:
    """Workers of a root master would become nobody, who cannot read our files."""
    if os.geteuid():
        return ""
    account = pwd.getpwuid(os.geteuid())
    return f"user {account.pw_name} {grp.getgrgid(account.pw_gid).gr_name}; "


def free_port() -> int:
    """A port of loopback that was free a moment ago."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def listens(port: int, within_s: float, process: subprocess.Popen[bytes]) -> bool:
    """Wait until something listens there; false when the process ends or the time is over before."""
    until = time.monotonic() + within_s
    while time.monotonic() < until and process.poll() is None:
        with socket.socket() as sock:
            if sock.connect_ex(("127.0.0.1", port)) == 0:
                return True
        time.sleep(0.05)
    return False
