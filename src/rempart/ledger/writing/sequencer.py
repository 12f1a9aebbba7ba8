"""`Sequencer.append`: the only writer of a log. What it acknowledges is durable, in order, and never lost.

A commit starts as soon as the previous sync has ended: entries that wait are written together, one fdatasync covers
them, then each is acknowledged. The sync runs in a thread of its own, unless one exchange is all there is; everything
else on the event loop. Tiles and checkpoint follow within a second, in a second thread; the next segment is made in a
third; a fourth waits for what takes old segments apart.

Durability contract: an entry's future resolves only after the fdatasync that covers it returned. After a failed write
or sync nothing is retried and nothing more is acknowledged (`failure`); a restart recovers from what is on disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Awaitable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import monotonic

import msgspec

from rempart import limits
from rempart.errors import LedgerUnavailable, RempartError
from rempart.ledger.log.checkpoint import Signer
from rempart.ledger.log.integrate import Integrator
from rempart.ledger.log.merkle import leaf_hash
from rempart.ledger.store import frames
from rempart.ledger.store.segments import Segment, make_spare
from rempart.ledger.writing.draft import LogState, Receipt
from rempart.ledger.writing.retire import Closed
from rempart.ledger.writing.retirement import Retirement, TakeApart, retire_in_child
from rempart.ledger.writing.room import Piece, Room, Waiting

_log = logging.getLogger("rempart.ledger")
_json = msgspec.json.Encoder()


class OpenExchange(msgspec.Struct, frozen=True):
    """An exchange whose request is recorded and whose response is not."""

    exchange: str
    request: int
    """Index of its request's entry."""
    segment: int
    """Segment in which that entry stands."""


class Opened(msgspec.Struct, frozen=True, kw_only=True):
    """What recovery found: the state to go on from."""

    directory: Path
    """`<data>/ledger/segments`."""
    origin: str
    origin_hash: bytes
    segment: Segment
    next_index: int
    open: list[OpenExchange]
    integrator: Integrator
    closed: list[Closed]
    """Segments before the one that grows, ascending."""


