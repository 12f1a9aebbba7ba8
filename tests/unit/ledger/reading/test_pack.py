"""`rempart.ledger.reading.pack`: a pack is verified by its own file alone, and every forgery is seen."""

from __future__ import annotations

import asyncio
import base64
import importlib.util
import json
import os
import py_compile
import secrets
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rempart.errors import ConfigError, NotFound, UsageError
from rempart.ledger.keys.body import Revealed
from rempart.ledger.keys.configured import open_keystore
from rempart.ledger.log.checkpoint import Checkpoint, Signer, with_signatures
from rempart.ledger.log.cosignature import ML_DSA_44, Cosigner
from rempart.ledger.log.merkle import fold, range_nodes
from rempart.ledger.log.policy import Policy
from rempart.ledger.log.proof import check, encode, parse
from rempart.ledger.reading.find import find_revealed, newest_first
from rempart.ledger.reading.pack import proof_of, write_pack
from rempart.ledger.reading.prove import Prover, TileReader, prove
from rempart.ledger.writing.opening import open_ledger, read_vkey

EXCHANGES = 300
"""Enough for a full tile and a second level."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = tmp_path_factory.mktemp("site")

    async def write() -> None:
        journal = await open_ledger(data, open_keystore(data), origin="pack.example/log", strict=False)
        for number in range(EXCHANGES):
            record = await journal.open(
                secrets.token_hex(16), actor="a_0", role="user", key="k", subject="", people=(), retention="standard"
            )
            asked = await record.request({"operation": "chat", "model": "m"}, b'{"asked":%d}' % number)
            await record.response({"outcome": "ok", "status": 200, "request": asked.index}, b'{"said":%d}' % number)
        await journal.close()

    asyncio.run(write())
    return data


def policy_of(site: Path) -> bytes:
    return f"log {read_vkey(site)}\nquorum none\n".encode()


@pytest.fixture
def pack(site: Path, tmp_path: Path) -> Path:
    """Two exchanges, one of them with what was said."""
    to = tmp_path / "pack"
    keystore = open_keystore(site)
    disclosed = find_revealed(site / "ledger", (0, 1, 2), keystore)
    write_pack(site / "ledger" / "log", [1, 2, 501, 502], to, policy=policy_of(site), disclosed=disclosed)
    return to


def verify(pack: Path, *arguments: str) -> tuple[int, dict[str, Any]]:
    """With no module path: nothing of Rempart can be imported."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    code = (
        "import sys, runpy; sys.modules['rempart'] = None; sys.modules['msgspec'] = None;"
        "sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(pack / "verify.py"), "--json", *arguments, str(pack)],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def test_a_pack_verifies_by_itself(pack: Path, site: Path) -> None:
    status, told = verify(pack, "--vkey", read_vkey(site))
    assert status == 0
    assert (told["entries"], told["pairs"], told["disclosed"]) == (4, 2, 2)
    assert (told["origin"], told["policy"]) == ("pack.example/log", "yours")
    assert told["size"] == 2 * EXCHANGES + 1


def test_a_policy_that_came_along_is_told_to_be_the_packs_own(pack: Path) -> None:
    assert verify(pack)[1]["policy"] == "the pack's own"


def test_a_pack_shows_no_neighbour(pack: Path, site: Path) -> None:
    """Neither bundles nor any other entry, body or key."""
    names = {str(path.relative_to(pack)) for path in pack.rglob("*") if path.is_file()}
    assert not [name for name in names if name.startswith("tile/entries")]
    assert {name for name in names if name.startswith("entries/")} == {f"entries/{n}.json" for n in (1, 2, 501, 502)}
    whole = b"".join(path.read_bytes() for path in pack.rglob("*") if path.is_file())
    exchanges = {fields.get("exchange", "") for _, fields in newest_first(site / "ledger")}
    shown = {exchange for exchange in exchanges if exchange and exchange.encode() in whole}
    assert len(shown) == 2
    assert base64.b64encode(b'{"said":249}') not in whole


