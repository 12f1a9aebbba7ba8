"""`Policy.open`: which logs, and which witnesses how many, make a checkpoint worth trusting (pure).

Source: C2SP tlog-policy. Lines of `log`, `witness`, `group` and `quorum`; a group has witnessed what `k` of its members
have. Names are octets without meaning: they are kept as text under `surrogateescape`, which tells any two apart.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Final

import msgspec

from rempart import limits
from rempart.errors import ConfigError, LedgerCorrupt
from rempart.ledger.log.checkpoint import Checkpoint, NoteKey, Verifier, decode_vkey, read_note, read_text, signed_by
from rempart.ledger.log.cosignature import ML_DSA_44, CosignatureVerifier

NONE: Final = "none"
_OCTETS = re.compile(rb"[\x09\x0a\x20-\x7e\x80-\xff]*")
_THRESHOLD = re.compile(r"[1-9][0-9]{0,5}")
_LOG_TYPES_HINT: Final = "A log has a key of type 01 (Ed25519) or 06 (ML-DSA-44)."


class Log(msgspec.Struct, frozen=True):
    """A log's key, whose name is the origin, and its address (may be empty)."""

    key: Verifier | CosignatureVerifier
    url: str = ""


class Witness(msgspec.Struct, frozen=True):
    """A witness: its name in this policy, its key, and its address (may be empty)."""

    name: str
    key: CosignatureVerifier
    url: str = ""


class Group(msgspec.Struct, frozen=True):
    """Witnesses and groups, of which `threshold` must have witnessed."""

    name: str
    threshold: int
    members: tuple[str, ...]


class Opened(msgspec.Struct, frozen=True):
    """A checkpoint that a policy found good."""

    checkpoint: Checkpoint
    witnesses: Mapping[str, int]
    """Who cosigned, by the policy's names; the newest time of each, in seconds since 1970 (0: not said)."""


class Policy(msgspec.Struct, frozen=True):
    """Groups stand in the order of their definition; `quorum` names a witness, a group, or `none`."""

    logs: tuple[Log, ...]
    witnesses: tuple[Witness, ...]
    groups: tuple[Group, ...]
    quorum: str

    @classmethod
    def parse(cls, data: bytes) -> Policy:
        """Raises `ConfigError`, with the line; `MissingDependency` for keys that the library cannot use."""
        if len(data) > limits.policy_bytes_max:
            raise ConfigError(f"The policy has more than {limits.policy_bytes_max} bytes.")
        if not _OCTETS.fullmatch(data):
            raise ConfigError("The policy holds a control character.", hint="Only tabs and line feeds may stand in it.")
        if not data.endswith(b"\n"):
            raise ConfigError("The policy's last line is cut.", hint="End the file with a line feed.")
        reader = _Reader()
        for number, line in enumerate(data.decode("utf-8", "surrogateescape")[:-1].split("\n"), 1):
            try:
                reader.read([item for item in re.split(r"[ \t]+", line) if item])
            except (ConfigError, LedgerCorrupt) as error:
                raise ConfigError(f"Line {number} of the policy: {_shown(error.message)}", hint=error.hint) from error
        if reader.quorum is None:
            raise ConfigError("The policy names no quorum.", hint="Add a line 'quorum <name>' or 'quorum none'.")
        return cls(tuple(reader.logs), tuple(reader.witnesses), tuple(reader.groups), reader.quorum)

    def open(self, note: bytes, now: float | None = None) -> Opened:
        """The checkpoint in a note, once this policy's conditions hold; else raises `LedgerCorrupt`.

        1. Each line that bears name and key id of a known key is valid; lines of other keys are ignored.
        2. With `now` (seconds since 1970), a signature dated over `limits.cosignature_leeway_s` ahead is not counted.
        3. A log whose name is the checkpoint's origin signed.
        4. The quorum's witnesses cosigned.
        """
        read = read_note(note)
        checkpoint = read_text(read.text)

        def times(key: NoteKey) -> list[int]:
            signed = signed_by(key, read)
            return [time for time in signed if now is None or time <= now + limits.cosignature_leeway_s]

        logs = {log.key.name for log in self.logs if times(log.key)}
        signed = {witness.name: times(witness.key) for witness in self.witnesses}
        witnesses = {name: max(seen) for name, seen in signed.items() if seen}
        if checkpoint.origin not in logs:
            raise LedgerCorrupt(f"The checkpoint of {checkpoint.origin} is signed by no log of the policy.")
        if not self.is_met(witnesses):
            raise LedgerCorrupt(
                f"The checkpoint of {checkpoint.origin} at size {checkpoint.size} lacks the quorum "
                f"'{_shown(self.quorum)}': {_shown(', '.join(witnesses)) or 'no witness'} cosigned it.",
                hint="Ask the witnesses again, or take a checkpoint that they have cosigned.",
            )
        return Opened(checkpoint, witnesses)

    def is_met(self, cosigned: Collection[str]) -> bool:
        """Whether cosignatures of these witnesses are a quorum."""
        witnessed = {witness.name for witness in self.witnesses if witness.name in cosigned}
        for group in self.groups:
            if len(witnessed.intersection(group.members)) >= group.threshold:
                witnessed.add(group.name)
        return self.quorum == NONE or self.quorum in witnessed