class Sequencer:
    """The in-process form. Construct it inside the running loop, then `start`; `close` ends it."""

    def __init__(self, opened: Opened, *, strict: bool, take_apart: TakeApart = retire_in_child) -> None:
        self._directory = opened.directory
        self._origin = opened.origin
        self._origin_hash = opened.origin_hash
        self._segment = opened.segment
        self._next = opened.next_index
        self._open = {one.exchange: one for one in opened.open}
        self._integrator = opened.integrator
        self._retirement = Retirement(opened.directory.parent, opened.origin_hash, opened.closed, take_apart)
        self._strict = strict
        self._loop = asyncio.get_running_loop()
        self._sync_thread = ThreadPoolExecutor(1, "ledger-sync")
        self._back_thread = ThreadPoolExecutor(1, "ledger-integrate")
        self._spare_thread = ThreadPoolExecutor(1, "ledger-spare")
        self._retire_thread = ThreadPoolExecutor(1, "ledger-retire")
        self._waiting: deque[Waiting] = deque()
        self._pieces: deque[Piece] = deque()
        """Pieces that found no room in this segment, in order."""
        self._held: list[asyncio.Future[None]] = []
        """Strict: pieces written and not yet synced."""
        self._busy = False
        """A sync or the change of segments is under way."""
        self._rotating = False
        self._kicked = False
        self._sync_s = 0.0
        """The last one took so long."""
        self._piece_timer: asyncio.TimerHandle | None = None
        self._spare = False
        self._spare_used = asyncio.Event()
        self._full = ""
        self._failure = ""
        self._behind: list[bytes] = []
        """Entries acknowledged and not yet under the checkpoint."""
        self._behind_since = 0.0
        self._acknowledged = opened.next_index
        self._syncs = 0
        self._closing = asyncio.Event()
        self._background: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Make the spare segment and begin to integrate. Raises `LedgerUnavailable` when there is no room for it."""
        await self._make_spare()
        if not self._spare:
            raise self._no_room()
        self._background = [
            self._loop.create_task(self._integrate_always()),
            self._loop.create_task(self._keep_spare()),
            self._loop.create_task(self._retire_always()),
        ]

    async def close(self) -> None:
        """Commit what waits, integrate it, and stop."""
        while (self._waiting or self._busy or self._pieces) and not self._failure:
            self._kick()
            await asyncio.sleep(0.001)
        self._closing.set()
        self._spare_used.set()
        for task in self._background:
            await task
        if self._piece_timer is not None:
            self._piece_timer.cancel()
        if not self._failure:
            await self._loop.run_in_executor(self._sync_thread, self._segment.sync)
            await self._integrate()
        self._sync_thread.shutdown()
        self._back_thread.shutdown()
        self._spare_thread.shutdown()
        self._retire_thread.shutdown()
        self._segment.close()

    def state(self) -> LogState:
        head = self._integrator.head
        return LogState(
            origin=self._origin,
            entries=self._acknowledged,
            tree_size=head.size,
            root=head.root,
            lag_s=monotonic() - self._behind_since if self._behind else 0.0,
            syncs=self._syncs,
            failure=self._failure or self._full,
        )

    def open_exchanges(self) -> Mapping[str, OpenExchange]:
        """By id: those whose request is durable and whose response is not."""
        return self._open

    async def sign_with(self, signer: Signer) -> None:
        """Checkpoints are signed so from now on, the newest included. Raises `LedgerUnavailable`."""
        try:
            await self._loop.run_in_executor(self._back_thread, lambda: self._integrator.sign_with(signer))
        except OSError as error:
            reason = f"The checkpoint cannot be signed anew: {error.strerror}."
            raise LedgerUnavailable(reason, hint="Look at the disk; the former key goes on signing.") from error

    def check_room(self) -> None:
        """Raises `LedgerUnavailable` when no new exchange may begin."""
        reason = self._failure or self._full
        if reason:
            raise LedgerUnavailable(reason, hint="See /readyz and the server's log.", retry_after_s=5)

    def append(self, entry: bytes, body: bytes = b"", *, opens: str = "", closes: str = "") -> asyncio.Future[Receipt]:
        """`opens` and `closes` name the exchange whose request or response this is.

        Raises `LedgerUnavailable` at once when it cannot be taken. What closes an exchange may use the last reserve.
        """
        self._check_alive()
        if frames.frame_bytes(len(entry), len(body)) > limits.segment_bytes // 2:
            raise LedgerUnavailable("This is too large to be recorded.", hint="Send less at once.")
        future: asyncio.Future[Receipt] = self._loop.create_future()
        waiting = Waiting(entry, body, opens, closes, future)
        if self._full and not self._room().takes_when_full(waiting, self._waiting):
            raise self._no_room()
        self._waiting.append(waiting)
        self._kick()
        return future

    def piece(self, exchange: bytes, sequence: int, sealed: bytes) -> Awaitable[None] | None:
        """Written when this returns None, else when the answer resolves; `exchange` is the id's 16 bytes."""
        self._check_alive()
        frame = frames.encode_frame(frames.Kind.PIECE, sequence, self._segment.durable, exchange, sealed)
        fits = self._room().takes_piece(frame)
        if self._full and not fits:
            raise self._no_room()
        if self._rotating or self._pieces or not fits:
            return self._queue_piece(frame)
        self._write(frame)
        if self._strict:
            future: asyncio.Future[None] = self._loop.create_future()
            self._held.append(future)
            self._kick()
            return future
        if self._piece_timer is None:
            self._piece_timer = self._loop.call_later(limits.piece_sync_s / 2, self._sync_pieces)
        return None

    def _check_alive(self) -> None:
        if self._failure:
            raise LedgerUnavailable(self._failure, hint="See the server's log; restart it once the disk is sound.")

    def _no_room(self) -> LedgerUnavailable:
        return LedgerUnavailable(self._full, hint="Free some space on the disk of the data directory.")

    def _room(self) -> Room:
        return Room(self._segment.free, self._spare, len(self._open))

    def _queue_piece(self, frame: bytes) -> asyncio.Future[None]:
        future: asyncio.Future[None] = self._loop.create_future()
        self._pieces.append(Piece(frame, future))
        self._kick()
        return future

    def _sync_pieces(self) -> None:
        self._piece_timer = None
        self._kick()

    def _kick(self) -> None:
        """Commit once this turn of the loop has gathered what it has."""
        if not self._kicked and not self._busy:
            self._kicked = True
            self._loop.call_soon(self._commit)

    # The commit.

    def _commit(self) -> None:
        self._kicked = False
        if self._busy or self._failure:
            return
        self._write_queued_pieces()
        batch = self._write_batch()
        if not batch and self._waiting_for_room() and self._begin_rotation():
            return
        if self._segment.end == self._segment.durable:
            return
        self._busy = True
        held, self._held = self._held, []
        end = self._segment.end
        if len(self._open) <= 1 and self._sync_s < limits.sync_here_s:
            # Nobody else is held up, and the way to a thread and back takes as long as the disk does.
            self._synced(self._sync_here(), end, batch, held)
            return
        syncing = self._loop.run_in_executor(self._sync_thread, self._sync)
        syncing.add_done_callback(lambda done: self._synced(done.exception(), end, batch, held))

    def _sync_here(self) -> OSError | None:
        try:
            self._sync()
        except OSError as error:
            return error
        return None

    def _sync(self) -> None:
        began = monotonic()
        self._segment.sync()
        self._sync_s = monotonic() - began

    def _waiting_for_room(self) -> bool:
        return bool(self._waiting or self._pieces)

    def _write_queued_pieces(self) -> None:
        while self._pieces and self._room().takes_piece(self._pieces[0].frame):
            piece = self._pieces[0]
            if not self._write(piece.frame, quiet=True):
                return  # it has been told, with all that wait
            self._pieces.popleft()
            if self._strict:
                self._held.append(piece.future)
            elif not piece.future.done():
                piece.future.set_result(None)

    def _write_batch(self) -> list[tuple[Waiting, Receipt]]:
        batch: list[tuple[Waiting, Receipt]] = []
        data: list[bytes] = []
        for one in self._room().chosen(self._waiting):
            index = self._next + len(batch)
            data.append(frames.encode_frame(frames.Kind.ENTRY, index, self._segment.durable, one.entry, one.body))
            batch.append((one, Receipt(index, leaf_hash(one.entry))))
        if not batch or not self._write(b"".join(data), quiet=True):
            return []  # those that wait have been told
        self._next += len(batch)
        if self._waiting[len(batch) - 1] is batch[-1][0]:
            for _ in batch:
                self._waiting.popleft()
        else:
            written = {id(one) for one, _ in batch}
            self._waiting = deque(one for one in self._waiting if id(one) not in written)
        for one, receipt in batch:
            if one.opens:
                self._open[one.opens] = OpenExchange(one.opens, receipt.index, self._segment.number)
        return batch

    def _write(self, data: bytes, quiet: bool = False) -> bool:
        try:
            self._segment.write(data)
        except OSError as error:
            self._fail(f"The ledger cannot be written: {error.strerror}.")
            if quiet:
                return False
            self._check_alive()
        return True

    def _synced(
        self,
        error: BaseException | None,
        end: int,
        batch: list[tuple[Waiting, Receipt]],
        held: list[asyncio.Future[None]],
    ) -> None:
        self._busy = False
        if error is not None:
            for one, _ in batch:
                self._waiting.append(one)
            self._held.extend(held)
            self._fail(f"The ledger cannot be synced: {getattr(error, 'strerror', None) or error}.")
            return
        self._syncs += 1
        self._segment.durable = end
        self._acknowledge(batch)
        for future in held:
            if not future.done():
                future.set_result(None)
        if self._waiting or self._pieces or self._held:
            self._kick()

    def _acknowledge(self, batch: list[tuple[Waiting, Receipt]]) -> None:
        if not batch:
            return
        if not self._behind:
            self._behind_since = monotonic()
        for one, receipt in batch:
            self._behind.append(one.entry)
            if one.closes:
                self._open.pop(one.closes, None)
            if not one.future.done():
                one.future.set_result(receipt)
        self._acknowledged = self._next

    def _fail(self, reason: str) -> None:
        """Nothing more is acknowledged by this process."""
        if not self._failure:
            self._failure = reason
            _log.critical("%s Nothing is served until the server is restarted on a sound disk.", reason)
        unavailable = LedgerUnavailable(reason, hint="See the server's log; restart it once the disk is sound.")
        futures: list[asyncio.Future[Receipt] | asyncio.Future[None]] = [one.future for one in self._waiting]
        futures += [piece.future for piece in self._pieces]
        futures += self._held
        self._waiting.clear()
        self._pieces.clear()
        self._held.clear()
        for future in futures:
            if not future.done():
                future.set_exception(unavailable)

    # The change of segments.

    def _begin_rotation(self) -> bool:
        if not self._spare:
            return False  # the end of `_make_spare` kicks
        self._busy = self._rotating = True
        self._spare = False
        header = frames.Header(self._segment.number + 1, self._next, self._origin_hash)
        still_open = _json.encode(list(self._open.values()))
        rotating = self._loop.run_in_executor(self._sync_thread, self._rotate, header, still_open)
        rotating.add_done_callback(self._rotated)
        return True

    def _rotate(self, header: frames.Header, still_open: bytes) -> Segment:
        self._segment.sync()
        return Segment.begin(self._directory, header, still_open)

    def _rotated(self, done: asyncio.Future[Segment]) -> None:
        self._busy = self._rotating = False
        error = done.exception()
        if error is not None:
            self._fail(f"The ledger cannot begin a segment: {getattr(error, 'strerror', None) or error}.")
            return
        self._syncs += 2
        self._retirement.add(Closed(self._segment.number, self._next))
        self._segment.close()
        self._segment = done.result()
        self._spare_used.set()
        for future in self._held:  # strict pieces of the old segment were synced before it was left
            if not future.done():
                future.set_result(None)
        self._held.clear()
        self._kick()

    def _refuse_waiting(self) -> None:
        """There will be no next segment for now: whoever waits for it is told."""
        waiting, self._waiting = self._waiting, deque()
        pieces, self._pieces = self._pieces, deque()
        refused: list[asyncio.Future[Receipt] | asyncio.Future[None]] = [piece.future for piece in pieces]
        for one in waiting:
            if self._room().takes_when_full(one, self._waiting):
                self._waiting.append(one)
            else:
                refused.append(one.future)
        for future in refused:
            if not future.done():
                future.set_exception(self._no_room())
        self._kick()

    # In the background.

    async def _integrate_always(self) -> None:
        """Twice a second, whatever there is; entries are under a checkpoint within `limits.integrate_s`."""
        while not self._closing.is_set():
            await self._integrate()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(limits.integrate_s / 2):
                    await self._closing.wait()

    async def _keep_spare(self) -> None:
        """The next one as soon as one is used; on a full disk, tried again and again."""
        while not self._closing.is_set():
            self._spare_used.clear()
            if not self._spare and not self._rotating:
                await self._make_spare()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(limits.integrate_s / 2):
                    await self._spare_used.wait()

    async def _retire_always(self) -> None:
        """One closed segment after the other, once nothing needs it any more."""
        while not self._closing.is_set() and not self._failure:
            size = self._integrator.head.size
            oldest_open = min((one.segment for one in self._open.values()), default=self._segment.number)
            due = self._retirement.due(size, oldest_open)
            if due is not None:
                await self._retire(due, size)
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(limits.integrate_s / 2):
                    await self._closing.wait()

    async def _retire(self, due: Closed, size: int) -> None:
        try:
            await self._loop.run_in_executor(self._retire_thread, self._retirement.run, due, size)
        except (OSError, RempartError) as error:
            _log.error("Segment %d cannot be taken apart; it stays, and it is tried again: %s", due.number, error)

    async def _make_spare(self) -> None:
        try:
            await self._loop.run_in_executor(self._spare_thread, make_spare, self._directory)
        except OSError as error:
            if not self._full:
                _log.error("The ledger has no room for its next segment: %s. Nothing new is admitted.", error.strerror)
            self._full = f"The ledger has no room for its next segment: {error.strerror}."
            self._refuse_waiting()
            return
        self._spare, self._full = True, ""
        if self._waiting_for_room():
            self._kick()

    async def _integrate(self) -> None:
        entries = self._behind
        if not entries:
            return
        began, count = monotonic(), len(entries)
        first = self._acknowledged - count
        try:
            await self._loop.run_in_executor(self._back_thread, self._integrator.add, first, entries[:count])
        except (OSError, RempartError) as error:
            _log.error("The checkpoint cannot be written; entries are safe, and it is tried again: %s", error)
            self._reopen_integrator()
            return
        del self._behind[:count]
        self._behind_since = began

    def _reopen_integrator(self) -> None:
        """Back to what the disk holds; it may be before or after what failed."""
        try:
            self._integrator = self._integrator.reopen()
        except (OSError, RempartError) as error:
            self._fail(f"The log cannot be read back: {error}.")
            return
        done = self._integrator.head.size - (self._acknowledged - len(self._behind))
        del self._behind[: max(done, 0)]