def test_the_same_verifier_is_read_as_a_person_would(pack: Path, site: Path) -> None:
    command = [sys.executable, str(pack / "verify.py"), "--vkey", read_vkey(site)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert done.stdout.startswith("It holds: 4 entries of pack.example/log, 2 of them with what was said.")


def _replace(name: str, old: bytes, new: bytes) -> Callable[[Path], None]:
    def forge(pack: Path) -> None:
        path = pack / name
        data = path.read_bytes()
        assert old in data
        path.write_bytes(data.replace(old, new, 1))

    return forge


def _remove(name: str) -> Callable[[Path], None]:
    return lambda pack: (pack / name).unlink()


def _flip(name: str, at: int) -> Callable[[Path], None]:
    def forge(pack: Path) -> None:
        path = pack / name
        data = bytearray(path.read_bytes())
        data[at] ^= 1
        path.write_bytes(data)

    return forge


def _other_content(pack: Path) -> None:
    path = pack / "disclosed" / "2.json"
    told = json.loads(path.read_bytes())
    path.write_text(json.dumps({**told, "content": base64.b64encode(b'{"said":"lie"}').decode()}))


def _other_entry(pack: Path) -> None:
    shutil.copy(pack / "entries" / "501.json", pack / "entries" / "1.json")


def _one_more(pack: Path) -> None:
    shutil.copy(pack / "entries" / "501.json", pack / "entries" / "7.json")


def _cut(pack: Path) -> None:
    (pack / "checkpoint").write_bytes((pack / "checkpoint").read_bytes()[:-1])


def _said(pack: Path, text: str) -> None:
    (pack / "disclosed" / "2.json").write_text(text)


def _said_twice(pack: Path) -> None:
    """Other readers of JSON take the first of two names."""
    told = json.loads((pack / "disclosed" / "2.json").read_bytes())
    lie = base64.b64encode(b'{"said":"lie"}').decode()
    _said(pack, f'{{"content":"{lie}","salt":"{told["salt"]}","content":"{told["content"]}"}}')


def _said_of_nothing(pack: Path) -> None:
    shutil.copy(pack / "disclosed" / "2.json", pack / "disclosed" / "9.json")


def _pipe(pack: Path) -> None:
    (pack / "entries" / "1.json").unlink()
    os.mkfifo(pack / "entries" / "1.json")


def _endless(pack: Path) -> None:
    (pack / "entries" / "1.json").unlink()
    (pack / "entries" / "1.json").symlink_to("/dev/zero")


def _other_digits(pack: Path) -> None:
    (pack / "entries" / "1.json").rename(pack / "entries" / "\u0661.json")


def _deep(pack: Path) -> None:
    (pack / "entries" / "1.json").write_bytes(b"[" * 60_000)


def _no_number(pack: Path) -> None:
    (pack / "entries" / "1.json").write_bytes(b'{"v":NaN}')


def _empty(pack: Path) -> None:
    for directory in ("entries", "proofs", "disclosed"):
        shutil.rmtree(pack / directory)
        (pack / directory).mkdir()


@pytest.mark.parametrize(
    "forge",
    [
        _said_twice,
        _said_of_nothing,
        _pipe,
        _endless,
        _other_digits,
        _deep,
        _no_number,
        _replace("entries/1.json", b'"model":"m"', b'"model":"n"'),
        _replace("entries/1.json", b'"model":"m"', b'"model": "m"'),
        _replace("checkpoint", b"\n601\n", b"\n602\n"),
        _replace("proofs/501.tlog-proof", b"index 501", b"index 502"),
        _flip("tile/0/000", 40),
        _flip("tile/0/002.p/89", 40),
        _flip("tile/1/000.p/2", 40),
        _remove("tile/0/002.p/89"),
        _remove("entries/1.json"),
        _empty,
        _flip("checkpoint", -10),
        _cut,
        _flip("proofs/1.tlog-proof", 40),
        _remove("proofs/1.tlog-proof"),
        _remove("tile/0/000"),
        _remove("checkpoint"),
        _other_content,
        _other_entry,
        _one_more,
    ],
)
def test_every_forgery_is_seen(pack: Path, site: Path, forge: Callable[[Path], None]) -> None:
    forge(pack)
    status, told = verify(pack, "--vkey", read_vkey(site))
    assert (status, told["holds"]) == (1, False)
    assert told["error"]


def test_what_cannot_be_read_is_named(pack: Path, site: Path) -> None:
    (pack / "proofs" / "501.tlog-proof").unlink()
    status, told = verify(pack, "--vkey", read_vkey(site))
    assert (status, told["error"]) == (1, "proofs/501.tlog-proof cannot be read: No such file or directory")


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (("--vkey", "abc"), "--vkey: that is no verifier key: abc"),
        (("--vkey", "a.example+00000000+AQ=="), "--vkey: the key of a.example is of a kind that is not known here"),
        (("--policy", "/none"), "/none cannot be read: No such file or directory"),
        (("--timestamp-ca", "/dev/null"), "/dev/null holds no certificate in PEM"),
    ],
)
def test_a_slip_in_what_was_typed_is_no_finding_about_the_pack(pack: Path, given: tuple[str, ...], why: str) -> None:
    assert verify(pack, *given) == (2, {"holds": None, "error": why})


