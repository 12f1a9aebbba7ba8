#!/usr/bin/env python3
"""Verify an auditor's pack. Needs Python 3.11 and the package `cryptography`, and nothing of Rempart.

    python3 verify.py [--policy FILE | --vkey KEY] [--timestamp-ca FILE] [--json] [DIRECTORY]

Trust no policy that came with the pack: give the one, or the log's verifier key, that you were handed another way.

What it does, in this order; it stops at the first thing that does not hold and exits with 1 (with 2 when what it was
given cannot be used, such as a key with a slip in it):
1. The policy is read (C2SP tlog-policy), or made of the one key given.
2. The checkpoint must be signed by a log of the policy, and cosigned by its quorum of witnesses
   (C2SP tlog-checkpoint, signed-note, tlog-cosignature).
3. Each entry must be canonical JSON (RFC 8785), and its proof (C2SP tlog-proof) must lead from the hash of its own
   bytes to the root of that checkpoint (RFC 9162 section 2.1.3.2).
4. Each hash tile above an entry must hold the hashes that the tiles below it and the entry say, and the last tiles of
   each level must lead to the root of the checkpoint (C2SP tlog-tiles).
5. What is disclosed of an entry must be what the entry commits to (HMAC-SHA256 under the salt disclosed with it).
   No proof and nothing disclosed may be of an entry that is not in the pack.
6. The request and the response of one exchange must name each other.
7. Each time stamp must be on the bytes of a checkpoint that a log of the policy signed, whose tree is the beginning of
   that of the pack's checkpoint (RFC 9162 section 2.1.4.2). With the authority's certificates it must hold too
   (`verify_timestamps.py`); without them it is told that nobody checked it.

What it does not do: tell whether the disclosed entries are all there are. Ask for the pack of an index range for that:
entries are numbered without gaps.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import hmac
import importlib.util
import json
import os
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NoReturn

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

LOG, COSIGNATURE, MLDSA = 1, 4, 6
WIDTH = 256
INTEGER_MAX = 2**53 - 1
PROOF = "c2sp.org/tlog-proof@v1"


class Broken(Exception):
    """Something does not hold; the text says what."""


class Misused(Exception):
    """What was given to trust, or the directory, cannot be used; the text says why. No finding about the pack."""


def refuse(text: str) -> NoReturn:
    raise Broken(text)


# Keys and signatures.


class Key:
    """A verifier key: `name+hex(key id)+base64(type ‖ public key)`."""

    def __init__(self, vkey: str) -> None:
        found = re.fullmatch(r"([^\s+]+)\+([0-9a-f]{8})\+(\S+)", vkey)
        if found is None:
            refuse(f"that is no verifier key: {vkey[:60]}")
        self.name = found[1]
        decoded = unbase64(found[3])
        self.kind, self.public = decoded[0], decoded[1:]
        if self.kind not in (LOG, COSIGNATURE, MLDSA) or len(self.public) != (1312 if self.kind == MLDSA else 32):
            refuse(f"the key of {self.name} is of a kind that is not known here")
        self.id = hashlib.sha256(self.name.encode() + b"\n" + decoded).digest()[:4]
        if self.id.hex() != found[2]:
            refuse(f"the key of {self.name} is damaged: its key id does not fit")

    def verify(self, signature: bytes, text: bytes, checkpoint: tuple[str, int, bytes]) -> None:
        """Refuses what this key did not sign."""
        try:
            if self.kind == LOG:
                Ed25519PublicKey.from_public_bytes(self.public).verify(signature, text)
                return
            if len(signature) <= 8:
                refuse(f"the signature of {self.name} is too short")
            time, rest = int.from_bytes(signature[:8], "big"), signature[8:]
            if self.kind == COSIGNATURE:
                message = f"cosignature/v1\ntime {time}\n".encode() + text
                Ed25519PublicKey.from_public_bytes(self.public).verify(rest, message)
            else:
                self._verify_mldsa(rest, time, checkpoint)
        except InvalidSignature:
            refuse(f"the signature of {self.name} does not hold")

    def _verify_mldsa(self, signature: bytes, time: int, checkpoint: tuple[str, int, bytes]) -> None:
        try:
            from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PublicKey
        except ImportError:
            refuse(f"the signature of {self.name} is ML-DSA-44: a newer 'cryptography' is needed")
        origin, size, root = checkpoint
        names = [bytes([len(text.encode())]) + text.encode() for text in (self.name, origin)]
        message = b"subtree/v1\n\0" + names[0] + time.to_bytes(8, "big") + names[1]
        message += (0).to_bytes(8, "big") + size.to_bytes(8, "big") + root
        MLDSA44PublicKey.from_public_bytes(self.public).verify(signature, message)


class Policy:
    """Known logs, known witnesses, and how many of these must have cosigned."""

    def __init__(self, text: str) -> None:
        self.logs: list[Key] = []
        self.witnesses: dict[str, Key] = {}
        self.groups: dict[str, tuple[int, list[str]]] = {}
        self.quorum = ""
        for line in text.split("\n"):
            words = line.strip(" \t").split()
            if words and not words[0].startswith("#"):
                self._take(words)
        if not self.quorum:
            refuse("the policy has no quorum")

    def _take(self, words: list[str]) -> None:
        known = self.witnesses.keys() | self.groups.keys()
        match words:
            case ["log", vkey, *_]:
                self.logs.append(Key(vkey))
            case ["witness", name, vkey, *_] if name not in known and name != "none":
                self.witnesses[name] = Key(vkey)
            case ["group", name, least, *members] if members and name not in known and known.issuperset(members):
                count = {"any": 1, "all": len(members)}.get(least) or int(least)
                if not 1 <= count <= len(members):
                    refuse(f"the policy's group {name} can never be met")
                self.groups[name] = (count, members)
            case ["quorum", name] if not self.quorum and (name == "none" or name in known):
                self.quorum = name
            case _:
                refuse(f"the policy has a line that is not understood: {' '.join(words)[:80]}")

    def met_by(self, name: str, cosigned: set[str]) -> bool:
        if name == "none":
            return True
        if name in self.witnesses:
            return name in cosigned
        count, members = self.groups[name]
        return sum(self.met_by(member, cosigned) for member in members) >= count

    def open(self, note: bytes, quorum: bool = True) -> tuple[tuple[str, int, bytes], list[str]]:
        """(origin, size, root) and the witnesses that cosigned. Refuses what the policy does."""
        text, lines = split_note(note)
        checkpoint = parse_checkpoint(text)
        by_log, cosigned = False, set()
        for name, signature in lines:
            for witness, key in self.witnesses.items():
                if (key.name, key.id) == (name, signature[:4]):
                    key.verify(signature[4:], text, checkpoint)
                    cosigned.add(witness)
            for log in self.logs:
                if (log.name, log.id) == (name, signature[:4]) and log.name == checkpoint[0]:
                    log.verify(signature[4:], text, checkpoint)
                    by_log = True
        if not by_log:
            refuse(f"the checkpoint of {checkpoint[0]} is not signed by a log of the policy")
        if quorum and not self.met_by(self.quorum, cosigned):
            refuse(f"the checkpoint is cosigned by {sorted(cosigned) or 'nobody'}: that is not the policy's quorum")
        return checkpoint, sorted(cosigned)


def split_note(note: bytes) -> tuple[bytes, list[tuple[str, bytes]]]:
    end = note.rfind(b"\n\n")
    if end < 0:
        refuse("the checkpoint is no signed note")
    found = []
    for line in note[end + 2 :].decode().splitlines():
        dash, name, encoded = line.split(" ")
        if dash != "—":
            refuse("a signature line does not begin with a dash")
        found.append((name, unbase64(encoded)))
    return note[: end + 1], found


def parse_checkpoint(text: bytes) -> tuple[str, int, bytes]:
    origin, size, root, *_ = text.decode().split("\n")
    decoded = unbase64(root)
    if not origin or not re.fullmatch("0|[1-9][0-9]*", size) or len(decoded) != 32:
        refuse("the checkpoint cannot be read")
    return origin, int(size), decoded


def unbase64(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


# The tree.


def leaf_hash(entry: bytes) -> bytes:
    return hashlib.sha256(b"\0" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\1" + left + right).digest()


def climb(index: int, size: int, leaf: bytes, hashes: list[bytes]) -> bytes:
    """The root that a proof leads to."""
    if not 0 <= index < size:
        refuse(f"entry {index} is not in a tree of {size}")
    place, last, found = index, size - 1, leaf
    for hash_ in hashes:
        if last == 0:
            refuse(f"the proof of entry {index} is too long")
        if place % 2 or place == last:
            found = node_hash(hash_, found)
            while place % 2 == 0 and place:
                place, last = place >> 1, last >> 1
        else:
            found = node_hash(found, hash_)
        place, last = place >> 1, last >> 1
    if last:
        refuse(f"the proof of entry {index} is too short")
    return found


def root_of(row: list[bytes]) -> bytes:
    while len(row) > 1:
        row = [node_hash(*row[at : at + 2]) if at + 1 < len(row) else row[at] for at in range(0, len(row), 2)]
    return row[0]


def tile_path(level: int, number: int, width: int) -> str:
    groups = [f"{number % 1000:03d}"]
    while number >= 1000:
        number //= 1000
        groups.append(f"x{number % 1000:03d}")
    return f"tile/{level}/{'/'.join(reversed(groups))}" + ("" if width == WIDTH else f".p/{width}")


class Tiles:
    """The hash tiles of the pack, each read once."""

    def __init__(self, pack: Path, size: int) -> None:
        self._pack = pack
        self._size = size
        self.read: dict[tuple[int, int], list[bytes]] = {}

    def tile(self, level: int, number: int) -> list[bytes]:
        if (level, number) not in self.read:
            width = min((self._size >> 8 * level) - number * WIDTH, WIDTH)
            data = (self._pack / tile_path(level, number, width)).read_bytes()
            if len(data) != width * 32:
                refuse(f"tile {number} of level {level} does not hold {width} hashes")
            self.read[level, number] = [data[at : at + 32] for at in range(0, len(data), 32)]
        return self.read[level, number]

    def check(self, index: int, leaf: bytes) -> None:
        """The tiles above entry `index` must hold its hash, and each other's."""
        level, hash_, place = 0, leaf, index
        while True:
            number, at = divmod(place, WIDTH)
            tile = self.tile(level, number)
            if tile[at] != hash_:
                refuse(f"tile {number} of level {level} does not hold the hash it should at {at}")
            if len(tile) < WIDTH:
                return
            level, hash_, place = level + 1, root_of(tile), number

    def check_edge(self, root: bytes) -> None:
        """The last tiles, each partial, must lead to the root: all that is left of it is whole tiles."""
        level, rest = 0, list[bytes]()
        while self._size >> 8 * level:
            number, width = divmod(self._size >> 8 * level, WIDTH)
            row = self.tile(level, number) if width else []
            rest = [root_of([*row, *rest])] if row or rest else []
            level += 1
        if rest != [root]:
            refuse("the last tiles of the tree do not lead to the root of the checkpoint")


