"""Real servers and tokens that several rooms are tested with: a private PostgreSQL, a private SoftHSM token."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import msgspec
import pytest

hypothesis.settings.register_profile(
    "unhurried", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("unhurried")  # a busy machine is no failure

_HSM = "/usr/lib/softhsm/libsofthsm2.so"
_WHO_RUNS_IT = "nobody"
# Runs beside the tests, and outlives them: whatever ends them, the server stops and its folder goes.
_AFTER_US = """
import os, shutil, signal, sys, time
folder = sys.argv[1]
sys.stdin.read()
try:
    pid = int(open(f"{folder}/data/postmaster.pid").readline())
    os.kill(pid, signal.SIGQUIT)
    for _ in range(600):
        os.kill(pid, 0)
        time.sleep(0.05)
except (OSError, ValueError):
    pass
shutil.rmtree(folder, ignore_errors=True)
"""


class Postgres(msgspec.Struct, frozen=True):
    """A running cluster; only its owner and root reach its socket."""

    directory: Path
    """Data directory, its WAL included."""
    conninfo: str
    """Of its database `postgres`."""
    control: Callable[..., None]
    """Runs pg_ctl on it with these arguments."""

    def address(self, name: str) -> str:
        """Of a new database, as settings give it."""
        given = dict(part.split("=") for part in self.database(name).split())
        return f"postgresql:///{given['dbname']}?host={given['host']}&user={given['user']}"

    def database(self, name: str) -> str:
        """A new database; its conninfo."""
        import psycopg

        with psycopg.connect(self.conninfo, autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}"')
        return self.conninfo.replace("dbname=postgres", f"dbname={name}")


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    programs = _postgres_programs()
    folder = Path(tempfile.mkdtemp(prefix="rempart-pg-"))
    user: dict[str, object] = {}
    if os.geteuid() == 0:  # the server refuses to run as root
        shutil.chown(folder, _WHO_RUNS_IT)
        user = {"user": _WHO_RUNS_IT, "extra_groups": []}
    data = folder / "data"

    def run(program: str, *arguments: str) -> None:
        command = [str(programs / program), *arguments]
        subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL, timeout=60, **user)  # type: ignore[call-overload]

    def control(*arguments: str) -> None:
        run("pg_ctl", "-D", str(data), "-w", "-l", str(folder / "log"), *arguments)

    after_us = [sys.executable, "-c", _AFTER_US, str(folder)]
    guard = subprocess.Popen(after_us, stdin=subprocess.PIPE, start_new_session=True)
    try:
        run("initdb", "-D", str(data), "-U", "rempart", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "-N")
        options = f"listen_addresses = ''\nunix_socket_directories = '{folder}'\nmax_connections = 50\n"
        with (data / "postgresql.conf").open("a") as file:
            file.write(options)
        control("start")
        yield Postgres(data, f"host={folder} user=rempart dbname=postgres", control)
    finally:
        guard.communicate(timeout=60)


def _postgres_programs() -> Path:
    found = shutil.which("initdb")
    candidates = [Path(found).resolve().parent] if found else sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not candidates:
        pytest.skip("the server of PostgreSQL is not installed (Debian: postgresql)")
    return candidates[-1]


class Token(msgspec.Struct, frozen=True):
    """An initialised token of SoftHSM."""

    library: Path
    label: str
    pin: str


@pytest.fixture(scope="session")
def token(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Token]:
    program = shutil.which("softhsm2-util")
    if program is None or not Path(_HSM).exists():
        pytest.skip("SoftHSM is not installed (Debian: softhsm2)")
    folder = tmp_path_factory.mktemp("softhsm")
    (folder / "tokens").mkdir()
    (folder / "softhsm2.conf").write_text(f"directories.tokendir = {folder / 'tokens'}\nlog.level = ERROR\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOFTHSM2_CONF", str(folder / "softhsm2.conf"))
        made = Token(Path(_HSM), "rempart", "the user's pin")
        pins = ["--so-pin", "the officer's pin", "--pin", made.pin]
        command = [program, "--init-token", "--free", "--label", made.label, *pins]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=60)
        yield made
