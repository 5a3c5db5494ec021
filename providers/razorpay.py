"""Razorpay.

Quirks:
- One payment can be told by `payment.captured`, `order.paid`, `invoice.paid`, `payment_link.paid`,
  `qr_code.credited` and `subscription.charged`, all with the same payment inside. Counted are the
  first and the last, under the payment's id, so that they become one movement of money.
- A captured payment of a subscription does not name the subscription, only an invoice: its
  recurrence is unknown here. `subscription.charged` tells it, by `paid_count`.
- Empty `notes` are `[]`, not `{}`. `captured` can be the text `"1"`. A failed payment can say
  `captured: true`, so it is `status` that counts.
- The body of an event holds no id; it is in the header `x-razorpay-event-id`.
- A dispute that is opened mostly has taken nothing yet (`amount_deducted` is 0), and one that is won
  gives nothing back. Where Razorpay deducts at the onset, both are told by what was deducted.
  Uncertain: whether `payment.dispute.won` then still says how much that was; with 0 it is ignored.
- `refund.failed` does not say whether the refund had been `processed` before: it is not told.
- Nothing in an event says whether it is from test mode: make a source of its own for it.
"""

import hashlib
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from typing import Any

from relay import money, visitor
from relay.model import Event, Ignored, Kind, Payment, Received, Recurrence
from relay.payload import Payload
from relay.provider import Mapper, Setting, Setup
from relay.verify import BodyHmac

TITLE = "Razorpay"
DOCS = "https://razorpay.com/docs/webhooks/"

SETUP = Setup(
    where="Dashboard, Account & Settings, Webhooks, Add New Webhook. Test mode and live mode have "
    "webhooks of their own: make a source for each.",
    events=(
        "payment.captured",
        "subscription.authenticated",
        "subscription.charged",
        "refund.processed",
        "payment.dispute.created",
        "payment.dispute.lost",
        "payment.dispute.won",
    ),
    secret="The secret that you type when you create the webhook (not the API key's secret).",
    visitor="In `notes` of the order, payment link or subscription.",
    checkout="""\
// on your server, where the order or subscription is created
notes: { datafast_visitor_id: cookies.get("datafast_visitor_id") }""",
    notes="Notes do not travel from an order to its payment by themselves: give them to both.",
)

SETTINGS = (
    Setting(
        "test",
        "true if this source's webhook belongs to test mode; the events do not say it",
        default=False,
    ),
)

# https://razorpay.com/docs/webhooks/validate-test/
SIGNATURE = BodyHmac("X-Razorpay-Signature")


def parse(request: Received) -> list[Event]:
    """One event a request. The id is in a header; a body without it is known by its digest."""
    body = Payload.json(request.body).object()
    id = request.headers.get("x-razorpay-event-id") or hashlib.sha256(request.body).hexdigest()
    created = body if body.at("created_at") else body.at("payload")
    occurred_at = created.unix_time("created_at") if created.at("created_at") else None
    return [Event(id, body.text("event"), body.object("payload"), occurred_at)]


def captured(event: Event) -> Payment | Ignored:
    """`payment.captured`: all that is paid, the charges of subscriptions included."""
    return charge(event, Recurrence.ONE_TIME)


def charged(event: Event) -> Payment | Ignored:
    """`subscription.charged`: the same payment, and where it stands in its subscription."""
    count = event.data.integer("subscription", "entity", "paid_count")
    return charge(event, Recurrence.FIRST if count <= 1 else Recurrence.RENEWAL)


def charge(event: Event, recurrence: Recurrence) -> Payment | Ignored:
    """A payment, once its money is really there."""
    paid = event.data.object("payment", "entity")
    if paid.text("status") != "captured":
        return Ignored("not_paid")
    subscription = event.data.at("subscription", "entity")
    plain_invoice = (paid.text_or_none("description") or "").startswith("Invoice #")
    if paid.at("invoice_id") and not subscription and not plain_invoice:
        recurrence = Recurrence.UNKNOWN
    return payment(event, paid, kind=Kind.CHARGE, recurrence=recurrence)


def refund(event: Event) -> Payment | Ignored:
    """`refund.processed`: this refund's amount; the payment's own `amount_refunded` is a sum."""
    if not event.data.flag("payment", "entity", "captured"):
        return Ignored("never_captured")
    refunded = event.data.object("refund", "entity")
    return payment(event, refunded, kind=Kind.REFUND, original_id=refunded.text("payment_id"))


