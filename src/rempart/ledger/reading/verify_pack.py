#!/usr/bin/env python3
"""Verify an auditor's pack. Needs Python 3.11 and the package `cryptography`, and nothing of Rempart.

    python3 verify.py [--policy FILE | --vkey KEY] [--timestamp-ca FILE] [--json] [DIRECTORY]

Trust no policy that came with the pack: give the one, or the log's verifier key, that you were handed another way.
Nor trust this file where it came with the pack: take it from a release of Rempart, or compare its SHA-256 with that of
the release, and that of verify_timestamps.py beside it. No other file of the pack is ever run.

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
7. Each time stamp must be on the bytes of a checkpoint whose tree is the beginning of that of the pack's checkpoint
   (RFC 9162 section 2.1.4.2). With the authority's certificates it must hold too (`verify_timestamps.py`); without them
   it is told that nobody checked it.
8. No other file stands among entries, proofs and what is disclosed: what was not checked could be taken for checked.

Where the log has changed its key since the policy was given, step 2 is done with the new key, once a handover has led
there: the old and the new key signed a tree with the entry that names both, and it is the beginning of this one.

What it does not do: tell whether the disclosed entries are all there are. Ask for the pack of an index range for that:
entries are numbered without gaps.
"""

from __future__ import annotations

import sys

if __name__ == "__main__" and not sys.flags.safe_path:
    del sys.path[0]  # the pack itself: a file of it could stand in for a module of Python's

import argparse
import base64
import functools
import hashlib
import hmac
import json
import os
import re
import stat
import types
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NoReturn

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

LOG, COSIGNATURE, MLDSA = 1, 4, 6
WIDTH = 256
PROOF = "c2sp.org/tlog-proof@v1"
NUMBER = "0|[1-9][0-9]{0,18}"
PARTS = ("entries", "proofs", "disclosed", "timestamps", "handovers")
ENTRY_BYTES, TILE_BYTES, STAMP_BYTES, NOTE_BYTES, PROOF_BYTES = 65_535, 8_192, 65_536, 262_144, 524_288
DISCLOSED_BYTES = 1 << 28
DAMAGED = (OSError, ValueError, KeyError, IndexError, TypeError, RecursionError, OverflowError, UnsupportedAlgorithm)
"""What reading a damaged pack raises, beside `Broken`."""


class Broken(Exception):
    """Something does not hold; the text says what."""


class Misused(Exception):
    """What was given to trust, or the directory, cannot be used; the text says why. No finding about the pack."""


def refuse(text: str) -> NoReturn:
    raise Broken(text)


def shown(text: str) -> str:
    """What stands in a pack may not move the cursor of a terminal, or hide a part of what is told."""
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


