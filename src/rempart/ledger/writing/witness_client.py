"""`WitnessClient.cosign`: one checkpoint is shown to a witness, with the proof that what it knows is a prefix of it.

Source: C2SP tlog-witness. What the witness has is remembered, and corrected by what it says (status 409). What it
refuses becomes `Breached`, which names what happened to the log; everything else that fails is a `WitnessError`.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, urlsplit

import msgspec

from rempart import limits
from rempart.errors import ConfigError, LedgerCorrupt, RempartError, WitnessError
from rempart.http.connection import Answered, Client, Kind
from rempart.ledger.log.checkpoint import Checkpoint, Signature, read_note, read_signatures, read_text, signed_by
from rempart.ledger.log.consistency import HINT, Alarm, Breach
from rempart.ledger.log.merkle import consistency_proof
from rempart.ledger.log.policy import Policy, Witness
from rempart.ledger.log.submission import PATH, SIZE_TYPE, Submission, encode, parse_size
from rempart.ledger.reading.prove import Prover, TileReader

_TRIES: Final = 3
"""Somebody else may show it the same checkpoints."""
_KIND: Final = Kind(
    noun="witness",
    failed=WitnessError,
    unavailable=WitnessError,
    silent=WitnessError,
    again="It is asked again; see the policy.",
    shorter="Ask its operator.",
    look="Ask its operator.",
    trust="Check ledger.witness_ca_file, and the name in the witness's certificate.",
)


class Breached(RempartError):
    """A witness has cosigned what this log is not, or is no more."""

    code = "witness_refused"

    def __init__(self, alarm: Alarm, here: int) -> None:
        super().__init__(alarm.message(here), hint=HINT)
        self.alarm = alarm


class Shown(msgspec.Struct, frozen=True):
    """The head of a log as it is shown to witnesses."""

    note: bytes
    head: Checkpoint
    prove: Callable[[int], Sequence[bytes]]
    """Old size -> consistency proof; reads files."""

    @classmethod
    def read(cls, log: Path) -> Shown:
        """`log` is `<data>/ledger/log`. Raises `LedgerCorrupt`."""
        prover = Prover(log)
        size = prover.head.size
        reader = TileReader(log, size)
        return cls(prover.checkpoint, prover.head, lambda old: consistency_proof(old, size, reader.node))


class WitnessClient:
    """One address, and the witnesses of the policy that answer there: one witness may have keys of two types."""

    def __init__(self, url: str, witnesses: Sequence[Witness], tls: ssl.SSLContext | None) -> None:
        self.witnesses = tuple(witnesses)
        self.name = _shown(witnesses[0].name)
        base = _parse(url, self.name)
        self._url = base._replace(path=base.path.rstrip("/") + PATH)
        self._client = Client(self.name, tls, _KIND)
        self._size = 0
        """Of the latest checkpoint that it has cosigned, as far as is known."""

    def remember(self, note: bytes) -> None:
        """What it cosigned before this start. Raises `LedgerCorrupt` when the note cannot be read."""
        read = read_note(note)
        if any(signed_by(witness.key, read) for witness in self.witnesses):
            self._size = read_text(read.text).size

    async def cosign(self, shown: Shown) -> list[bytes]:
        """Its signature lines. Raises `WitnessError`, or `Breached`."""
        try:
            async with asyncio.timeout(limits.witness_ask_s):
                return await self._cosign(shown)
        except TimeoutError as error:
            raise WitnessError(f"{self._client} is silent.", hint=_KIND.look) from error

    async def _cosign(self, shown: Shown) -> list[bytes]:
        size = shown.head.size
        for _ in range(_TRIES):
            old = self._size if self._size <= size else 0
            answer = await self._post(shown, old)
            match answer.status:
                case 200:
                    lines = self._lines(answer.body, read_note(shown.note).text)
                    self._size = size
                    return lines
                case 409 if answer.content_type == SIZE_TYPE:
                    self._correct(answer.body, old, size)
                case 422:
                    raise Breached(Alarm(Breach.TRUNCATION, self.name, old), size)
                case _:
                    raise WitnessError(
                        f"{self._client} refuses our checkpoint ({answer.status}).",
                        hint=_REFUSALS.get(answer.status, ""),
                    )
        raise WitnessError(f"{self._client} says another size at each try.", hint=_KIND.look)

    def _correct(self, body: bytes, old: int, size: int) -> None:
        """Take over what it says it has. Raises `Breached` when that cannot be."""
        try:
            latest = parse_size(body)
        except LedgerCorrupt as error:
            raise WitnessError(f"{self._client} does not say what it has.", hint=_KIND.look) from error
        if latest > size:
            raise Breached(Alarm(Breach.ROLL_BACK, self.name, latest), size)
        if latest == old == size:
            raise Breached(Alarm(Breach.SPLIT_VIEW, self.name, latest), size)
        self._size = latest

    def _lines(self, body: bytes, text: bytes) -> list[bytes]:
        """Those by its own keys, verified; others are ignored. Raises `WitnessError` when there is none."""
        try:
            lines = [one.line() for one in read_signatures(body) if self._is_own(one, text)]
        except LedgerCorrupt as error:
            raise WitnessError(f"{self._client} gives a cosignature that is none.", hint=_KIND.look) from error
        if not lines:
            raise WitnessError(f"{self._client} signs under another key.", hint="Check its key in the policy.")
        return lines

    def _is_own(self, signature: Signature, text: bytes) -> bool:
        for witness in self.witnesses:
            if (signature.name, signature.key_id) == (witness.key.name, witness.key.key_id):
                witness.key.verify(text, signature.value)
                return True
        return False

    async def _post(self, shown: Shown, old: int) -> Answered:
        proof = await asyncio.to_thread(shown.prove, old)
        body = encode(Submission(old, tuple(proof), shown.note))
        return await self._client.post(self._url, "text/plain", body, limits.witness_answer_bytes_max)

    def close(self) -> None:
        self._client.close()


_REFUSALS: Final = {
    403: "It does not trust this log's key: give its operator what 'rempart ledger key' prints.",
    404: "It does not know this log: give its operator what 'rempart ledger key' prints.",
}


def clients(policy: Policy, tls: ssl.SSLContext | None) -> list[WitnessClient]:
    """One for each address. Raises `ConfigError` when there is none, or one that is none."""
    by_url: dict[str, list[Witness]] = {}
    for witness in policy.witnesses:
        if witness.url:
            by_url.setdefault(witness.url.rstrip("/"), []).append(witness)
    if not by_url:
        raise ConfigError("No witness of the policy has an address.", hint="Add it at the end of a 'witness' line.")
    return [WitnessClient(url, witnesses, tls) for url, witnesses in by_url.items()]


def _parse(url: str, name: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        whole = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        whole = False
    if not whole or not url.isascii() or parts.query or parts.fragment or parts.username:
        raise ConfigError(f"The address of the witness {name} is none.", hint="Such as https://witness.example/w1.")
    return parts


def _shown(text: str) -> str:
    """Octets that are no UTF-8 can neither be printed nor stand in an entry."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
