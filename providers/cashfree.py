"""Cashfree.

Quirks:
- The signature covers the timestamp and the raw body with nothing between: `170.00` must stay as it is.
  The timestamp is in seconds or milliseconds, and says when the webhook was made. Uncertain: whether
  it is renewed for the tries after 2, 10 and 30 minutes. So an old one is accepted: to send a
  request again gains nothing, since its event is known by the digest of what was signed
  (`x-idempotency-key` is not signed).
- `payment_amount` is what was paid; `order_amount` is more when an offer applies.
- `PAYMENT_SUCCESS_WEBHOOK` can be of a payment that is PENDING. It is ignored.
- `cf_payment_id` is text in payments and a number in refunds and disputes.
- `PAYMENT_LINK_EVENT` tells of the payment again, but only it has `link_notes`.
- `AUTO_REFUND_STATUS_WEBHOOK` gives a payment back that often was never told as successful.
- A subscription's AUTH payment sets up the mandate. If it will be given back it is no revenue; else
  it is the first charge. Later charges are left to the ledger, with the time of authorisation. Their
  visitor and e-mail come with `SUBSCRIPTION_STATUS_CHANGED`. Version 2023-08-01 names the method of
  payment instead of AUTH or CHARGE. Uncertain: whether such charges are also told as payments.
- Subscriptions' refunds (and charges, before 2025-01-01) name no currency: set the source's `currency`.
- A RETRIEVAL and a DISPUTE take nothing until they are lost; a CHARGEBACK and what follows have taken
  the money already, and return it when they are won. Uncertain: DISPUTE. A chargeback that is won
  and lost again in arbitration under the same id is told as won.
- Nothing in an event says whether it is of the sandbox: make a source of its own for it.
- There is no published vector of Cashfree's own; lago-api's test has one.
"""

import hashlib
import hmac
from dataclasses import dataclass, replace
from typing import Any

from relay import money, visitor
from relay.model import Event, Ignored, Kind, Payment, Received, Recurrence, Trust
from relay.payload import Payload
from relay.provider import Mapper, Setting, Setup
from relay.verify import Signature, encode, header, matches, unix_time, well_formed, with_header

TITLE = "Cashfree"
DOCS = "https://www.cashfree.com/docs/payments/online/webhooks/overview"

SETUP = Setup(
    where="Merchant Dashboard, Payment Gateway, Developers, Webhooks, Configuration, Add Webhook "
    "Endpoint: paste the URL, version 2025-01-01 or newer. Subscriptions have a tab of their own. "
    "Test and production have webhooks and keys of their own: make a source for each.",
    events=(
        "PAYMENT_SUCCESS_WEBHOOK",
        "PAYMENT_LINK_EVENT",
        "REFUND_STATUS_WEBHOOK",
        "AUTO_REFUND_STATUS_WEBHOOK",
        "DISPUTE_CREATED",
        "DISPUTE_UPDATED",
        "DISPUTE_CLOSED",
        "SUBSCRIPTION_STATUS_CHANGED",
        "SUBSCRIPTION_PAYMENT_SUCCESS",
        "SUBSCRIPTION_REFUND_STATUS",
    ),
    secret="The client secret of your API keys: Developers, API Keys (cfsk_…). There is no other.",
    visitor="In `order_tags` of the order, `link_notes` of a payment link, or `subscription_tags`.",
    checkout="""\
// on your server, where the order, link or subscription is created
const tags = { datafast_visitor_id: cookies.get("datafast_visitor_id") };
await cashfree.PGCreateOrder({ ...order, order_tags: tags });
await cashfree.PGCreateLink({ ...link, link_notes: tags });
await cashfree.SubsCreateSubscription({ ...subscription, subscription_tags: tags });""",
    notes="If you sell subscriptions, set `currency: INR`: their refunds name no currency.",
)

SETTINGS = (Setting("test", "true if this source's webhook is of the sandbox", default=False),)

_SIGNATURE, _TIMESTAMP = "x-webhook-signature", "x-webhook-timestamp"
# The types of dispute in which the bank has taken the money before anybody answers.
_TAKEN = frozenset({"CHARGEBACK", "PRE_ARBITRATION", "ARBITRATION"})
_LOST = ("_MERCHANT_LOST", "_MERCHANT_ACCEPTED", "_INSUFFICIENT_EVIDENCE")


