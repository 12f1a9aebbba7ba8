"""What the primary process and a worker ask and tell each other on the desk's socket (values)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from rempart.identity.caller import Limits
from rempart.identity.keys import KeyRow
from rempart.identity.quota import Wanted
from rempart.ledger.writing.draft import Witnessed
from rempart.ledger.writing.journal import Voice

# From the primary.


class Place(msgspec.Struct, frozen=True, array_like=True):
    """Where an embedded engine listens."""

    url: str
    """Empty while it does not."""
    api_key: str
    why: str
    """Why it does not."""

    def __repr__(self) -> str:
        return f"Place({self.url!r}, …, {self.why!r})"


class Told(msgspec.Struct, frozen=True, tag=True):
    """What changes by itself. Told again whenever it changed."""

    engines: Mapping[str, Place]
    """By name: the embedded ones."""
    witnessed: Witnessed


class Start(msgspec.Struct, frozen=True, tag=True):
    """Answered once the worker listens."""

    number: int
    """Of the worker: 1 of `w1`."""
    settings: bytes
    """As `config.passing` writes them."""
    models: Mapping[str, bytes]
    """Engine -> its embedded model, as the composition root writes it."""
    voice: Voice
    pepper: bytes
    keys: list[tuple[KeyRow, bytes]]
    """Rows of API keys, and their MACs."""
    told: Told


class PutKey(msgspec.Struct, frozen=True, tag=True):
    """An API key was made or changed."""

    row: KeyRow
    mac: bytes


class Pause(msgspec.Struct, frozen=True, tag=True):
    """Give no keys to exchanges, forget those that are known; answered with a list of `Running`."""


class Running(msgspec.Struct, frozen=True, array_like=True):
    """An exchange under way."""

    fields: Mapping[str, Any]
    key: bytes


class Resume(msgspec.Struct, frozen=True, tag=True):
    """The end of `Pause`."""


class Sample(msgspec.Struct, frozen=True, tag=True):
    """Answered with a list of `Family`."""


class FindTrace(msgspec.Struct, frozen=True, tag=True):
    """Answered with a list of at most one `Trace`."""

    exchange: str


class Sync(msgspec.Struct, frozen=True, tag=True):
    """Answered with None: what was told before is then heard."""


class Drain(msgspec.Struct, frozen=True, tag=True):
    """Take nothing new, end when what runs has ended."""


class Cut(msgspec.Struct, frozen=True, tag=True):
    """Do not wait for what still runs."""


# From a worker.


class NewSeed(msgspec.Struct, frozen=True, tag=True):
    """Answered with a `Seed`."""


class BucketKey(msgspec.Struct, frozen=True, tag=True):
    """Answered with 32 bytes."""

    retention: str
    day: str


class SubjectKey(msgspec.Struct, frozen=True, tag=True):
    """Answered with 32 bytes."""

    pseudonym: str


class AskPerson(msgspec.Struct, frozen=True, tag=True):
    """Answered with a `Person`."""

    identity: str


class Reserve(msgspec.Struct, frozen=True, tag=True):
    """An exchange of a key with limits; answered with the tokens set aside."""

    key: str
    limits: Limits
    wanted: Wanted


class Spend(msgspec.Struct, frozen=True, tag=True):
    """It ended; answered with None when tokens were set aside for it, else a word."""

    key: str
    reserved: int
    tokens: int


class CountOf(msgspec.Struct, frozen=True, tag=True):
    """Answered with exchanges since the boot, and of the day."""

    key: str


class AllMetrics(msgspec.Struct, frozen=True, tag=True):
    """Answered with the text of `/metrics`."""


class AnyTrace(msgspec.Struct, frozen=True, tag=True):
    """Answered with a list of at most one `Trace`, of whichever worker has it."""

    exchange: str


class AddCheckpoint(msgspec.Struct, frozen=True, tag=True):
    """Answered with a `Cosigned`."""

    body: bytes


class Cosigned(msgspec.Struct, frozen=True, array_like=True):
    """What this site answers as a witness of others."""

    status: int
    body: bytes
    content_type: bytes


class Dispatched(msgspec.Struct, frozen=True, tag=True):
    """A request is handed to that engine."""

    engine: str


class Retried(msgspec.Struct, frozen=True, tag=True):
    """A request is handed to that engine after another one failed."""

    engine: str


class Ended(msgspec.Struct, frozen=True, tag=True):
    """What was dispatched or handed on has ended."""

    engine: str
    answered: bool
    tokens_prompt: int
    tokens_completion: int
    retried: bool = False


class Recorded(msgspec.Struct, frozen=True, tag=True):
    """An exchange of that key has its response in the ledger."""

    key: str


TO_WORKER: Final = Start | PutKey | Pause | Resume | Sample | FindTrace | Sync | Told | Drain | Cut
TO_PRIMARY: Final = (
    NewSeed
    | BucketKey
    | SubjectKey
    | AskPerson
    | Reserve
    | Spend
    | CountOf
    | AllMetrics
    | AnyTrace
    | AddCheckpoint
    | Dispatched
    | Retried
    | Ended
    | Recorded
)
