"""`Settings`: the whole configuration as one frozen tree. Every value has its default here (values only)."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal

import msgspec

from rempart import limits

STANDARD: Final = "standard"
"""The class of exchanges that is always there."""
AUDIT: Final = "audit"
"""The class of the records of reads; always there."""


class Server(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The door."""

    host: str = "127.0.0.1"
    """Address to listen on; anything but loopback needs a certificate."""
    port: int = 8080
    """0 takes any free port."""
    certificate: Path | None = None
    """PEM file: the server's certificate and those between it and its root."""
    key: Path | None = None
    """PEM file: the certificate's private key."""
    workers: int = 1
    """Processes that answer together, over one ledger."""
    allowed_hosts: tuple[str, ...] = ()
    """Names of this server in Host headers, beside loopback and `host`."""
    body_bytes_max: int = limits.body_bytes_max
    exchanges_max: int = limits.exchanges_max
    """Exchanges that may run at once."""
    exchange_s: float = limits.exchange_s
    """Longest time one exchange may take."""
    drain_s: float = limits.drain_s
    """How long running exchanges may go on after SIGTERM."""
    queue_max: int = limits.queue_max
    """Exchanges that may wait for an engine with room; 0: none waits."""
    queue_s: float = limits.queue_s
    """Longest time that one waits."""


class Ledger(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The record."""

    origin: str = ""
    """Name of the log, fixed when it begins; empty: one is made."""
    strict: bool = False
    """Hold each piece of a stream until it is synced (slower; a power cut then loses nothing that was read)."""
    retention: str = STANDARD
    """Retention class of new exchanges."""
    policy: Path | None = None
    """C2SP tlog-policy: the witnesses of this log, their addresses, and their quorum; none: it has no witnesses."""
    witness_s: float = limits.witness_every_s
    """Seconds between two checkpoints that are shown to the witnesses."""
    witness_ca_file: Path | None = None
    """PEM file of the authorities that may sign certificates of witnesses; none: the system's."""
    timestamp_url: str = ""
    """Address of an RFC 3161 time-stamping authority: https://, or http:// on this machine; empty: no stamps."""
    timestamp_ca_file: Path | None = None
    """PEM file of that authority's certificates, its root among them."""
    timestamp_s: float = limits.timestamp_every_s
    """Seconds between two checkpoints that are stamped."""
    index: bool = True
    """Keep the search index up to date, in a process of its own."""
    index_s: float = limits.index_s
    """Pause between two looks of that process at the log."""
    four_eyes: bool = False
    """Show what was said only when a second auditor's key is given too."""
    review_days: int = 90
    """How often the ledger is to be reviewed."""


class Witness(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """This gateway as a witness of other logs, at `/witness/add-checkpoint`; without a name and logs it is none."""

    name: str = ""
    """Its name, fixed when its keys are made."""
    logs: tuple[str, ...] = ()
    """Verifier keys of the logs that it cosigns."""


class Retention(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One class, `[retention.<class>]`: how long its exchanges are kept, and on which ground."""

    days: int
    """Whole days that exchanges are kept after their own day (UTC)."""
    basis: str
    """The clause that asks for it, or allows it."""
    worm: bool = False
    """Refuse every erasure before the end."""
    erase_with_actor: bool = False
    """When the person who asked is erased, erase what was said too."""


class Engine(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One engine. `embedded` runs a GGUF in a process of its own, `openai` is any server that speaks OpenAI's API."""

    name: str
    kind: Literal["embedded", "openai"] = "embedded"
    model: Path | None = None
    """embedded: the GGUF file; none: the built-in guide."""
    model_name: str = ""
    """embedded: the name that clients use; empty: the file's."""
    context_tokens: int = 4096
    """embedded: context of one sequence."""
    parallel: int = 4
    """embedded: sequences at once."""
    threads: int = 0
    """embedded: threads; 0: as many as there are cores."""
    url: str = ""
    """openai: base address, up to but without `/v1`."""
    plain_http: bool = False
    """openai: allow `http://` to another machine: prompts and keys then cross the network in clear."""
    api_key_file: Path | None = None
    """openai: file that holds the key, readable by the owner only."""
    ca_file: Path | None = None
    """openai: PEM file of the authorities that may sign its certificate; none: the system's."""
    models: dict[str, str] = {}
    """openai: the name that clients use -> the engine's own; empty: all that it lists, under their names."""
    weight: float = 1.0
    """Its part of the exchanges, beside other engines of the same model."""
    max_concurrent: int = 0
    """Exchanges that it is given at once; 0: no bound."""


class Model(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How one model is routed, `[models.<name>]`; of a model that has none, the defaults hold."""

    aliases: tuple[str, ...] = ()
    """Other names of it."""
    fallbacks: tuple[str, ...] = ()
    """Models that answer in its place when no engine that serves it is up, the first one that can."""
    policy: Literal["least-outstanding", "prefix", "session"] = "least-outstanding"
    """Which of its engines answers."""


class Keys(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the keystore is kept. Secrets stand in files of their own, readable by their owner only."""

    sealing: Literal["file", "passphrase", "pkcs11"] = "file"
    """What seals the root: only the modes of its file, a passphrase, or a key in a PKCS #11 token."""
    passphrase_file: Path | None = None
    """passphrase: its first line."""
    pkcs11_library: Path | None = None
    """pkcs11: the token's shared object."""
    pkcs11_token: str = ""
    """pkcs11: the token's label."""
    pkcs11_pin_file: Path | None = None
    """pkcs11: the user's PIN is its first line."""
    database: str = ""
    """postgresql:// address of the rows, without a password (give passfile=); empty: keys/keystore.db."""


class Logging(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Operational logs: JSON lines on stderr, never a prompt or a completion."""

    level: Literal["debug", "info", "warning", "error"] = "info"


def standard_retention() -> dict[str, Retention]:
    """What is there when nothing is said: a year, the most that the CNIL takes for usual in logs."""
    basis = "GDPR art. 5(1)(e); CNIL deliberation 2021-122: logs are kept six months to one year"
    audit = "GDPR art. 5(2) and 32; CNIL deliberation 2021-122: records of access are kept six months to one year"
    return {STANDARD: Retention(days=365, basis=basis), AUDIT: Retention(days=365, basis=audit)}


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """rempart.toml."""

    data: Path = Path("data")
    """The data directory."""
    server: Server = Server()
    ledger: Ledger = Ledger()
    retention: dict[str, Retention] = msgspec.field(default_factory=standard_retention)
    """By name of the class; `standard` is among them."""
    keys: Keys = Keys()
    witness: Witness = Witness()
    logging: Logging = Logging()
    engines: tuple[Engine, ...] = (Engine(name="embedded"),)
    models: dict[str, Model] = {}
    """By the name that clients use."""