# https://www.cashfree.com/docs/payments/online/webhooks/signature-verification
@dataclass(frozen=True)
class TimestampAndBody(Signature):
    """A header that holds the HMAC of the timestamp, as it stands in its header, and the raw body.

    `signs_time` is False because the time is not judged; the module's docstring says why.
    """

    summary = "HMAC-SHA256 of {timestamp}{body}"

    def verify(self, request: Received, trust: Trust) -> None:
        """See Signature. Raises missing_header, malformed_header, malformed_…, bad_signature."""
        claimed, stamp = header(request, _SIGNATURE), header(request, _TIMESTAMP)
        well_formed(claimed, _SIGNATURE, "sha256", "base64")
        unix_time(stamp, _TIMESTAMP, 1000)
        matches([claimed], (digest(it, stamp, request.body) for it in trust.secrets))

    def sign(self, request: Received, trust: Trust) -> Received:
        """See Signature."""
        stamp = str(int(request.received_at.timestamp() * 1000))
        signed = with_header(request, _TIMESTAMP, stamp)
        return with_header(signed, _SIGNATURE, digest(trust.secrets[0], stamp, request.body))


def digest(secret: str, stamp: str, body: bytes) -> str:
    """The HMAC, keyed with the secret's own characters."""
    return encode(hmac.digest(secret.encode(), stamp.encode() + body, "sha256"), "base64")


SIGNATURE = TimestampAndBody()


def parse(request: Received) -> list[Event]:
    """One event a request, known by the digest of its body."""
    body = Payload.json(request.body).object()
    id = hashlib.sha256(request.body).hexdigest()
    return [Event(id, body.text("type"), body, body.time_or_none("event_time"))]


def charge(event: Event) -> Payment | Ignored:
    """`PAYMENT_SUCCESS_WEBHOOK`: a payment of an order."""
    paid, order = event.data.object("data", "payment"), event.data.at("data", "order")
    if paid.text("payment_status") != "SUCCESS":
        return Ignored("not_paid")
    found = payment(event, Kind.CHARGE, paid, "payment", "payment_time")
    return replace(
        found,
        recurrence=Recurrence.ONE_TIME,
        visitor_id=visitor.find(order.at("order_tags")),
        reference=order.text_or_none("order_id"),
        **customer(event),
    )


def link(event: Event) -> Ignored:
    """`PAYMENT_LINK_EVENT`: the payment again; what the link knows is kept for it."""
    data = event.data.object("data")
    id = data.text_or_none("order", "transaction_id")
    return Ignored(
        "told_by_PAYMENT_SUCCESS_WEBHOOK" if id else "not_paid",
        transaction_id=id,
        occurred_at=event.occurred_at,
        visitor_id=visitor.find(data.at("link_notes")),
        reference=data.text_or_none("order", "order_id"),
        test=event.settings["test"],
        **customer(event),
    )


def subscribed(event: Event) -> Payment | Ignored:
    """`SUBSCRIPTION_PAYMENT_SUCCESS`: a charge of a subscription, or the one that sets it up."""
    paid = event.data.object("data")
    if paid.text("payment_status") != "SUCCESS":
        return Ignored("not_paid", test=event.settings["test"], **subscription(event))
    sets_up = paid.text_or_none("payment_type") == "AUTH"
    if sets_up and paid.flag("authorization_details", "authorization_amount_refund"):
        return Ignored("authorization_only", test=event.settings["test"], **subscription(event))
    found = payment(event, Kind.CHARGE, paid, "payment")
    recurrence = Recurrence.FIRST if sets_up else Recurrence.UNKNOWN
    return replace(found, recurrence=recurrence, **subscription(event))


def status(event: Event) -> Ignored:
    """`SUBSCRIPTION_STATUS_CHANGED`: whose subscription it is, which its payments do not say."""
    known = subscription(event) | customer(event)
    return Ignored(
        "no_money_moved", occurred_at=event.occurred_at, test=event.settings["test"], **known
    )


def refund(event: Event) -> Payment | Ignored:
    """`…REFUND_STATUS…`: this refund's amount, full or partial, once it is done."""
    data = event.data.object("data")
    refunded = data.at("refund") or data.at("auto_refund") or data
    if refunded.text("refund_status") != "SUCCESS":
        return Ignored("not_refunded")
    found = payment(event, Kind.REFUND, refunded, "refund", "processed_at")
    return replace(found, original_id=refunded.text_or_none("cf_payment_id"))