class Pack:
    """The files of one pack, and which of them were read."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._read: set[Path] = set()

    def read(self, name: str, most: int) -> bytes:
        """A plain file of at most `most` bytes: no link, pipe or device."""
        path = self._directory / name
        status = path.lstat()
        if not stat.S_ISREG(status.st_mode) or status.st_size > most:
            refuse(f"{name} is no plain file of at most {most} bytes")
        self._read.add(path)
        return path.read_bytes()

    def numbers(self, part: str, suffix: str) -> list[int]:
        """Of the files `<part>/<number><suffix>`, ascending."""
        found = [re.fullmatch(f"({NUMBER}){re.escape(suffix)}", path.name) for path in self._listed(part)]
        return sorted(int(one[1]) for one in found if one)

    def check_read(self) -> None:
        """Refuses a file that nothing was checked of, where it could be taken for one that was."""
        for part in PARTS:
            for path in self._listed(part):
                if path not in self._read:
                    refuse(f"{part}/{path.name} belongs to no entry of the pack, and was not checked")

    def _listed(self, part: str) -> list[Path]:
        directory = self._directory / part
        return sorted(directory.iterdir()) if directory.is_dir() else []


# Keys and signatures.


class Key:
    """A verifier key: `name+hex(key id)+base64(type ‖ public key)`."""

    def __init__(self, vkey: str) -> None:
        found = re.fullmatch(r"([^\s+]+)\+([0-9a-f]{8})\+(\S+)", vkey)
        if found is None:
            refuse(f"that is no verifier key: {vkey[:60]}")
        self.vkey, self.name = vkey, found[1]
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
        self._members: set[str] = set()
        for line in text.split("\n"):
            words = [word for word in re.split("[ \t]+", line) if word]
            if words and not words[0].startswith("#"):
                self._take(words)
        if not self.quorum:
            refuse("the policy has no quorum")

    def _take(self, words: list[str]) -> None:
        known = self.witnesses.keys() | self.groups.keys()
        match words:
            case ["log", vkey] | ["log", vkey, _]:
                self.logs.append(self._new(vkey, (LOG, MLDSA), self.logs))
            case ["witness", name, vkey] | ["witness", name, vkey, _] if name not in known and name != "none":
                self.witnesses[name] = self._new(vkey, (COSIGNATURE, MLDSA), list(self.witnesses.values()))
            case ["group", name, least, *members] if members and name not in known and name != "none":
                free = known - self._members
                if not free.issuperset(members) or len(set(members)) < len(members):
                    refuse(f"the policy's group {name} has a member that is not known, or that is one already")
                count = {"any": 1, "all": len(members)}.get(least) or int(least)
                if not 1 <= count <= len(members):
                    refuse(f"the policy's group {name} can never be met")
                self.groups[name] = (count, members)
                self._members.update(members)
            case ["quorum", name] if not self.quorum and (name == "none" or name in known):
                self.quorum = name
            case _:
                refuse(f"the policy has a line that is not understood: {' '.join(words)[:80]}")

    def _new(self, vkey: str, kinds: tuple[int, ...], others: list[Key]) -> Key:
        """One key under two names would be counted as two."""
        key = Key(vkey)
        if key.kind not in kinds or any(key.public == other.public for other in others):
            refuse(f"the key of {key.name} is of another kind than it should be, or is there twice")
        return key

    def met_by(self, name: str, cosigned: set[str]) -> bool:
        if name == "none":
            return True
        if name in self.witnesses:
            return name in cosigned
        count, members = self.groups[name]
        return sum(self.met_by(member, cosigned) for member in members) >= count

    def open(self, note: bytes) -> tuple[tuple[str, int, bytes], list[str]]:
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
        if not self.met_by(self.quorum, cosigned):
            refuse(f"the checkpoint is cosigned by {sorted(cosigned) or 'nobody'}: that is not the policy's quorum")
        return checkpoint, sorted(cosigned)


def split_note(note: bytes) -> tuple[bytes, list[tuple[str, bytes]]]:
    end = note.rfind(b"\n\n")
    if end < 0 or not note.endswith(b"\n"):
        refuse("the checkpoint is no signed note")
    found = []
    for line in note[end + 2 :].decode().removesuffix("\n").split("\n"):
        dash, name, encoded = line.split(" ")
        if dash != "—":
            refuse("a signature line does not begin with a dash")
        found.append((name, unbase64(encoded)))
    return note[: end + 1], found


def parse_checkpoint(text: bytes) -> tuple[str, int, bytes]:
    origin, size, root, *_ = text.decode().split("\n")
    decoded = unbase64(root)
    if not origin or not re.fullmatch(NUMBER, size) or len(decoded) != 32:
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

    def __init__(self, pack: Pack, size: int) -> None:
        self._pack = pack
        self._size = size
        self.read: dict[tuple[int, int], list[bytes]] = {}

    def tile(self, level: int, number: int) -> list[bytes]:
        if (level, number) not in self.read:
            width = min((self._size >> 8 * level) - number * WIDTH, WIDTH)
            data = self._pack.read(tile_path(level, number, width), TILE_BYTES)
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


def no_number(text: str) -> NoReturn:
    refuse(f"an entry holds the number {text[:20]}, which no entry may")


def canonical(entry: bytes, index: int) -> dict[str, Any]:
    """RFC 8785, for the values that entries hold: strings, booleans, integers, arrays, objects."""
    fields = json.loads(entry, parse_float=no_number, parse_constant=no_number)
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
    if word != "index" or not re.fullmatch(NUMBER, index):
        refuse("a proof has no index")
    return int(index), [unbase64(line) for line in lines], note


def check_disclosed(data: bytes, fields: dict[str, Any], index: int) -> None:
    """It must be written in the one way, so that whatever reads it reads what is checked here."""
    disclosed = json.loads(data)
    salt, content = bytes.fromhex(disclosed["salt"]), unbase64(disclosed["content"])
    again = {"salt": salt.hex(), "content": base64.b64encode(content).decode()}
    if json.dumps(again, separators=(",", ":")).encode() != data:
        refuse(f"what is disclosed of entry {index} is not written as it should be")
    commitment = hmac.digest(salt, content, "sha256").hex()
    if len(salt) != 32 or not hmac.compare_digest(commitment, str(fields.get("commitment"))):
        refuse(f"what is disclosed of entry {index} is not what the entry commits to")


def check_pairs(entries: dict[int, dict[str, Any]]) -> int:
    pairs = 0
    for index, fields in entries.items():
        asked = fields.get("request")
        if fields.get("type") != "response" or asked not in entries:
            continue
        found = entries[asked]
        if found.get("type") != "request" or found.get("exchange") != fields.get("exchange") or asked >= index:
            refuse(f"entry {index} answers entry {asked}, which is no request, or of another exchange")
        pairs += 1
    return pairs


def follow(pack: Pack, policy: Policy, checkpoint: tuple[str, int, bytes]) -> None:
    """The policy's logs, with the keys that they have changed to."""
    for number in pack.numbers("handovers", ".tlog-proof"):
        data = pack.read(f"handovers/{number}.tlog-proof", PROOF_BYTES)
        path = pack.read(f"handovers/{number}.consistency", NOTE_BYTES).decode().split()
        entry = unbase64(data.split(b"\n")[1].removeprefix(b"extra ").decode())
        fields = canonical(entry, number)
        old, new = Key(str(fields["old"])), Key(str(fields["new"]))
        places = [at for at, log in enumerate(policy.logs) if (log.name, log.public) == (old.name, old.public)]
        if not places:
            continue  # who was given a later key needs no way to it
        index, hashes, note = parse_proof(data, entry)
        head, other = (Policy(f"log {key.vkey}\nquorum none\n").open(note)[0] for key in (old, new))
        said = fields.get("type"), fields.get("change"), index
        if said != ("log-key", "begun", number) or head != other:
            refuse(f"the handover of entry {number} is none")
        if climb(index, head[1], leaf_hash(entry), hashes) != head[2]:
            refuse(f"the handover of entry {number} does not hold")
        stamps = stamps_module()
        try:
            stamps.check_beginning(head, checkpoint, [unbase64(line) for line in path])
        except stamps.Refused as error:
            refuse(str(error))
        policy.logs[places[0]] = new