# The pack.


def canonical(entry: bytes, index: int) -> dict[str, Any]:
    """RFC 8785, for the values that entries hold: strings, booleans, integers, arrays, objects."""
    fields = json.loads(entry)
    again = json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    if not isinstance(fields, dict) or again != entry:
        refuse(f"entry {index} is not canonical JSON")
    return fields


def parse_proof(data: bytes, entry: bytes) -> tuple[int, list[bytes], bytes]:
    """(index, hashes, checkpoint). Its `extra`, where there is one, must be the entry."""
    head, _, note = data.partition(b"\n\n")
    lines = head.decode().split("\n")
    if lines.pop(0) != PROOF:
        refuse("a proof is not of the kind that is known here")
    if lines[0].startswith("extra ") and unbase64(lines.pop(0).removeprefix("extra ")) != entry:
        refuse("a proof holds another entry than the one it is for")
    word, _, index = lines.pop(0).partition(" ")
    if word != "index" or not re.fullmatch("0|[1-9][0-9]*", index):
        refuse("a proof has no index")
    return int(index), [unbase64(line) for line in lines], note


def check_disclosed(path: Path, fields: dict[str, Any], index: int) -> None:
    disclosed = json.loads(path.read_bytes())
    salt, content = bytes.fromhex(disclosed["salt"]), unbase64(disclosed["content"])
    commitment = hmac.digest(salt, content, "sha256").hex()
    if len(salt) != 32 or not hmac.compare_digest(commitment, str(fields.get("commitment"))):
        refuse(f"what is disclosed of entry {index} is not what the entry commits to")


