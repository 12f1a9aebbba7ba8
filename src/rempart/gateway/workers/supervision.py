"""`staffed`: while the context lasts, the workers of a site run; one that dies is told in the log and started again.

Whatever ends a worker, what it had left open is taken care of before it is started again: what it sent is recorded, its
open exchanges are closed, what it had reserved is given back.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Collection

import msgspec

from rempart import limits
from rempart.errors import RempartError
from rempart.gateway.server import Stop
from rempart.gateway.workers import messages as m
from rempart.gateway.workers.crew import Crew, Member
from rempart.gateway.workers.desk import Books, Desk
from rempart.ipc.channel import ChannelClosed
from rempart.ipc.ending import tell_end
from rempart.ipc.talk import Talk
from rempart.ledger.writing.journal import Sequencer
from rempart.ledger.writing.remote import share

_log = logging.getLogger("rempart.gateway")
_MODULE = "rempart.cli.worker"
_LAST_S = 1.0


class Staff(msgspec.Struct, frozen=True, kw_only=True):
    """What the workers are given."""

    numbers: range
    sequencer: Sequencer
    books: Books
    listening: Callable[[], socket.socket]
    """A socket at the site's address, bound for one worker. Raises any `RempartError`."""
    slots: int
    """Descriptor of the shared numbers."""
    start: Callable[[int], m.Start]
    """What a worker of that number is told first."""
    told: Callable[[], m.Told]
    """As it stands now."""
    going: Callable[[], Awaitable[None]]
    """Returns while no keys are being destroyed."""
    lost: Callable[[Collection[str]], Awaitable[None]]
    """Exchanges that a worker left open are closed. Raises any `RempartError`."""
    end_s: float
    """How long workers may take to drain."""


@contextlib.asynccontextmanager
async def staffed(crew: Crew, staff: Staff, stop: Stop) -> AsyncIterator[None]:
    """Each has been started once when the context begins, and all are gone when it ends."""
    supervisors = [_Supervisor(crew, staff, stop, number) for number in staff.numbers]
    keeping = [asyncio.create_task(one.keep(), name=f"worker w{one.number}") for one in supervisors]
    others = [asyncio.create_task(one) for one in (_tell(crew, staff), _check(crew), _pass_on(crew, stop))]
    for task in (*keeping, *others):
        tell_end(task, _log, "Workers are no longer looked after")
    try:
        await asyncio.gather(*(one.tried.wait() for one in supervisors))
        yield
        if stop.drain.is_set():
            await asyncio.wait(keeping, timeout=staff.end_s)
    finally:
        for task in (*keeping, *others):
            task.cancel()
        await asyncio.gather(*keeping, *others, return_exceptions=True)


async def _tell(crew: Crew, staff: Staff) -> None:
    before = staff.told()
    while True:
        await asyncio.sleep(limits.worker_told_s)
        now = staff.told()
        if now != before:
            crew.tell(now)
            before = now


async def _check(crew: Crew) -> None:
    """A worker that hangs is found although nothing has to be told to it."""
    while True:
        await asyncio.sleep(limits.worker_check_s)
        await crew.check()


async def _pass_on(crew: Crew, stop: Stop) -> None:
    await stop.drain.wait()
    crew.tell(m.Drain())
    await stop.cut.wait()
    crew.tell(m.Cut())