def test_an_older_checkpoint_that_witnesses_cosigned_can_be_packed(site: Path, tmp_path: Path) -> None:
    """Tiles of its size may be gone: they are cut from those of the newest."""
    log = tmp_path / "ledger" / "log"
    shutil.copytree(site / "ledger" / "log", log)
    prover, signer = Prover(log), Signer("pack.example/log", secrets.token_bytes(32))
    node = TileReader(log, prover.head.size).node
    for size in (3, 256, 300, 512, 600):
        root = fold([node(*one) for one in range_nodes(0, size)])
        older = signer.sign(Checkpoint("pack.example/log", size, root))
        to = tmp_path / str(size)
        policy = f"log {signer.verifier.vkey}\nquorum none\n".encode()
        write_pack(log, [0, size - 1], to, policy=policy, disclosed={}, note=older)
        status, told = verify(to, "--vkey", signer.verifier.vkey)
        assert (status, told["size"], told["indices"]) == (0, size, f"0, {size - 1}"), told
        with pytest.raises(NotFound, match=f"covers {size} entries"):
            write_pack(log, [size], tmp_path / "p", policy=policy, disclosed={}, note=older)


def test_another_log_is_not_believed(pack: Path) -> None:
    other = Signer("pack.example/log", secrets.token_bytes(32)).verifier.vkey
    status, told = verify(pack, "--vkey", other)
    assert status == 1
    assert "not signed by a log of the policy" in told["error"]


@pytest.mark.parametrize("kind", [4, ML_DSA_44])
def test_a_quorum_of_witnesses_is_asked_for(pack: Path, site: Path, tmp_path: Path, kind: int) -> None:
    witness = Cosigner("witness.example/w", secrets.token_bytes(32), kind)
    policy = tmp_path / "policy"
    policy.write_text(f"log {read_vkey(site)}\nwitness w {witness.verifier.vkey}\nquorum w\n")
    status, told = verify(pack, "--policy", str(policy))
    assert status == 1
    assert "quorum" in told["error"]
    note = (pack / "checkpoint").read_bytes()
    text = note[: note.rindex(b"\n\n") + 1]
    (pack / "checkpoint").write_bytes(with_signatures(note, [witness.cosign(text, 1_800_000_000)]))
    assert verify(pack, "--policy", str(policy)) == (0, verify(pack, "--policy", str(policy))[1])
    assert verify(pack, "--policy", str(policy))[1]["witnesses"] == ["w"]


def test_a_proof_holds_its_own_entry(site: Path) -> None:
    proof = parse(encode(proof_of(prove(site / "ledger" / "log", 3))))
    opened = check(proof, proof.extra, Policy.parse(policy_of(site)))
    assert opened.checkpoint.size == 2 * EXCHANGES + 1


def test_what_is_not_under_the_checkpoint_cannot_be_packed(site: Path, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="covers 601 entries"):
        write_pack(site / "ledger" / "log", [601], tmp_path / "p", policy=policy_of(site), disclosed={})
    with pytest.raises(NotFound, match="no entry"):
        write_pack(site / "ledger" / "log", [], tmp_path / "p", policy=policy_of(site), disclosed={})


