"""`look`: what the figures were measured on."""

from __future__ import annotations

import os
import platform
from pathlib import Path

from rempart.bench.results import Machine


def look(directory: Path) -> Machine:
    """`directory` is where the ledger is written."""
    return Machine(
        processor=_processor(Path("/proc/cpuinfo").read_text()),
        cores=len(os.sched_getaffinity(0)),
        kernel=platform.release(),
        python=platform.python_version(),
        file_system=file_system(directory.resolve(), Path("/proc/mounts").read_text()),
        load_average=os.getloadavg()[0],
    )


def file_system(path: Path, mounts: str) -> str:
    """The type of the mount that holds `path`, from the text of /proc/mounts."""
    best, kind = Path("/"), "unknown"
    for line in mounts.splitlines():
        _, where, type, *_ = line.split()
        place = Path(where.replace("\\040", " "))
        if path.is_relative_to(place) and len(place.parts) >= len(best.parts):
            best, kind = place, type
    return kind


def _processor(cpuinfo: str) -> str:
    for line in cpuinfo.splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
