"""`contenders`: everything that is measured, started side by side on the same upstreams."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

import msgspec

from rempart.bench import litellm_proxy, nginx, upstream
from rempart.bench.load import GeneratorFailed, generate
from rempart.bench.memory import resident_bytes
from rempart.bench.plan import Load, Target
from rempart.bench.running import DidNotStart, running

DIRECT: Final = "upstream, called directly"
REMPART: Final = "Rempart"
NGINX: Final = "nginx, proxying"
LITELLM: Final = "LiteLLM, 1 worker"
LITELLM_2: Final = "LiteLLM, 2 workers"
_PATH: Final = "/v1/chat/completions"
_KINDS: Final = ("json", "stream", "paced")


class Contender(msgspec.Struct, frozen=True, kw_only=True):
    """One that runs."""

    name: str
    targets: dict[str, Target]
    """By kind of answer: `json`, `stream`, `paced`."""
    pid: int = 0
    """Of its first process; 0: its memory is not looked at."""
    idle_bytes: int = 0
    """Resident before its first request."""


class Field(msgspec.Struct, frozen=True, kw_only=True):
    """Who is there, and who is not and why."""

    present: list[Contender]
    missing: dict[str, str]


@contextlib.contextmanager
def contenders(root: Path, say: Callable[[str], None]) -> Iterator[Field]:
    """All in `root`, which must be on the file system to be measured. Raises `nginx.NginxMissing`."""
    with contextlib.ExitStack() as stack:
        ports = dict(stack.enter_context(nginx.upstreams(root / "upstream")))
        ports["paced"], _ = stack.enter_context(upstream.pacing())
        starts: dict[str, Callable[[], Contender]] = {
            DIRECT: lambda: Contender(name=DIRECT, targets=_plain(ports)),
            REMPART: lambda: _rempart(stack, root / "data", ports),
            NGINX: lambda: _nginx(stack, root / "proxy", ports),
            LITELLM: lambda: _litellm(stack, root / "litellm-1", ports, 1),
            LITELLM_2: lambda: _litellm(stack, root / "litellm-2", ports, 2),
        }
        present, missing = [], {}
        for name, start in starts.items():
            say(f"starting: {name}")
            try:
                contender = start()
                _answers(contender)
            except (nginx.NginxMissing, litellm_proxy.LiteLLMMissing, DidNotStart, _Silent, GeneratorFailed) as error:
                missing[name] = str(error)
                say(f"  is left out: {error}")
                continue
            present.append(contender)
        yield Field(present=present, missing=missing)


class _Silent(Exception):
    """It runs but does not answer as it should."""


def _answers(contender: Contender) -> None:
    """Each kind once, so that nothing is measured that does not work. Raises `_Silent`."""
    for kind, target in contender.targets.items():
        load = Load(target=target, loop="paced", stream=kind != "json", connections=1, seconds=0.1, warm_s=0.0)
        outcome = generate(load)
        if outcome.broken or not outcome.answers:
            raise _Silent(f"{kind}: {outcome.problem or 'no answer'}")


def _plain(ports: Mapping[str, int]) -> dict[str, Target]:
    return {kind: Target(port=port, path=_PATH, model=_own_name(kind)) for kind, port in ports.items()}


def _own_name(kind: str) -> str:
    return upstream.MODEL if kind == "paced" else nginx.MODEL


def _nginx(stack: contextlib.ExitStack, root: Path, ports: Mapping[str, int]) -> Contender:
    own, pid = stack.enter_context(nginx.proxying(root, ports))
    return Contender(name=NGINX, targets=_plain(own), pid=pid, idle_bytes=resident_bytes(pid))


def _litellm(stack: contextlib.ExitStack, root: Path, ports: Mapping[str, int], workers: int) -> Contender:
    place = litellm_proxy.install()
    targets, pid = stack.enter_context(litellm_proxy.serving(place, root, ports, workers))
    name = LITELLM if workers == 1 else LITELLM_2
    return Contender(name=name, targets=targets, pid=pid, idle_bytes=resident_bytes(pid))


def _rempart(stack: contextlib.ExitStack, data: Path, ports: Mapping[str, int]) -> Contender:
    """With everything on that is on by default: keys, admission, the durable ledger, encrypted bodies, metrics."""
    data.mkdir(mode=0o700)
    (data / "rempart.toml").write_text("".join(_engine(kind, ports[kind]) for kind in _KINDS))
    server = stack.enter_context(running(data))
    port = int(server.url.rpartition(":")[2])
    targets = {kind: Target(port=port, path=_PATH, model=f"bench-{kind}", key=server.key) for kind in _KINDS}
    pid = server.process.pid
    return Contender(name=REMPART, targets=targets, pid=pid, idle_bytes=resident_bytes(pid))


def _engine(kind: str, port: int) -> str:
    return (
        f'[[engines]]\nname = "{kind}"\nkind = "openai"\nurl = "http://127.0.0.1:{port}"\n'
        f'models = {{ "bench-{kind}" = "{_own_name(kind)}" }}\n\n'
    )
