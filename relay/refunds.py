"""Under which id a refund is posted, and when.

DataFast does not say whether a refund carries the original payment's `transaction_id` or its own.
If it must be the original's, the answer reads "refunded"; if it must not, the refund is swallowed
as a duplicate. Policy `auto` finds out: a full refund goes under the original's id first, and when
that reads as a duplicate, once more under its own. A partial refund goes under its own.

Nothing goes under the original's id while the original itself is still on its way: DataFast would
take the refund for the payment, and then the payment for a duplicate.
"""

from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal

from relay.config import Source
from relay.mapping import Body
from relay.model import TAKES_BACK, Decision, Delivery, Lane, Payment, Result, State
from relay.store import AnyRow, Store

SWALLOWED = "refund_swallowed"
WAITS = "waits_for_original"

SHORTEST_WAIT = timedelta(seconds=1)
LONGEST_WAIT = timedelta(minutes=5)

_MAY_HAVE_COUNTED = {Result.REFUNDED, Result.UNAVAILABLE, Result.UNKNOWN}


def posted_as(
    store: Store, source: Source, delivery: Delivery, payment: Payment, now: datetime
) -> str | Decision:
    """The `transaction_id` to post this payment under; or a Decision to wait for its original."""
    policy, original = source.destination.refunds, payment.original_id
    if payment.kind not in TAKES_BACK or original is None or policy == "refund_id":
        return payment.transaction_id
    if delivery.reason == SWALLOWED or delivery.posted_as == payment.transaction_id:
        return payment.transaction_id  # it may stand there already
    charge = store.charged(source.name, original)
    if charge is not None and charge.refunded_by not in {None, delivery.id}:
        return payment.transaction_id  # one refund can go under the original's id
    stays = delivery.posted_as == original  # it may stand there already
    if policy == "auto" and not stays and not _is_all_of(charge, payment):
        return payment.transaction_id
    if charge is not None and charge.state is State.PENDING:
        waited = now - delivery.first_due_at  # so each wait is as long as all before it
        again_at = now + min(max(waited, SHORTEST_WAIT), LONGEST_WAIT)
        return Decision(State.PENDING, WAITS, again_at, lane=delivery.lane, counts=False)
    return original


def _is_all_of(charge: AnyRow | None, refund: Payment) -> bool:
    """Whether a refund takes back the whole of a charge that DataFast has, or is about to have."""
    if charge is None or charge.state not in {State.PENDING, State.DELIVERED}:
        return False
    return (Decimal(charge.amount), charge.currency) == (refund.amount, refund.currency)


def reconsider(
    store: Store,
    source: Source,
    delivery: Delivery,
    payment: Payment,
    body: Body,
    decision: Decision,
) -> Decision:
    """A refund that was swallowed as a duplicate of its original goes again, under its own id.

    Not so when an earlier attempt may have been counted (it was answered "refunded", or not at all):
    then the duplicate is most likely that very refund, and a second one would be too much.
    Once it goes under its own id, it stays there through any outage.
    """
    if delivery.reason == SWALLOWED and decision.state is State.PENDING:
        return replace(decision, reason=SWALLOWED)
    under_original = body.fields["transaction_id"] != payment.transaction_id
    if decision.reason != Result.DUPLICATE or not under_original:
        return decision
    if source.destination.refunds != "auto" or delivery.interrupted:
        return decision
    if store.results(delivery.id) & _MAY_HAVE_COUNTED:
        return decision
    return Decision(State.PENDING, SWALLOWED, delivery.first_due_at, lane=Lane.LIVE, counts=False)
