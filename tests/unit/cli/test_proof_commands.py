"""`rempart ledger prove` and `pack`, on the golden ledger."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from rempart.cli.main import main
from rempart.ledger.log.policy import Policy
from rempart.ledger.log.proof import check, parse
from rempart.ledger.writing.opening import read_vkey

GOLDEN = Path(__file__).parents[2] / "golden" / "0.1.0"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A copy: nothing may be written into the golden one."""
    copy = tmp_path / "data"
    shutil.copytree(GOLDEN, copy)
    for path in (copy / "keys", *(copy / "keys").iterdir()):
        path.chmod(0o700 if path.is_dir() else 0o600)
    return copy


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main([*arguments])
    assert isinstance(ended.value.code, int)
    return ended.value.code


def exchange_of(data: Path, capsys: pytest.CaptureFixture[str]) -> str:
    assert run("ledger", "tail", "-n", "300", "--json", "--data", str(data)) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    found: str = next(line["entry"]["exchange"] for line in lines if line["entry"]["type"] == "request")
    return found


def test_a_proof_of_each_entry_of_an_exchange(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    exchange = exchange_of(data, capsys)
    assert run("ledger", "prove", exchange, "--to", str(tmp_path / "proofs"), "--json", "--data", str(data)) == 0
    told = json.loads(capsys.readouterr().out)
    policy = Policy.parse(f"log {read_vkey(data)}\nquorum none\n".encode())
    assert len(told["proofs"]) == 2
    for path in told["proofs"]:
        proof = parse(Path(path).read_bytes())
        assert json.loads(proof.extra)["exchange"] == exchange
        assert check(proof, proof.extra, policy).checkpoint.root.hex() == told["root"]


def test_a_pack_with_what_was_said_verifies_without_rempart(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    exchange = exchange_of(data, capsys)
    pack = tmp_path / "pack"
    assert run("key", "create", "--name", "audit", "--role", "auditor", "--data", str(data)) == 0
    key = tmp_path / "key"
    key.write_text(capsys.readouterr().out)
    asked = ("ledger", "pack", exchange, "--with-bodies", "--to", str(pack), "--json", "--data", str(data))
    assert run(*asked) == 2
    assert "What was said is disclosed for a stated reason alone." in capsys.readouterr().err
    assert not pack.exists()
    assert run(*asked, "--reason", "complaint 7", "--key-file", str(key)) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["entries"], told["disclosed"]) == (2, 2)
    command = [sys.executable, "-I", str(pack / "verify.py"), "--vkey", read_vkey(data), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert json.loads(done.stdout)["disclosed"] == 2


def test_a_range_is_packed_whole(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pack = tmp_path / "pack"
    assert run("ledger", "pack", "--from", "250", "--upto", "260", "--to", str(pack), "--data", str(data)) == 0
    assert "11 entries" in capsys.readouterr().out
    assert sorted(int(path.stem) for path in (pack / "entries").iterdir()) == list(range(250, 261))


def test_without_keys_nothing_is_disclosed_and_none_are_made(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(data / "keys")
    given = ("ledger", "pack", "0", "--to", str(tmp_path / "pack"), "--data", str(data))
    key = tmp_path / "key"
    key.write_text("rp_0")
    assert run(*given, "--with-bodies", "--reason", "an inquiry", "--key-file", str(key)) == 2
    told = capsys.readouterr().err
    assert "This directory has no keys (keys/ is missing)." in told
    assert not (data / "keys").exists()
    assert run(*given) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("prove", "f" * 32), "no entry"),
        (("prove", "999999"), "no entry"),
        (("pack", "--to", "{tmp}/p"), "no entry to be packed"),
        (("pack", "0", "--to", "{tmp}"), "is not empty"),
        (("pack", "0", "--to", "{tmp}/p", "--policy", "{tmp}/none"), "does not exist"),
    ],
)
def test_what_cannot_be_proved_is_said(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
) -> None:
    given = [one.replace("{tmp}", str(tmp_path)) for one in arguments]
    assert run("ledger", *given, "--data", str(data)) == 2
    assert message in capsys.readouterr().err
