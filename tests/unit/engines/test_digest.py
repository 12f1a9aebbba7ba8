"""`rempart.engines.digest`: a large file is read once, and again when it has changed."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from rempart.engines.digest import file_digest


class Progress:
    """How often, and how far, a file was read."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, int]] = []

    def __call__(self, done: int, total: int) -> None:
        self.calls.append((done, total))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.gguf"
    path.write_bytes(b"weights" * 1000)
    return path


def expected(path: Path) -> str:
    return f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


def test_a_file_is_read_and_its_digest_told(tmp_path: Path, model: Path) -> None:
    read = Progress()
    assert file_digest(model, tmp_path / "engines" / "digests.json", read) == expected(model)
    assert read.calls[-1] == (7000, 7000)


def test_a_file_that_is_remembered_is_not_read_again(tmp_path: Path, model: Path) -> None:
    memory = tmp_path / "digests.json"
    first = file_digest(model, memory)
    read = Progress()
    assert file_digest(model, memory, read) == first
    assert read.calls == []


def test_another_path_to_the_file_is_the_same_file(tmp_path: Path, model: Path) -> None:
    memory = tmp_path / "digests.json"
    file_digest(model, memory)
    link = tmp_path / "link.gguf"
    link.symlink_to(model)
    read = Progress()
    assert file_digest(link, memory, read) == expected(model)
    assert read.calls == []


def test_a_file_of_another_size_is_read_again(tmp_path: Path, model: Path) -> None:
    memory = tmp_path / "digests.json"
    first = file_digest(model, memory)
    status = model.stat()
    model.write_bytes(b"weight" * 1000)
    os.utime(model, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert file_digest(model, memory) == expected(model) != first


def test_a_file_of_another_time_is_read_again(tmp_path: Path, model: Path) -> None:
    memory = tmp_path / "digests.json"
    first = file_digest(model, memory)
    status = model.stat()
    model.write_bytes(b"Weights" * 1000)
    os.utime(model, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert file_digest(model, memory) == expected(model) != first


def test_files_do_not_push_each_other_out(tmp_path: Path, model: Path) -> None:
    memory, other = tmp_path / "digests.json", tmp_path / "other.gguf"
    other.write_bytes(b"other")
    file_digest(model, memory)
    file_digest(other, memory)
    read = Progress()
    assert (file_digest(model, memory, read), file_digest(other, memory, read)) == (expected(model), expected(other))
    assert read.calls == []


@pytest.mark.parametrize("content", [b"", b"[", b"{}", b"[1]", b'[{"path":"x"}]', b"\xff\xfe", b'["\xff"]'])
def test_a_memory_that_is_damaged_is_made_anew(tmp_path: Path, model: Path, content: bytes) -> None:
    memory = tmp_path / "digests.json"
    memory.write_bytes(content)
    assert file_digest(model, memory) == expected(model)
    read = Progress()
    file_digest(model, memory, read)
    assert read.calls == []


def test_an_empty_file_has_a_digest_too(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.touch()
    assert file_digest(empty, tmp_path / "digests.json") == expected(empty)


def test_a_missing_file_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        file_digest(tmp_path / "gone", tmp_path / "digests.json")
