"""`rempart ledger prove` and `pack`, on the golden ledger."""

from __future__ import annotations

import json
import secrets
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from rempart.cli.main import main
from rempart.ledger.log.checkpoint import parse_note, with_signatures
from rempart.ledger.log.cosignature import Cosigner
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


@pytest.fixture
def policy(data: Path, tmp_path: Path) -> Path:
    """Of a witness that has cosigned the golden ledger; since then it has grown by an entry."""
    witness = Cosigner("witness.example/w", secrets.token_bytes(32))
    note = (data / "ledger" / "log" / "checkpoint").read_bytes()
    (data / "ledger" / "witnessed").mkdir()
    cosigned = with_signatures(note, [witness.cosign(parse_note(note)[0], 1_800_000_000)])
    (data / "ledger" / "witnessed" / "checkpoint").write_bytes(cosigned)
    assert run("key", "create", "--name", "later", "--data", str(data)) == 0
    path = tmp_path / "policy"
    path.write_text(f"log {read_vkey(data)}\nwitness w {witness.verifier.vkey} https://w.example\nquorum w\n")
    (data / "rempart.toml").write_text(f'[ledger]\npolicy = "{path}"\n')
    return path


def verified(pack: Path, *trusted: str) -> tuple[int, str]:
    command = [sys.executable, "-I", str(pack / "verify.py"), *trusted]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout


def test_a_pack_is_under_the_checkpoint_that_the_witnesses_cosigned(
    data: Path, policy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pack = tmp_path / "pack"
    assert run("ledger", "pack", "3", "--from", "250", "--to", str(pack), "--data", str(data)) == 0
    told = capsys.readouterr().out
    assert f"verify.py --policy '{policy}'" in told
    size = parse_note((pack / "checkpoint").read_bytes())[1].size
    assert f"entries 3, 250 to {size - 1}" in told
    status, said = verified(pack, "--policy", str(policy))
    assert status == 0, said
    assert "witnesses    w" in said
    assert f"entries      3, 250 to {size - 1}" in said
    (data / "rempart.toml").unlink()
    asked = ("ledger", "pack", "3", "--policy", str(policy), "--to", str(tmp_path / "given"), "--data", str(data))
    assert run(*asked) == 0
    assert verified(tmp_path / "given", "--policy", str(policy))[0] == 0


@pytest.mark.usefixtures("policy")
def test_what_the_witnesses_have_not_seen_yet_is_packed_without_them_when_asked_for(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert run("ledger", "tail", "-n", "1", "--json", "--data", str(data)) == 0
    last = json.loads(capsys.readouterr().out)["index"]
    pack = tmp_path / "pack"
    asked = ("ledger", "pack", str(last), "--to", str(pack), "--data", str(data))
    assert run(*asked) == 2
    assert f"entries so far, not entry {last}." in capsys.readouterr().err
    assert not pack.exists()
    assert run(*asked, "--no-witnesses") == 0
    assert verified(pack, "--vkey", read_vkey(data))[0] == 0


def test_a_proof_bears_the_cosignatures_once_they_cover_it(
    data: Path, policy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert run("ledger", "prove", "3", "--to", str(tmp_path), "--data", str(data)) == 0
    proof = parse((tmp_path / "3.tlog-proof").read_bytes())
    assert set(check(proof, proof.extra, Policy.parse(policy.read_bytes())).witnesses) == {"w"}
    assert run("ledger", "tail", "-n", "1", "--json", "--data", str(data)) == 0
    last = json.loads(capsys.readouterr().out.splitlines()[-1])["index"]
    assert run("ledger", "prove", str(last), "--to", str(tmp_path), "--data", str(data)) == 0
    assert (tmp_path / f"{last}.tlog-proof").exists()


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