def check_alone(pack: Path, entries: dict[int, dict[str, Any]]) -> None:
    """Whoever takes an entry out of a pack must take its proof and what it said as well."""
    for path in (*(pack / "proofs").glob("*"), *(pack / "disclosed").glob("*")):
        if path.stem not in map(str, entries):
            refuse(f"{path.relative_to(pack)} is of an entry that is not in the pack")


def check_pairs(entries: dict[int, dict[str, Any]]) -> int:
    pairs = 0
    for index, fields in entries.items():
        asked = fields.get("request")
        if fields.get("type") != "response" or asked not in entries:
            continue
        if entries[asked].get("exchange") != fields.get("exchange") or asked >= index:
            refuse(f"entry {index} answers entry {asked}, which is of another exchange")
        pairs += 1
    return pairs


def check_stamps(pack: Path, policy: Policy, checkpoint: tuple[str, int, bytes], ca: bytes | None) -> dict[str, Any]:
    """What the time stamps say: which entries existed when, at the latest; and why one was not checked."""
    paths = sorted((pack / "timestamps").glob("*.tst"), key=lambda path: int(path.stem))
    found: list[tuple[int, str]] = []
    unchecked = "" if ca or not paths else "give --timestamp-ca with the authority's certificates"
    for path in paths:
        note = path.with_suffix(".checkpoint").read_bytes()
        stamped, _ = policy.open(note, quorum=False)
        lines = path.with_suffix(".consistency").read_text().split()
        stamps = stamps_module()
        try:
            stamps.check_beginning(stamped, checkpoint, [unbase64(line) for line in lines])
            token = stamps.read(path.read_bytes(), note)
            found.append((stamped[1], f"{token.time:%Y-%m-%dT%H:%M:%SZ}"))
            if ca:
                stamps.verify(token, ca)
        except stamps.Refused as error:
            refuse(str(error))
        except stamps.Unchecked as error:
            unchecked = str(error)
    return {"stamps": [{"entries": size, "time": time} for size, time in found], "unchecked": unchecked}


