"""Checkout.com.

Quirks:
- An authorisation (`payment_approved`) and its capture tell of one payment; the capture counts. The
  customer stands only in the authorisation, if at all, or is read with an `api_key`.
- A refund has the payment's id, and one of its own, `action_id`. Captures have both too: the first
  goes by the payment's id, each further one of a payment captured in parts by its action's.
- There are no subscriptions. `payment_type` is not in a capture: without an `api_key` a charge waits
  for the source's `hold_seconds` and is told as new. `Recurring` is the first of a series as well;
  `previous_payment_id` makes it a later one (uncertain: whether the API gives it back). So a site
  that bills by itself should write `subscription_id` into the metadata: then the ledger knows.
- Amounts are whole numbers of the smallest unit by ISO 4217, but Chilean pesos have two decimals.
- A dispute takes the money when it is received, or when evidence is required, and returns it when it
  is won or canceled. `dispute_resolved` is of a payment that was refunded before.
- `payment_returned` is of a payout, or of a bank debit that came back. Uncertain: the second's body.
- The event's time is in `created_on` or `timestamp`; what happened has one of its own.
- Sandbox or live follows from the links in the event, or from the source's `api_base`.
- The signature signs no time. There is no published vector, and no official SDK checks it.
- The previous platform ("ABC") told of a dispute that was won without its amount: such an event is
  kept as unreadable. Its `payment_chargeback` repeats what `dispute_evidence_required` tells.
"""

from dataclasses import replace
from datetime import datetime
from typing import Any
from urllib.parse import quote

from relay import money, visitor
from relay.model import Event, Ignored, Kind, Payment, Received, Recurrence
from relay.payload import Payload
from relay.provider import Api, Mapper, Setting, Setup
from relay.verify import BodyHmac

TITLE = "Checkout.com"
DOCS = "https://www.checkout.com/docs/developer-resources/event-notifications/receive-webhooks"

_SANDBOX = ".sandbox.checkout.com"

SETUP = Setup(
    where="Dashboard, Developers, Webhooks, Create configuration: paste the URL, tick the events, "
    "choose the entities or processing channels. The sandbox has a dashboard, keys and webhooks of "
    "its own: make a source for each.",
    events=(
        "payment_approved",
        "payment_captured",
        "payment_refunded",
        "payment_returned",
        "dispute_received",
        "dispute_evidence_required",
        "dispute_lost",
        "dispute_won",
        "dispute_canceled",
        "dispute_arbitration_won",
    ),
    secret="The signature key: Generate key, in the same form (not the secret API key, and not the "
    "authorization header key).",
    visitor="In `metadata` of the payment, hosted page, payment link or payment session.",
    checkout="""\
// on your server: the same for /payments, /payment-sessions, /hosted-payments and /payment-links
const metadata = { datafast_visitor_id: cookies.get("datafast_visitor_id") };
// only if you charge again later: your own id of the subscription, on each of its payments
metadata.subscription_id = subscription.id;
await fetch("https://YOURPREFIX.api.checkout.com/payment-sessions", { method: "POST", headers,
  body: JSON.stringify({ ...payment, reference: order.id, metadata }) });""",
    notes="Set `api_key` and `api_base`: they tell one-off from recurring payments, and give the "
    "customer. Without them, set `hold_seconds: 0` if you sell no subscriptions.",
)

SETTINGS = (
    Setting(
        "api_key",
        "secret API key that may read payments: for the type and the customer",
        secret=True,
    ),
    Setting(
        "api_base",
        f"where your API is: https://YOURPREFIX.api.checkout.com, or https://YOURPREFIX.api{_SANDBOX}",
        default="https://api.checkout.com",
    ),
)

# https://www.checkout.com/docs/payments/accept-payments/format-the-amount-value
_EXPONENTS = {"CLP": 2}

# https://www.checkout.com/docs/payments/accept-payments/pay-with-stored-card-details
_ALONE = frozenset({"Regular", "MOTO", "PayLater"})

# https://www.checkout.com/docs/developer-resources/event-notifications/receive-webhooks
SIGNATURE = BodyHmac("Cko-Signature")


def parse(request: Received) -> list[Event]:
    """One event a request."""
    body = Payload.json(request.body).object()
    return [Event(body.text("id"), body.text("type"), body)]


def fetch(event: Event, api: Api) -> list[Event]:
    """A capture with its payment, as far as the source's `api_key` may read it."""
    key = event.settings["api_key"]
    if event.type != "payment_captured" or not key:
        return [event]
    id = quote(event.data.text("data", "id"), safe="")
    paid = api.get_or_none(f"/payments/{id}", {"Authorization": f"Bearer {key}"})
    found = event.data.value | {"payment": paid.value if paid else None}
    return [replace(event, data=Payload(found))]


def approved(event: Event) -> Payment | Ignored:
    """`payment_approved`: no money yet, but perhaps the customer."""
    id, moment = event.data.text("data", "id"), told_at(event)
    return Ignored("not_captured", transaction_id=id, occurred_at=moment, **about(event))


