"""Xendit.

Quirks:
- Each product has a webhook and a body of its own. An invoice (also a payment link) and a payment to
  a virtual account come flat and without an `event`: their types here are made from what is in them.
  What else is flat (payouts, codes for shops) is ignored.
- A payment of the payments API is told by `payment.capture`, or, in its older version, by
  `payment.succeeded`; one that is captured in parts is told a part at a time, the first under the
  payment's id and the others under their own. `payment_session.completed` repeats the payment and
  can know the visitor.
- A charge of a plan is told by `recurring.cycle.succeeded`, and perhaps by its payment as well: both
  go by the payment's id, which is the `action_id` of the attempt that succeeded. Uncertain: whether
  that was so in older versions too. A payment by a saved token may be a plan's, so its recurrence is
  unknown here.
- An invoice is known by its own id, and so is what is refunded of it (`invoice_id`). Its webhook has
  no metadata; the visitor travels behind a `|` in `external_id`. A bare UUID there is an order's.
- Amounts are in major units. `adjusted_received_amount` is what the seller gets, not what was paid.
  Flat bodies of virtual accounts can lack a currency: set the source's.
- The customer's e-mail stands only in invoices; elsewhere it is read with an `api_key`.
- The body has no id; it is in the header `webhook-id`, or else the body's digest is taken.
- Nothing in an event says whether it is from test mode, which has a token of its own.
- The token signs nothing, so there is no published vector and nothing for an SDK to check.
- Uncertain, since no sample is published: the bodies of plans, sessions and the older APIs, and that
  an invoice of the oldest plans names them as `recurring_payment_id`.
"""

import base64
import hashlib
from dataclasses import replace
from typing import Any
from urllib.parse import quote

from relay import money, visitor
from relay.model import Event, Ignored, Kind, Payment, Received, Recurrence
from relay.payload import Payload
from relay.provider import Api, Mapper, Setting, Setup
from relay.verify import StaticToken

TITLE = "Xendit"
DOCS = "https://docs.xendit.co/docs/handling-webhooks"

SETUP = Setup(
    where="Dashboard, Settings, Webhooks: paste the URL into the field of each product you use and "
    "press Test and save: Invoices (paid), Payment requests v3 (payment status), Payment session, "
    "Unified refunds (succeeded), Recurring. Test mode and live mode are set up apart: make a "
    "source for each.",
    events=(
        "invoice.paid",
        "payment.capture",
        "payment_session.completed",
        "recurring.plan.activated",
        "recurring.cycle.succeeded",
        "refund.succeeded",
    ),
    secret="The webhook verification token, on the same page (not the secret API key).",
    visitor="In `metadata` of the session, payment request or plan. Of an invoice: in `external_id`, "
    "after your order's id and a |.",
    checkout="""\
// on your server: a payment session, payment request or plan
metadata: { datafast_visitor_id: cookies.get("datafast_visitor_id") }
// or an invoice
external_id: `${order.id}|${cookies.get("datafast_visitor_id")}`""",
    notes="Set `api_key` to tell DataFast the customer's e-mail and name as well.",
)

SETTINGS = (
    Setting(
        "test",
        "true if this source's token belongs to test mode; the events do not say it",
        default=False,
    ),
    Setting("api_key", "secret API key that may read customers: for e-mail and name", secret=True),
    Setting("api_base", "where Xendit's API is", default="https://api.xendit.co"),
)

_AMOUNTS = {
    "ewallet.capture": "capture_amount",
    "capture.succeeded": "captured_amount",
    "ewallet.refund": "refund_amount",
}

# https://docs.xendit.co/docs/handling-webhooks
SIGNATURE = StaticToken("x-callback-token")


def parse(request: Received) -> list[Event]:
    """One event a request. The id is in a header; a body without it is known by its digest."""
    body = Payload.json(request.body).object()
    id = request.headers.get("webhook-id") or hashlib.sha256(request.body).hexdigest()
    return [Event(id, type_of(body), body, body.time_or_none("created"))]


def type_of(body: Payload) -> str:
    """The event's type; flat bodies have none, so theirs is made from what is in them."""
    if body.at("event"):
        return body.text("event")
    if body.at("callback_virtual_account_id"):
        return "virtual_account.paid"
    return f"invoice.{body.text('status').lower()}" if body.at("merchant_name") else "other"


