"""Mollie.

Quirks:
- The classic webhook is a form post `id=tr_…`, unsigned, and the same bytes for every change of that
  payment. It is a hint: the payment is fetched, and each state of it, of its refunds and of its
  chargebacks is an event of its own, with the state in its id.
- The newer webhooks (Mollie: "next-gen") are signed JSON. Those about payments, refunds and
  chargebacks are taken as the same hint, so a source may receive both kinds. All else is ignored.
- A payment stays `paid` after it was refunded or charged back. `amountRemaining` can exceed
  `amount` (iDEAL), so it says nothing about refunds.
- A refund counts once it is `refunded`: from `processing` it can still become `failed`. Mollie calls
  for `processing`, `refunded` and `failed`.
- A chargeback counts at once, since its money is gone. One with `reversedAt` is two events, even if
  both are seen at once: the loss and the return.
- The first automatic charge after a trial is `recurring` as well, so that recurrence is unknown, and
  the subscription is asked for its `startDate`. A paid `first` payment belongs to no subscription:
  where it stands for the first period, the first automatic charge still looks like the first.
- `metadata.order_id`, as Mollie's own examples have it, is taken for the owner's reference.
- A paid `first` payment of 0.00 sets up a mandate, which mostly begins a trial. Uncertain: it can
  also be a card that is only being saved, and Mollie's answer does not tell the two apart.
- With manual capture less than `amount` may be taken, hence `amountCaptured` where it is above 0.
  Uncertain: whether more can be captured once the payment is `paid`; that would not be seen.
- A test key and a live key see only their own payments: make a source for each.
- There is no published vector of a signature; the SDK's own test computes its value.
"""

import hmac
import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal

from relay import money, visitor
from relay.errors import PayloadError, VerificationError
from relay.model import Event, Ignored, Kind, Payment, Received, Recurrence, Trust
from relay.payload import Payload
from relay.provider import Api, Mapper, Setting, Setup
from relay.verify import Rehearsal, UrlSecret, matches, with_header

TITLE = "Mollie"
DOCS = "https://docs.mollie.com/reference/webhooks"

SETUP = Setup(
    where="In your own code: give the source's URL as `webhookUrl` with every payment, subscription "
    "and payment link. Nothing is set in the dashboard. If you prefer one webhook for the whole "
    "account (Dashboard, Developers, Webhooks), use the same URL, the events below with their full "
    "payload, and put its secret into `signing_secret`.",
    events=("payment.paid", "refund.refunded", "chargeback.received", "chargeback.reversed"),
    secret="Invent it (`openssl rand -hex 24`); it is the last part of the URL. The API key that the "
    "payments are read with is in Dashboard, Developers, API keys.",
    visitor="In `metadata` of the payment. A subscription hands its metadata on to its payments.",
    checkout="""\
// on your server, where the payment is created
await mollie.payments.create({
  amount: { currency: "EUR", value: "24.20" },
  description: "Order 1001",
  redirectUrl: "https://example.com/thanks",
  webhookUrl: "https://relay.example.com/webhooks/mollie/SECRET",
  metadata: { datafast_visitor_id: cookies.get("datafast_visitor_id") },
});""",
    notes="A plug-in that has its own `webhookUrl` must keep it; use the account's webhook then. "
    "Test payments can be read with the test key only: make a source for each mode.",
)

SETTINGS = (
    Setting(
        "api_key",
        "API key (live_… or test_…) that the payments are read with",
        required=True,
        secret=True,
    ),
    Setting(
        "signing_secret",
        "secret of the account's webhook, if you have set one up in the dashboard",
        secret=True,
    ),
    Setting("api_base", "where Mollie's API is", default="https://api.mollie.com"),
)

HEADER = "X-Mollie-Signature"


# https://docs.mollie.com/reference/webhooks-best-practices
@dataclass(frozen=True)
class UrlSecretAndHmac(UrlSecret):
    """The secret in the URL, always; and the HMAC of the body, where there is a signature.

    The URL's secret is asked for even then: without it, leaving the signature out would be enough
    to be taken for a classic webhook.
    """

    summary = "secret in the URL; newer webhooks also HMAC-SHA256 of the body"

    def verify(self, request: Received, trust: Trust) -> None:
        """See Signature. Raises …_url_secret, no_signing_secret, malformed_header, bad_signature."""
        super().verify(request, trust)
        given = request.headers.all(HEADER)
        if not given:
            return
        secret = trust.settings.get("signing_secret")
        if not secret:
            msg = f"the request has {HEADER}; set `signing_secret` of this source to check it"
            raise VerificationError("no_signing_secret", msg)
        # While the secret is rotated, the header comes twice; a proxy may join the two.
        claims = [claim.strip(" ") for value in given for claim in value[:1_024].split(",")]
        matches([claim.removeprefix("sha256=") for claim in claims], [digest(secret, request)])

    def sign(self, request: Received, trust: Trust) -> Received:
        """See Signature. What is JSON is signed, if there is a secret for it."""
        signed = super().sign(request, trust)
        secret = trust.settings.get("signing_secret")
        if not secret or request.content_type != "application/json":
            return signed
        return with_header(signed, HEADER, f"sha256={digest(secret, request)}")

    def rehearse(self) -> Rehearsal:
        """See Signature."""
        return Rehearsal((secrets.token_hex(24),), {"signing_secret": secrets.token_hex(16)})


