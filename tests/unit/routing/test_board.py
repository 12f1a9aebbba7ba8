"""`rempart.routing.board`: which engine gets an exchange, of those that may have it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rempart import limits
from rempart.errors import EngineUnavailable, ModelNotFound
from rempart.routing.ask import Ask, Verdict
from rempart.routing.board import Board, Placed, Rule, Share
from rempart.wire.job import Capacity, Target
from rempart.wire.requests import parse


def target(model: str, engine: str) -> Target:
    return Target(model=model, served_name=model, digest="", engine=engine)


def ask(
    model: str = "m", text: str = "hello", *, tenant: str = "a", session: str = "", models: frozenset[str] | None = None
) -> Ask:
    body = {"model": model, "messages": [{"role": "user", "content": text}], "max_tokens": 10}
    call = parse("/v1/chat/completions", msgspec.json.encode(body))
    return Ask(call=call, tenant=tenant, session=session, models=models)


def board(*engines: str, serve: Sequence[str] = ("m",), shares: dict[str, Share] | None = None, **rules: Rule) -> Board:
    """All of them are up and serve the same models."""
    made = Board(engines, shares or {}, rules, b"secret")
    for engine in engines:
        made.tell(engine, [target(model, engine) for model in serve], None)
    return made


def place(on: Board, wanted: Ask | None = None, tried: Sequence[str] = (), now: float = 0.0) -> Placed | None:
    wanted = wanted or ask()
    return on.place(on.group(wanted, tried, now), wanted, tried, now)


def name(placed: Placed | None) -> str:
    assert placed is not None
    return placed.load.name


def once(on: Board, wanted: Ask | None = None) -> str:
    """Placed, and served at once."""
    placed = place(on, wanted)
    assert placed is not None
    on.end(placed, Verdict.SERVED, 0.0)
    return placed.load.name


def test_the_engine_with_the_fewest_exchanges_gets_the_next() -> None:
    on = board("one", "two", "three")
    placed = [place(on) for _ in range(6)]
    assert Counter(map(name, placed)) == {"one": 2, "two": 2, "three": 2}
    assert placed[1] is not None
    on.end(placed[1], Verdict.SERVED, 0.0)
    assert name(place(on)) == name(placed[1])


@given(st.lists(st.integers(min_value=1, max_value=9), min_size=2, max_size=5))
def test_weights_are_kept_when_nothing_else_decides(weights: list[int]) -> None:
    names = [f"e{number}" for number in range(len(weights))]
    on = board(*names, shares={one: Share(weight=weight) for one, weight in zip(names, weights, strict=True)})
    rounds = 10
    counts = Counter(once(on) for _ in range(rounds * sum(weights)))
    for one, weight in zip(names, weights, strict=True):
        assert abs(counts[one] - rounds * weight) <= 1


@given(st.lists(st.integers(min_value=1, max_value=9), min_size=2, max_size=5), st.integers(min_value=1, max_value=99))
def test_under_load_each_has_its_weights_part_of_it(weights: list[int], load: int) -> None:
    names = [f"e{number}" for number in range(len(weights))]
    on = board(*names, shares={one: Share(weight=weight) for one, weight in zip(names, weights, strict=True)})
    counts = Counter(name(place(on)) for _ in range(load))
    shares = [counts[one] / weight for one, weight in zip(names, weights, strict=True)]
    # Nobody has one more than another would then have had: the highest is no more than one exchange over the lowest.
    for one, weight in zip(names, weights, strict=True):
        if counts[one]:
            assert (counts[one] - 1) / weight <= min(shares) + 1e-9


def test_an_engine_that_was_away_does_not_get_all_that_it_missed() -> None:
    on = board("one", "two")
    on.tell_down("two", "has died")
    for _ in range(100):
        once(on)
    on.tell("two", [target("m", "two")], None)
    assert Counter(once(on) for _ in range(10))["two"] <= 6


Step = tuple[str, int]
steps = st.lists(
    st.tuples(st.sampled_from(["ask", "served", "gone", "failed", "left", "down", "up", "later"]), st.integers(0, 5)),
    max_size=80,
)


@pytest.mark.parametrize("policy", ["least-outstanding", "session", "prefix"])
@given(given_steps=steps)
def test_no_engine_that_is_down_left_alone_full_or_tried_is_chosen(policy: str, given_steps: list[Step]) -> None:
    names = ["one", "two", "three"]
    shares = {"one": Share(max_concurrent=2), "two": Share(max_concurrent=1, weight=3)}
    rule = msgspec.convert({"policy": policy}, Rule)
    on = board(*names, shares=shares, m=rule)
    loads = on._loads
    now, running = 0.0, list[Placed]()
    for what, number in given_steps:
        engine = names[number % 3]
        if what == "ask":
            tried = [engine] if number > 2 else []
            fits = {
                one
                for one, load in loads.items()
                if not load.down and load.breaker.allows(now) and load.has_room(20) and one not in tried
            }
            try:
                placed = place(on, ask(text="x" * 500 * number, session=str(number)), tried, now)
            except EngineUnavailable:
                placed = None
            assert (placed is not None) == bool(fits)
            if placed is not None:
                assert placed.load.name in fits
                running.append(placed)
        elif what == "down":
            on.tell_down(engine, "has died")
        elif what == "up":
            on.tell(engine, [target("m", engine)], None)
        elif what == "later":
            now += number * 3.0
        elif running:
            verdict = {"served": Verdict.SERVED, "gone": Verdict.GONE, "failed": Verdict.FAILED}
            on.end(running.pop(number % len(running)), verdict.get(what, Verdict.NOTHING), now)
        bounds = {one: load.max_concurrent or 10**9 for one, load in loads.items()}
        assert all(0 <= load.outstanding <= bounds[one] for one, load in loads.items())
    for placed in running:
        on.end(placed, Verdict.SERVED, now)
    assert all(load.outstanding == 0 for load in loads.values())


def test_when_all_are_full_nobody_gets_it_and_nothing_is_counted() -> None:
    on = board("one", shares={"one": Share(max_concurrent=1)})
    first = place(on)
    assert place(on) is None
    assert first is not None
    on.end(first, Verdict.SERVED, 0.0)
    assert name(place(on)) == "one"


def test_an_engine_whose_cache_is_full_gets_no_more_until_it_tells_of_room() -> None:
    on = board("one", "two")
    served = [target("m", "one")]
    on.tell("one", served, Capacity(tokens_free=60, tokens_total=100))
    on.tell_down("two", "has died")
    assert [place(on) is not None for _ in range(4)] == [True, True, False, False]
    on.tell("one", served, Capacity(tokens_free=60, tokens_total=100))
    assert place(on) is not None


def test_an_idle_engine_takes_what_its_cache_does_not_hold() -> None:
    on = board("one")
    on.tell("one", [target("m", "one")], Capacity(tokens_free=1, tokens_total=1))
    assert place(on) is not None


# Sessions.


@given(st.lists(st.integers(0, 30), max_size=60))
def test_a_session_stays_with_its_engine(sessions: list[int]) -> None:
    on = board("one", "two", "three", m=Rule(policy="session"))
    seen: dict[int, str] = {}
    for session in sessions:
        engine = once(on, ask(session=str(session)))
        assert seen.setdefault(session, engine) == engine


def test_when_an_engine_goes_only_its_sessions_move_and_then_they_come_back() -> None:
    on = board("one", "two", "three", m=Rule(policy="session"))
    before = {number: once(on, ask(session=str(number))) for number in range(100)}
    on.tell_down("two", "has died")
    during = {number: once(on, ask(session=str(number))) for number in range(100)}
    assert {number for number in before if before[number] != during[number]} == {
        number for number, engine in before.items() if engine == "two"
    }
    on.tell("two", [target("m", "two")], None)
    assert {number: once(on, ask(session=str(number))) for number in range(100)} == before


def test_sessions_are_dealt_by_weight_and_apart_for_each_tenant() -> None:
    on = board("one", "two", shares={"two": Share(weight=3)}, m=Rule(policy="session"))
    first = [once(on, ask(session=str(number), tenant="a")) for number in range(1_000)]
    second = [once(on, ask(session=str(number), tenant="b")) for number in range(1_000)]
    assert 680 < Counter(first)["two"] < 820
    assert first != second


def test_who_names_no_session_goes_to_the_least_loaded() -> None:
    on = board("one", "two", m=Rule(policy="session"))
    assert Counter(name(place(on)) for _ in range(4)) == {"one": 2, "two": 2}


# Prefixes.

LONG = "x" * limits.prefix_block_bytes * 8


def by_prefix(*engines: str) -> Board:
    return board(*engines, m=Rule(policy="prefix"))


def test_a_prompt_goes_where_its_beginning_went() -> None:
    on = by_prefix("one", "two", "three")
    first = once(on, ask(text=LONG))
    for number in range(9):
        assert once(on, ask(text=f"{LONG} and {number}")) == first
    figures = on.figures(0, {}, 0.0)
    assert figures.choices == {("m", "least"): 1, ("m", "prefix"): 9}
    assert figures.blocks["m", "matched"] == 72


def test_other_prompts_are_dealt_out() -> None:
    on = by_prefix("one", "two")
    assert Counter(once(on, ask(text=letter * 1_000)) for letter in "abcdefgh") == {"one": 4, "two": 4}


def test_what_is_alike_only_at_its_very_beginning_is_dealt_out_too() -> None:
    on = by_prefix("one", "two")
    start = "x" * limits.prefix_block_bytes
    chosen = Counter(once(on, ask(text=start + letter * limits.prefix_block_bytes * 8)) for letter in "abcdefgh")
    assert chosen == {"one": 4, "two": 4}


def test_an_engine_with_too_much_to_do_does_not_get_its_prompts() -> None:
    on = by_prefix("one", "two")
    names = [name(place(on, ask(text=LONG))) for _ in range(40)]
    counts = Counter(names)
    assert abs(counts["one"] - counts["two"]) <= limits.prefix_balance_exchanges + 1
    assert on.figures(0, {}, 0.0).choices["m", "overloaded"] > 0


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 3)), max_size=40))
def test_no_tenant_is_steered_by_what_another_asked(asked: list[tuple[str, int]]) -> None:
    on = by_prefix("one", "two", "three")
    seen: set[tuple[str, int]] = set()
    for tenant, number in asked:
        before = on.figures(0, {}, 0.0).choices.get(("m", "prefix"), 0)
        once(on, ask(text=str(number) * 2_000, tenant=tenant))
        matched = on.figures(0, {}, 0.0).choices.get(("m", "prefix"), 0) > before
        assert matched == ((tenant, number) in seen)
        seen.add((tenant, number))


def test_an_engine_that_was_started_again_has_forgotten_all_prompts() -> None:
    on = by_prefix("one")
    once(on, ask(text=LONG))
    on.tell_down("one", "has died")
    on.tell("one", [target("m", "one")], None)
    once(on, ask(text=LONG))
    assert on.figures(0, {}, 0.0).choices == {("m", "least"): 2}


def test_engines_may_be_started_again_without_end() -> None:
    on = by_prefix("one", "two")
    for _ in range(2 * limits.prefix_bits_max):
        on.tell_down("one", "has died")
        on.tell("one", [target("m", "one")], None)
    bits = [load.bit for load in on._loads.values()]
    assert len(set(bits)) == 2
    assert max(bits) < 2**limits.prefix_bits_max
    assert once(on, ask(text=LONG)) == once(on, ask(text=LONG))


# Names.


def test_an_alias_is_another_name_of_a_model() -> None:
    on = board("one", serve=("big",), big=Rule(aliases=("default",)))
    placed = place(on, ask("default"))
    assert placed is not None
    assert placed.target.model == "big"
    assert [found.model for found in on.models()] == ["big", "default"]
    assert (on.named("default"), on.named("big"), on.named("?")) == ("big", "big", "?")


def two_models(**rules: Rule) -> Board:
    made = Board(["one", "two"], {}, rules, b"secret")
    made.tell("one", [target("big", "one")], None)
    made.tell("two", [target("small", "two")], None)
    return made


def test_without_a_declared_fallback_no_other_model_answers() -> None:
    on = two_models()
    on.tell_down("one", "has died")
    with pytest.raises(EngineUnavailable):
        place(on, ask("big"))


def test_a_declared_fallback_answers_when_no_engine_of_the_model_is_up() -> None:
    on = two_models(big=Rule(fallbacks=("small",)))
    assert name(place(on, ask("big"))) == "one"
    on.tell_down("one", "has died")
    placed = place(on, ask("big"))
    assert placed is not None
    assert (placed.target.model, name(placed)) == ("small", "two")
    assert on.figures(0, {}, 0.0).fallbacks == {("big", "small"): 1}
    with pytest.raises(EngineUnavailable):
        place(on, ask("big", models=frozenset({"big"})))


def test_a_model_whose_engines_are_full_is_waited_for() -> None:
    on = board("one", serve=("big", "small"), shares={"one": Share(max_concurrent=1)}, big=Rule(fallbacks=("small",)))
    assert place(on, ask("big")) is not None
    assert place(on, ask("big")) is None


def test_what_failed_here_may_be_handed_to_a_bounded_number_of_others() -> None:
    on = board("one", "two", "three", "four")
    tried: list[str] = []
    left = []
    for _ in range(limits.retries_max + 1):
        placed = place(on, tried=tried)
        assert placed is not None
        left.append(placed.others)
        tried.append(placed.load.name)
    assert left == list(range(limits.retries_max, -1, -1))
    assert len(set(tried)) == len(tried)
    alone = place(board("one"))
    assert alone is not None
    assert alone.others == 0


def test_a_retry_may_go_to_a_declared_fallback() -> None:
    on = two_models(big=Rule(fallbacks=("small",)))
    placed = place(on, ask("big"))
    assert placed is not None
    assert placed.others == 1
    assert name(place(on, ask("big"), tried=["one"])) == "two"


def test_who_is_left_alone_is_said_with_the_time_that_it_takes() -> None:
    on = board("one")
    for _ in range(limits.breaker_failures):
        placed = place(on)
        assert placed is not None
        on.end(placed, Verdict.GONE, 0.0)
    with pytest.raises(EngineUnavailable, match="left alone") as caught:
        place(on, now=1.0)
    assert caught.value.retry_after_s == limits.breaker_open_first_s - 1
    assert name(place(on, now=limits.breaker_open_first_s)) == "one"
    assert on.figures(0, {}, 1.0).engines["one"].breaker == "open"


def test_a_model_that_nobody_serves_is_not_found() -> None:
    with pytest.raises(ModelNotFound):
        place(board("one"), ask("other"))


def test_a_model_that_an_engine_no_longer_lists_is_gone_from_it() -> None:
    on = board("one", "two")
    on.tell("one", [target("n", "one")], None)
    assert {once(on) for _ in range(4)} == {"two"}
    on.tell("two", [], None)
    with pytest.raises(ModelNotFound):
        place(on)
    assert [found.model for found in on.models()] == ["n"]
