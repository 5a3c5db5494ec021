"""Chargebee.

Quirks:
- Nothing is signed: Chargebee sends HTTP Basic with a user and a password that you make up. So
  there is no official check to ask, and no published vector.
- `payment_succeeded` tells every charge; `subscription_renewed`, `invoice_generated` and
  `invoice_updated` announce the same money.
- `recurring` of an invoice means that it belongs to a subscription, not that it renews one; what
  tells a renewal is `first_invoice`. A payment that is not tied to an invoice says neither.
- A chargeback is a transaction of the type `refund` whose `payment_method` is `chargeback`. Read as
  a dispute; uncertain: that `payment_refunded` announces it, as it does the other refunds. There is
  no event for a dispute that is won.
- A direct debit that fails after it had succeeded becomes a transaction of the type
  `payment_reversal`. Uncertain: which event tells it; here it is read from `transaction_created`,
  whose other transactions have events of their own.
- What is taken back is named by `refunded_txn_id`, `reference_transaction_id` or `linked_payments`;
  which of them is there, no published body shows.
- `activated_at` of a subscription moves with every pause, so its beginning is read from
  `trial_end`, `started_at` or `created_at`.
- A test site is a site of its own, and its events do not say so: make a source of its own for it.
  Only the ids of the dashboard's test webhook begin with `cbdemo_`.
"""

from datetime import datetime
from decimal import Decimal
from typing import Any

from relay import money, visitor
from relay.model import Event, Ignored, Kind, Payment, Received, Recurrence
from relay.payload import Payload
from relay.provider import Mapper, Setting, Setup
from relay.verify import BasicAuth

TITLE = "Chargebee"
DOCS = "https://apidocs.chargebee.com/docs/api/events"

SETUP = Setup(
    where="Settings, Configure Chargebee, API Keys and Webhooks, Webhooks, Add Webhook. API version 2; "
    "protect it by basic authentication. The test site has webhooks of its own: make a source for it.",
    events=(
        "payment_succeeded",
        "payment_refunded",
        "transaction_created",
        "subscription_created",
        "subscription_started",
    ),
    secret="The user and the password that you type there, with a colon between them: "
    "`relay:` and what `openssl rand -hex 24` prints.",
    visitor="In a custom field of the customer or the subscription called `datafast_visitor_id` "
    "(Chargebee then calls it `cf_datafast_visitor_id`), or in `meta_data` of either.",
    checkout="""\
// on your page, with Chargebee's drop-in script; add the customer's custom field in Chargebee first
const visitor = document.cookie.match(/(?:^|; )datafast_visitor_id=([^;]+)/)?.[1];
const cart = Chargebee.getInstance().getCart();
if (visitor) cart.setCustomer({ cf_datafast_visitor_id: visitor });

// or on your server, where you create the subscription by the API
meta_data: { datafast_visitor_id: cookies.get("datafast_visitor_id") }""",
    notes="A hosted checkout page takes custom fields, but no `meta_data`.",
)

SETTINGS = (
    Setting(
        "test",
        "true if this source's webhook belongs to a test site; the events do not say it",
        default=False,
    ),
)

# https://apidocs.chargebee.com/docs/api/events
SIGNATURE = BasicAuth()


def parse(request: Received) -> list[Event]:
    """One event a request; a retry repeats its id."""
    body = Payload.json(request.body).object()
    occurred_at = body.unix_time("occurred_at")
    return [Event(body.text("id"), body.text("event_type"), body.object("content"), occurred_at)]


def charge(event: Event) -> Payment | Ignored:
    """`payment_succeeded`: what was paid, mostly of an invoice."""
    paid, invoice = event.data.object("transaction"), event.data.at("invoice")
    first = invoice.at("first_invoice")
    if not (about(event)["subscription_id"] or invoice.flag("recurring")):
        recurrence = Recurrence.ONE_TIME
    elif first.value is None:
        recurrence = Recurrence.UNKNOWN
    else:
        recurrence = Recurrence.FIRST if first.flag() else Recurrence.RENEWAL
    return payment(event, paid, Kind.CHARGE, recurrence=recurrence)


def refund(event: Event) -> Payment | Ignored:
    """`payment_refunded`: a refund, or a chargeback."""
    back = event.data.object("transaction")
    is_chargeback = back.text_or_none("payment_method") == "chargeback"
    return taken_back(event, back, Kind.DISPUTE if is_chargeback else Kind.REFUND)


def reversal(event: Event) -> Payment | Ignored:
    """`transaction_created`: a payment that failed after all; the rest is told by other events."""
    created = event.data.object("transaction")
    if created.text_or_none("type") != "payment_reversal":
        return Ignored("told_by_another_event")
    return taken_back(event, created, Kind.DISPUTE)