def test_a_directory_that_holds_something_is_left_alone(site: Path, tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("x")
    with pytest.raises(UsageError, match="not empty"):
        write_pack(site / "ledger" / "log", [1], tmp_path, policy=policy_of(site), disclosed={1: Revealed(b"", b"")})
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_no_file_of_a_pack_stands_in_for_a_module(pack: Path, site: Path) -> None:
    """Python looks for modules beside the script first, and takes compiled ones for their source."""
    lie = "print('It holds: 999 entries'); raise SystemExit(0)\n"
    (pack / "argparse.py").write_text(lie)
    (pack / "lie.py").write_text(lie)
    compiled = Path(importlib.util.cache_from_source(str(pack / "verify_timestamps.py")))
    compiled.parent.mkdir()
    unchecked = py_compile.PycInvalidationMode.UNCHECKED_HASH
    py_compile.compile(str(pack / "lie.py"), cfile=str(compiled), invalidation_mode=unchecked)
    (pack / "timestamps").mkdir()
    (pack / "timestamps" / "601.tst").write_bytes(b"\x30\x00")
    (pack / "timestamps" / "601.consistency").write_bytes(b"")
    shutil.copy(pack / "checkpoint", pack / "timestamps" / "601.checkpoint")
    command = [sys.executable, str(pack / "verify.py"), "--vkey", read_vkey(site)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (
        1,
        "IT DOES NOT HOLD: the time stamp cannot be read: not enough values to unpack (expected 2, got 0)\n",
    )


def test_what_stands_in_a_pack_moves_no_cursor(pack: Path, site: Path) -> None:
    origin = "\x1b[2J\x1b[HIt holds: 4 entries\x9b8m\u202e"
    text = f"{origin}\n601\n{base64.b64encode(bytes(32)).decode()}\n\n\u2014 x AAAAAAAA\n"
    (pack / "checkpoint").write_text(text)
    command = [sys.executable, str(pack / "verify.py"), "--vkey", read_vkey(site)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stdout.removesuffix("\n").isprintable()


@pytest.mark.parametrize(
    "lines",
    [
        "witness a KEY\nwitness b KEY\ngroup g 2 a b\nquorum g\n",
        "witness a KEY\ngroup g 2 a a\nquorum g\n",
        "witness a KEY\ngroup g any a\ngroup h any a\nquorum g\n",
        "witness a LOG\nquorum a\n",
        "witness a KEY\ngroup none any a\nquorum none\n",
        "witness a KEY more than-that\nquorum a\n",
    ],
)
def test_a_policy_that_counts_one_witness_twice_is_refused_as_everywhere(
    pack: Path, site: Path, tmp_path: Path, lines: str
) -> None:
    witness = Cosigner("witness.example/w", secrets.token_bytes(32))
    note = (pack / "checkpoint").read_bytes()
    text = note[: note.rindex(b"\n\n") + 1]
    (pack / "checkpoint").write_bytes(with_signatures(note, [witness.cosign(text, 1_800_000_000)]))
    whole = f"log {read_vkey(site)}\n{lines}".replace("KEY", witness.verifier.vkey).replace("LOG", read_vkey(site))
    (tmp_path / "policy").write_text(whole)
    status, told = verify(pack, "--policy", str(tmp_path / "policy"))
    assert (status, told["holds"]) == (2, None)
    assert "policy" in told["error"] or "key" in told["error"]
    with pytest.raises(ConfigError):
        Policy.parse(whole.encode())


def test_names_of_a_policy_need_not_be_ascii(pack: Path, site: Path, tmp_path: Path) -> None:
    witness = Cosigner("h\u00f4pital.example/\u00e0", secrets.token_bytes(32))
    note = (pack / "checkpoint").read_bytes()
    text = note[: note.rindex(b"\n\n") + 1]
    (pack / "checkpoint").write_bytes(with_signatures(note, [witness.cosign(text, 1_800_000_000)]))
    policy = tmp_path / "policy"
    policy.write_text(f"log {read_vkey(site)}\nwitness \u00e0 {witness.verifier.vkey}\nquorum \u00e0\n", "utf-8")
    status, told = verify(pack, "--policy", str(policy))
    assert (status, told.get("witnesses")) == (0, ["\u00e0"]), told
