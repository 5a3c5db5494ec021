"""Order does not matter: however a scenario arrives, DataFast holds the same at the end.

What arrives is shuffled, told again, and late, also beyond the time for which the relay waits; workers
take several events at once, deliver them in any order, and die before or after any call of the
store and any request, so that the event is taken up again when the lease is over. Then time
passes, and `relay repair` mends what was sent too early.

Only what a crash can never settle is left out: with `refunds: auto`, where DataFast wants a refund
under its own id, an answer that is lost leaves open which of the two readings it had. And what the
owner's own site says (`POST /identify`) is said at the checkout, before anything arrives.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from helpers import LEASE
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from scenarios import Held, Life, Scenario, World, hurry, net, sums
from test_scenarios import SCENARIOS

from relay.store import Store

# For each scenario on each engine.
EXAMPLES = 8

PAUSES = (0, 0, 1, 90, 660, 2 * 86_400)


@dataclass(frozen=True)
class Moment:
    """One arrival (a number in the scenario), and what the workers do before the next one."""

    arrival: int
    pause: int
    claimed: int
    backwards: bool


@dataclass(frozen=True)
class Day:
    """How it all goes; the worst of days."""

    moments: tuple[Moment, ...]
    crashes: tuple[tuple[int, str], ...]


@st.composite
def days(draw: Any, scenario: Scenario) -> Day:
    """Any day."""
    told = [n for n, it in enumerate(scenario.arrivals) if it.type != "identified"]
    order = draw(st.permutations(told))
    again = draw(st.lists(st.sampled_from(told), max_size=3))
    for each in again:
        order.insert(draw(st.integers(0, len(order))), each)
    moments = [
        Moment(
            number,
            draw(st.sampled_from(PAUSES)),
            draw(st.integers(0, 4)),
            draw(st.booleans()),
        )
        for number in order
    ]
    crash = st.tuples(st.integers(1, 15), st.sampled_from(["before", "after"]))
    return Day(tuple(moments), tuple(draw(st.lists(crash, max_size=4))))


def live_through(life: Life, day: Day) -> None:
    """The scenario on that day, up to the end of all waiting and mending."""
    scenario = life.scenario
    life.clock.now = max(it.arrives for it in scenario.arrivals)
    in_doubt = (scenario.refunds, scenario.reading) == ("auto", "refund_id")
    for arrival in scenario.arrivals:
        if arrival.type == "identified":
            life.arrive(arrival)
    life.steps.die(*([] if in_doubt else day.crashes))
    for moment in day.moments:
        life.arrive(scenario.arrivals[moment.arrival])
        claimed = life.claim(moment.claimed) if moment.claimed else []
        for delivery in reversed(claimed) if moment.backwards else claimed:
            life.deliver(delivery)
        life.clock.pass_(seconds=moment.pause)
    life.pass_until()
    life.clock.now += LEASE
    life.pass_until()
    life.repair()


def same(held: list[Held], scenario: Scenario) -> None:
    """What DataFast holds is what it must hold, as far as an order can tell."""
    wanted = sorted(scenario.datafast)
    assert net(held) == net(wanted)
    if scenario.alike in {"records", "sums"}:
        assert sums(held) == sums(wanted)
    if scenario.alike == "records":
        assert [_bare(it) for it in held] == [_bare(it) for it in wanted]


def _bare(held: Held) -> tuple[Any, ...]:
    """Without what is not sent again for its own sake: name, address and customer."""
    return (held.kind, held.id, held.amount, held.currency, held.visitor)


@pytest.fixture
def world(store: Store) -> Iterator[World]:
    hurry(store)
    found = World(store)
    yield found
    found.close()


LIVES = [it for it in SCENARIOS if it.alike != "none"]


def test_a_thousand_days_are_lived_through() -> None:
    assert len(LIVES) * EXAMPLES * 2 >= 1_000
    assert all(it.since for it in SCENARIOS if it.alike != "records")


@pytest.mark.parametrize("scenario", LIVES, ids=lambda it: it.slug)
def test_the_order_does_not_matter(world: World, scenario: Scenario) -> None:
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],  # as it was found: a shrunk day costs minutes
        suppress_health_check=list(HealthCheck),
    )
    @given(days(scenario))
    def any_day(day: Day) -> None:
        life = world.begin(scenario)
        live_through(life, day)
        same(life.held(), scenario)
        life.check()

    any_day()