def digest(secret: str, request: Received) -> str:
    """The HMAC of the raw body, keyed with the secret's own characters."""
    return hmac.digest(secret.encode(), request.body, "sha256").hex()


SIGNATURE = UrlSecretAndHmac()


def parse(request: Received) -> list[Event]:
    """One event a request: a hint at a payment, or something that is ignored."""
    if request.headers.get(HEADER) is not None or request.content_type == "application/json":
        return [newer(Payload.json(request.body).object())]
    body = Payload.form(request.body)
    id = plain_id(body, "id")
    kind = id.partition("_")[0]
    return [hint(id, body)] if kind == "tr" else [Event(id, kind, body)]


# https://docs.mollie.com/reference/webhooks-new
def newer(body: Payload) -> Event:
    """What a signed event tells: that a payment, its refund or its chargeback has changed."""
    type = body.text("type")
    family = type.partition(".")[0]
    if family == "payment":
        return hint(plain_id(body, "entityId"), body)
    if family in {"refund", "chargeback"}:
        name = "entity" if body.at("_embedded", "entity") else family
        return hint(plain_id(body, "_embedded", name, "paymentId"), body)
    return Event(body.text("id"), type, body, body.time_or_none("createdAt"))


def hint(payment_id: str, body: Payload) -> Event:
    """Look at this payment: the same event each time, so each time it is looked at again."""
    return Event(payment_id, "payment", body, reopens=True)


def plain_id(data: Payload, *keys: str) -> str:
    """The id at `keys`, which goes into a path: letters, digits and _ only."""
    id = data.text(*keys)
    if not re.fullmatch(r"[A-Za-z0-9]+_[A-Za-z0-9_]{1,64}", id, re.ASCII):
        raise PayloadError("bad_id", data.at(*keys).path, "this is no id of Mollie's")
    return id


# https://docs.mollie.com/reference/get-payment
def fetch(event: Event, api: Api) -> list[Event]:
    """The payment as it stands now, and each of its refunds and chargebacks."""
    if event.type != "payment":
        return [event]
    headers = {"Authorization": f"Bearer {event.settings['api_key']}"}
    path = f"/v2/payments/{event.id}?embed=refunds,chargebacks"
    paid = api.get(path, headers).object()
    known = {"payment": paid.value}
    if paid.text("status") == "paid" and paid.at("customerId"):
        path = f"/v2/customers/{plain_id(paid, 'customerId')}"
        customer = api.get_or_none(path, headers)
        known["customer"] = customer.value if customer else None
        if paid.at("subscriptionId"):
            path += f"/subscriptions/{plain_id(paid, 'subscriptionId')}"
            subscription = api.get_or_none(path, headers)
            known["subscription"] = subscription.value if subscription else None
    chargebacks = list(embedded(paid, "chargebacks"))
    returned = [it for it in chargebacks if it.at("reversedAt")]
    return [
        state_of("payment", paid, paid.text("status"), known),
        *(state_of("refund", it, it.text("status"), known) for it in embedded(paid, "refunds")),
        *(state_of("chargeback", it, "received", known) for it in chargebacks),
        *(state_of("chargeback", it, "reversed", known) for it in returned),
    ]


def embedded(paid: Payload, name: str) -> Iterator[Payload]:
    """The payment's refunds or chargebacks; one that has none may lack the list."""
    if paid.at("_embedded", name):
        yield from paid.items("_embedded", name)


def state_of(name: str, moved: Payload, state: str, known: dict[str, object]) -> Event:
    """The event that a payment, refund or chargeback has come to this state."""
    occurred_at = moved.time_or_none("paidAt") or moved.time_or_none("createdAt")
    data = Payload({**known, name: moved.value})
    return Event(f"{moved.text('id')}:{state}", f"{name}.{state}", data, occurred_at)


