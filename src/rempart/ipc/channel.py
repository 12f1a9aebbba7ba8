"""`Channel`: messages over a stream socket between processes of one user.

A message is its length in four bytes, big-endian, then MessagePack. Both ends are of one version: they are started by
one command.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Any, Final

import msgspec

_HEAD_BYTES: Final = 4
_pack = msgspec.msgpack.Encoder()


class ChannelClosed(Exception):
    """The other end is gone, or sent what is no message."""


class Channel:
    """One end. Messages arrive whole and in order."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, decoder: Any, bytes_max: int
    ) -> None:
        """`decoder`: a `msgspec.msgpack.Decoder` of what comes; `bytes_max`: of one message."""
        self._reader = reader
        self._writer = writer
        self._decoder = decoder
        self._bytes_max = bytes_max

    @classmethod
    async def over(cls, sock: socket.socket, decoder: Any, bytes_max: int) -> Channel:
        """The channel owns `sock` from now on."""
        sock.setblocking(False)
        reader, writer = await asyncio.open_unix_connection(sock=sock)
        return cls(reader, writer, decoder, bytes_max)

    def send(self, message: object) -> None:
        """Does not wait. What is sent to an end that is gone is lost, and `receive` tells."""
        data = _pack.encode(message)
        self._writer.write(len(data).to_bytes(_HEAD_BYTES, "big") + data)

    async def receive(self) -> Any:
        """Raises `ChannelClosed`."""
        try:
            length = int.from_bytes(await self._reader.readexactly(_HEAD_BYTES), "big")
            if length > self._bytes_max:
                raise ChannelClosed("a message is too long")
            return self._decoder.decode(await self._reader.readexactly(length))
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            raise ChannelClosed("the other end is gone") from error
        except msgspec.DecodeError as error:
            raise ChannelClosed(f"that is no message: {error}") from error

    def close(self) -> None:
        self._writer.close()
