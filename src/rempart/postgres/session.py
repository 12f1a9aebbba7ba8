"""`Session`: one connection to PostgreSQL, made anew after it was lost, its errors told as ours (psycopg 3).

Needs the extra `postgres`. When the connection is lost the call fails, and the next one connects again. What was
committed is on the server's disk: a server with `fsync` off is refused. Works against a primary alone.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from rempart import limits
from rempart.errors import MissingDependency, RempartError

if TYPE_CHECKING:
    import psycopg

Fails = Callable[[str, str], RempartError]
"""(message, hint) -> the error of whoever keeps something there."""
Opened = Callable[["psycopg.Connection[Any]"], None]

_HINT = "Check that it runs and takes connections; it is tried again with the next call."


class Session:
    """Used by one thread at a time; `abort` alone may be called from another."""

    def __init__(self, conninfo: str, fails: Fails, *, call_s: int, opened: Opened | None = None) -> None:
        """`conninfo` as libpq reads it; its password belongs in a passfile. `call_s`: how long a statement may take.
        `opened` gets each new connection before anybody else; when it raises there is none."""
        self._conninfo = conninfo
        self._fails = fails
        self._call_s = call_s
        self._opened = opened
        self._connection: psycopg.Connection[Any] | None = None

    @contextlib.contextmanager
    def connection(self) -> Iterator[psycopg.Connection[Any]]:
        """In autocommit. Raises `MissingDependency`, or what `fails` makes of an error of the database."""
        try:
            import psycopg
        except ImportError as error:
            raise MissingDependency("psycopg is not installed.", hint="Install rempart[postgres].") from error
        try:
            if self._connection is None or self._connection.closed:
                self._connection = self._connect()
            yield self._connection
        except psycopg.Error as error:
            self.close()
            raise self._fails(f"PostgreSQL failed: {str(error).strip() or type(error).__name__}.", _HINT) from error

    @contextlib.contextmanager
    def transaction(self, begin: str = "BEGIN", within_s: int | None = None) -> Iterator[psycopg.Connection[Any]]:
        """Committed at the end, unless it was rolled back by hand; rolled back by whatever is raised in it."""
        with self.connection() as connection:
            try:
                connection.execute(begin)
                if within_s is not None:
                    connection.execute(f"SET LOCAL statement_timeout = '{within_s}s'")
                yield connection
            except BaseException:
                if not connection.closed:
                    connection.execute("ROLLBACK")
                raise
            if connection.info.transaction_status.name != "IDLE":
                connection.execute("COMMIT")

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def abort(self) -> None:
        """Whoever waits for the server fails now: it is there and says nothing."""
        connection = self._connection
        if connection is not None and not connection.closed:
            with contextlib.suppress(OSError), socket.socket(fileno=os.dup(connection.fileno())) as sock:
                sock.shutdown(socket.SHUT_RDWR)

    def _connect(self) -> psycopg.Connection[Any]:
        import psycopg

        connection = psycopg.connect(
            self._conninfo,
            autocommit=True,
            connect_timeout=min(limits.keystore_connect_s, self._call_s),
            tcp_user_timeout=self._call_s * 1_000,
            keepalives_idle=self._call_s,
            target_session_attrs="read-write",
            application_name="rempart",
        )
        try:
            connection.execute(f"SET statement_timeout = '{self._call_s}s'")
            connection.execute(f"SET idle_in_transaction_session_timeout = '{limits.keystore_rewrite_s}s'")
            if connection.execute("SHOW synchronous_commit").fetchone() == ("off",):
                connection.execute("SET synchronous_commit = on")
            if connection.execute("SHOW fsync").fetchone() != ("on",):
                raise self._fails("PostgreSQL runs with fsync off: it may lose keys.", "Set fsync = on.")
            if self._opened is not None:
                self._opened(connection)
        except BaseException:
            connection.close()
            raise
        return connection
