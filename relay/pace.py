"""The destination's limit: one bucket a token, shared by all workers through the store. Pure.

A bucket holds one slot and refills evenly, so what it allows is spaced out: sixty a minute is one
a second, and a fresh payment waits for at most one slot behind any backlog. The state is a single
time, `next_at`, when the next slot opens; the store changes it in the transaction that claims the
delivery which uses the slot.
"""

from datetime import datetime, timedelta

# Requests do not arrive as evenly as they are sent. Half a percent keeps any minute at the
# destination within its limit.
MARGIN = 1.005

# How much lateness a taken slot makes good at most: less than the margin of a minute, so that a
# late request and punctual ones after it stay within the limit.
CATCH_UP = timedelta(milliseconds=250)

# A destination that fails this often in a row is left alone for a while, ever longer.
FAILURES_TO_OPEN = 5
FIRST_BREAK = timedelta(seconds=30)
LONGEST_BREAK = timedelta(minutes=10)


def interval(rate_limit: int) -> timedelta:
    """The space between two requests, for a limit in requests a minute (0: none)."""
    return timedelta(minutes=MARGIN / rate_limit) if rate_limit else timedelta(0)


def take(next_at: datetime, now: datetime, rate_limit: int) -> datetime | None:
    """The new `next_at` if a slot is open now, else None."""
    if now < next_at:
        return None
    step = interval(rate_limit)
    # A slot that is taken a little late keeps the beat, so that lateness does not add up.
    return max(next_at, now - min(step / 4, CATCH_UP)) + step


def break_until(streak: int, now: datetime) -> datetime | None:
    """Until when a destination with `streak` failures in a row is left alone, or None."""
    if streak < FAILURES_TO_OPEN:
        return None
    doubled: timedelta = FIRST_BREAK * 2 ** min(streak - FAILURES_TO_OPEN, 10)
    return now + min(doubled, LONGEST_BREAK)
