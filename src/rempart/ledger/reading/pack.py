"""`write_pack`: what an auditor takes away: entries, their proofs, and a verifier that needs nothing of Rempart.

    policy               C2SP tlog-policy: who must have signed
    checkpoint           the signed note that all proofs lead to
    tile/…               the hash tiles above the entries, and the last ones of each level (C2SP tlog-tiles): hashes
                         only; together they lead to the root
    entries/<index>.json the entries, byte for byte
    proofs/<index>.tlog-proof
    disclosed/<index>.json  what was said, where it was asked for: {"salt": hex, "content": base64}
    timestamps/<entries>.tst, .checkpoint, .consistency   where the log is time-stamped: for each entry the earliest
                         stamp that covers it, and the newest of all: the token, the note that it stamps, and the proof
                         that the note's tree is the beginning of the checkpoint's (base64, a hash a line)
    handovers/<index>.tlog-proof, .consistency   where the log has changed its key: who trusts the old one is led on
    verify.py, verify_timestamps.py, README.txt

Never an entry bundle: it would show the neighbours. A salt and a content are checked against the commitment in the
entry, so no key leaves the site.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Final

import msgspec

from rempart.errors import NotFound, UsageError
from rempart.ledger.keys.body import Revealed
from rempart.ledger.log import tiles
from rempart.ledger.log.checkpoint import Checkpoint, parse_note
from rempart.ledger.log.consistency import check_prefix
from rempart.ledger.log.merkle import consistency_proof
from rempart.ledger.log.proof import TlogProof, encode
from rempart.ledger.reading.handovers import handover_files
from rempart.ledger.reading.prove import Proven, Prover
from rempart.ledger.reading.timestamps import covering
from rempart.ledger.store.files import replace_durably

_VERIFIERS: Final = {"verify.py": "verify_pack.py", "verify_timestamps.py": "verify_timestamps.py"}
_FILES_OF_STAMP: Final = 3
_README: Final = """\
This is a part of the ledger of {origin}: {count} entries of {size}.
Verify it on any machine with Python 3.11 and the package "cryptography":

    python3 verify.py --policy POLICY      (the policy that you were given another way)
    python3 verify.py --vkey KEY           (or the verifier key alone, without witnesses)

{stamps}
Ceci est une partie du registre de {origin} : {count} entrées sur {size}.
Vérifiez-la sur toute machine dotée de Python 3.11 et du paquet « cryptography », avec la politique
ou la clé de vérification que vous avez reçue par une autre voie.
"""
_STAMPS: Final = """\
Add --timestamp-ca FILE, the PEM certificates of the time-stamping authority: it has stamped checkpoints of this ledger.

