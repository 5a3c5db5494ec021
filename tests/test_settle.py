"""What becomes of a delivery, for every outcome."""

from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from helpers import NOON
from hypothesis import given
from hypothesis import strategies as st

from relay import settle
from relay.model import (
    Decision,
    Delivery,
    Headers,
    Lane,
    Outcome,
    Received,
    Result,
    State,
)
from relay.settle import GIVE_UP_AFTER, JITTER, LONGEST_WAIT, PARKED, SCHEDULE

FRESH = Delivery(
    id=1,
    source="shop",
    event_id="evt_1",
    event_type="paid",
    request=Received(b"", Headers(), NOON),
    attempt=0,
    failures=0,
    lane=Lane.LIVE,
    reason="",
    first_due_at=NOON,
    lease="lease",
)
AGAIN = [Result.UNAVAILABLE, Result.UNKNOWN]
CLOSING = [Result.UNAUTHORISED, Result.THROTTLED]
DICE = st.floats(min_value=0, max_value=1, exclude_max=True)


def outcome(result: Result, retry_at: datetime | None = None) -> Outcome:
    return Outcome(result, "the message", 200, "", retry_at)


def decide(
    result: Result,
    failures: int = 0,
    dice: float = 0.0,
    now: datetime = NOON,
    retry_at: datetime | None = None,
) -> Decision:
    return settle.decide(outcome(result, retry_at), replace(FRESH, failures=failures), now, dice)


@pytest.mark.parametrize(
    "result", [Result.ATTRIBUTED, Result.RECORDED, Result.DUPLICATE, Result.REFUNDED]
)
def test_what_datafast_took_is_delivered(result: Result) -> None:
    assert decide(result) == Decision(State.DELIVERED, result)


def test_what_datafast_refuses_is_dead_with_its_words() -> None:
    assert decide(Result.REJECTED) == Decision(State.DEAD, "rejected: the message")


@pytest.mark.parametrize("result", AGAIN)
@pytest.mark.parametrize(("failures", "wait"), list(enumerate(SCHEDULE)))
def test_what_may_be_better_next_time_is_tried_by_the_schedule(
    result: Result, failures: int, wait: timedelta
) -> None:
    assert decide(result, failures) == Decision(State.PENDING, result, NOON + wait)


def test_the_schedule_is_the_documented_one() -> None:
    seconds = [5, 30, 300, 1_800, 7_200, 18_000, 36_000, 43_200]
    assert [wait.total_seconds() for wait in SCHEDULE] == seconds
    assert timedelta(days=3) == GIVE_UP_AFTER


@pytest.mark.parametrize("result", AGAIN)
def test_a_destination_that_stays_away_is_given_up_after_three_days(result: Result) -> None:
    now, failures, waits = NOON, 0, []
    while (decision := decide(result, failures, now=now)).state is State.PENDING:
        assert decision.again_at is not None
        assert decision.counts
        waits.append(decision.again_at - now)
        now, failures = decision.again_at, failures + 1
    assert decision == Decision(State.DEAD, f"gave_up: {result}")
    assert waits[: len(SCHEDULE)] == list(SCHEDULE)
    assert set(waits[len(SCHEDULE) :]) == {SCHEDULE[-1]}
    assert GIVE_UP_AFTER - SCHEDULE[-1] < now - NOON <= GIVE_UP_AFTER


@given(
    result=st.sampled_from(AGAIN),
    dice=DICE,
    asked=st.none() | st.integers(min_value=-(10**6), max_value=10**7),
)
def test_nothing_is_tried_beyond_three_days(result: Result, dice: float, asked: int | None) -> None:
    now, failures = NOON, 0
    for _ in range(100):
        retry_at = None if asked is None else now + timedelta(seconds=asked)
        decision = decide(result, failures, dice, now, retry_at)
        if decision.state is State.DEAD:
            break
        assert decision.again_at is not None
        assert now < decision.again_at <= NOON + GIVE_UP_AFTER
        now, failures = decision.again_at, failures + 1
    assert decision.state is State.DEAD


@given(
    failures=st.integers(min_value=0, max_value=20),
    dice=DICE,
    asked=st.integers(min_value=-(10**6), max_value=10**7),
)
def test_retry_after_only_lengthens_and_never_beyond_its_cap(
    failures: int, dice: float, asked: int
) -> None:
    plain = decide(Result.UNAVAILABLE, failures, dice)
    told = decide(Result.UNAVAILABLE, failures, dice, retry_at=NOON + timedelta(seconds=asked))
    assert plain.again_at is not None
    assert told.again_at is not None
    assert told.again_at >= plain.again_at
    assert told.again_at <= max(plain.again_at, NOON + LONGEST_WAIT)
    if plain.again_at <= NOON + timedelta(seconds=asked) <= NOON + LONGEST_WAIT:
        assert told.again_at == NOON + timedelta(seconds=asked)


