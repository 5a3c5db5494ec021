"""Dodo Payments.

Quirks:
- A body is the state when it is delivered, not when the event happened, and order is not kept: a
  `dispute.opened` may say that it is won by now. What is told is what the event's type says.
- `payment.succeeded` tells all money in. `subscription.active` and `subscription.renewed` come with
  the same charge and are not counted.
- `charge_type` is null for a one-off payment and absent from older bodies. `plan_change` and
  `on_demand` can be a subscription's first money or not: the ledger decides.
- The first full price after a trial is, by the documentation, the first renewal, so its
  `charge_type` is probably `renewal` (uncertain; only the ledger knows of the trial).
- A payment of 0 is a trial's start, a discount of 100 % or a mandate, and does not say which. The
  trial is told by `subscription.active`; a `trial_period_days` in a payment is read too, although
  the SDK's model of a payment has none. A paid trial (`trial_amount`) is an ordinary charge.
- `subscription.active` also comes when a subscription is taken up again (uncertain): an activation
  after the trial's days is no trial.
- A refund or dispute does not carry the payment's metadata.
- A dispute's amount is text in the SDK's model and an integer in the command-line tool; both are
  minor units (the text's unit is uncertain, so one with a decimal point is refused, not guessed).
- A dispute that is opened holds the money at once, and counts; if it is won or cancelled, the money
  returns. One that ends by `dispute.expired` was told when it was opened. Uncertain: whether one
  that is won can be lost later under the same id (`dispute_stage`); that loss would not be told.
- A payment does not say when its subscription began; `subscription.active` does.
- Nothing in a body but the host of `payment_link` says that it is from test mode.
"""

import hashlib
from dataclasses import replace
from decimal import Decimal
from typing import Any

from relay import money, visitor
from relay.errors import PayloadError
from relay.model import Event, Ignored, Kind, Payment, Received, Recurrence
from relay.payload import Payload
from relay.provider import Mapper, Setting, Setup
from relay.verify import StandardWebhooks

TITLE = "Dodo Payments"
DOCS = "https://docs.dodopayments.com/developer-resources/webhooks"

SETUP = Setup(
    where="Dashboard, Developer, Webhooks, Add endpoint: paste the URL, tick the events, Create "
    "endpoint. Test mode and live mode have endpoints of their own: make a source for each.",
    events=(
        "payment.succeeded",
        "refund.succeeded",
        "dispute.opened",
        "dispute.accepted",
        "dispute.lost",
        "dispute.won",
        "dispute.cancelled",
        "subscription.active",
    ),
    secret="The signing secret on the endpoint's page; it begins with whsec_. After Rotate secret "
    "the old one is good for 24 hours: configure both, the new one first.",
    visitor="In `metadata` of the checkout session; a subscription and its payments inherit it.",
    checkout="""\
// on your server, where the checkout session is created
const session = await client.checkoutSessions.create({
  product_cart: [{ product_id: "pdt_...", quantity: 1 }],
  metadata: { datafast_visitor_id: cookies.get("datafast_visitor_id") },
});

// with a static payment link: add to its query
// &metadata_datafast_visitor_id=<the cookie's value>""",
    notes="Refunds and disputes carry no metadata: they are attributed through their payment.",
)

SETTINGS = (
    Setting(
        "test",
        "true if this source's endpoint belongs to test mode; refunds and disputes do not say it",
        default=False,
    ),
)

# https://docs.dodopayments.com/developer-resources/webhooks#verifying-signatures
SIGNATURE = StandardWebhooks()

# https://docs.dodopayments.com/developer-resources/webhooks/intents/payment
_RECURRENCES = {"new": Recurrence.FIRST, "renewal": Recurrence.RENEWAL}
_RETURNS = {"dispute.won", "dispute.cancelled"}
_TEST_CHECKOUT = "https://test."


def parse(request: Received) -> list[Event]:
    """One event a request. The id is in a header; a body without it is known by its digest."""
    body = Payload.json(request.body).object()
    id = request.headers.get("webhook-id") or hashlib.sha256(request.body).hexdigest()
    return [Event(id, body.text("type"), body.object("data"), body.time_or_none("timestamp"))]


def charge(event: Event) -> Payment | Ignored:
    """`payment.succeeded`: the tax included, in the currency the customer paid."""
    paid = event.data
    if paid.flag("is_update_payment_method"):
        return Ignored("payment_method_update")
    if paid.text_or_none("status") not in {None, "succeeded"}:
        return Ignored("not_paid")
    begins = recurrence(paid) is not Recurrence.RENEWAL and paid.at("trial_period_days")
    if begins and not paid.integer("total_amount"):
        return trial(event)
    return payment(event, Kind.CHARGE, paid.text("payment_id"), "total_amount")


