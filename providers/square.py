"""Square.

Quirks:
- The URL is signed with the body: with another host, path or query than the one pasted at Square
  nothing is genuine. No time is signed.
- One payment is told by `payment.created` and by every `payment.updated` (fees, refunds): what
  counts is the first that says COMPLETED, under the payment's id. `total_money` holds the tip,
  `amount_money` does not.
- All payments of a seller come, those at the till too.
- A payment does not name its subscription. Only the order of `invoice.payment_made` leads to the
  payment, so this needs an `api_key`; of an invoice paid in parts only the last part is found. A
  subscription's only invoice so far is its first; of others the ledger decides. Without that, a
  card on file or an invoice may be a subscription's and is unknown, everything else is one-off
  (Square names no such field: uncertain for other ways to pay a renewal).
- A payment has no metadata, only a `note`; its order has. A `reference_id` is the site's own and is
  never taken for a visitor, even if it is a UUID. Refunds and disputes hold nothing of a customer.
- A refund counts when it is COMPLETED. An `unlinked` one names no payment.
- Square withholds the money of a dispute when it is opened, and returns it when it is WON. An
  INQUIRY takes nothing (uncertain), until its state is that of a dispute.
- Trials are a matter of Square's catalogue; no event tells of one.
- Sandbox or not stands only in a header that is not signed, `square-environment`, and follows from
  the source's `api_base`.
- The samples in Square's specification reuse an `event_id` for two events; real ones are unique.
"""

import hmac
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote

from relay import money, visitor
from relay.model import Event, Ignored, Kind, Payment, Received, Recurrence, Trust
from relay.payload import Payload
from relay.provider import Api, Mapper, Setting, Setup
from relay.verify import Signature, encode, header, matches, well_formed, with_header

TITLE = "Square"
DOCS = "https://developer.squareup.com/docs/webhooks/overview"

_SANDBOX = "https://connect.squareupsandbox.com"

SETUP = Setup(
    where="developer.squareup.com, your application, Webhooks, Subscriptions, Add subscription: "
    "paste the URL exactly as it is (it is signed) and tick the events. Production and Sandbox have "
    f"subscriptions of their own: make a source for each, with `api_base: {_SANDBOX}` for Sandbox.",
    events=(
        "payment.created",
        "payment.updated",
        "refund.created",
        "refund.updated",
        "dispute.created",
        "dispute.state.updated",
        "invoice.payment_made",
    ),
    secret="The signature key: open the webhook subscription, Endpoint Details, Signature Key, Show "
    "(not the access token). Another URL gets another signature.",
    visitor="In `metadata` of the order (read with an `api_key`), or in `note` of the payment.",
    checkout="""\
// on your server: a payment link
await client.checkout.paymentLinks.create({ order: { ...order,
  metadata: { datafast_visitor_id: cookies.get("datafast_visitor_id") } } });
// or a payment of your own form; needs no api_key
await client.payments.create({ ...payment, note: cookies.get("datafast_visitor_id") });""",
    notes="Set `api_key` if you sell subscriptions (it tells renewals from new revenue) or use "
    "payment links: an access token that may read orders, customers, payments and subscriptions.",
)

SETTINGS = (
    Setting(
        "api_key",
        "an access token: for the order's metadata, the customer's name and the subscription",
        secret=True,
    ),
    Setting(
        "api_base",
        f"where the API is; {_SANDBOX} for the sandbox",
        default="https://connect.squareup.com",
    ),
)

_HEADER = "x-square-hmacsha256-signature"
_VERSION = "2026-09-16"
_HELD = frozenset({"EVIDENCE_REQUIRED", "PROCESSING", "LOST", "ACCEPTED"})


# https://developer.squareup.com/docs/webhooks/step3validate
@dataclass(frozen=True)
class NotificationSignature(Signature):
    """A header that holds the HMAC of the notification URL and the raw body."""

    summary = "HMAC-SHA256 of the URL and the body"

    def verify(self, request: Received, trust: Trust) -> None:
        """See Signature. Raises missing_header, malformed_header, bad_signature."""
        claimed = header(request, _HEADER)
        well_formed(claimed, _HEADER, "sha256", "base64")
        matches([claimed], (self._digest(secret, request) for secret in trust.secrets))

    def sign(self, request: Received, trust: Trust) -> Received:
        """See Signature."""
        return with_header(request, _HEADER, self._digest(trust.secrets[0], request))

    def _digest(self, secret: str, request: Received) -> str:
        message = request.url.encode("utf-8", "replace") + request.body
        return encode(hmac.digest(secret.encode(), message, "sha256"), "base64")


SIGNATURE = NotificationSignature()


def parse(request: Received) -> list[Event]:
    """One event a request."""
    body = Payload.json(request.body).object()
    data = Payload(body.value | {"environment": request.headers.get("square-environment")})
    occurred_at = body.time_or_none("created_at")
    return [Event(body.text("event_id"), body.text("type"), data, occurred_at)]


def fetch(event: Event, api: Api) -> list[Event]:
    """The event with what it leads to, as far as the source's `api_key` may read it."""
    paid, invoice = (event.data.at("data", "object", it) for it in ("payment", "invoice"))
    told = invoice.at("subscription_id") or paid.at("status").value == "COMPLETED"
    if not event.settings["api_key"] or event.type not in EVENTS or not told:
        return [event]
    found = dict(event.data.value)
    headers = {
        "Authorization": f"Bearer {event.settings['api_key']}",
        "Square-Version": _VERSION,
    }

    def ask(kind: str, id: str | None) -> Payload:
        path = f"/v2/{kind}s/{quote(id or '', safe='')}"
        answer = api.get_or_none(path, headers) if id else None
        found[kind] = answer.at(kind).value if answer else None
        return Payload(found[kind])

    order = ask("order", (invoice or paid).text_or_none("order_id"))
    if invoice:
        ask("payment", order.at("tenders", -1).text_or_none("payment_id"))
        ask("subscription", invoice.text_or_none("subscription_id"))
    else:
        ask("customer", paid.text_or_none("customer_id"))
    return [replace(event, data=Payload(found))]