def stamps_module() -> Any:
    """`verify_timestamps.py`, which stands beside this file."""
    spec = importlib.util.spec_from_file_location("verify_timestamps", Path(__file__).parent / "verify_timestamps.py")
    if spec is None or spec.loader is None:
        refuse("verify_timestamps.py cannot be loaded")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def verify(pack: Path, policy: Policy, ca: bytes | None = None) -> dict[str, Any]:
    """All seven steps. `ca`: the time-stamping authority's certificates. Raises `Broken`, or what reading a damaged
    pack raises."""
    note = (pack / "checkpoint").read_bytes()
    checkpoint, witnesses = policy.open(note)
    origin, size, root = checkpoint
    tiles = Tiles(pack, size)
    entries: dict[int, dict[str, Any]] = {}
    disclosed = 0
    for path in sorted((pack / "entries").iterdir(), key=lambda path: int(path.stem)):
        index, entry = int(path.stem), path.read_bytes()
        entries[index] = canonical(entry, index)
        number, hashes, covered = parse_proof((pack / "proofs" / f"{index}.tlog-proof").read_bytes(), entry)
        if number != index or parse_checkpoint(split_note(covered)[0]) != checkpoint:
            refuse(f"the proof of entry {index} is of another entry or another checkpoint")
        if climb(index, size, leaf_hash(entry), hashes) != root:
            refuse(f"the proof of entry {index} does not lead to the root of the checkpoint")
        tiles.check(index, leaf_hash(entry))
        content = pack / "disclosed" / f"{index}.json"
        if content.exists():
            check_disclosed(content, entries[index], index)
            disclosed += 1
    if not entries:
        refuse("the pack holds no entry")
    tiles.check_edge(root)
    check_alone(pack, entries)
    return {
        "holds": True,
        "origin": origin,
        "size": size,
        "root": root.hex(),
        "witnesses": witnesses,
        "entries": len(entries),
        "indices": ranges(entries),
        "pairs": check_pairs(entries),
        "disclosed": disclosed,
        "tiles": len(tiles.read),
        "timestamps": check_stamps(pack, policy, checkpoint, ca),
    }