class _Reader:
    """What the lines read so far define."""

    def __init__(self) -> None:
        self.logs: list[Log] = []
        self.witnesses: list[Witness] = []
        self.groups: list[Group] = []
        self.quorum: str | None = None
        self._names: set[str] = set()
        self._members: set[str] = set()

    def read(self, items: Sequence[str]) -> None:
        """One line, split. Raises `ConfigError`, `LedgerCorrupt` for a verifier key, `MissingDependency`."""
        match items:
            case []:
                return
            case [first, *_] if first.startswith("#"):
                return
            case ["log", vkey, *url] if len(url) <= 1:
                self._log(vkey, "".join(url))
            case ["witness", name, vkey, *url] if len(url) <= 1:
                self._witness(name, vkey, "".join(url))
            case ["group", name, threshold, first, *others]:
                self._group(name, threshold, (first, *others))
            case ["quorum", name]:
                self._quorum(name)
            case [("log" | "witness" | "group" | "quorum") as keyword, *_]:
                raise ConfigError(f"'{keyword}' has too few items or too many.")
            case [keyword, *_]:
                raise ConfigError(f"'{keyword}' is none of log, witness, group and quorum.")

    def _log(self, vkey: str, url: str) -> None:
        kind = decode_vkey(vkey)[1]
        try:
            key = CosignatureVerifier.from_vkey(vkey) if kind == ML_DSA_44 else Verifier.from_vkey(vkey)
        except LedgerCorrupt as error:
            raise LedgerCorrupt(error.message, hint=_LOG_TYPES_HINT) from error
        _check_new(key, [log.key for log in self.logs], limits.policy_logs_max)
        self.logs.append(Log(key, url))

    def _witness(self, name: str, vkey: str, url: str) -> None:
        key = CosignatureVerifier.from_vkey(vkey)
        _check_new(key, [witness.key for witness in self.witnesses], limits.policy_witnesses_max)
        self._define(name)
        self.witnesses.append(Witness(name, key, url))

    def _group(self, name: str, threshold: str, members: tuple[str, ...]) -> None:
        if len(self.groups) >= limits.policy_groups_max:
            raise ConfigError(f"there are more than {limits.policy_groups_max} groups.")
        for member in members:
            if member not in self._names:
                raise ConfigError(f"'{member}' is not defined above.")
            if member in self._members:
                raise ConfigError(f"'{member}' is a member already.")
            self._members.add(member)
        self._define(name)
        self.groups.append(Group(name, _threshold(threshold, len(members)), members))

    def _quorum(self, name: str) -> None:
        if self.quorum is not None:
            raise ConfigError("there is a quorum already.")
        if name != NONE and name not in self._names:
            raise ConfigError(f"'{name}' is not defined above.")
        self.quorum = name

    def _define(self, name: str) -> None:
        if name == NONE or name in self._names:
            raise ConfigError(f"the name '{name}' is taken.")
        self._names.add(name)


def _check_new(key: Verifier | CosignatureVerifier, known: Sequence[Verifier | CosignatureVerifier], most: int) -> None:
    """tlog-policy: the same public key is the same log or witness, whatever its names; signed-note: so are name and id.

    A log and a witness may share a key.
    """
    if len(known) >= most:
        raise ConfigError(f"there are more than {most} of these.")
    for other in known:
        if key.public_key == other.public_key or (key.name, key.key_id) == (other.name, other.key_id):
            raise ConfigError(f"the key of {key.name} is there already, as that of {other.name}.")


def _threshold(text: str, members: int) -> int:
    match text:
        case "any":
            return 1
        case "all":
            return members
        case _ if _THRESHOLD.fullmatch(text) and int(text) <= members:
            return int(text)
    raise ConfigError(f"'{text}' is neither all, any, nor a number from 1 to {members}.")


def _shown(text: str) -> str:
    """Octets that are no UTF-8 cannot be printed."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