def charge(event: Event) -> Payment | Ignored:
    """`payment.*`: a payment, once it is completed."""
    paid = event.data.object("data", "object", "payment")
    if paid.text("status") != "COMPLETED":
        return Ignored("not_paid")
    on_file = paid.text_or_none("card_details", "entry_method") == "ON_FILE"
    invoiced = paid.text_or_none("application_details", "square_product") == "INVOICES"
    recurrence = Recurrence.UNKNOWN if on_file or invoiced else Recurrence.ONE_TIME
    return replace(payment(event, Kind.CHARGE, paid, "total_money"), recurrence=recurrence)


def invoiced(event: Event) -> Payment | Ignored:
    """`invoice.payment_made`: the same payment, and its subscription; or only the customer."""
    invoice = event.data.object("data", "object", "invoice")
    paid, subscription = event.data.at("payment"), event.data.at("subscription")
    recipient = invoice.at("primary_recipient")
    about: dict[str, Any] = {
        "subscription_id": invoice.text_or_none("subscription_id"),
        "customer_id": recipient.text_or_none("customer_id"),
        "email": recipient.text_or_none("email_address"),
        "name": full_name(recipient),
    }
    known = {name: value for name, value in about.items() if value}
    if paid.at("status").value != "COMPLETED":
        return Ignored("told_by_payment.updated", test=is_test(event), **known)
    is_only = subscription.at("invoice_ids").value == [invoice.text("id")]
    return replace(
        payment(event, Kind.CHARGE, paid, "total_money"),
        recurrence=Recurrence.FIRST if is_only else Recurrence.UNKNOWN,
        subscribed_at=subscription.time_or_none("created_at"),
        **known,
    )


def refund(event: Event) -> Payment | Ignored:
    """`refund.*`: this refund's amount, full or partial, once it is completed."""
    refunded = event.data.object("data", "object", "refund")
    if refunded.text("status") != "COMPLETED":
        return Ignored("not_refunded")
    found = payment(event, Kind.REFUND, refunded, "amount_money")
    return replace(found, original_id=refunded.text_or_none("payment_id"))


def dispute(event: Event) -> Payment | Ignored:
    """`dispute.*`: the money is withheld from its opening, and returns if it is won."""
    disputed = event.data.object("data", "object", "dispute")
    state = disputed.text("state")
    if state not in _HELD | {"WON"}:
        return Ignored("no_money_moved")
    found = payment(event, Kind.DISPUTE, disputed, "amount_money")
    found = replace(found, original_id=disputed.text("disputed_payment", "payment_id"))
    if state == "WON":
        id, won_at = f"{found.transaction_id}:won", disputed.time("updated_at")
        found = replace(found, kind=Kind.REINSTATED, transaction_id=id, occurred_at=won_at)
    return found


def payment(event: Event, kind: Kind, moved: Payload, amount: str) -> Payment:
    """What the movements have in common. `moved` is the payment, refund or dispute itself."""
    order, customer = event.data.at("order"), event.data.at("customer")
    currency = money.currency(moved, amount, "currency")
    captured_at = moved.time_or_none("card_details", "card_payment_timeline", "captured_at")
    return Payment(
        kind=kind,
        transaction_id=moved.text("id"),
        amount=money.minor_units(moved, amount, "amount", code=currency),
        currency=currency,
        occurred_at=captured_at or moved.time("created_at"),
        customer_id=moved.text_or_none("customer_id"),
        email=moved.text_or_none("buyer_email_address") or customer.text_or_none("email_address"),
        name=full_name(customer),
        visitor_id=visitor.find(order.at("metadata"), moved.at("note")),
        reference=moved.text_or_none("reference_id") or order.text_or_none("reference_id"),
        test=is_test(event),
    )


def full_name(person: Payload) -> str | None:
    """A customer's or recipient's name, as far as it is known."""
    parts = (person.text_or_none(part) for part in ("given_name", "family_name"))
    return " ".join(filter(None, parts)) or None


def is_test(event: Event) -> bool:
    """Whether it is the sandbox's, by its header or by the source's API."""
    in_sandbox = event.data.text_or_none("environment") == "Sandbox"
    return in_sandbox or event.settings["api_base"].startswith(_SANDBOX)


# https://developer.squareup.com/docs/webhooks/v2-events-reference
EVENTS: dict[str, Mapper] = {
    "payment.created": charge,
    "payment.updated": charge,
    "refund.created": refund,
    "refund.updated": refund,
    "dispute.created": dispute,
    "dispute.state.updated": dispute,
    "invoice.payment_made": invoiced,
}

IGNORED = {
    "dispute.state.changed": "told_by_dispute.state.updated",
    "invoice.refunded": "told_by_refund.updated",
    "invoice.canceled": "no_money_moved",
    "invoice.created": "no_money_moved",
    "invoice.deleted": "no_money_moved",
    "invoice.published": "no_money_moved",
    "invoice.scheduled_charge_failed": "no_money_moved",
    "invoice.updated": "no_money_moved",
    "order.created": "no_money_moved",
    "order.updated": "no_money_moved",
    "subscription.created": "no_money_moved",
    "subscription.updated": "no_money_moved",
    "webhooks.test_notification": "test_notification",
}
