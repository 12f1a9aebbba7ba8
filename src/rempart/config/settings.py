"""`Settings`: the whole configuration as one frozen tree. Every value has its default here (values only)."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

from rempart import limits


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
    allowed_hosts: tuple[str, ...] = ()
    """Names of this server in Host headers, beside loopback and `host`."""
    body_bytes_max: int = limits.body_bytes_max
    exchanges_max: int = limits.exchanges_max
    """Exchanges that may run at once."""
    exchange_s: float = limits.exchange_s
    """Longest time one exchange may take."""
    drain_s: float = limits.drain_s
    """How long running exchanges may go on after SIGTERM."""


class Ledger(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The record."""

    origin: str = ""
    """Name of the log, fixed when it begins; empty: one is made."""
    strict: bool = False
    """Hold each piece of a stream until it is synced (slower; a power cut then loses nothing that was read)."""
    retention: str = "standard"
    """Retention class of new exchanges."""
    policy: Path | None = None
    """C2SP tlog-policy: the witnesses of this log, their addresses, and their quorum; none: it has no witnesses."""
    witness_s: float = limits.witness_every_s
    """Seconds between two checkpoints that are shown to the witnesses."""
    witness_ca_file: Path | None = None
    """PEM file of the authorities that may sign certificates of witnesses; none: the system's."""


class Witness(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """This gateway as a witness of other logs, at `/witness/add-checkpoint`; without a name and logs it is none."""

    name: str = ""
    """Its name, fixed when its keys are made."""
    logs: tuple[str, ...] = ()
    """Verifier keys of the logs that it cosigns."""


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
    api_key_file: Path | None = None
    """openai: file that holds the key, readable by the owner only."""
    ca_file: Path | None = None
    """openai: PEM file of the authorities that may sign its certificate; none: the system's."""
    models: dict[str, str] = {}
    """openai: the name that clients use -> the engine's own; empty: all that it lists, under their names."""


class Logging(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Operational logs: JSON lines on stderr, never a prompt or a completion."""

    level: Literal["debug", "info", "warning", "error"] = "info"


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """rempart.toml."""

    data: Path = Path("data")
    """The data directory."""
    server: Server = Server()
    ledger: Ledger = Ledger()
    witness: Witness = Witness()
    logging: Logging = Logging()
    engines: tuple[Engine, ...] = (Engine(name="embedded"),)
