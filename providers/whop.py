"""Whop.

Quirks:
- The key is the text of the secret as it stands, `ws_` included; a Standard Webhooks library that
  decodes it refuses everything. There is no published vector; Whop's own SDK is the judge.
- A webhook of v1 can be pinned to a dated version. Older ones write amounts as bare numbers and nest
  `user`, `membership` and `payment`; dated ones write `{"amount": "10.00", "currency": "usd"}` and
  flat ids (`membership_id`, `payment_id`, `customer_email`). Both are read here; the dated shapes
  are known from the SDK's types only. v2 and v5 sign otherwise and are refused.
- `currency` and `total` of a dated payment are what it settles in; what the buyer paid in another
  currency is `presentment_total`, and a refund of it `original_amount`. Older shapes have only one
  currency, probably the plan's (uncertain). None of them holds the buyer's fees.
- A one-off purchase has a membership too: it is no subscription.
- The first full price after a trial is a `subscription_cycle` (uncertain), so a renewal; only the
  ledger knows of the trial. A trial is a membership that says `trialing`: told by its payment of 0,
  and by its activation, since a dated payment does not say it (whether every trial makes a payment
  of 0 is uncertain). They are one trial.
- An inquiry (`inquiry`, or a status `warning_…`) moves no money, until it becomes a dispute by
  `dispute.updated`. `prevented` is settled like a loss; the refund that goes with it names the same
  payment. Early warnings (`dispute_alert.created`) take nothing.
- Amounts in Whop's coins (`usdt`, `whop_usd`, `eth`) have no currency of ISO 4217 and are refused.
- Nothing in an event says that it is from the sandbox.
"""

from dataclasses import replace
from decimal import Decimal

from relay import money, visitor
from relay.model import Event, Ignored, Kind, Payment, Received, Recurrence
from relay.payload import Payload
from relay.provider import Mapper, Setting, Setup
from relay.verify import StandardWebhooks

TITLE = "Whop"
DOCS = "https://docs.whop.com/developer/guides/webhooks"

SETUP = Setup(
    where="whop.com/dashboard/developer, Create Webhook: paste the URL, API version v1, tick the "
    "events. The sandbox (sandbox.whop.com) has webhooks of its own: make a source for it.",
    events=(
        "payment.succeeded",
        "refund.created",
        "refund.updated",
        "dispute.created",
        "dispute.updated",
        "membership.activated",
    ),
    secret="The webhook's secret on the same page; it begins with ws_. Copy all of it.",
    visitor="In `metadata` of the checkout configuration; payments and memberships inherit it.",
    checkout="""\
// on your server; then send the customer to checkout.purchase_url
const checkout = await client.checkoutConfigurations.create({
  plan_id: "plan_...",
  metadata: { datafast_visitor_id: cookies.get("datafast_visitor_id") },
});""",
    notes="E-mail addresses come only with the permission member:email:read. Whop tries an event "
    "again only for a short while (the documentation speaks of three times within a minute or so).",
)

SETTINGS = (
    Setting(
        "test",
        "true if this source's webhook belongs to the sandbox; the events do not say it",
        default=False,
    ),
)

# https://docs.whop.com/developer/guides/webhooks
SIGNATURE = StandardWebhooks(literal_key=True)

# https://docs.whop.com/api-reference/payments/payment-succeeded
_RECURRENCES = {
    "subscription_create": Recurrence.FIRST,
    "subscription_cycle": Recurrence.RENEWAL,
    "one_time": Recurrence.ONE_TIME,
    "manual": Recurrence.ONE_TIME,
}
_TAKEN = frozenset({"needs_response", "under_review", "lost", "prevented"})


def parse(request: Received) -> list[Event]:
    """One event a request. Its id is in a header, and the same in the body."""
    body = Payload.json(request.body).object()
    id = request.headers.get("webhook-id") or body.text("id")
    return [Event(id, body.text("type"), body.object("data"), body.time_or_none("timestamp"))]


def charge(event: Event) -> Payment | Ignored:
    """`payment.succeeded`: the tax included, in the currency the customer paid."""
    paid = event.data
    if paid.text_or_none("status") not in {None, "paid"}:
        return Ignored("not_paid")
    total = "presentment_total" if paid.at("presentment_total") else "total"
    amount, _ = money_at(paid, total)
    if not amount and paid.text_or_none("membership", "status") == "trialing":
        return trial(event, paid.text("membership", "id"))
    return payment(event, Kind.CHARGE, paid.text("id"), total, "paid_at")


def refund(event: Event) -> Payment | Ignored:
    """`refund.created` and `refund.updated`: this refund's amount, once it has succeeded."""
    refunded = event.data
    if refunded.text("status") != "succeeded":
        return Ignored("not_refunded")
    moved = "original_amount" if refunded.at("original_amount") else "amount"
    return payment(event, Kind.REFUND, refunded.text("id"), moved, "created_at")


