"""Flutterwave.

Quirks (the formula of v4 is read in several public handlers; there is no published vector):
- v3 sends the secret hash itself, which proves the sender and not the body; v4 signs the body with
  it. A request that carries v4's header is never taken for one of v3's.
- Three shapes: v3 (`event`, `data`), v4 (`type`, `data`), and a flat old one (`txRef` beside
  `event.type`) that is still delivered. All three are read as `charge.completed`.
- That type also tells of payments that failed: only the status says which.
- The visitor's id comes back in `data.meta`, in `meta_data`, or not at all. With an `api_key` each
  payment of v3 is read back: then what the API says counts. v4's API hands out tokens by POST, so
  nothing is read there.
- A plan's charge does not say so in v3's webhook; the flat one has `paymentPlan`, the API
  `payment_plan` (uncertain; `plan` counts as well). Nothing has a subscription's id: the plan and the
  e-mail address, to which Flutterwave ties subscriptions, stand in for it, and the ledger decides
  which charge is the first. Where no plan can be seen, a card that was charged without the customer
  (`noauth`) may be a plan's and is unknown; everything else is one-off.
- `charged_amount` may hold fees that the customer took over; `amount` is the price and counts.
- Refunds name no currency: with an `api_key` it is the payment's, else the source's. Their fields are
  read in public handlers; no live one was seen. `completed` may mean that the customer's money is
  still on its way; what is sent when it arrives is the same movement.
- `chargeback.*` is not told: what is in it is not known.
- Events have no id: it is made of type, id and status. v4's `webhook_id` is not used, since it may be
  the endpoint's own.
- v3's sandbox is known by `flw_ref` (FLW-MOCK…), v4's by nothing: make a source of its own for it.
"""

import hashlib
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from urllib.parse import quote

from relay import money, visitor
from relay.model import Event, Ignored, Kind, Payment, Received, Recurrence, Trust
from relay.payload import Payload
from relay.provider import Api, Mapper, Setting, Setup
from relay.verify import BodyHmac, Signature, StaticToken

TITLE = "Flutterwave"
DOCS = "https://developer.flutterwave.com/docs/webhooks"

SETUP = Setup(
    where="Dashboard, Settings, Webhooks: paste the URL, type a long random secret hash (`openssl rand "
    "-hex 24`), and tick JSON, retries and `add meta to webhook`. Test mode has settings of its own.",
    events=("charge.completed", "refund.completed"),
    secret="The secret hash that you typed there (not the API's secret key).",
    visitor="In `meta` of the payment; renewals of a plan do not repeat it.",
    checkout="""\
// in the browser
FlutterwaveCheckout({ public_key, tx_ref, amount, currency, customer,
  meta: { datafast_visitor_id: visitorId } });
// or on your server: a payment of v3, or a charge of v4
body: JSON.stringify({ ...payment, meta: { datafast_visitor_id: visitorId } })""",
    notes="On v3 set `api_key`: it tells plans (first charge or renewal), finds missing metadata, and "
    "the currency of refunds. On v4 set `currency` for the refunds.",
)

SETTINGS = (
    Setting(
        "api_key", "v3's secret key (FLWSECK-...): reads payments, their plan and meta", secret=True
    ),
    Setting("api_base", "where v3's API is", default="https://api.flutterwave.com/v3"),
    Setting(
        "test",
        "true if this source's webhook belongs to the sandbox; v4's events do not say it",
        default=False,
    ),
)

_V3, _V4 = StaticToken("verif-hash"), BodyHmac("flutterwave-signature", encoding="base64")


# https://developer.flutterwave.com/docs/webhooks
@dataclass(frozen=True)
class SecretHash(Signature):
    """Whichever of the two schemes the request comes with; the secret is the same."""

    summary = "HMAC-SHA256 of the body (v4), static token in verif-hash (v3)"
    covers_body = False

    def verify(self, request: Received, trust: Trust) -> None:
        """See Signature. Raises missing_header, malformed_header, bad_signature."""
        scheme = _V4 if request.headers.all(_V4.header) else _V3
        scheme.verify(request, trust)

    def sign(self, request: Received, trust: Trust) -> Received:
        """See Signature."""
        scheme = _V4 if b'"webhook_id"' in request.body else _V3
        return scheme.sign(request, trust)


SIGNATURE = SecretHash()

_READ = "verified"
_PAID = frozenset({"successful", "succeeded"})


def parse(request: Received) -> list[Event]:
    """One event a request, in any of the three shapes."""
    body = Payload.json(request.body).object()
    type = body.text_or_none("event") or body.text_or_none("type")
    if type is None:
        type = "charge.completed" if body.at("txRef") else body.text("event.type")
    data = inner(body)
    id, status = data.text_or_none("id"), data.text_or_none("status")
    known = f"{id}:{status}" if id else hashlib.sha256(request.body).hexdigest()
    return [Event(f"{type}:{known}", type, body)]


def inner(body: Payload) -> Payload:
    """The payment, refund or other thing that a body is about."""
    return body.object("data") if body.at("data") else body