def dispute(event: Event) -> Payment | Ignored:
    """`payment.dispute.*`: what was really deducted; or returns, if the dispute is won."""
    disputed = event.data.object("dispute", "entity")
    won = event.type == "payment.dispute.won"
    if not disputed.integer("amount_deducted"):
        return Ignored("nothing_was_taken" if won else "nothing_taken_yet")
    original_id = disputed.text("payment_id")
    taken = payment(event, disputed, "amount_deducted", kind=Kind.DISPUTE, original_id=original_id)
    if not won:
        return taken
    return replace(
        taken,
        kind=Kind.REINSTATED,
        transaction_id=f"{taken.transaction_id}:won",
        occurred_at=event.occurred_at or taken.occurred_at,
    )


def begun(event: Event) -> Payment | Ignored:
    """`subscription.authenticated`: a trial if the first charge is still to come."""
    subscription = event.data.object("subscription", "entity")
    moment = event.occurred_at or subscription.unix_time("created_at")
    starts_at = time_or_none(subscription, "start_at")
    if subscription.integer("paid_count") or starts_at is None or starts_at <= moment:
        return activated(event, "no_trial")
    return Payment(
        kind=Kind.TRIAL,
        transaction_id=f"{subscription.text('id')}:trial",
        amount=Decimal(0),
        currency=None,
        occurred_at=moment,
        **about(event),
    )


def activated(event: Event, reason: str = "told_by_subscription.charged") -> Ignored:
    """`subscription.activated`: whose subscription it is. It comes again after a halt."""
    created_at = time_or_none(event.data.at("subscription", "entity"), "created_at")
    return Ignored(reason, occurred_at=created_at, **about(event))


def payment(
    event: Event,
    moved: Payload,
    amount: str = "amount",
    *,
    kind: Kind,
    recurrence: Recurrence | None = None,
    original_id: str | None = None,
) -> Payment:
    """What the movements have in common. `moved` is the payment, refund or dispute itself."""
    currency = money.currency(moved, "currency")
    return Payment(
        kind=kind,
        transaction_id=moved.text("id"),
        amount=money.minor_units(moved, amount, code=currency),
        currency=currency,
        occurred_at=moved.unix_time("created_at"),
        recurrence=recurrence,
        original_id=original_id,
        **about(event),
    )


def about(event: Event) -> dict[str, Any]:
    """Whom an event is about, by its payment and its subscription, whichever it has."""
    paid, subscription = (event.data.at(it, "entity") for it in ("payment", "subscription"))
    customer = paid if paid.at("customer_id") else subscription
    starts_at = time_or_none(subscription, "start_at")
    return {
        "subscription_id": subscription.text_or_none("id"),
        "subscribed_at": starts_at or time_or_none(subscription, "created_at"),
        "customer_id": customer.text_or_none("customer_id"),
        "email": paid.text_or_none("email"),
        "name": paid.text_or_none("card", "name"),
        "visitor_id": visitor.find(paid.at("notes"), subscription.at("notes")),
        "test": event.settings["test"],
    }


def time_or_none(place: Payload, key: str) -> datetime | None:
    """The moment at `key`, which need not be there."""
    return place.unix_time(key) if place.at(key) else None


# https://razorpay.com/docs/webhooks/payloads/
EVENTS: dict[str, Mapper] = {
    "payment.captured": captured,
    "subscription.charged": charged,
    "subscription.authenticated": begun,
    "subscription.activated": activated,
    "refund.processed": refund,
    "payment.dispute.created": dispute,
    "payment.dispute.lost": dispute,
    "payment.dispute.won": dispute,
}

IGNORED = {
    "order.paid": "told_by_payment.captured",
    "invoice.paid": "told_by_payment.captured",
    "payment_link.paid": "told_by_payment.captured",
    "qr_code.credited": "told_by_payment.captured",
    "subscription.cancelled": "no_money_moved",
    "subscription.completed": "no_money_moved",
    "subscription.halted": "no_money_moved",
    "subscription.paused": "no_money_moved",
    "subscription.pending": "no_money_moved",
    "subscription.resumed": "no_money_moved",
    "subscription.updated": "no_money_moved",
    "refund.created": "told_by_refund.processed",
    "refund.speed_changed": "told_by_refund.processed",
    "refund.failed": "refund_failed",
    "payment.dispute.action_required": "nothing_taken_yet",
    "payment.dispute.closed": "no_money_moved",
    "payment.dispute.under_review": "nothing_taken_yet",
    "payment.failed": "no_money_moved",
    "payment.authorized": "not_paid",
}
