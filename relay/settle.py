"""An outcome becomes a decision. Pure: time and randomness are handed in."""

from datetime import datetime, timedelta

from relay.model import Decision, Delivery, Lane, Outcome, Result, State

# Before the first attempt, and after each failed one. Beyond the list every 12 hours, for 3 days.
SCHEDULE = tuple(
    timedelta(seconds=seconds)
    for seconds in (5, 30, 5 * 60, 30 * 60, 2 * 3600, 5 * 3600, 10 * 3600, 12 * 3600)
)
GIVE_UP_AFTER = timedelta(days=3)

# A visitor's page view may reach DataFast after the payment. Then the payment goes without it.
PARKED = tuple(timedelta(minutes=minutes) for minutes in (2, 15, 60, 6 * 60))

JITTER = 0.2
LONGEST_WAIT = timedelta(hours=12)
PAUSE_UNAUTHORISED = timedelta(minutes=5)
PAUSE_THROTTLED = timedelta(minutes=1)
# Clocks differ: a reset that has passed by ours may still be ahead by the destination's.
SHORTEST_PAUSE = timedelta(seconds=5)

_DELIVERED = {Result.ATTRIBUTED, Result.RECORDED, Result.DUPLICATE, Result.REFUNDED}

_CLOSING = {Result.UNAUTHORISED, Result.THROTTLED}


def decide(outcome: Outcome, delivery: Delivery, now: datetime, dice: float) -> Decision:
    """What becomes of the delivery after this outcome. `dice` is in [0, 1) and stretches waits."""
    result = outcome.result
    if result in _DELIVERED:
        return Decision(State.DELIVERED, result)
    if result is Result.WITHDRAWN:
        return Decision(State.PENDING, result, now, lane=Lane.LIVE, counts=False)
    if result is Result.REJECTED:
        return Decision(State.DEAD, f"rejected: {outcome.message}")
    if result in _CLOSING:
        return _close(outcome, now)
    if result is Result.VISITOR_NOT_FOUND:
        return _park(delivery, now, dice)
    return retry(result, delivery, now, dice, outcome)


def _close(outcome: Outcome, now: datetime) -> Decision:
    """Nothing can go to this destination for a while: a limit is reached, or the key is bad."""
    until = now + PAUSE_UNAUTHORISED
    if outcome.result is Result.THROTTLED:
        until = max(outcome.retry_at or now + PAUSE_THROTTLED, now + SHORTEST_PAUSE)
        until = min(until, now + LONGEST_WAIT)
    return Decision(State.PENDING, outcome.result, until, counts=False, closes_until=until)


def retry(
    reason: str, delivery: Delivery, now: datetime, dice: float, outcome: Outcome | None = None
) -> Decision:
    """Again by the schedule; dead when its three days, from the first failure, are over."""
    began = delivery.first_due_at if delivery.failures else now
    step = SCHEDULE[min(delivery.failures, len(SCHEDULE) - 1)]
    again_at = now + step * (1 + JITTER * dice)
    if again_at - began > GIVE_UP_AFTER:
        return Decision(State.DEAD, f"gave_up: {reason}")
    latest = min(now + LONGEST_WAIT, began + GIVE_UP_AFTER)
    return Decision(State.PENDING, reason, _later(again_at, outcome, latest))


def _park(delivery: Delivery, now: datetime, dice: float) -> Decision:
    """DataFast has recorded the payment, or will: only its visitor is not known there yet."""
    if delivery.failures >= len(PARKED):
        return Decision(State.DELIVERED, Result.VISITOR_NOT_FOUND)
    again_at = now + PARKED[delivery.failures] * (1 + JITTER * dice)
    return Decision(State.PENDING, Result.VISITOR_NOT_FOUND, again_at, lane=Lane.PARKED)


def _later(planned: datetime, outcome: Outcome | None, latest: datetime) -> datetime:
    """What the destination asks for can only lengthen a wait, and never beyond `latest`."""
    if outcome is None or outcome.retry_at is None:
        return planned
    return max(planned, min(outcome.retry_at, latest))
