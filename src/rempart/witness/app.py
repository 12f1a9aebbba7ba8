"""`WitnessApp`: the ASGI application of a witness: `POST /add-checkpoint` and `GET /healthz`."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from rempart import limits
from rempart.errors import ClientGone, MethodNotAllowed, NotFound, RempartError, ShuttingDown
from rempart.gateway.http import Receive, Request, Scope, Send
from rempart.gateway.submissions import Submissions
from rempart.ledger.log.submission import PATH
from rempart.witness.clerk import Desk

_log = logging.getLogger("rempart.witness")
_HEALTH: Final = "/healthz"
_METHODS: Final = {PATH: "POST", _HEALTH: "GET"}


class WitnessApp:
    """One per process."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._submissions = Submissions(desk)
        self._draining = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive, send)
        try:
            await self._answer(request)
        except ClientGone:
            return
        except RempartError as error:
            if not request.started:
                await request.reply_error(error)
        except Exception:
            # The request edge: uvicorn closes the connection, and says no more of it.
            _log.exception("A request failed in a way that was not foreseen.")
            raise

    async def _answer(self, request: Request) -> None:
        method = _METHODS.get(request.path)
        if method is None:
            raise NotFound(f"There is nothing at {request.path}.", hint=f"A witness answers POST {PATH}.")
        if request.method != method and not (method == "GET" and request.method == "HEAD"):
            request.answer_headers.append((b"allow", method.encode()))
            raise MethodNotAllowed(f"{request.path} takes {method} only.", hint=f"Send {method}.")
        if request.path == _HEALTH:
            await request.reply_json(200, b'{"status":"ok"}')
            return
        if self._draining:
            raise ShuttingDown("The witness is stopping.", hint="Send it again.", retry_after_s=2)
        await self._submissions.answer(request)

    async def drain(self) -> None:
        """Take nothing new, and wait for what is being answered."""
        self._draining = True
        until = asyncio.get_running_loop().time() + limits.witness_drain_s
        while self._desk.busy and asyncio.get_running_loop().time() < until:
            await asyncio.sleep(0.02)