def recurrence(paid: Payload) -> Recurrence:
    """By `charge_type`; without it, only a payment of no subscription is sure to be one-off."""
    charge_type = paid.text_or_none("charge_type")
    if charge_type or paid.at("subscription_id") or paid.at("subscription_ids"):
        return _RECURRENCES.get(charge_type or "", Recurrence.UNKNOWN)
    return Recurrence.ONE_TIME


def refund(event: Event) -> Payment | Ignored:
    """`refund.succeeded`: this refund's amount, full or partial."""
    refunded = event.data
    if refunded.text_or_none("status") not in {None, "succeeded"}:
        return Ignored("not_refunded")
    id, original_id = refunded.text("refund_id"), refunded.text("payment_id")
    return payment(event, Kind.REFUND, id, "amount", original_id)


def dispute(event: Event) -> Payment | Ignored:
    """`dispute.*`: all events of one dispute have its id, so they are one movement of money."""
    disputed = event.data
    if "." in disputed.text("amount"):
        reason, path = "wrong_amount", disputed.at("amount").path
        raise PayloadError(reason, path, "minor units are wanted, this has a decimal point")
    id, original_id = disputed.text("dispute_id"), disputed.text("payment_id")
    if event.type not in _RETURNS:
        return payment(event, Kind.DISPUTE, id, "amount", original_id)
    returned = payment(event, Kind.REINSTATED, f"{id}:won", "amount", original_id)
    # The body's only time is that of the opening.
    return replace(returned, occurred_at=event.occurred_at or returned.occurred_at)


def activated(event: Event) -> Payment | Ignored:
    """`subscription.active`: a free trial, if it is activated within the trial's days."""
    begun = event.data
    created_at, reason = begun.time("created_at"), "no_trial"
    if not begun.at("trial_period_days"):
        reason = "told_by_payment.succeeded"
    elif begun.at("trial_amount"):
        reason = "paid_trial"
    elif ((event.occurred_at or created_at) - created_at).days < begun.integer("trial_period_days"):
        return trial(event)
    return Ignored(reason, occurred_at=created_at, subscribed_at=created_at, **about(event))


def trial(event: Event) -> Payment:
    """One trial for each subscription, whichever event tells of it."""
    return payment(event, Kind.TRIAL, f"{event.data.text('subscription_id')}:trial", None)


def payment(
    event: Event,
    kind: Kind,
    id: str,
    amount: str | None,
    original_id: str | None = None,
) -> Payment:
    """What the movements have in common; `amount` is the field that holds it, None for nothing."""
    data = event.data
    currency = money.currency(data, "currency")
    return Payment(
        kind=kind,
        transaction_id=id,
        amount=money.minor_units(data, amount, code=currency) if amount else Decimal(0),
        currency=currency,
        occurred_at=data.time("created_at"),
        recurrence=recurrence(data) if kind is Kind.CHARGE else None,
        original_id=original_id,
        **about(event),
    )


def about(event: Event) -> dict[str, Any]:
    """Whom an event is about."""
    data = event.data
    in_test = (data.text_or_none("payment_link") or "").startswith(_TEST_CHECKOUT)
    return {
        "subscription_id": data.text_or_none("subscription_id"),
        "customer_id": data.text_or_none("customer", "customer_id"),
        "email": data.text_or_none("customer", "email"),
        "name": data.text_or_none("customer", "name"),
        "visitor_id": visitor.find(data.at("metadata")),
        "test": event.settings["test"] or in_test,
    }


# https://docs.dodopayments.com/developer-resources/webhooks/intents/webhook-events-guide
EVENTS: dict[str, Mapper] = {
    "payment.succeeded": charge,
    "refund.succeeded": refund,
    "dispute.opened": dispute,
    "dispute.accepted": dispute,
    "dispute.lost": dispute,
    "dispute.won": dispute,
    "dispute.cancelled": dispute,
    "subscription.active": activated,
}

IGNORED = {
    "abandoned_checkout.recovered": "told_by_payment.succeeded",
    "credit.overage_charged": "told_by_payment.succeeded",
    "dunning.recovered": "told_by_payment.succeeded",
    "subscription.plan_changed": "told_by_payment.succeeded",
    "subscription.renewed": "told_by_payment.succeeded",
    "dispute.challenged": "told_by_dispute.opened",
    "dispute.expired": "told_by_dispute.opened",
    "refund.failed": "not_refunded",
    "payment.cancelled": "no_money_moved",
    "payment.failed": "no_money_moved",
    "payment.processing": "no_money_moved",
    "license_key.created": "no_money_moved",
    "subscription.cancelled": "no_money_moved",
    "subscription.expired": "no_money_moved",
    "subscription.failed": "no_money_moved",
    "subscription.on_hold": "no_money_moved",
    "subscription.past_due": "no_money_moved",
    "subscription.paused": "no_money_moved",
    "subscription.unpaused": "no_money_moved",
    "subscription.update_payment_method": "no_money_moved",
    "subscription.updated": "no_money_moved",
}
