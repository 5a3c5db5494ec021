"""Under which id a refund is posted.

DataFast does not say whether a refund carries the original payment's `transaction_id` or its own.
If it must be the original's, the answer reads "refunded"; if it must not, the refund is swallowed
as a duplicate. Policy `auto` finds out: a full refund goes under the original's id first, and when
that reads as a duplicate, once more under its own. A partial refund goes under its own.
"""

from datetime import datetime

from relay.config import Source
from relay.mapping import Body
from relay.model import Decision, Delivery, Kind, Lane, Payment, Result, State
from relay.store import Store

SWALLOWED = "refund_swallowed"

_TAKES_BACK = {Kind.REFUND, Kind.DISPUTE}
_UNCLEAR = {Result.UNAVAILABLE, Result.UNKNOWN}


def posted_as(store: Store, source: Source, delivery: Delivery, payment: Payment) -> str:
    """The `transaction_id` to post this payment under."""
    policy, original = source.destination.refunds, payment.original_id
    if payment.kind not in _TAKES_BACK or original is None or policy == "refund_id":
        return payment.transaction_id
    if policy == "original_id":
        return original
    if delivery.reason == SWALLOWED or not store.is_full(source.name, payment):
        return payment.transaction_id
    return original


def reconsider(
    decision: Decision, delivery: Delivery, payment: Payment, body: Body, now: datetime, policy: str
) -> Decision:
    """A refund that was swallowed as a duplicate of its original goes again, under its own id.

    Not so when the attempt before had no clear answer: then the duplicate may be that very refund,
    and a second one would be too much.
    """
    under_original = body.fields["transaction_id"] != payment.transaction_id
    if policy != "auto" or not under_original or decision.reason != Result.DUPLICATE:
        return decision
    if delivery.reason in _UNCLEAR:
        return decision
    return Decision(State.PENDING, SWALLOWED, now, lane=Lane.LIVE, counts=False)