Ajoutez --timestamp-ca FICHIER, les certificats PEM de l'autorité d'horodatage.
"""


class Written(msgspec.Struct, frozen=True, kw_only=True):
    """What stands in the pack."""

    origin: str
    size: int
    """Entries under the checkpoint."""
    root: str
    entries: int
    disclosed: int
    tiles: int
    timestamps: int


def write_pack(
    log: Path,
    indices: Iterable[int],
    to: Path,
    *,
    policy: bytes,
    disclosed: Mapping[int, Revealed],
    note: bytes | None = None,
) -> Written:
    """`log` is `<data>/ledger/log`; `to` must not exist or be empty; `note`: the checkpoint to prove under, such as the
    one that the witnesses cosigned, else the newest. Raises `UsageError`, `LedgerCorrupt`, and `NotFound` when that
    checkpoint does not cover an entry (yet)."""
    wanted = sorted(set(indices))
    if not wanted:
        raise NotFound("There is no entry to be packed.", hint="Name exchanges, or a range of entries.")
    if to.exists() and any(to.iterdir()):
        raise UsageError(f"{to} is not empty.", hint="Give a directory that does not exist yet.")
    prover = Prover(log, note)
    proven = [prover.prove(index) for index in wanted]
    head = prover.head
    read = _tiles_of(prover, wanted)
    written: dict[Path, bytes] = {to / name: data for name, data in read.items()}
    written |= {to / "policy": policy, to / "checkpoint": prover.checkpoint}
    for one in proven:
        written[to / "entries" / f"{one.index}.json"] = one.entry
        written[to / "proofs" / f"{one.index}.tlog-proof"] = encode(proof_of(one))
    for index, revealed in disclosed.items():
        content = {"salt": revealed.salt.hex(), "content": base64.b64encode(revealed.content).decode()}
        written[to / "disclosed" / f"{index}.json"] = msgspec.json.encode(content)
    stamps = _stamps(log.parent, wanted, prover)
    written |= {to / name: data for name, data in (stamps | _handovers(log.parent, prover)).items()}
    readme = _README.format(origin=head.origin, count=len(wanted), size=head.size, stamps=_STAMPS if stamps else "")
    written[to / "README.txt"] = readme.encode()
    for name, source in _VERIFIERS.items():
        written[to / name] = (files("rempart.ledger.reading") / source).read_bytes()
    replace_durably(written)
    return Written(
        origin=head.origin,
        size=head.size,
        root=head.root.hex(),
        entries=len(wanted),
        disclosed=len(disclosed),
        tiles=len(read),
        timestamps=len(stamps) // _FILES_OF_STAMP,
    )


def _stamps(ledger: Path, indices: list[int], prover: Prover) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for kept in covering(ledger, indices, prover.head.size):
        name = f"timestamps/{kept.size}"
        found |= {f"{name}.tst": kept.token, f"{name}.checkpoint": kept.note}
        found[f"{name}.consistency"] = _beginning(prover, parse_note(kept.note)[1], "Its authority has stamped")
    return found


def _handovers(ledger: Path, prover: Prover) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for one, data in handover_files(ledger):
        if one.head.size > prover.head.size:
            continue  # the witnesses have not seen it yet: the key before it still signs what they have
        name = f"handovers/{one.index}"
        found[f"{name}.tlog-proof"] = data
        found[f"{name}.consistency"] = _beginning(prover, one.head, "Its former key has signed")
    return found


def _beginning(prover: Prover, old: Checkpoint, who: str) -> bytes:
    """That the tree of `old` is the beginning of the prover's: base64, a hash a line. Raises `LedgerCorrupt`."""
    check_prefix(old, prover.head, prover.node, who)
    proof = consistency_proof(old.size, prover.head.size, prover.node)
    return b"".join(base64.b64encode(hash_) + b"\n" for hash_ in proof)


def proof_of(proven: Proven) -> TlogProof:
    """As a C2SP tlog-proof; `extra` holds the entry, so that the file alone can be checked."""
    return TlogProof(index=proven.index, hashes=tuple(proven.hashes), checkpoint=proven.checkpoint, extra=proven.entry)


def _tiles_of(prover: Prover, indices: list[int]) -> dict[str, bytes]:
    """The tiles above the entries, and the last ones of each level: together they lead to the root."""
    size = prover.head.size
    levels = range((size.bit_length() + tiles.TILE_BITS - 1) // tiles.TILE_BITS)
    wanted = {(level, (size >> tiles.TILE_BITS * level) // tiles.TILE_WIDTH) for level in levels}
    for index in indices:
        level, number = 0, index // tiles.TILE_WIDTH
        while (level, number) not in wanted and _holds(size, level, number):
            wanted.add((level, number))
            level, number = level + 1, number // tiles.TILE_WIDTH
    found = {(level, number): prover.tile(level, number) for level, number in wanted if _holds(size, level, number)}
    return {tiles.tile_path(*place, len(hashes)): b"".join(hashes) for place, hashes in sorted(found.items())}


def _holds(size: int, level: int, number: int) -> bool:
    """Whether that tile holds any hash in a tree of `size` leaves."""
    return number * tiles.TILE_WIDTH < size >> tiles.TILE_BITS * level