@given(failures=st.integers(min_value=0, max_value=20), dice=DICE)
def test_jitter_stretches_a_wait_by_at_most_a_fifth(failures: int, dice: float) -> None:
    step = SCHEDULE[min(failures, len(SCHEDULE) - 1)]
    again_at = decide(Result.UNAVAILABLE, failures, dice).again_at
    assert again_at is not None
    assert step <= again_at - NOON <= step * (1 + JITTER)


def test_a_bad_key_closes_the_destination_and_costs_nothing() -> None:
    until = NOON + timedelta(minutes=5)
    for failures in (0, 50):
        assert decide(Result.UNAUTHORISED, failures) == Decision(
            State.PENDING, Result.UNAUTHORISED, until, counts=False, closes_until=until
        )


def test_a_key_may_be_bad_for_longer_than_three_days() -> None:
    late = NOON + timedelta(days=30)
    assert decide(Result.UNAUTHORISED, 3, now=late).state is State.PENDING
    assert decide(Result.THROTTLED, 3, now=late).state is State.PENDING


@pytest.mark.parametrize(
    ("told", "waits"),
    [(None, 60), (20, 20), (7_200, 7_200), (10**6, 43_200), (0, 5), (-3_600, 5)],
    ids=["nothing", "seconds", "hours", "days", "now", "the past"],
)
def test_a_limit_closes_the_destination_until_the_told_time(told: int | None, waits: int) -> None:
    """But for some seconds at least: clocks differ, and asking on would only be refused again."""
    retry_at = None if told is None else NOON + timedelta(seconds=told)
    until = NOON + timedelta(seconds=waits)
    assert decide(Result.THROTTLED, retry_at=retry_at) == Decision(
        State.PENDING, Result.THROTTLED, until, counts=False, closes_until=until
    )


@pytest.mark.parametrize(("failures", "wait"), list(enumerate(PARKED)))
def test_a_payment_whose_visitor_is_not_there_yet_is_parked(failures: int, wait: timedelta) -> None:
    assert decide(Result.VISITOR_NOT_FOUND, failures) == Decision(
        State.PENDING, Result.VISITOR_NOT_FOUND, NOON + wait, lane=Lane.PARKED
    )


def test_a_visitor_who_never_comes_is_done_without() -> None:
    decision = decide(Result.VISITOR_NOT_FOUND, len(PARKED))
    assert decision == Decision(State.DELIVERED, Result.VISITOR_NOT_FOUND)


@given(
    result=st.sampled_from(list(Result)),
    failures=st.integers(min_value=0, max_value=100),
    dice=DICE,
    age=st.integers(min_value=0, max_value=10**7),
    asked=st.none() | st.integers(min_value=-(10**7), max_value=10**7),
)
def test_who_stays_pending_has_a_time_in_the_future_and_nobody_else_has_one(
    result: Result, failures: int, dice: float, age: int, asked: int | None
) -> None:
    now = NOON + timedelta(seconds=age)
    retry_at = None if asked is None else now + timedelta(seconds=asked)
    decision = decide(result, failures, dice, now, retry_at)
    if decision.state is State.PENDING:
        assert decision.again_at is not None
        least = now if result is Result.WITHDRAWN else now + timedelta(microseconds=1)
        assert least <= decision.again_at <= now + LONGEST_WAIT * (1 + JITTER)
        assert (decision.closes_until is not None) == (result in CLOSING)
    else:
        assert decision.again_at is None
        assert decision.closes_until is None
    assert decision.state is not State.IGNORED


def test_the_three_days_begin_with_the_first_failure() -> None:
    """An event may have waited long before: for a slot behind a backlog, or for a key."""
    late = NOON + timedelta(days=30)
    assert decide(Result.UNAVAILABLE, 0, now=late).state is State.PENDING
    assert decide(Result.UNAVAILABLE, 1, now=late).state is State.DEAD


def test_a_wait_that_the_destination_asks_for_ends_with_the_three_days() -> None:
    now, asked = NOON + timedelta(hours=70), NOON + timedelta(hours=80)
    decision = decide(Result.UNAVAILABLE, 1, now=now, retry_at=asked)
    assert decision.again_at == NOON + GIVE_UP_AFTER