# https://docs.mollie.com/docs/recurring-payments
RECURRENCES = {"oneoff": Recurrence.ONE_TIME, "first": Recurrence.FIRST}


def charge(event: Event) -> Payment | Ignored:
    """A payment that is paid; or, when it only sets up a mandate, a trial."""
    paid = event.data.object("payment")
    sequence = paid.text_or_none("sequenceType") or ""
    if sequence == "first" and not money.major_units(paid, "amount", "value"):
        return payment(event, paid, kind=Kind.TRIAL)
    captured = paid.at("amountCaptured") and money.major_units(paid, "amountCaptured", "value")
    return payment(
        event,
        paid,
        "amountCaptured" if captured else "amount",
        kind=Kind.CHARGE,
        recurrence=RECURRENCES.get(sequence, Recurrence.UNKNOWN),
    )


def refund(event: Event) -> Payment | Ignored:
    """A refund whose money has left."""
    return payment(event, event.data.object("refund"), kind=Kind.REFUND)


def dispute(event: Event) -> Payment | Ignored:
    """A chargeback. Its `settlementAmount` is negative and not what the customer got back."""
    return payment(event, event.data.object("chargeback"), kind=Kind.DISPUTE)


def returned(event: Event) -> Payment | Ignored:
    """A chargeback that is reversed: its money is back."""
    chargeback = event.data.object("chargeback")
    again = payment(event, chargeback, kind=Kind.REINSTATED)
    id, moment = f"{again.transaction_id}:reversed", chargeback.time("reversedAt")
    return replace(again, transaction_id=id, occurred_at=moment)


def payment(
    event: Event,
    moved: Payload,
    amount: str = "amount",
    *,
    kind: Kind,
    recurrence: Recurrence | None = None,
) -> Payment:
    """What the movements have in common. `moved` is the payment, refund or chargeback itself."""
    paid, customer = event.data.object("payment"), event.data.at("customer")
    subscription, is_paid = event.data.at("subscription"), kind in {Kind.CHARGE, Kind.TRIAL}
    return Payment(
        kind=kind,
        transaction_id=moved.text("id"),
        amount=Decimal(0) if kind is Kind.TRIAL else money.major_units(moved, amount, "value"),
        currency=money.currency(moved, amount, "currency"),
        occurred_at=moved.time("paidAt") if moved.at("paidAt") else moved.time("createdAt"),
        recurrence=recurrence,
        original_id=None if is_paid else paid.text("id"),
        subscription_id=paid.text_or_none("subscriptionId"),
        subscribed_at=began(subscription),
        customer_id=paid.text_or_none("customerId"),
        email=customer.text_or_none("email") or paid.text_or_none("billingAddress", "email"),
        name=customer.text_or_none("name")
        or paid.text_or_none("details", "consumerName")
        or paid.text_or_none("details", "cardHolder"),
        visitor_id=visitor.find(*(it.at("metadata") for it in (paid, subscription, customer))),
        reference=reference(paid.at("metadata", "order_id")),
        test=paid.text_or_none("mode") == "test",
    )


# https://docs.mollie.com/reference/get-subscription
def began(subscription: Payload) -> datetime | None:
    """The day of the first automatic charge, which is after a trial."""
    start = Payload(f"{subscription.at('startDate').value}T00:00:00Z")
    return start.time_or_none() or subscription.time_or_none("createdAt")


def reference(order_id: Payload) -> str | None:
    """The owner's order, if what stands there is one: metadata can be anything."""
    return None if isinstance(order_id.value, bool | dict | list) else order_id.text_or_none()


EVENTS: dict[str, Mapper] = {
    "payment.paid": charge,
    "refund.refunded": refund,
    "chargeback.received": dispute,
    "chargeback.reversed": returned,
}

# https://docs.mollie.com/docs/refunds and https://docs.mollie.com/reference/webhooks-new
IGNORED = {
    "payment.open": "not_paid",
    "payment.pending": "not_paid",
    "payment.authorized": "not_paid",
    "payment.canceled": "not_paid",
    "payment.expired": "not_paid",
    "payment.failed": "not_paid",
    "refund.queued": "not_refunded_yet",
    "refund.pending": "not_refunded_yet",
    "refund.processing": "not_refunded_yet",
    "refund.failed": "no_money_moved",
    "refund.canceled": "no_money_moved",
    "payment-link.paid": "told_by_payment.paid",
    "sales-invoice.created": "no_money_moved",
    "sales-invoice.issued": "no_money_moved",
    "sales-invoice.canceled": "no_money_moved",
    "sales-invoice.paid": "told_by_payment.paid",
    "balance-transaction.created": "not_a_payment",
    "ord": "orders_are_not_read",
}