def captured(event: Event) -> Payment | Ignored:
    """`payment_captured`: a charge; a further capture of the same payment is one of its own."""
    data = event.data.object("data")
    total = data.at("balances", "total_captured")
    is_further = total and total.integer() > data.integer("amount")
    found = payment(event, Kind.CHARGE, data.text("action_id" if is_further else "id"))
    return replace(found, recurrence=recurrence(event, found.subscription_id))


def recurrence(event: Event, subscription_id: str | None) -> Recurrence:
    """By the payment's type and predecessor, as far as the event or the API tells them."""
    paid = event.data.at("payment") or event.data.at("data")
    kind = paid.text_or_none("payment_type")
    if kind in _ALONE and not subscription_id:
        return Recurrence.ONE_TIME
    is_later = kind not in _ALONE and paid.at("previous_payment_id")
    return Recurrence.RENEWAL if is_later else Recurrence.UNKNOWN


def refund(event: Event) -> Payment | Ignored:
    """`payment_refunded`: this refund's amount; its `action_id` is its own."""
    original_id = event.data.text("data", "id")
    found = payment(event, Kind.REFUND, event.data.text("data", "action_id"))
    return replace(found, original_id=original_id)


def returned(event: Event) -> Payment | Ignored:
    """`payment_returned`: a debit that the bank took back, unless it is the seller's own payout."""
    if event.data.at("data", "source", "type").value == "currency_account":
        return Ignored("payout")
    return refund(event)


# https://www.checkout.com/docs/dashboard/disputes
def disputed(event: Event) -> Payment | Ignored:
    """`dispute_*`: all that say that the money is gone are one movement, the dispute's."""
    found = payment(event, Kind.DISPUTE, event.data.text("data", "id"))
    return replace(found, original_id=event.data.text("data", "payment_id"))


def won(event: Event) -> Payment | Ignored:
    """`dispute_won`, `_canceled`, `_arbitration_won`: the money returns, once."""
    id, original_id = event.data.text("data", "id"), event.data.text("data", "payment_id")
    return replace(payment(event, Kind.REINSTATED, f"{id}:won"), original_id=original_id)


def payment(event: Event, kind: Kind, transaction_id: str) -> Payment:
    """What the movements have in common."""
    data = event.data.object("data")
    currency = money.currency(data, "currency")
    return Payment(
        kind=kind,
        transaction_id=transaction_id,
        amount=money.minor_units(data, "amount", code=currency, exceptions=_EXPONENTS),
        currency=currency,
        occurred_at=told_at(event),
        **about(event),
    )


def told_at(event: Event) -> datetime:
    """When it happened; or else, when the event was made."""
    data = event.data.at("data")
    happened_at = data.time_or_none("processed_on") or data.time_or_none("date")
    return happened_at or event.data.time_or_none("created_on") or event.data.time("timestamp")


def about(event: Event) -> dict[str, Any]:
    """Whom an event is about, by itself and by the fetched payment."""
    data, paid = event.data.at("data"), event.data.at("payment")
    customer, metadata = (paid.at(it) or data.at(it) for it in ("customer", "metadata"))
    link = event.data.text_or_none("_links", "self", "href") or ""
    return {
        "subscription_id": metadata.text_or_none("subscription_id"),
        "customer_id": customer.text_or_none("id") or data.text_or_none("customer_id"),
        "email": customer.text_or_none("email"),
        "name": customer.text_or_none("name"),
        "visitor_id": visitor.find(data.at("metadata"), metadata),
        "reference": data.text_or_none("reference") or data.text_or_none("payment_reference"),
        "test": _SANDBOX in link or _SANDBOX in event.settings["api_base"],
    }


# https://www.checkout.com/docs/developer-resources/event-notifications/event-types
EVENTS: dict[str, Mapper] = {
    "payment_approved": approved,
    "payment_captured": captured,
    "payment_refunded": refund,
    "payment_returned": returned,
    "dispute_received": disputed,
    "dispute_evidence_required": disputed,
    "dispute_accepted": disputed,
    "dispute_expired": disputed,
    "dispute_lost": disputed,
    "dispute_won": won,
    "dispute_canceled": won,
    "dispute_arbitration_won": won,
}

IGNORED = {
    "card_verified": "no_money_moved",
    "card_verification_declined": "no_money_moved",
    "payment_authorization_incremented": "no_money_moved",
    "payment_authorization_increment_declined": "no_money_moved",
    "payment_canceled": "not_paid",
    "payment_capture_declined": "not_paid",
    "payment_capture_pending": "not_paid",
    "payment_chargeback": "told_by_dispute_evidence_required",
    "payment_declined": "not_paid",
    "payment_expired": "not_paid",
    "payment_paid": "payout",
    "payment_pending": "not_paid",
    "payment_refund_declined": "not_refunded",
    "payment_refund_pending": "not_refunded",
    "payment_void_declined": "no_money_moved",
    "payment_voided": "no_money_moved",
    "dispute_arbitration_lost": "no_money_moved",
    "dispute_arbitration_sent_to_scheme": "no_money_moved",
    "dispute_evidence_acknowledged_by_scheme": "no_money_moved",
    "dispute_evidence_submitted": "no_money_moved",
    "dispute_resolved": "told_by_payment_refunded",
}