def ranges(indices: Iterable[int]) -> str:
    """`3, 7 to 9`."""
    found: list[list[int]] = []
    for index in sorted(indices):
        if found and found[-1][-1] == index - 1:
            found[-1][1:] = [index]
        else:
            found.append([index])
    return ", ".join(" to ".join(map(str, one)) for one in found)


def given_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise Misused(f"{path} cannot be read: {error.strerror}") from error


def trusted(directory: Path, policy: Path | None, vkey: str | None) -> Policy:
    """What was given to trust; without it, what is in the pack."""
    if vkey is None and policy is None:
        return Policy((directory / "policy").read_text("latin-1"))
    text = f"log {vkey}\nquorum none\n" if policy is None else given_bytes(policy).decode("latin-1")
    try:
        return Policy(text)
    except (Broken, ValueError, IndexError) as error:
        what = str(error) if isinstance(error, Broken) else "its base64 is damaged"
        raise Misused(f"{policy or '--vkey'}: {what}") from error


def unread(error: Exception, pack: Path) -> str:
    """What in the pack could not be read."""
    if isinstance(error, Broken):
        return str(error)
    if isinstance(error, OSError) and error.filename:
        return f"{os.path.relpath(error.filename, pack)} cannot be read: {error.strerror}"
    return f"the pack cannot be read: {error!r}"


def main() -> int:
    parser = argparse.ArgumentParser(description="Verify an auditor's pack of a Rempart ledger.")
    parser.add_argument("directory", nargs="?", type=Path, default=Path(__file__).parent)
    trust = parser.add_mutually_exclusive_group()
    trust.add_argument("--policy", type=Path, help="the policy that you trust: the log's key and its witnesses")
    trust.add_argument("--vkey", help="the log's verifier key that you trust, without witnesses")
    parser.add_argument("--timestamp-ca", type=Path, help="certificates of the time-stamping authority (PEM)")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    own = given.policy is None and given.vkey is None
    try:
        if not (given.directory / "verify.py").exists() and not (given.directory / "checkpoint").exists():
            raise Misused(f"{given.directory} is no auditor's pack")
        policy = trusted(given.directory, given.policy, given.vkey)
        ca = given_bytes(given.timestamp_ca) if given.timestamp_ca else None
        if ca is not None and b"-----BEGIN CERTIFICATE-----" not in ca:
            raise Misused(f"{given.timestamp_ca} holds no certificate in PEM")
        told = {**verify(given.directory, policy, ca), "policy": "the pack's own" if own else "yours"}
    except Misused as error:
        print(json.dumps({"holds": None, "error": str(error)}) if given.json else f"NOTHING WAS CHECKED: {error}")
        return 2
    except (Broken, OSError, ValueError, KeyError, IndexError, TypeError) as error:
        what = unread(error, given.directory)
        print(json.dumps({"holds": False, "error": what}) if given.json else f"IT DOES NOT HOLD: {what}")
        return 1
    if given.json:
        print(json.dumps(told))
        return 0
    print(f"It holds: {told['entries']} entries of {told['origin']}, {told['disclosed']} of them with what was said.")
    print(f"  entries      {told['indices']}")
    print(f"  checkpoint   {told['size']} entries, root {told['root']}")
    print(f"  witnesses    {', '.join(told['witnesses']) or 'none asked for'}")
    print(f"  exchanges    {told['pairs']} with both request and response")
    for stamp in told["timestamps"]["stamps"]:
        print(f"  time stamp   the first {stamp['entries']} entries existed on {stamp['time']}, at the latest")
    if told["timestamps"]["unchecked"]:
        print(f"  ATTENTION    these time stamps were NOT CHECKED: {told['timestamps']['unchecked']}")
    if own:
        print("  ATTENTION    the policy came with the pack: compare its keys with those you were given another way")
    return 0


if __name__ == "__main__":
    sys.exit(main())