# https://docs.xendit.co/apidocs/get-customer
def fetch(event: Event, api: Api) -> list[Event]:
    """The event with its customer, as far as the source's `api_key` may read it."""
    key, id = event.settings["api_key"], event.data.at("data").text_or_none("customer_id")
    if event.type not in EVENTS or not key or not id:
        return [event]
    basic = base64.b64encode(f"{key}:".encode()).decode()
    headers = {"Authorization": f"Basic {basic}", "api-version": "2020-10-31"}
    customer = api.get_or_none(f"/customers/{quote(id, safe='')}", headers)
    found = event.data.value | {"customer": customer.value if customer else None}
    return [replace(event, data=Payload(found))]


def invoice(event: Event) -> Payment | Ignored:
    """`invoice.paid`, `invoice.settled`: a paid invoice or payment link, once."""
    paid = event.data
    amount = "paid_amount" if paid.at("paid_amount") else "amount"
    plan = paid.at("recurring_payment_id")
    recurrence = Recurrence.UNKNOWN if plan else Recurrence.ONE_TIME
    return charge(event, paid, paid.text("id"), amount, recurrence)


def virtual_account(event: Event) -> Payment | Ignored:
    """A payment to a virtual account; the account's own id is the same for each of them."""
    paid = event.data
    return charge(event, paid, paid.text("payment_id"), "amount", Recurrence.ONE_TIME)


# https://docs.xendit.co/apidocs/payment-webhook-notification
def captured(event: Event) -> Payment | Ignored:
    """`payment.capture`: the whole payment, or one more part of it."""
    paid = event.data.object("data")
    parts = list(paid.items("captures")) if paid.at("captures") else []
    part = parts[-1] if parts else paid
    amount = "capture_amount" if parts else "request_amount"
    id = part.text("capture_id") if len(parts) > 1 else paid.text("payment_id")
    return succeeded(event, part, id, amount)


def older(event: Event) -> Payment | Ignored:
    """`payment.succeeded`, `capture.succeeded`, `ewallet.capture`, `qr.payment`: older APIs."""
    paid = event.data.object("data")
    id = paid.text_or_none("payment_id") if event.type == "capture.succeeded" else None
    return succeeded(event, paid, id or paid.text("id"), _AMOUNTS.get(event.type, "amount"))


def succeeded(event: Event, moved: Payload, id: str, amount: str) -> Payment | Ignored:
    """A payment, if it has succeeded; one by a saved token may be a plan's."""
    data = event.data.object("data")
    if data.text("status") != "SUCCEEDED":
        return Ignored("not_paid")
    is_reusable = data.at("payment_method", "reusability").value == "MULTIPLE_USE"
    by_token = is_reusable or data.at("payment_token_id") or data.at("payment_method_id")
    return charge(event, moved, id, amount, Recurrence.UNKNOWN if by_token else Recurrence.ONE_TIME)


# https://docs.xendit.co/apidocs/subscription-webhook
def cycle(event: Event) -> Payment | Ignored:
    """`recurring.cycle.succeeded`: a charge of a plan, and the how-manyth."""
    done = event.data.object("data")
    if done.text("status") != "SUCCEEDED":
        return Ignored("not_paid")
    attempts = done.items("attempt_details") if done.at("attempt_details") else iter(())
    paid = next((it for it in attempts if it.at("status").value == "SUCCEEDED"), Payload(None))
    recurrence = Recurrence.UNKNOWN
    if done.at("cycle_number").value is not None:
        later = done.integer("cycle_number") > 1
        recurrence = Recurrence.RENEWAL if later else Recurrence.FIRST
    id = paid.text_or_none("action_id") or done.text("id")
    moment = paid.time_or_none("created") or event.data.time("created")
    return replace(charge(event, done, id, "amount", recurrence), occurred_at=moment)


def told(event: Event) -> Payment | Ignored:
    """`payment_session.completed`, `recurring.plan.activated`: no money, but whose it is."""
    data = event.data.object("data")
    reason = "no_money_moved" if is_plan(event) else "told_by_payment.capture"
    id = data.text_or_none("payment_id")
    return Ignored(reason, transaction_id=id, occurred_at=event.occurred_at, **about(event))