def dispute(event: Event) -> Payment | Ignored:
    """`dispute.created` and `dispute.updated`: money is held from its opening, or returns."""
    disputed = event.data
    id, status = disputed.text("id"), disputed.text("status")
    if disputed.flag("inquiry") or status.startswith("warning_"):
        return Ignored("inquiry")
    if status == "won":
        return payment(event, Kind.REINSTATED, f"{id}:won", "amount", "updated_at")
    if status not in _TAKEN:
        return Ignored("no_money_moved")
    return payment(event, Kind.DISPUTE, id, "amount", "created_at")


def activated(event: Event) -> Payment | Ignored:
    """`membership.activated`: a trial, if it says so and its beginning is free."""
    begun = event.data
    if begun.text("status") != "trialing":
        return Ignored("told_by_payment.succeeded")
    price = begun.at("initial_price", "amount") or begun.at("initial_price_paid")
    if any(digit in "123456789" for digit in price.text_or_none() or ""):
        return Ignored("paid_trial")
    return trial(event, begun.text("id"))


def trial(event: Event, membership_id: str) -> Payment:
    """One trial for each membership, whichever event tells of it."""
    found = payment(event, Kind.TRIAL, f"{membership_id}:trial", None, "paid_at")
    return replace(found, subscription_id=membership_id)


def payment(event: Event, kind: Kind, id: str, moved: str | None, time: str) -> Payment:
    """What the movements have in common; `moved` is the field that holds the amount."""
    data = event.data
    paid = data if kind in {Kind.CHARGE, Kind.TRIAL} else data.at("payment")
    # By `billing_reason`; a change of plan can be a subscription's first money or not.
    reason = paid.text_or_none("billing_reason") or ""
    recurrence = _RECURRENCES.get(reason, Recurrence.UNKNOWN)
    membership = paid.text_or_none("membership", "id") or data.text_or_none("membership_id")
    amount, currency = money_at(data, moved) if moved else (Decimal(0), None)
    user, buyer = paid.at("user"), data.at("buyer")
    return Payment(
        kind=kind,
        transaction_id=id,
        amount=amount,
        currency=currency,
        occurred_at=data.time_or_none(time) or event.occurred_at or data.time("created_at"),
        recurrence=recurrence if kind is Kind.CHARGE else None,
        original_id=None
        if paid is data
        else paid.text_or_none("id") or data.text_or_none("payment_id"),
        subscription_id=None if recurrence is Recurrence.ONE_TIME else membership,
        customer_id=user.text_or_none("id")
        or data.text_or_none("user_id")
        or buyer.text_or_none("user_id"),
        email=user.text_or_none("email")
        or data.text_or_none("customer_email")
        or buyer.text_or_none("email"),
        name=user.text_or_none("name") or buyer.text_or_none("name"),
        visitor_id=visitor.find(paid.at("metadata"), data.at("metadata")),
        test=event.settings["test"],
    )


def money_at(data: Payload, name: str) -> tuple[Decimal, str]:
    """Amount and currency, in either shape."""
    if isinstance(data.at(name).value, dict):
        data, name = data.at(name), "amount"
    return money.major_units(data, name), money.currency(data, "currency")


# https://docs.whop.com/api-reference/webhooks/webhook
EVENTS: dict[str, Mapper] = {
    "payment.succeeded": charge,
    "refund.created": refund,
    "refund.updated": refund,
    "dispute.created": dispute,
    "dispute.updated": dispute,
    "membership.activated": activated,
}

IGNORED = {
    "invoice.paid": "told_by_payment.succeeded",
    "payment.authorized": "not_paid",
    "payment.canceled": "not_paid",
    "payment.created": "not_paid",
    "payment.failed": "not_paid",
    "payment.pending": "not_paid",
    "payment.requires_action": "not_paid",
    "dispute_alert.created": "nothing_taken_yet",
    "resolution_center_case.created": "nothing_taken_yet",
    "resolution_center_case.updated": "nothing_taken_yet",
    "resolution_center_case.decided": "no_money_moved",
    "invoice.created": "no_money_moved",
    "invoice.marked_uncollectible": "no_money_moved",
    "invoice.past_due": "no_money_moved",
    "invoice.voided": "no_money_moved",
    "membership.cancel_at_period_end_changed": "no_money_moved",
    "membership.deactivated": "no_money_moved",
    "membership.trial_ending_soon": "no_money_moved",
    "membership.updated": "no_money_moved",
    "setup_intent.canceled": "no_money_moved",
    "setup_intent.requires_action": "no_money_moved",
    "setup_intent.succeeded": "no_money_moved",
}