def check_stamps(pack: Pack, checkpoint: tuple[str, int, bytes], ca: bytes | None) -> dict[str, Any]:
    """What the time stamps say: which entries existed when, at the latest; and why one was not checked."""
    numbers = pack.numbers("timestamps", ".tst")
    found: list[tuple[int, str]] = []
    unchecked = "" if ca or not numbers else "give --timestamp-ca with the authority's certificates"
    stamps: Any = stamps_module() if numbers else None
    for number in numbers:
        name = f"timestamps/{number}"
        note = pack.read(f"{name}.checkpoint", NOTE_BYTES)
        stamped = parse_checkpoint(split_note(note)[0])
        lines = pack.read(f"{name}.consistency", NOTE_BYTES).decode().split()
        try:
            stamps.check_beginning(stamped, checkpoint, [unbase64(line) for line in lines])
            token = stamps.read(pack.read(f"{name}.tst", STAMP_BYTES), note)
            found.append((stamped[1], f"{token.time:%Y-%m-%dT%H:%M:%SZ}"))
            if ca:
                stamps.verify(token, ca)
        except stamps.Refused as error:
            refuse(str(error))
        except stamps.Unchecked as error:
            unchecked = str(error)
    return {"stamps": [{"entries": size, "time": time} for size, time in found], "unchecked": unchecked}