# https://apidocs.chargebee.com/docs/api/transactions
def taken_back(event: Event, back: Payload, kind: Kind) -> Payment | Ignored:
    """Money that left, and the payment it came from."""
    named = (back.text_or_none(key) for key in ("refunded_txn_id", "reference_transaction_id"))
    original_id = next(filter(None, named), None) or back.text_or_none("linked_payments", 0, "id")
    return payment(event, back, kind, original_id=original_id)


def begun(event: Event) -> Payment | Ignored:
    """`subscription_created`, and `subscription_started` of one that was set for later."""
    subscription = event.data.object("subscription")
    if subscription.text_or_none("status") != "in_trial":
        began_at = time_or_none(subscription, "started_at", "created_at")
        return Ignored("no_trial", occurred_at=began_at, **about(event))
    return Payment(
        kind=Kind.TRIAL,
        transaction_id=f"{subscription.text('id')}:trial",
        amount=Decimal(0),
        currency=subscription.text_or_none("currency_code"),
        occurred_at=subscription.unix_time("trial_start"),
        **about(event),
    )


def payment(
    event: Event,
    moved: Payload,
    kind: Kind,
    *,
    recurrence: Recurrence | None = None,
    original_id: str | None = None,
) -> Payment | Ignored:
    """What the movements have in common. `moved` is the transaction."""
    if moved.text("status") != "success":
        return Ignored("not_settled")
    currency = money.currency(moved, "currency_code")
    return Payment(
        kind=kind,
        transaction_id=moved.text("id"),
        amount=money.minor_units(moved, "amount", code=currency),
        currency=currency,
        occurred_at=moved.unix_time("date" if moved.at("date") else "updated_at"),
        recurrence=recurrence,
        original_id=original_id,
        **about(event),
    )


def about(event: Event) -> dict[str, Any]:
    """Whom an event is about: its customer and its subscription, in full or named by the payment."""
    paid, customer, subscription = (
        event.data.at(it) for it in ("transaction", "customer", "subscription")
    )
    customer_id = customer.text_or_none("id") or paid.text_or_none("customer_id")
    names = [customer.text_or_none(part) for part in ("first_name", "last_name")]
    return {
        "subscription_id": paid.text_or_none("subscription_id") or subscription.text_or_none("id"),
        "subscribed_at": time_or_none(subscription, "trial_end", "started_at", "created_at"),
        "customer_id": customer_id,
        "email": customer.text_or_none("email"),
        "name": " ".join(filter(None, names)) or None,
        "visitor_id": visitor.find(*labels(subscription), *labels(customer)),
        "test": event.settings["test"] or (customer_id or "").startswith("cbdemo_"),
    }


def labels(holder: Payload) -> list[Payload]:
    """Where a visitor's id can be: `meta_data`, and custom fields without their `cf_`."""
    fields = holder.value if isinstance(holder.value, dict) else {}
    custom = {key.removeprefix("cf_"): text for key, text in fields.items()}
    return [holder.at("meta_data"), Payload(custom, holder.path)]


def time_or_none(place: Payload, *keys: str) -> datetime | None:
    """The moment at the first of `keys` that is there."""
    return next((place.unix_time(key) for key in keys if place.at(key)), None)


# https://apidocs.chargebee.com/docs/api/events
EVENTS: dict[str, Mapper] = {
    "payment_succeeded": charge,
    "payment_refunded": refund,
    "transaction_created": reversal,
    "subscription_created": begun,
    "subscription_started": begun,
}

IGNORED = {
    "authorization_succeeded": "not_paid",
    "authorization_voided": "not_paid",
    "credit_note_created": "told_by_payment_refunded",
    "credit_note_updated": "told_by_payment_refunded",
    "customer_changed": "no_money_moved",
    "customer_created": "no_money_moved",
    "invoice_generated": "told_by_payment_succeeded",
    "invoice_updated": "told_by_payment_succeeded",
    "payment_failed": "no_money_moved",
    "payment_initiated": "not_paid",
    "refund_initiated": "told_by_payment_refunded",
    "subscription_activated": "no_money_moved",
    "subscription_cancelled": "no_money_moved",
    "subscription_changed": "no_money_moved",
    "subscription_paused": "no_money_moved",
    "subscription_reactivated": "no_money_moved",
    "subscription_renewed": "told_by_payment_succeeded",
    "subscription_resumed": "no_money_moved",
    "subscription_trial_end_reminder": "no_money_moved",
    "transaction_updated": "told_by_another_event",
}
