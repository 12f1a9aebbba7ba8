"""`Calls`: lets the nth system call on files fail, once or from then on, for tests of what a crash leaves."""

from __future__ import annotations

import errno
import os
from typing import Any, Final, Protocol

HOW: Final = ("not done", "half done", "done")
CALLS: Final = ("open", "pread", "pwrite", "ftruncate", "fdatasync", "fsync", "rename", "unlink", "mkdir", "rmdir")


class Patch(Protocol):
    """pytest's `MonkeyPatch`."""

    def setattr(self, target: object, name: str, value: object) -> None: ...


class Calls:
    """Counts calls below one directory; lets one fail."""

    def __init__(self, patch: Patch, at: int = 0, how: str = "not done", *, once: bool = False) -> None:
        self.count = 0
        self.dead = False
        """Nothing will succeed any more."""
        self._at, self._how, self._once = at, how, once
        for name in CALLS:
            patch.setattr(os, name, self._wrap(name, getattr(os, name)))

    def _wrap(self, name: str, real: Any) -> Any:
        def call(*arguments: Any, **named: Any) -> Any:
            self.count += 1
            fails = self._at and (self.count == self._at if self._once else self.count >= self._at)
            if not fails:
                return real(*arguments, **named)
            self.dead = not self._once
            if self._how == "half done" and name == "pwrite":
                descriptor, data, offset = arguments
                real(descriptor, data[: len(data) // 2], offset)
            elif self._how == "done" and name not in ("open", "pread"):
                real(*arguments, **named)
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        return call
