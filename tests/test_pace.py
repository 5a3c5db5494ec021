"""The destination's limit is used, and never passed."""

from datetime import datetime, timedelta

import pytest
from helpers import NOON
from hypothesis import given
from hypothesis import strategies as st

from relay import pace

MINUTE = timedelta(minutes=1)
RATES = st.integers(min_value=1, max_value=6_000)


def passed(rate: int, asked: list[datetime]) -> list[datetime]:
    """Which of those who ask pass."""
    next_at, found = datetime.fromtimestamp(0, NOON.tzinfo), []
    for now in asked:
        taken = pace.take(next_at, now, rate)
        if taken is not None:
            next_at = taken
            found.append(now)
    return found


def most_in_a_minute(times: list[datetime]) -> int:
    """The largest number in any 60 seconds."""
    most, first = 0, 0
    for last, time in enumerate(times):
        while time - times[first] >= MINUTE:
            first += 1
        most = max(most, last - first + 1)
    return most


@given(
    rate=st.integers(min_value=1, max_value=600),
    gaps=st.lists(st.floats(min_value=0, max_value=90), min_size=1, max_size=400),
)
def test_no_minute_ever_holds_more_than_the_limit(rate: int, gaps: list[float]) -> None:
    asked, now = [], NOON
    for gap in gaps:
        now += timedelta(seconds=gap)
        asked.append(now)
    assert most_in_a_minute(passed(rate, asked)) <= rate


@given(rate=st.integers(min_value=1, max_value=120), data=st.data())
def test_no_minute_of_a_backlog_holds_more_than_the_limit(rate: int, data: st.DataObject) -> None:
    """Whoever waits asks again when the slot opens, and is now and then late."""
    late = data.draw(st.lists(st.floats(min_value=0, max_value=5), min_size=1, max_size=20))
    next_at, now, times = NOON, NOON, []
    for turn in range(3 * rate):
        now = max(now, next_at) + timedelta(seconds=late[turn % len(late)])
        taken = pace.take(next_at, now, rate)
        assert taken is not None
        next_at = taken
        times.append(now)
    assert most_in_a_minute(times) <= rate


@given(rate=RATES, late=st.floats(min_value=0, max_value=0.24))
def test_a_backlog_uses_at_least_99_percent_of_the_limit(rate: int, late: float) -> None:
    """Also when every slot is taken somewhat too late."""
    next_at, now, count = NOON, NOON, 0
    lateness = min(pace.interval(rate), timedelta(seconds=1)) * late
    while now < NOON + 10 * MINUTE and count < 2_000:
        taken = pace.take(next_at, now, rate)
        assert taken is not None
        count, next_at = count + 1, taken
        now = next_at + lateness
    minutes = (now - NOON) / MINUTE
    assert count >= 0.99 * rate * minutes - 1


@given(rate=RATES, wait=st.floats(min_value=0, max_value=86_400))
def test_a_slot_opens_after_its_time_and_not_before(rate: int, wait: float) -> None:
    now = NOON + timedelta(seconds=wait)
    next_at = pace.take(NOON, now, rate)
    assert next_at is not None
    assert next_at > now
    assert pace.take(next_at, next_at - timedelta(microseconds=1), rate) is None
    assert pace.take(next_at, next_at, rate) is not None


def test_what_was_not_used_is_not_saved_up() -> None:
    asked = [NOON + timedelta(hours=1)] * 5
    assert len(passed(60, [NOON, *asked])) == 2


def test_without_a_limit_everything_passes() -> None:
    assert passed(0, [NOON] * 5) == [NOON] * 5


@pytest.mark.parametrize(
    ("streak", "seconds"),
    [
        (0, None),
        (4, None),
        (5, 30),
        (6, 60),
        (7, 120),
        (9, 480),
        (10, 600),
        (11, 600),
        (9_999, 600),
    ],
)
def test_a_failing_destination_is_left_alone_ever_longer(streak: int, seconds: int | None) -> None:
    wanted = None if seconds is None else NOON + timedelta(seconds=seconds)
    assert pace.break_until(streak, NOON) == wanted