# https://developer.flutterwave.com/v3.0.0/reference/verify-transaction
def fetch(event: Event, api: Api) -> list[Event]:
    """The payment as v3's API has it; for a refund, the payment that is taken back."""
    key, data = event.settings["api_key"], inner(event.data)
    if not key or event.type not in EVENTS or event.data.at("type") or not has_moved(data):
        return [event]
    refunded = event.type == "refund.completed"
    id = original(data) if refunded else data.text("id")
    path = f"/transactions/{quote(id, safe='')}/verify"
    headers = {"Authorization": f"Bearer {key}"}
    answer = api.get(path, headers) if refunded else api.get_or_none(path, headers)
    found = answer.at("data").value if answer else None
    return [replace(event, data=Payload(event.data.value | {_READ: found}))]


def charge(event: Event) -> Payment | Ignored:
    """`charge.completed`: paid, or failed, by its status."""
    told, read = inner(event.data), event.data.at(_READ)
    paid = read or told
    if told.text("status") not in _PAID or paid.text("status") not in _PAID:
        return Ignored("not_paid")
    plan = next((it for it in (plan_of(read), plan_of(told)) if it), None)
    seen = plan is not None or bool(read) or "paymentPlan" in told.value
    unseen = not seen and told.value.get("auth_model") == "noauth"
    who = about(event, paid)
    return Payment(
        kind=Kind.CHARGE,
        transaction_id=paid.text("id"),
        amount=money.major_units(paid, "amount"),
        currency=money.currency(paid, "currency"),
        occurred_at=time(paid, "created_at", "createdAt", "created_datetime"),
        recurrence=Recurrence.UNKNOWN if plan or unseen else Recurrence.ONE_TIME,
        subscription_id=subscription(plan, who) if plan else None,
        reference=text(paid, "tx_ref", "txRef", "reference"),
        **who,
    )


def refund(event: Event) -> Payment | Ignored:
    """`refund.completed`: this refund's amount, full or partial."""
    told, read = inner(event.data), event.data.at(_READ)
    if not has_moved(told):
        return Ignored("not_refunded")
    # v3 numbers refunds and payments apart, so that one number can be both.
    id = told.text("id")
    priced = told if told.at("currency") else read
    return Payment(
        kind=Kind.REFUND,
        transaction_id=f"refund:{id}" if id.isdigit() else id,
        amount=money.major_units(told, first(told, "AmountRefunded", "amount_refunded")),
        currency=money.currency(priced, "currency") if priced.at("currency") else None,
        occurred_at=time(told, "createdAt", "created_at", "created_datetime"),
        original_id=original(told),
        **about(event, read or told),
    )


def has_moved(data: Payload) -> bool:
    """Whether money has; refunds are `completed`, or `completed-` and the way that they went."""
    status = data.text("status")
    return status in _PAID or status.startswith("completed")


def about(event: Event, paid: Payload) -> dict[str, Any]:
    """Whom a payment is about."""
    told, customer = inner(event.data), paid.at("customer")
    name = customer.at("name")
    if isinstance(name.value, dict):
        parts = (name.text_or_none(part) for part in ("first", "middle", "last"))
        full = " ".join(part for part in parts if part) or None
    else:
        full = text(customer, "name", "fullName")
    mock = text(paid, "flw_ref", "flwRef", "FlwRef") or ""
    return {
        "customer_id": customer.text_or_none("id"),
        "email": customer.text_or_none("email"),
        "name": full,
        "visitor_id": visitor.find(paid.at("meta"), told.at("meta"), event.data.at("meta_data")),
        "test": event.settings["test"] or mock.startswith("FLW-MOCK"),
    }


def plan_of(paid: Payload) -> str | None:
    """The plan's id, where it is said."""
    found = (paid.at(key).value for key in ("payment_plan", "paymentPlan", "plan"))
    return next((str(it) for it in found if it and isinstance(it, int | str)), None)


def subscription(plan: str, who: dict[str, Any]) -> str | None:
    """`<plan>:<customer>`: by a digest of the address, which outlives a customer's id."""
    email, id = who["email"], who["customer_id"]
    known = hashlib.sha256(email.lower().encode()).hexdigest()[:16] if email else id
    return f"plan:{plan}:{known}" if known else None


def original(refunded: Payload) -> str:
    """The id of the payment that is taken back."""
    return refunded.text(first(refunded, "TransactionId", "tx_id", "charge_id"))


def first(place: Payload, *keys: str) -> str:
    """The first of `keys` that is there; the very first, if none is."""
    return next((key for key in keys if place.at(key).value is not None), keys[0])


def text(place: Payload, *keys: str) -> str | None:
    """The text at the first of `keys` that is there."""
    return place.text_or_none(first(place, *keys))


def time(place: Payload, *keys: str) -> datetime:
    """The moment at the first of `keys` that is there."""
    return place.time(first(place, *keys))


# https://developer.flutterwave.com/docs/webhooks
EVENTS: dict[str, Mapper] = {"charge.completed": charge, "refund.completed": refund}

IGNORED = {
    "charge.failed": "not_paid",
    "order.authorization": "not_paid",
    "refund.failed": "not_refunded",
    "chargeback.created": "chargeback_of_unknown_shape",
    "chargeback.updated": "chargeback_of_unknown_shape",
    "subscription.cancelled": "no_money_moved",
    "transfer.completed": "no_sale",
    "transfer.disburse": "no_sale",
    "transfer.reversal": "no_sale",
    "Transfer": "no_sale",
}
