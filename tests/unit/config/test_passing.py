"""`rempart.config.passing`: settings arrive as they were."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from rempart.config import passing
from rempart.config.settings import Engine, Keys, Ledger, Retention, Server, Settings, Witness

FULL = Settings(
    data=Path("some/where"),
    server=Server(port=0, workers=3, certificate=Path("/c.pem"), key=Path("/k.pem"), allowed_hosts=("llm.example",)),
    ledger=Ledger(policy=Path("/witnesses"), strict=True, witness_s=2.5),
    retention={"standard": Retention(days=3, basis="é"), "worm": Retention(days=9, basis="b", worm=True)},
    keys=Keys(sealing="passphrase", passphrase_file=Path("/p")),
    witness=Witness(name="w.example/witness", logs=("a", "b")),
    engines=(
        Engine(name="one", model=Path("/m.gguf")),
        Engine(name="two", kind="openai", url="https://e", models={"a": "b"}),
    ),
)


@pytest.mark.parametrize("settings", [Settings(), FULL])
def test_they_arrive_as_they_were(settings: Settings) -> None:
    assert passing.decode(passing.encode(settings)) == settings


@pytest.mark.parametrize("data", [b"", b"[]", b'{"data": 1}', b'{"nothing": 1}'])
def test_what_nothing_of_ours_wrote_is_refused(data: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        passing.decode(data)
