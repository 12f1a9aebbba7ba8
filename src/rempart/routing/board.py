"""`Board.place`: which engine gets an exchange now, of all engines and models of a site (pure).

It knows what engines serve, how much each has to do, who is down or left alone by its breaker, and what is declared of
models: aliases, fallbacks, policy. It decides and counts; whoever awaits engines and clients is elsewhere.

1. The name is an alias or a model. What is declared comes before what an engine happens to list.
2. A model that no engine can serve now (all are down, left alone by their breakers, or were tried) is replaced by the
   first of its declared fallbacks that one can serve and that the key may use. Nothing else is ever put in its place;
   one whose engines are merely full is waited for.
3. Among the engines with room the model's policy chooses.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from rempart import limits
from rempart.errors import EngineUnavailable, ModelNotFound
from rempart.routing.ask import LEAST, Ask, EngineState, Figures, Policy, Verdict
from rempart.routing.choosing import Load, Seat, choose, pass_on, session_of
from rempart.routing.prefixes import PrefixTree, blocks, root_of
from rempart.wire.job import Capacity, Target
from rempart.wire.leading import leading_text

_UNASKED = "not asked yet"
_AGAIN_S = 2


class Share(msgspec.Struct, frozen=True, kw_only=True):
    """What the configuration says of one engine."""

    weight: float = 1.0
    max_concurrent: int = 0
    """0: no bound."""


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """What the configuration says of one model."""

    aliases: tuple[str, ...] = ()
    fallbacks: tuple[str, ...] = ()
    policy: Policy = LEAST


class Group:
    """One model and the engines that serve it, in the order of the configuration."""

    __slots__ = ("floor", "model", "policy", "seats", "tree")

    def __init__(self, model: str, policy: Policy, nodes_max: int) -> None:
        self.model = model
        self.policy = policy
        self.seats: list[Seat] = []
        self.floor = 0.0
        """Where the turns of its engines stand."""
        self.tree = PrefixTree(nodes_max) if policy == "prefix" else None


class Placed:
    """An engine has an exchange, until `Board.end`."""

    __slots__ = ("load", "others", "target", "tenant", "tokens", "trial")

    def __init__(self, target: Target, load: Load, trial: int, ask: Ask, others: int) -> None:
        self.target = target
        self.load = load
        self.trial = trial
        self.tenant = ask.tenant
        self.tokens = ask.tokens
        self.others = others
        """How often it may still be handed to another engine, should this one fail."""


class Board:
    """Of one process."""

    def __init__(
        self, engines: Sequence[str], shares: Mapping[str, Share], rules: Mapping[str, Rule], secret: bytes
    ) -> None:
        """`engines` in the order of the configuration; `secret`: random bytes of this process, at most 64."""
        self._secret = secret
        self._rules = dict(rules)
        self._aliases = {alias: model for model, rule in rules.items() for alias in rule.aliases}
        trees = sum(rule.policy == "prefix" for rule in rules.values())
        self._nodes_max = limits.prefix_nodes_max // max(trees, 1)
        self._bits = 0
        self._loads: dict[str, Load] = {}
        for index, name in enumerate(engines):
            share = shares.get(name, Share())
            load = Load(index, name, weight=share.weight, max_concurrent=share.max_concurrent)
            load.down = _UNASKED
            self._loads[name] = load
        for load in self._loads.values():
            self._renew_bit(load)
        self._unseen = set(engines)
        """Engines that have never told what they serve."""
        self._listed: dict[str, tuple[Target, ...]] = dict.fromkeys(engines, ())
        self._groups: dict[str, Group] = {}
        self._choices: Counter[tuple[str, str]] = Counter()
        self._blocks: Counter[tuple[str, str]] = Counter()
        self._retries: Counter[str] = Counter()
        self._fallbacks: Counter[tuple[str, str]] = Counter()

    # What engines tell.

    def tell(self, engine: str, targets: Iterable[Target], capacity: Capacity | None) -> bool:
        """It is ready, serves this, and has that much room. Whether it had been found down until now."""
        load = self._loads[engine]
        came_up = load.down not in ("", _UNASKED)
        first = engine in self._unseen
        load.down = ""
        load.tokens_free = None if capacity is None else capacity.tokens_free
        self._unseen.discard(engine)
        if (
            came_up and not first
        ):  # it was started again, most likely: its cache is gone, and so is what it suffered from
            load.breaker.close()
            self._renew_bit(load)
        listed = tuple(targets)
        if listed != self._listed[engine]:
            self._listed[engine] = listed
            self._seat(load, listed)
        return came_up

    def tell_down(self, engine: str, why: str) -> bool:
        """It is not ready; its models do not vanish with it. Whether it was until now, or had never been asked."""
        load = self._loads[engine]
        news = load.down in ("", _UNASKED)
        load.down = why
        return news

    # What is asked of it.

    def named(self, model: str) -> str:
        """The model that an alias stands for; any other name as it is."""
        return self._aliases.get(model, model)

    def group(self, ask: Ask, tried: Sequence[str], now: float) -> Group:
        """The model that answers, and its engines, at least one of which is up. `tried`: engines that failed it.

        Raises `ModelNotFound`, or `EngineUnavailable` when none that serves it is up.
        """
        wanted = self.named(ask.call.model)
        group = self._groups.get(wanted)
        if group is not None and _any_up(group, tried, now):
            return group
        for name in self._chain(wanted, ask)[1:]:
            fallback = self._groups.get(name)
            if fallback is not None and _any_up(fallback, tried, now):
                return fallback
        raise self._unavailable(ask.call.model, group, now)

    def place(self, group: Group, ask: Ask, tried: Sequence[str], now: float) -> Placed | None:
        """An engine of that group takes it; None when none of them has room."""
        tokens = ask.tokens
        seats = [seat for seat in group.seats if _is_up(seat, tried, now) and seat.load.has_room(tokens)]
        if not seats:
            return None
        session = None
        path: Sequence[bytes] = ()
        if group.policy == "session" and ask.session:
            session = session_of(ask.tenant, ask.session)
        elif group.tree is not None and len(ask.call.received) <= limits.prefix_body_bytes_max:
            reach = limits.prefix_block_bytes * limits.prefix_blocks_max
            path = blocks(root_of(self._secret, ask.tenant), leading_text(ask.call, reach))
        choice = choose(seats, session, path, group.tree)
        if group.tree is not None:
            group.tree.put(path, choice.seat.load.bit)
            self._blocks[group.model, "asked"] += len(path)
            self._blocks[group.model, "matched"] += choice.matched
        self._count(group, ask, tried, choice.why)
        return self._take(group, choice.seat, ask, tried)

    def has_room(self, group: Group, now: float) -> bool:
        """For something small, at least."""
        return any(_is_up(seat, (), now) and seat.load.has_room(1) for seat in group.seats)

    def end(self, placed: Placed, verdict: Verdict, now: float) -> None:
        """Once for each."""
        placed.load.outstanding -= 1
        placed.load.breaker.end(placed.trial, verdict, placed.tenant, now)

    # What is told of it.

    def models(self) -> list[Target]:
        """All that is served, up or not, each under all its names."""
        found: dict[str, Target] = {}
        for listed in self._listed.values():
            for target in listed:
                found.setdefault(target.model, target)
        for alias, model in self._aliases.items():
            if model in found:
                found[alias] = msgspec.structs.replace(found[model], model=alias)
        return list(found.values())

    def states(self) -> dict[str, str]:
        """Engine name -> why it is not ready; empty when it is."""
        return {name: load.down for name, load in self._loads.items()}

    def figures(self, waiting: int, turned_away: Mapping[str, int], now: float) -> Figures:
        """As they stand."""
        return Figures(
            waiting=waiting,
            engines={
                name: EngineState(outstanding=load.outstanding, breaker=load.breaker.state(now))
                for name, load in self._loads.items()
            },
            choices=dict(self._choices),
            blocks=dict(self._blocks),
            retries=dict(self._retries),
            fallbacks=dict(self._fallbacks),
            turned_away=dict(turned_away),
        )

    def _seat(self, load: Load, listed: Sequence[Target]) -> None:
        """It serves these models, and no others any more."""
        targets = {target.model: target for target in listed}
        for model, group in list(self._groups.items()):
            group.seats = [seat for seat in group.seats if seat.load is not load or model in targets]
            if not group.seats and model not in targets:
                del self._groups[model]
        for model, target in targets.items():
            group = self._groups.get(model) or self._new_group(model)
            own = [seat for seat in group.seats if seat.load is load]
            if own:
                own[0].target = target
                continue
            group.seats.append(Seat(target, load))
            group.seats.sort(key=lambda seat: seat.load.index)

    def _new_group(self, model: str) -> Group:
        group = Group(model, self._rules.get(model, Rule()).policy, self._nodes_max)
        self._groups[model] = group
        return group

    def _renew_bit(self, load: Load) -> None:
        """What it held is forgotten without a walk through the trees."""
        if self._bits >= max(limits.prefix_bits_max, 2 * len(self._loads)):
            self._bits = 0
            for group in self._groups.values():
                if group.tree is not None:
                    group.tree.clear()
            for other in self._loads.values():
                other.bit = 1 << self._bits
                self._bits += 1
            return
        load.bit = 1 << self._bits
        self._bits += 1

    def _chain(self, wanted: str, ask: Ask) -> list[str]:
        """The model and its fallbacks, without those that the key may not use."""
        rule = self._rules.get(wanted)
        if rule is None or not rule.fallbacks:
            return [wanted]
        return [wanted, *(name for name in rule.fallbacks if ask.models is None or name in ask.models)]

    def _take(self, group: Group, seat: Seat, ask: Ask, tried: Sequence[str]) -> Placed:
        load = seat.load
        group.floor = pass_on(seat, group.floor)
        load.outstanding += 1
        if load.tokens_free is not None:
            load.tokens_free -= ask.tokens
        return Placed(seat.target, load, load.breaker.begin(), ask, self._others(ask, (*tried, load.name)))

    def _others(self, ask: Ask, tried: Sequence[str]) -> int:
        """Engines that are left, should the last of `tried` fail too; at most so many retries as are allowed."""
        allowed = limits.retries_max + 1 - len(tried)
        if allowed <= 0:
            return 0
        names: set[str] = set()
        for model in self._chain(self.named(ask.call.model), ask):
            group = self._groups.get(model)
            if group is not None:
                names.update(seat.load.name for seat in group.seats)
        return min(allowed, len(names.difference(tried)))

    def _count(self, group: Group, ask: Ask, tried: Sequence[str], why: str) -> None:
        self._choices[group.model, why] += 1
        if tried:
            self._retries[group.model] += 1
        wanted = self.named(ask.call.model)
        if wanted != group.model:
            self._fallbacks[wanted, group.model] += 1

    def _unavailable(self, model: str, group: Group | None, now: float) -> EngineUnavailable | ModelNotFound:
        hint = "Try again in a moment; see /readyz."
        if group is None and self._unseen:
            names = ", ".join(sorted(self._unseen))
            return EngineUnavailable(
                f"No engine that is up serves {model!r}, and {names} has not come up yet.",
                hint=hint,
                retry_after_s=_AGAIN_S,
            )
        if group is None:
            return ModelNotFound(
                f"There is no model {model!r} here.", hint="List the models with GET /v1/models.", param="model"
            )
        open_ = [seat.load.breaker.wait_s(now) for seat in group.seats if not seat.load.down]
        if open_:
            wait = max(math.ceil(min(open_)), _AGAIN_S)
            return EngineUnavailable(
                f"The engine that serves {model!r} failed too often and is left alone for {wait} s.",
                hint=hint,
                retry_after_s=wait,
            )
        return EngineUnavailable(f"The engine that serves {model!r} is not ready.", hint=hint, retry_after_s=_AGAIN_S)


def _is_up(seat: Seat, tried: Sequence[str], now: float) -> bool:
    load = seat.load
    return not load.down and load.breaker.allows(now) and load.name not in tried


def _any_up(group: Group, tried: Sequence[str], now: float) -> bool:
    return any(_is_up(seat, tried, now) for seat in group.seats)
