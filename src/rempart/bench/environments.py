"""`environment`: somebody else's program in a virtual environment of its own, as its lock pins it, made once.

It lies under the hash of its lock and is marked when it is whole: what a broken installation left is never used, and
an unchanged lock is never installed twice. Ours stays as it is.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

LOCKS: Final = Path(__file__).resolve().parents[3] / "locks"
_WHOLE: Final = ".installed"
_INSTALL_S: Final = 2_400.0
_PYTHON: Final = (3, 11)


class EnvironmentMissing(Exception):
    """It could not be made; the text says why."""


class Environment(msgspec.Struct, frozen=True, kw_only=True):
    """What is installed, and where."""

    name: str
    lock: Path
    place: Path

    @property
    def python(self) -> Path:
        return self.place / "bin" / "python"

    @property
    def packages(self) -> Path:
        return next((self.place / "lib").glob("python*/site-packages"))

    @property
    def whole(self) -> bool:
        return (self.place / _WHOLE).exists()

    def version(self, package: str) -> str:
        """As the lock pins it; empty when it does not name it."""
        for line in self.lock.read_text().splitlines():
            if line.startswith(f"{package}=="):
                return line.removeprefix(f"{package}==").split()[0]
        return ""


def environment(name: str, lock: Path, cache: Path) -> Environment:
    """Where it lies once it is made: `<cache>/<name>-<hash of the lock>`. Raises `EnvironmentMissing`."""
    try:
        digest = hashlib.sha256(lock.read_bytes()).hexdigest()
    except FileNotFoundError as error:
        raise EnvironmentMissing(f"{lock.name} is missing: run from a checkout") from error
    return Environment(name=name, lock=lock, place=cache / f"{name}-{digest[:16]}")


def engines_cache() -> Path:
    """`REMPART_ENGINES_CACHE`, or a folder of the user's cache."""
    return Path(os.environ.get("REMPART_ENGINES_CACHE") or user_cache() / "engines")


def user_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rempart"


def make(wanted: Environment, python: str, tell: Callable[[str], None]) -> None:
    """Install it for that interpreter, unless it is there. `tell` gets a line at the beginning and one at the end.

    Raises `EnvironmentMissing`.
    """
    if wanted.whole:
        return
    wanted.place.parent.mkdir(parents=True, exist_ok=True)
    with (wanted.place.parent / f".{wanted.name}.lock").open("w") as owned:
        fcntl.flock(owned, fcntl.LOCK_EX)  # another checkout may be making it
        if wanted.whole:
            return
        shutil.rmtree(wanted.place, ignore_errors=True)
        tell(f"Installing {wanted.name} into {wanted.place} ...")
        began = time.monotonic()
        _run([python, "-m", "venv", str(wanted.place)])
        # The locks are whole, and some override what a package asks for: pip is not to follow dependencies.
        pip = [str(wanted.python), "-m", "pip", "--disable-pip-version-check", "--quiet", "install", "--no-compile"]
        _run([*pip, "--no-deps", "--require-hashes", "-r", str(wanted.lock)])
        (wanted.place / _WHOLE).touch()
        tell(f"{wanted.name}: {size_bytes(wanted.place) / 1e6:,.0f} MB in {time.monotonic() - began:.0f} s")


def size_bytes(place: Path) -> int:
    """Of all files below it, as they lie on the disk."""
    return sum(path.lstat().st_blocks * 512 for path in place.rglob("*"))


def engines_python() -> str:
    """The interpreter that the locks of engines are for: one Python on one kind of machine.

    Raises `EnvironmentMissing`.
    """
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        raise EnvironmentMissing(f"the locks are for linux on x86_64; this is {sys.platform} on {platform.machine()}")
    name = f"python{_PYTHON[0]}.{_PYTHON[1]}"
    found = sys.executable if sys.version_info[:2] == _PYTHON else shutil.which(name)
    if found is None:
        raise EnvironmentMissing(f"the locks are for {name}, which is not installed")
    return found


def _run(command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_INSTALL_S)
    except subprocess.TimeoutExpired as error:
        raise EnvironmentMissing(f"its installation took over {_INSTALL_S:.0f} s") from error
    if done.returncode:
        raise EnvironmentMissing(f"it could not be installed: {_last_line(done.stderr)}")


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else "it said nothing"
