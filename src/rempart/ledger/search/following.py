"""`index_ledger`: the search index is brought up to the end of the log; as a program, it follows the log (ADR 0003).

An exchange is indexed once, under its response: with the words of both sides, so that an answer is found by its
question and a question by its answer, and with the answer's model and outcome. Only what a checkpoint covers is
indexed, so what is found can be proved. Of a `read` entry its fields are indexed, and not what it asked for.

The program, `python -m rempart.ledger.search.following <data> <seconds> <pid of the server> <[keys]>`, opens the
keystore itself, as the settings `[keys]` say (JSON of paths and names): keys come over no command line, environment or
pipe, and each is asked for anew for each body, so that what was destroyed meanwhile is not read. It is nice, and ends
with its server.
"""

from __future__ import annotations

import gc
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from rempart.config.settings import Keys
from rempart.errors import IndexDamaged, KeystoreError, RempartError
from rempart.ledger.keys.configured import decode_keys, open_keystore
from rempart.ledger.keys.keystore import Keystore
from rempart.ledger.log import entry as entries
from rempart.ledger.reading.entries import EntryReader
from rempart.ledger.reading.said import Said
from rempart.ledger.search import manifest as manifests
from rempart.ledger.search.build import Built, Entry, Progress, build
from rempart.ledger.search.comparing import compare
from rempart.ledger.search.writer import IndexWriter, Key
from rempart.ledger.store.logfiles import ledger_directory

_NICE: Final = 10


def index_ledger(
    data: str, keys: Keys, check: bool, rebuild: bool, *, progress: Progress = lambda index: None
) -> Built:
    """Up to the log's end. `check`: first read every file of the index, and compare it with the log; what is damaged
    is built anew. `rebuild`: first destroy all of it.

    Raises `KeystoreError`, `LedgerCorrupt`, `DirectoryLocked`, `OSError`.
    """
    keystore = _keystore(Path(data), keys)
    try:
        ledger = ledger_directory(Path(data))
        if rebuild:
            with IndexWriter(index_directory(ledger), key_of(keystore)) as writer:
                writer.clear()
        return _bring_up(ledger, keystore, Follower(ledger, keystore), check=check, progress=progress)
    finally:
        keystore.close()


def index_directory(ledger: Path) -> Path:
    return ledger / "index"


def key_of(keystore: Keystore) -> Key:
    """The key of a class's bucket, None when it was destroyed."""
    return lambda retention, bucket: keystore.get("bucket", f"{retention}/{bucket}")


class Follower:
    """Entries of a log with what was said in them."""

    def __init__(self, ledger: Path, keystore: Keystore) -> None:
        self._ledger = ledger
        self._said = Said(ledger, keystore)

    def follow(self, first: int) -> Iterator[Entry]:
        """As `build` wants it: from `first` on, without a gap, each decrypted when it is asked for."""
        self._said.let_go()
        reader = EntryReader(self._ledger, beyond=False)
        for index, entry in reader.forward(first):
            fields, texts = self._of(reader, index, entry)
            yield index, fields, texts

    def readable(self, index: int, entry: bytes) -> bool:
        """Whether that entry belongs into the index."""
        fields, _ = self._of(EntryReader(self._ledger, beyond=False), index, entry)
        return "class" in fields

    def _of(self, reader: EntryReader, index: int, entry: bytes) -> tuple[Mapping[str, Any], Sequence[str]]:
        facts = entries.facts(entry)
        if facts.type == "read":
            return entries.decode(entry), ()
        if facts.type == "response" and facts.body:
            texts = self._said.texts(reader, index)
            if texts is not None:
                return entries.decode(entry), texts
        return {"type": facts.type}, ()


def _keystore(data: Path, keys: Keys) -> Keystore:
    """Opened, never made."""
    if not (data / "keys" / "root.key").exists():
        raise KeystoreError("This directory has no keys (keys/ is missing).", hint="Restore keys/ from its backup.")
    return open_keystore(data, keys)


def _bring_up(
    ledger: Path,
    keystore: Keystore,
    follower: Follower,
    *,
    check: bool = False,
    progress: Progress = lambda index: None,
) -> Built:
    """`build`; an index that knows more than the log is of another state of it, and is destroyed first."""
    directory, key = index_directory(ledger), key_of(keystore)
    longer: tuple[str, ...] = ()
    with IndexWriter(directory, key) as writer:
        if writer.mark > EntryReader(ledger, beyond=False).count:
            writer.clear()
            longer = ("The index was of a longer log: an older copy of the log was restored.",)
    built = build(directory, key, follower.follow, check=check, progress=progress)
    faults = tuple(compare(directory, key, EntryReader(ledger, beyond=False), follower.readable)) if check else ()
    if faults:
        with IndexWriter(directory, key) as writer:
            writer.clear()
        built = build(directory, key, follower.follow, progress=progress)
    return msgspec.structs.replace(built, damaged=(*longer, *faults, *built.damaged))


def _behind(ledger: Path, directory: Path) -> bool:
    """Whether there is anything to do; costs two small files."""
    try:
        manifest = manifests.read(directory)
    except IndexDamaged:
        return True
    return bool(manifest.gaps) or manifest.mark != EntryReader(ledger, beyond=False).count


def _follow(data: Path, keys: Keys, pause_s: float, server: int) -> None:
    ledger, keystore = ledger_directory(data), _keystore(data, keys)
    follower = Follower(ledger, keystore)
    while os.getppid() == server:
        if _behind(ledger, index_directory(ledger)):
            _bring_up(ledger, keystore, follower)
        time.sleep(pause_s)


def main(arguments: Sequence[str]) -> int:
    """See above. What stops it stands in one line on stderr."""
    data, seconds, server, keys = arguments
    os.nice(_NICE)
    gc.freeze()
    try:
        _follow(Path(data), decode_keys(keys), float(seconds), int(server))
    except (RempartError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