@functools.cache
def stamps_module() -> Any:
    """`verify_timestamps.py`, which stands beside this file: its source, since Python would take a compiled one."""
    path = Path(__file__).parent / "verify_timestamps.py"
    module = types.ModuleType("verify_timestamps")
    exec(compile(path.read_bytes(), str(path), "exec"), module.__dict__)
    return module


def verify(directory: Path, policy: Policy, ca: bytes | None = None) -> dict[str, Any]:
    """All eight steps. `ca`: the time-stamping authority's certificates. Raises `Broken`, or one of `DAMAGED`."""
    pack = Pack(directory)
    note = pack.read("checkpoint", NOTE_BYTES)
    follow(pack, policy, parse_checkpoint(split_note(note)[0]))
    checkpoint, witnesses = policy.open(note)
    origin, size, root = checkpoint
    tiles = Tiles(pack, size)
    entries: dict[int, dict[str, Any]] = {}
    told = pack.numbers("disclosed", ".json")
    for index in pack.numbers("entries", ".json"):
        entry = pack.read(f"entries/{index}.json", ENTRY_BYTES)
        entries[index] = canonical(entry, index)
        number, hashes, covered = parse_proof(pack.read(f"proofs/{index}.tlog-proof", PROOF_BYTES), entry)
        if number != index or parse_checkpoint(split_note(covered)[0]) != checkpoint:
            refuse(f"the proof of entry {index} is of another entry or another checkpoint")
        if climb(index, size, leaf_hash(entry), hashes) != root:
            refuse(f"the proof of entry {index} does not lead to the root of the checkpoint")
        tiles.check(index, leaf_hash(entry))
        if index in told:
            check_disclosed(pack.read(f"disclosed/{index}.json", DISCLOSED_BYTES), entries[index], index)
    if not entries:
        refuse("the pack holds no entry")
    tiles.check_edge(root)
    pairs, timestamps = check_pairs(entries), check_stamps(pack, checkpoint, ca)
    pack.check_read()
    return {
        "holds": True,
        "origin": origin,
        "size": size,
        "root": root.hex(),
        "witnesses": witnesses,
        "entries": len(entries),
        "indices": ranges(entries),
        "pairs": pairs,
        "disclosed": len(told),
        "tiles": len(tiles.read),
        "timestamps": timestamps,
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
        return Policy(Pack(directory).read("policy", NOTE_BYTES).decode("utf-8", "surrogateescape"))
    given = f"log {vkey}\nquorum none\n".encode() if policy is None else given_bytes(policy)
    text = given.decode("utf-8", "surrogateescape")
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
        print(
            json.dumps({"holds": None, "error": str(error)})
            if given.json
            else f"NOTHING WAS CHECKED: {shown(str(error))}"
        )
        return 2
    except (Broken, *DAMAGED) as error:
        what = unread(error, given.directory)
        print(json.dumps({"holds": False, "error": what}) if given.json else f"IT DOES NOT HOLD: {shown(what)}")
        return 1
    print_told(told, own, given.json)
    return 0


def print_told(told: dict[str, Any], own: bool, as_json: bool) -> None:
    if as_json:
        print(json.dumps(told))
        return
    origin, said = shown(told["origin"]), told["disclosed"]
    print(f"It holds: {told['entries']} entries of {origin}, {said} of them with what was said.")
    print(f"  entries      {told['indices']}")
    print(f"  checkpoint   {told['size']} entries, root {told['root']}")
    print(f"  witnesses    {shown(', '.join(told['witnesses'])) or 'none asked for'}")
    print(f"  exchanges    {told['pairs']} with both request and response")
    for stamp in told["timestamps"]["stamps"]:
        print(f"  time stamp   the first {stamp['entries']} entries existed on {stamp['time']}, at the latest")
    if told["timestamps"]["unchecked"]:
        print(f"  ATTENTION    these time stamps were NOT CHECKED: {shown(told['timestamps']['unchecked'])}")
    if own:
        print("  ATTENTION    the policy came with the pack: compare its keys with those you were given another way")


if __name__ == "__main__":
    sys.exit(main())
