"""A real server with the real guide for the tests of this folder."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from rempart.bench.running import Running, running


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One server for all tests that only ask it."""
    data: Path = tmp_path_factory.mktemp("site") / "data"
    with running(data) as server:
        yield server