# https://www.cashfree.com/docs/payments/manage/disputes/disputes-states
def dispute(event: Event) -> Payment | Ignored:
    """`DISPUTE_*`: taken from the start or when it is lost, and returned if it is won."""
    disputed, order = (event.data.object("data", it) for it in ("dispute", "order_details"))
    state, taken = disputed.text("dispute_status"), disputed.text("dispute_type") in _TAKEN
    won = state.endswith("_MERCHANT_WON")
    if not taken and not state.endswith(_LOST):
        return Ignored("nothing_was_taken" if won else "nothing_taken_yet")
    named = disputed.at("dispute_amount_currency")
    id = disputed.text("dispute_id")
    times = ("created_at",) if taken and not won else ("resolved_at", "updated_at")
    happened_at = next(filter(None, map(disputed.time_or_none, times)), None)
    return Payment(
        kind=Kind.REINSTATED if won else Kind.DISPUTE,
        transaction_id=f"{id}:won" if won else id,
        amount=money.major_units(disputed, "dispute_amount"),
        currency=money.currency(named or order.at("payment_currency")),
        occurred_at=happened_at or event.data.time("event_time"),
        original_id=order.text("cf_payment_id"),
        test=event.settings["test"],
    )


def payment(event: Event, kind: Kind, moved: Payload, name: str, time: str = "") -> Payment:
    """What payments and refunds have in common: `cf_…_id`, `…_amount` and `…_currency`."""
    named = moved.at(f"{name}_currency")
    return Payment(
        kind=kind,
        transaction_id=moved.text(f"cf_{name}_id"),
        amount=money.major_units(moved, f"{name}_amount"),
        currency=money.currency(named) if named else None,
        occurred_at=moved.time_or_none(time) or event.data.time("event_time"),
        test=event.settings["test"],
    )


def customer(event: Event) -> dict[str, Any]:
    """The customer, as far as the event names one."""
    found = event.data.at("data", "customer_details")
    return {
        "customer_id": found.text_or_none("customer_id"),
        "email": found.text_or_none("customer_email"),
        "name": found.text_or_none("customer_name"),
    }


def subscription(event: Event) -> dict[str, Any]:
    """The subscription, when it was authorised, and its tags (in payments since 2026-01-01)."""
    data = event.data.at("data")
    details, authorized = data.at("subscription_details"), data.at("authorization_details")
    return {
        "subscription_id": (data if data.at("subscription_id") else details).text(
            "subscription_id"
        ),
        "subscribed_at": authorized.time_or_none("authorization_time"),
        "visitor_id": visitor.find(details.at("subscription_tags")),
    }


# https://www.cashfree.com/docs/api-reference/payments/latest/webhooks/overview
EVENTS: dict[str, Mapper] = {
    "PAYMENT_SUCCESS_WEBHOOK": charge,
    "PAYMENT_LINK_EVENT": link,
    "REFUND_STATUS_WEBHOOK": refund,
    "AUTO_REFUND_STATUS_WEBHOOK": refund,
    "DISPUTE_CREATED": dispute,
    "DISPUTE_UPDATED": dispute,
    "DISPUTE_CLOSED": dispute,
    "SUBSCRIPTION_PAYMENT_SUCCESS": subscribed,
    "SUBSCRIPTION_REFUND_STATUS": refund,
    "SUBSCRIPTION_STATUS_CHANGED": status,
}

IGNORED = {
    "INSTRUMENT_ACTIVE_WEBHOOK": "no_money_moved",
    "INSTRUMENT_FAILED_WEBHOOK": "no_money_moved",
    "PAYMENT_CHARGES_WEBHOOK": "no_money_moved",
    "PAYMENT_FAILED_WEBHOOK": "not_paid",
    "PAYMENT_USER_DROPPED_WEBHOOK": "not_paid",
    "SETTLEMENT_FAILED": "payout",
    "SETTLEMENT_INITIATED": "payout",
    "SETTLEMENT_REVERSED": "payout",
    "SETTLEMENT_SUCCESS": "payout",
    "SUBSCRIPTION_AUTH_STATUS": "told_by_SUBSCRIPTION_PAYMENT_SUCCESS",
    "SUBSCRIPTION_CARD_EXPIRY_REMINDER": "no_money_moved",
    "SUBSCRIPTION_CONTROLLED_EXECUTION_STATUS": "told_by_SUBSCRIPTION_PAYMENT_SUCCESS",
    "SUBSCRIPTION_CONTROLLED_NOTIFICATION_STATUS": "no_money_moved",
    "SUBSCRIPTION_PAYMENT_CANCELLED": "not_paid",
    "SUBSCRIPTION_PAYMENT_FAILED": "not_paid",
    "SUBSCRIPTION_PAYMENT_NOTIFICATION_INITIATED": "no_money_moved",
    "WEBHOOK": "test_notification",
}
