"""Servers, memory and the ledger's figures."""

import os
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from rempart.bench import litellm_proxy, nginx
from rempart.bench.ledger import ACKNOWLEDGED, APPENDS, CHECKED, GROUPED, PER_SYNC, PROVED, VERIFIED, measure_ledger
from rempart.bench.memory import processes, resident_bytes
from rempart.bench.results import Collected, Scale


def test_memory_of_a_process_and_those_below_it() -> None:
    before = resident_bytes(os.getpid())
    assert before > 1 << 20
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        assert child.pid in processes(os.getpid())
        child.communicate(b"\n")
    assert child.pid not in processes(os.getpid())
    assert resident_bytes(child.pid) == 0


def test_ledger_figures(tmp_path: Path) -> None:
    found = Collected()
    measure_ledger(tmp_path, Scale(rounds=2, seconds=0.2, ledger_callers=16, ledger_rate_per_s=200), found)
    figures = {figure.measure: figure for figure in found.figures()}
    assert set(figures) == {APPENDS, PER_SYNC, ACKNOWLEDGED, VERIFIED, CHECKED, GROUPED, PROVED}
    assert all(figure.summary.least > 0 and figure.summary.rounds == 2 for figure in figures.values())
    assert figures[PER_SYNC].summary.most <= 16 + 1
    assert not list(tmp_path.iterdir())


def test_nginx_answers_posts_and_proxies_them(tmp_path: Path) -> None:
    try:
        nginx.find()
    except nginx.NginxMissing:
        pytest.skip("nginx is not installed")
    with nginx.upstreams(tmp_path / "up") as up, nginx.proxying(tmp_path / "proxy", up) as (ports, pid):
        assert resident_bytes(pid) > 0
        for port in (*up.values(), *ports.values()):
            asked = urllib.request.Request(f"http://127.0.0.1:{port}/v1/chat/completions", b"{}")
            with urllib.request.urlopen(asked) as answer:
                assert b"forty-two" in answer.read()


def test_the_lock_pins_litellm() -> None:
    assert litellm_proxy.version().count(".") == 2


def test_a_missing_lock_is_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(litellm_proxy, "LOCK", tmp_path / "none")
    with pytest.raises(litellm_proxy.LiteLLMMissing, match="checkout"):
        litellm_proxy.install()


def test_an_installation_that_fails_is_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = tmp_path / "lock"
    lock.write_text("litellm @ file:///nowhere --hash=sha256:00\n")
    monkeypatch.setattr(litellm_proxy, "LOCK", lock)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(litellm_proxy.LiteLLMMissing, match="could not be installed"):
        litellm_proxy.install()
