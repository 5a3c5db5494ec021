"""Meaning that needs memory: what one event alone cannot tell.

Every movement of money is told to DataFast once, however many events tell of it. (First or
renewal, the visitor and the original of a refund are decided here as well, as the ledger learns
them.)
"""

from relay.config import Source
from relay.model import Delivery, Ignored, Kind, Payment
from relay.store import Store


def consider(
    store: Store, source: Source, delivery: Delivery, payment: Payment | Ignored
) -> Payment | Ignored:
    """The payment as it shall be forwarded; or Ignored, and why."""
    if isinstance(payment, Ignored):
        return payment
    if payment.test and source.test_events == "ignore":
        return Ignored("test_event")
    if payment.kind is Kind.DISPUTE and source.disputes == "ignore":
        return Ignored("dispute")
    if not store.tell(delivery, payment):
        return Ignored("already_told")
    return payment