# https://docs.xendit.co/docs/refunds
def refund(event: Event) -> Payment | Ignored:
    """`refund.succeeded`, `ewallet.refund`: this refund's amount, full or partial."""
    refunded = event.data.object("data")
    if refunded.text("status") != "SUCCEEDED":
        return Ignored("not_refunded")
    found = charge(event, refunded, refunded.text("id"), _AMOUNTS.get(event.type, "amount"))
    originals = (refunded.text_or_none(it) for it in ("invoice_id", "payment_id", "charge_id"))
    # The reference is the refund's own, not the order's.
    original_id = next(filter(None, originals), None)
    return replace(found, kind=Kind.REFUND, original_id=original_id, reference=None)


def charge(
    event: Event, moved: Payload, id: str, amount: str, recurrence: Recurrence | None = None
) -> Payment:
    """What the movements have in common. `moved` holds the amount."""
    data = event.data.at("data") or event.data
    moments = ("paid_at", "capture_timestamp", "transaction_timestamp")
    moment = next(filter(None, (moved.time_or_none(it) for it in moments)), None)
    return Payment(
        kind=Kind.CHARGE,
        transaction_id=id,
        amount=money.major_units(moved, amount),
        currency=money.currency(data, "currency") if data.at("currency") else None,
        occurred_at=moment or data.time_or_none("created") or event.data.time("created"),
        recurrence=recurrence,
        test=event.settings["test"],
        **about(event),
    )


def about(event: Event) -> dict[str, Any]:
    """Whom an event is about, by itself and by the fetched customer."""
    data, customer = event.data.at("data") or event.data, event.data.at("customer")
    person, own_id = customer.at("individual_detail"), data.text_or_none("external_id")
    order, _, carried = (own_id or "").partition("|")
    carried_id = visitor.find(Payload(carried))
    names = filter(None, (person.text_or_none(it) for it in ("given_names", "surname")))
    plan_id = data.text_or_none("plan_id") or data.text_or_none("recurring_payment_id")
    return {
        "subscription_id": data.text_or_none("id") if is_plan(event) else plan_id,
        "subscribed_at": data.time_or_none("created") if is_plan(event) else None,
        "customer_id": data.text_or_none("customer_id"),
        "email": data.text_or_none("payer_email") or customer.text_or_none("email"),
        "name": " ".join(names) or None,
        "visitor_id": visitor.find(data.at("metadata"), customer.at("metadata")) or carried_id,
        "reference": data.text_or_none("reference_id") or (order if carried_id else own_id),
    }


def is_plan(event: Event) -> bool:
    """Whether the event is about a plan itself, not a charge of it."""
    return event.type.startswith("recurring.plan.")


# https://docs.xendit.co/docs/set-up-webhooks
EVENTS: dict[str, Mapper] = {
    "invoice.paid": invoice,
    "invoice.settled": invoice,
    "virtual_account.paid": virtual_account,
    "payment.capture": captured,
    "payment.succeeded": older,
    "capture.succeeded": older,
    "ewallet.capture": older,
    "qr.payment": older,
    "payment_session.completed": told,
    "recurring.plan.activated": told,
    "recurring.cycle.succeeded": cycle,
    "refund.succeeded": refund,
    "ewallet.refund": refund,
}

IGNORED = {
    "invoice.expired": "not_paid",
    "invoice.pending": "not_paid",
    "payment.authorization": "not_paid",
    "payment.awaiting_capture": "not_paid",
    "payment.failed": "not_paid",
    "payment.failure": "not_paid",
    "payment.pending": "not_paid",
    "capture.failed": "not_paid",
    "payment_request.expiry": "not_paid",
    "payment_session.expired": "not_paid",
    "payment_token.activation": "no_money_moved",
    "payment_token.expiry": "no_money_moved",
    "payment_token.failure": "no_money_moved",
    "payment_method.activated": "no_money_moved",
    "payment_method.expired": "no_money_moved",
    "recurring.plan.inactivated": "no_money_moved",
    "recurring.cycle.created": "no_money_moved",
    "recurring.cycle.failed": "not_paid",
    "recurring.cycle.force_attempt_failed": "not_paid",
    "recurring.cycle.retrying": "not_paid",
    "refund.failed": "refund_failed",
    "credit_card.authentication": "no_money_moved",
    "credit_card.tokenization": "no_money_moved",
    "other": "not_read",
}
