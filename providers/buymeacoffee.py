"""Buy Me a Coffee.

Quirks (the formula of the signature is published; there is no published vector, no SDK and no
reference of the bodies, which were read in live and test events that others published):
- No event tells a renewal. That one looks like `….updated` with a later `current_period_start` is
  inferred. It may come before the money is collected; if the card is then refused, nothing takes
  the renewal back.
- Every change of a subscription is such an event. Right at the start one comes in the same second
  as `….started`, with a lower `event_id` and the same period: it tells nothing new.
- A subscription's payment has no id of its own: it is known by `psp_id` and the period's start, so
  that each period counts once. A paused subscription can be called active; it pays nothing.
- `amount` is the creator's price. `total_amount_charged` (text, not in subscriptions) is what was
  charged, with the fees a supporter took over; it is of this payment, no sum over time.
- A refund's event repeats the payment, with `refunded` as text, and no amount of its own: it counts
  as a full one. Refunds of subscriptions and disputes are never told.
- Test events (`live_mode` is false) all have the `event_id` 1; their type and time are added.
- No commission, wishlist payment or refund of one was seen; they are read like donations.
- One public handler says that the first payment of monthly support is a `donation.created` too. The
  live events published beside it do not show that; if it is so, that payment counts twice.
- Nothing of the site's travels through the checkout: neither a visitor's id nor a reference.
"""

from dataclasses import replace
from datetime import datetime, timedelta

from relay import money
from relay.model import Event, Ignored, Kind, Payment, Received, Recurrence
from relay.payload import Payload
from relay.provider import Mapper, Setup
from relay.verify import BodyHmac

TITLE = "Buy Me a Coffee"
DOCS = (
    "https://help.buymeacoffee.com/en/articles/"
    "15743173-how-to-setup-and-use-buy-me-a-coffee-webhooks"
)

SETUP = Setup(
    where="Creator dashboard, Integrations (studio.buymeacoffee.com/webhooks), New webhook. Its "
    "delivery status goes off by itself after more than ten failures in a row.",
    events=(
        "donation.created",
        "donation.refunded",
        "extra_purchase.created",
        "extra_purchase.refunded",
        "commission_order.created",
        "commission_order.refunded",
        "wishlist_payment.created",
        "wishlist_payment.refunded",
        "membership.started",
        "membership.updated",
        "recurring_donation.started",
        "recurring_donation.updated",
    ),
    secret="The signing secret on the webhook's page. Rolling it ends the old one at once: put the "
    "new one here right away; what is refused meanwhile is tried again a few times.",
    visitor="It cannot: the checkout takes nothing from your site. Payments carry the supporter's "
    "e-mail address, and count without a visitor unless that address is known already.",
    checkout="""\
<!-- nothing can be handed over; to have the visit measured at least, mark the link as a goal -->
<a href="https://buymeacoffee.com/YOUR-PAGE" data-fast-goal="coffee">Buy me a coffee</a>""",
    notes="Renewals are told by the two `….updated` events: tick them.",
)

# The formula: https://help.buymeacoffee.com/en/articles/15743173
SIGNATURE = BodyHmac("x-signature-sha256")

# A subscription is noted some seconds after its first period began; the shortest lasts a month.
_NOTED_WITHIN = timedelta(days=1)


def parse(request: Received) -> list[Event]:
    """One event a request. Test events share one id, so theirs is made of more."""
    body = Payload.json(request.body).object()
    id, type = body.text("event_id"), body.text("type")
    if is_test(body):
        id = f"{id}:test:{type}:{body.text_or_none('created') or ''}"
    return [Event(id, type, body)]


def is_test(body: Payload) -> bool:
    """Only what says so is a test."""
    return body.at("live_mode").value is not None and not body.flag("live_mode")


def charge(event: Event) -> Payment | Ignored:
    """`donation.created` and the like: paid once."""
    paid = event.data.object("data")
    if paid.text("status") != "succeeded":
        return Ignored("not_paid")
    charged = payment(event, Kind.CHARGE, paid.text("transaction_id"), paid.unix_time("created_at"))
    return replace(charged, recurrence=Recurrence.ONE_TIME)


def refund(event: Event) -> Payment | Ignored:
    """`donation.refunded` and the like: the payment again, given back."""
    paid = event.data.object("data")
    if paid.at("refunded").value is not None and not paid.flag("refunded"):
        return Ignored("not_refunded")
    id, told = paid.text("transaction_id"), paid.at("refunded_at")
    at = told.unix_time() if told else event.data.unix_time("created")
    return replace(payment(event, Kind.REFUND, f"{id}:refund", at), original_id=id)


def started(event: Event) -> Payment | Ignored:
    """`membership.started`, `recurring_donation.started`: the first payment."""
    return period(event, Recurrence.FIRST, "started_at")


def updated(event: Event) -> Payment | Ignored:
    """`membership.updated`, `recurring_donation.updated`: a renewal if the period has moved on."""
    subscription = event.data.object("data")
    since = subscription.unix_time("current_period_start")
    if since - subscription.unix_time("started_at") < _NOTED_WITHIN:
        return Ignored(f"told_by_{event.type.replace('updated', 'started')}")
    return period(event, Recurrence.RENEWAL, "current_period_start")


def period(event: Event, recurrence: Recurrence, time: str) -> Payment | Ignored:
    """The payment for one period of a subscription."""
    subscription = event.data.object("data")
    if subscription.text("status") != "active" or subscription.flag("paused"):
        return Ignored("not_active")
    id, since = subscription.text("psp_id"), subscription.integer("current_period_start")
    return replace(
        payment(event, Kind.CHARGE, f"{id}:{since}", subscription.unix_time(time)),
        recurrence=recurrence,
        subscription_id=id,
        subscribed_at=subscription.unix_time("started_at"),
    )


def payment(event: Event, kind: Kind, id: str, occurred_at: datetime) -> Payment:
    """What the movements have in common; the amount is what was charged, fees included."""
    moved = event.data.object("data")
    total = moved.at("total_amount_charged").value is not None
    return Payment(
        kind=kind,
        transaction_id=id,
        amount=money.major_units(moved, "total_amount_charged" if total else "amount"),
        currency=money.currency(moved, "currency"),
        occurred_at=occurred_at,
        customer_id=moved.text_or_none("supporter_id"),
        email=moved.text_or_none("supporter_email"),
        name=moved.text_or_none("supporter_name"),
        test=is_test(event.data),
    )


# https://studio.buymeacoffee.com/webhooks/docs
EVENTS: dict[str, Mapper] = {
    "donation.created": charge,
    "donation.refunded": refund,
    "extra_purchase.created": charge,
    "extra_purchase.refunded": refund,
    "commission_order.created": charge,
    "commission_order.refunded": refund,
    "wishlist_payment.created": charge,
    "wishlist_payment.refunded": refund,
    "membership.started": started,
    "membership.updated": updated,
    "recurring_donation.started": started,
    "recurring_donation.updated": updated,
}

IGNORED = {
    "extra_purchase.updated": "no_money_moved",
    "membership.cancelled": "no_money_moved",
    "membership.paused": "no_money_moved",
    "recurring_donation.cancelled": "no_money_moved",
    "recurring_donation.paused": "no_money_moved",
}
