"""`Copies.answer`: the files of the ledger for whoever keeps a copy: read-only, for auditors and administrators.

What is offered is signed or encrypted; keys, settings and the tables of API keys are under no name that is taken here.
That somebody copies is a `read` entry, once an hour for each key: one for each look would feed the copy with itself.
"""

from __future__ import annotations

import asyncio
import os
import re
from typing import TYPE_CHECKING, Final

import msgspec

from rempart import limits
from rempart.errors import NotFound, UsageError
from rempart.gateway.http import NO_STORE, Headers, Request
from rempart.gateway.reads import Read, reader_of
from rempart.identity.caller import Caller

if TYPE_CHECKING:
    from rempart.gateway.app import Gateway

PREFIX: Final = "/rempart/v1/ledger/files/"
_BYTES: Final = (b"content-type", b"application/octet-stream")
_RANGE: Final = re.compile(rb"bytes=([0-9]{1,18})-([0-9]{1,18})")
_INVENTORY: Final = "inventory"


class Copies:
    """The files of one gateway's ledger."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._noted: dict[str, float] = {}
        """Id of a key -> loop time at which its copying was recorded."""

    async def answer(self, request: Request, caller: Caller) -> None:
        """Raises `Forbidden`, or `NotFound` when no file of a ledger bears that name."""
        caller.require("read_ledger")
        files = self._gateway.parts.files
        name = request.path.removeprefix(PREFIX)
        if files is None:
            raise NotFound("This gateway does not keep the files of the ledger.", hint="Ask the one that does.")
        await self._note(caller)
        try:
            if name == _INVENTORY or name.endswith(f"/{_INVENTORY}"):
                listed = await asyncio.to_thread(files.inventory_of, name.removesuffix(_INVENTORY))
                await request.reply_json(200, msgspec.json.encode(listed))
                return
            descriptor = await asyncio.to_thread(files.open, name)
        except UsageError as error:
            raise NotFound(error.message, hint=error.hint) from error
        try:
            await _send(request, descriptor)
        finally:
            os.close(descriptor)

    async def _note(self, caller: Caller) -> None:
        """Raises `LedgerUnavailable`; then nothing is offered."""
        now = asyncio.get_running_loop().time()
        if now - self._noted.get(caller.key, -limits.replica_noted_s) < limits.replica_noted_s:
            return
        parts = self._gateway.parts
        await parts.reads.record(reader_of(caller), Read(verb="replicate", found=parts.journal.state().tree_size))
        self._noted[caller.key] = now


async def _send(request: Request, descriptor: int) -> None:
    """The file, or the one range of it that was asked for (RFC 9110 section 14), a part at a time."""
    size = os.fstat(descriptor).st_size
    begin, end, status, headers = 0, size, 200, [_BYTES, NO_STORE]
    asked = _RANGE.fullmatch(request.header(b"range"))
    if asked is not None:
        begin, end = int(asked[1]), min(int(asked[2]) + 1, size)
        if begin >= end:
            await request.reply(416, b"", [_BYTES, NO_STORE, (b"content-range", b"bytes */%d" % size)])
            return
        status = 206
        headers.append((b"content-range", b"bytes %d-%d/%d" % (begin, end - 1, size)))
    await _stream(request, descriptor, (begin, end), status, headers)


async def _stream(request: Request, descriptor: int, bounds: tuple[int, int], status: int, headers: Headers) -> None:
    at, end = bounds
    length = (b"content-length", b"%d" % (end - at))
    request.started = True
    await request.send(
        {"type": "http.response.start", "status": status, "headers": [length, *headers, *request.answer_headers]}
    )
    while at < end and request.method == "GET":
        part = await asyncio.to_thread(os.pread, descriptor, min(limits.copy_part_bytes, end - at), at)
        if not part:
            raise OSError("a file of the ledger became shorter")
        at += len(part)
        await request.stream(part, more=True)
    await request.stream(b"", more=False)