class _Supervisor:
    """Of one worker, again and again."""

    def __init__(self, crew: Crew, staff: Staff, stop: Stop, number: int) -> None:
        self.number = number
        self.tried = asyncio.Event()
        """It listens, or has failed once."""
        self._crew = crew
        self._staff = staff
        self._stop = stop

    async def keep(self) -> None:
        loop = asyncio.get_running_loop()
        pause_s = limits.worker_restart_first_s
        while not self._stop.drain.is_set():
            began = loop.time()
            told = await self._run()
            self.tried.set()
            if self._stop.drain.is_set():
                return
            _log.error("worker died", extra={"worker": f"w{self.number}", "why": told})
            if loop.time() - began > limits.worker_restart_most_s:
                pause_s = limits.worker_restart_first_s
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._stop.drain.wait()
            pause_s = min(pause_s * 2, limits.worker_restart_most_s)

    async def _run(self) -> str:
        """One life of it; why it ended."""
        try:
            child = await _spawn(self._staff)
        except OSError as error:
            return f"it cannot be started: {error.strerror}"
        except RempartError as error:
            return error.message
        desk = Desk(self._staff.books, self._crew)
        talk = await Talk.over(child.desk, m.TO_PRIMARY, desk.answer, desk.hear)
        sharing = asyncio.create_task(share(self._staff.sequencer, child.ledger))
        talking = asyncio.create_task(talk.run())
        ended = asyncio.Event()

        async def end() -> None:
            child.kill()
            await ended.wait()

        member = Member(self.number, talk, end)
        why = "its sockets closed"
        try:
            why = await self._live(child, member, {sharing, talking})
        finally:
            child.kill()
            await asyncio.shield(self._bury(child, member, sharing, talking, desk, ended))
        return why

    async def _live(self, child: _Child, member: Member, tasks: set[asyncio.Task[object]]) -> str:
        waiting = asyncio.create_task(child.process.wait())
        try:
            await self._staff.going()
            self._crew.join(member)
            async with asyncio.timeout(limits.worker_start_s):
                await member.talk.ask(self._staff.start(self.number), type(None))
            member.started()
            self.tried.set()
            _log.info("worker ready", extra={"worker": f"w{self.number}", "pid": child.process.pid})
            if self._stop.drain.is_set():
                member.talk.tell(m.Drain())
            await asyncio.wait({waiting, *tasks}, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                if task.done() and task.exception() is not None:
                    return f"it said what it must not: {task.exception()}"
            await asyncio.wait({waiting}, timeout=_LAST_S)
            return f"exit status {waiting.result()}" if waiting.done() else "its sockets closed"
        except TimeoutError:
            return "it did not start in time"
        except ChannelClosed:
            return f"it ended as it started, exit status {await waiting}"
        except RempartError as error:
            return error.message
        finally:
            waiting.cancel()

    async def _bury(
        self,
        child: _Child,
        member: Member,
        sharing: asyncio.Task[frozenset[str]],
        talking: asyncio.Task[None],
        desk: Desk,
        ended: asyncio.Event,
    ) -> None:
        await child.process.wait()
        await asyncio.wait({sharing, talking})  # both end with the process: what it had sent is taken first
        desk.give_back()
        self._crew.leave(member)
        ended.set()
        if sharing.exception() is not None:
            return  # what it had open is not known
        left = sharing.result()
        try:
            if left:
                await self._staff.lost(left)
            desk.forget()
        except (RempartError, OSError) as error:
            _log.error("exchanges stay open until the next start", extra={"count": len(left), "why": str(error)})


class _Child(msgspec.Struct):
    process: asyncio.subprocess.Process
    ledger: socket.socket
    desk: socket.socket

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            if self.process.returncode is None:
                self.process.kill()


async def _spawn(staff: Staff) -> _Child:
    """Raises `OSError`, or any `RempartError`. Its ends of the sockets are its own alone, so that they end with it."""
    with contextlib.ExitStack() as theirs, contextlib.ExitStack() as ours:
        listening = theirs.enter_context(staff.listening())
        pairs = [socket.socketpair() for _ in range(2)]
        for near, far in pairs:
            ours.callback(near.close)
            theirs.callback(far.close)
        (ledger, far_ledger), (desk, far_desk) = pairs
        given = (far_ledger.fileno(), far_desk.fileno(), listening.fileno(), staff.slots)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", _MODULE, *map(str, given)),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            pass_fds=given,
            start_new_session=True,  # signals of our terminal are for us, who let running answers end first
        )
        ours.pop_all()
        return _Child(process, ledger, desk)
