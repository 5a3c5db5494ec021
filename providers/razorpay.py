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
- A dispute that is opened has taken nothing yet (`amount_deducted` is 0).
- Nothing in an event says whether it is from test mode: make a source of its own for it.
"""

import hashlib
from decimal import Decimal

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
    return payment(
        event,
        paid,
        kind=Kind.CHARGE,
        recurrence=recurrence,
        subscription_id=subscription.text_or_none("id"),
    )


def refund(event: Event) -> Payment | Ignored:
    """`refund.processed`: this refund's amount; the payment's own `amount_refunded` is a sum."""
    if not event.data.flag("payment", "entity", "captured"):
        return Ignored("never_captured")
    refunded = event.data.object("refund", "entity")
    return payment(event, refunded, kind=Kind.REFUND, original_id=refunded.text("payment_id"))


def dispute(event: Event) -> Payment | Ignored:
    """`payment.dispute.*`: what was really deducted."""
    disputed = event.data.object("dispute", "entity")
    if not disputed.integer("amount_deducted"):
        return Ignored("nothing_taken_yet")
    return payment(
        event,
        disputed,
        "amount_deducted",
        kind=Kind.DISPUTE,
        original_id=disputed.text("payment_id"),
    )


def trial(event: Event) -> Payment | Ignored:
    """`subscription.authenticated`: a trial if the first charge is still to come."""
    subscription = event.data.object("subscription", "entity")
    begun = event.occurred_at or subscription.unix_time("created_at")
    if subscription.integer("paid_count") or not subscription.at("start_at"):
        return Ignored("no_trial")
    if subscription.unix_time("start_at") <= begun:
        return Ignored("no_trial")
    return Payment(
        kind=Kind.TRIAL,
        transaction_id=f"{subscription.text('id')}:trial",
        amount=Decimal(0),
        currency=None,
        occurred_at=begun,
        subscription_id=subscription.text("id"),
        customer_id=subscription.text_or_none("customer_id"),
        visitor_id=visitor.find(subscription.at("notes")),
        test=event.settings["test"],
    )


def payment(
    event: Event,
    moved: Payload,
    amount: str = "amount",
    *,
    kind: Kind,
    recurrence: Recurrence | None = None,
    original_id: str | None = None,
    subscription_id: str | None = None,
) -> Payment:
    """What the movements have in common. `moved` is the payment, refund or dispute itself."""
    paid = event.data.at("payment", "entity")
    currency = money.currency(moved, "currency")
    notes = (event.data.at(entity, "entity", "notes") for entity in ("payment", "subscription"))
    return Payment(
        kind=kind,
        transaction_id=moved.text("id"),
        amount=money.minor_units(moved, amount, code=currency),
        currency=currency,
        occurred_at=moved.unix_time("created_at"),
        recurrence=recurrence,
        original_id=original_id,
        subscription_id=subscription_id,
        customer_id=paid.text_or_none("customer_id"),
        email=paid.text_or_none("email"),
        name=paid.text_or_none("card", "name"),
        visitor_id=visitor.find(*notes),
        test=event.settings["test"],
    )


# https://razorpay.com/docs/webhooks/payloads/
EVENTS: dict[str, Mapper] = {
    "payment.captured": captured,
    "subscription.charged": charged,
    "subscription.authenticated": trial,
    "refund.processed": refund,
    "payment.dispute.created": dispute,
    "payment.dispute.lost": dispute,
}

IGNORED = {
    "order.paid": "told_by_payment.captured",
    "invoice.paid": "told_by_payment.captured",
    "payment_link.paid": "told_by_payment.captured",
    "qr_code.credited": "told_by_payment.captured",
    "subscription.activated": "told_by_subscription.charged",
    "subscription.cancelled": "no_money_moved",
    "subscription.completed": "no_money_moved",
    "subscription.halted": "no_money_moved",
    "subscription.paused": "no_money_moved",
    "subscription.pending": "no_money_moved",
    "subscription.resumed": "no_money_moved",
    "subscription.updated": "no_money_moved",
    "refund.created": "told_by_refund.processed",
    "refund.speed_changed": "told_by_refund.processed",
    "refund.failed": "no_money_moved",
    "payment.dispute.action_required": "nothing_taken_yet",
    "payment.dispute.closed": "no_money_moved",
    "payment.dispute.under_review": "nothing_taken_yet",
    "payment.dispute.won": "no_money_moved",
    "payment.failed": "no_money_moved",
    "payment.authorized": "not_paid",
}
