"""Revolut Merchant.

Quirks:
- A webhook holds only ids, and no time: the order or the dispute is fetched. No event has an id of
  its own, so the type and what it is about stand for it.
- `ORDER_COMPLETED` also tells of refunds, which are orders of their own with their own id and
  `related_order_id` (`related_order_ids` in older answers). Refunds take up to two days.
- An order's `updated_at` moves on with each refund; the time is that of its payment.
- An order of a subscription names it and its cycle. Cycle 1 is the first, later ones are renewals; an
  order of 0 in a trial's cycle begins the trial. Uncertain: whether such an order is told at all.
  Settling usage after the end (`final_settlement`) is left to the ledger.
- A subscription has no metadata, only an `external_reference`: a visitor in it must be named
  (`datafast_visitor_id=…`), since a bare UUID there may well be the site's own id.
- Payments by a saved card without a subscription of Revolut's are told as one-off, unless you write
  `subscription_id` into the order's metadata.
- Reports show that a dispute withdraws the money and that winning returns it. Uncertain: when; it
  is told as taken with the first event. If a dispute is won and lost again in arbitration, the
  second loss is not told. Disputes exist in production only; orders of the type `chargeback`
  repeat them.
- The signature signs milliseconds, and holds several values while the secret is rotated. The
  published vector is that of Revolut's Business API, which signs in the same way.
- Sandbox or not follows from the source's `api_base`.
"""

import hashlib
import hmac
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from typing import Any
from urllib.parse import quote

from relay import money, visitor
from relay.errors import VerificationError
from relay.model import Event, Ignored, Kind, Payment, Received, Recurrence, Trust
from relay.payload import Payload
from relay.provider import Api, Mapper, Setting, Setup
from relay.verify import Signature, fresh, header, matches, unix_time, with_header

TITLE = "Revolut Merchant"
DOCS = (
    "https://developer.revolut.com/docs/guides/merchant/monitor-and-observe/webhooks/using-webhooks"
)

_SANDBOX = "https://sandbox-merchant.revolut.com"

SETUP = Setup(
    where="By API, once: POST https://merchant.revolut.com/api/webhooks with your secret key, the "
    'header `Revolut-Api-Version` and the body {"url": "…", "events": ["ORDER_COMPLETED", …]}. The '
    f"sandbox has keys and webhooks of its own: make a source for each, with `api_base: {_SANDBOX}`.",
    events=(
        "ORDER_COMPLETED",
        "DISPUTE_ACTION_REQUIRED",
        "DISPUTE_UNDER_REVIEW",
        "DISPUTE_LOST",
        "DISPUTE_WON",
    ),
    secret="The `signing_secret` (wsk_…) in the answer to that POST; GET /api/webhooks/{id} shows it "
    "again. The API key is the Secret key (sk_…) in Revolut Business, APIs, Merchant API.",
    visitor="In `metadata` of the order. Of a subscription, in its `external_reference`.",
    checkout="""\
// on your server, where the order is created
await fetch("https://merchant.revolut.com/api/orders", { method: "POST", headers,
  body: JSON.stringify({ amount: 2420, currency: "EUR", merchant_order_data: { reference: order.id },
    metadata: { datafast_visitor_id: cookies.get("datafast_visitor_id") } }) });
// or a subscription
const external_reference = `datafast_visitor_id=${cookies.get("datafast_visitor_id")}`;
await fetch("https://merchant.revolut.com/api/subscriptions", { method: "POST", headers,
  body: JSON.stringify({ plan_variation_id, customer_id, external_reference }) });""",
)

SETTINGS = (
    Setting(
        "api_key",
        "secret API key (sk_…) that orders, disputes and subscriptions are read with",
        required=True,
        secret=True,
    ),
    Setting(
        "api_base",
        f"where the API is; {_SANDBOX} for the sandbox",
        default="https://merchant.revolut.com",
    ),
)

_VERSION = "2026-08-17"
_SIGNATURE, _TIMESTAMP = "Revolut-Signature", "Revolut-Request-Timestamp"


# https://developer.revolut.com/docs/guides/merchant/monitor-and-observe/webhooks/verify-the-payload-signature
@dataclass(frozen=True)
class RevolutSignature(Signature):
    """A header with one or more `v1=` and the HMAC of `v1.timestamp.body`; the time is in another."""

    summary = "HMAC-SHA256 of v1.{timestamp}.{body}"
    signs_time = True

    def verify(self, request: Received, trust: Trust) -> None:
        """See Signature. Raises missing_header, malformed_…, stale_timestamp, bad_signature."""
        given = [claim.strip(" ") for claim in header(request, _SIGNATURE).split(",")]
        claimed = [claim.removeprefix("v1=") for claim in given if claim.startswith("v1=")]
        if not claimed:
            msg = f"{_SIGNATURE} holds no signature of version v1"
            raise VerificationError("malformed_header", msg)
        stamp = header(request, _TIMESTAMP)
        fresh(unix_time(stamp, _TIMESTAMP, 1000), request.received_at, trust.tolerance)
        matches(claimed, (digest(secret, stamp, request.body) for secret in trust.secrets))

    def sign(self, request: Received, trust: Trust) -> Received:
        """See Signature."""
        stamp = str(int(request.received_at.timestamp() * 1000))
        signed = with_header(request, _TIMESTAMP, stamp)
        claim = digest(trust.secrets[0], stamp, request.body)
        return with_header(signed, _SIGNATURE, f"v1={claim}")


def digest(secret: str, stamp: str, body: bytes) -> str:
    """The HMAC, keyed with the secret's own characters."""
    return hmac.digest(secret.encode(), f"v1.{stamp}.".encode() + body, "sha256").hex()


SIGNATURE = RevolutSignature()


def parse(request: Received) -> list[Event]:
    """One event a request, known by its type and by what it is about."""
    body = Payload.json(request.body).object()
    type = body.text("event")
    kinds = ("order_id", "dispute_id", "subscription_id", "payout_id")
    about = next(filter(None, map(body.text_or_none, kinds)), None)
    return [Event(f"{type}:{about or hashlib.sha256(request.body).hexdigest()}", type, body)]


def fetch(event: Event, api: Api) -> list[Event]:
    """The event with its order or dispute, and with the subscription that the order belongs to."""
    if event.type not in EVENTS:
        return [event]
    headers = {
        "Authorization": f"Bearer {event.settings['api_key']}",
        "Revolut-Api-Version": _VERSION,
    }

    def ask(path: str) -> Any:  # noqa: ANN401 - foreign data
        answer = api.get_or_none(path, headers)
        return answer.value if answer else None

    kind = "order" if event.type == "ORDER_COMPLETED" else "dispute"
    told = api.get(f"/api/{kind}s/{quote(event.data.text(f'{kind}_id'), safe='')}", headers)
    found = event.data.value | {kind: told.value}
    plan = told.at("subscription_data")
    id, cycle_id = (plan.text_or_none(it) for it in ("subscription_id", "active_cycle_id"))
    if id:
        path = f"/api/subscriptions/{quote(id, safe='')}"
        found["subscription"] = ask(path)
        found["cycle"] = ask(f"{path}/cycles/{quote(cycle_id, safe='')}") if cycle_id else None
    return [replace(event, data=Payload(found))]


def completed(event: Event) -> Payment | Ignored:
    """`ORDER_COMPLETED`: a payment or a refund, as the order's type says."""
    order = event.data.object("order")
    # The signed event says completed; an answer that lags behind must not cost the payment.
    if order.text("state").lower() in {"cancelled", "failed"}:
        return Ignored("not_paid")
    kind = order.text("type").lower()
    if kind in {"payment", "payment_request"}:
        return charge(event, order)
    if kind == "refund":
        related = order.at("related_order_id") or order.at("related_order_ids", 0)
        found = payment(event, Kind.REFUND, order, order.text("id"))
        return replace(found, original_id=related.text_or_none())
    told_before = kind in {"chargeback", "chargeback_reversal"}
    return Ignored("told_by_DISPUTE_LOST" if told_before else "no_money_moved")


def charge(event: Event, order: Payload) -> Payment:
    """An order that was paid; one of 0 in a trial's cycle is the trial."""
    found = replace(
        payment(event, Kind.CHARGE, order, order.text("id")),
        recurrence=recurrence(event, order),
        **about(event, order),
    )
    if found.amount or not event.data.flag("cycle", "trial"):
        return found
    id = f"{found.subscription_id}:trial"
    return replace(found, kind=Kind.TRIAL, transaction_id=id, amount=Decimal(0), recurrence=None)


def recurrence(event: Event, order: Payload) -> Recurrence:
    """By the number of the subscription's cycle; or else as far as the site says."""
    if event.data.at("cycle", "number"):
        first = event.data.integer("cycle", "number") == 1
        return Recurrence.FIRST if first else Recurrence.RENEWAL
    repeats = order.at("subscription_data") or order.at("metadata", "subscription_id")
    return Recurrence.UNKNOWN if repeats else Recurrence.ONE_TIME


def dispute(event: Event) -> Payment:
    """`DISPUTE_*`: all that say that the money is gone are one movement; winning returns it."""
    disputed = event.data.object("dispute")
    id, original_id = disputed.text("id"), disputed.text("payment", "order_id")
    if event.type != "DISPUTE_WON":
        return replace(payment(event, Kind.DISPUTE, disputed, id), original_id=original_id)
    found = payment(event, Kind.REINSTATED, disputed, f"{id}:won")
    moment = disputed.time_or_none("updated_at") or found.occurred_at
    return replace(found, original_id=original_id, occurred_at=moment)


def payment(event: Event, kind: Kind, moved: Payload, id: str) -> Payment:
    """What the movements have in common. `moved` is the order or the dispute itself."""
    currency = money.currency(moved, "currency")
    return Payment(
        kind=kind,
        transaction_id=id,
        amount=money.minor_units(moved, "amount", code=currency),
        currency=currency,
        occurred_at=paid_at(moved) or moved.time("created_at"),
        test=event.settings["api_base"].startswith(_SANDBOX),
    )


def paid_at(order: Payload) -> datetime | None:
    """When the payment that completed an order was made."""
    payments = order.items("payments") if order.at("payments") else ()
    good = (it for it in payments if it.at("state").value in {"captured", "completed"})
    return next(filter(None, (it.time_or_none("created_at") for it in good)), None)


def about(event: Event, order: Payload) -> dict[str, Any]:
    """Whom an order is about, by itself and by its subscription."""
    customer, metadata = order.at("customer"), order.at("metadata")
    subscription = event.data.at("subscription")
    external = subscription.text_or_none("external_reference") or ""
    named = [subscription.at("external_reference")] if "=" in external else []
    began_at = (subscription.time_or_none(it) for it in ("trial_end_date", "start_date"))
    return {
        "subscription_id": order.text_or_none("subscription_data", "subscription_id")
        or metadata.text_or_none("subscription_id"),
        "subscribed_at": next(filter(None, began_at), None),
        "customer_id": customer.text_or_none("id"),
        "email": customer.text_or_none("email")
        or order.text_or_none("payments", -1, "payer", "email"),
        "name": customer.text_or_none("full_name"),
        "visitor_id": visitor.find(metadata, *named),
        "reference": order.text_or_none("merchant_order_data", "reference")
        or event.data.text_or_none("merchant_order_ext_ref"),
    }


# https://developer.revolut.com/docs/api/merchant#webhook-webhook-event
EVENTS: dict[str, Mapper] = {
    "ORDER_COMPLETED": completed,
    "DISPUTE_ACTION_REQUIRED": dispute,
    "DISPUTE_UNDER_REVIEW": dispute,
    "DISPUTE_LOST": dispute,
    "DISPUTE_WON": dispute,
}

IGNORED = {
    "ORDER_AUTHORISED": "not_paid",
    "ORDER_CANCELLED": "not_paid",
    "ORDER_FAILED": "not_paid",
    "ORDER_INCREMENTAL_AUTHORISATION_AUTHORISED": "not_paid",
    "ORDER_INCREMENTAL_AUTHORISATION_DECLINED": "not_paid",
    "ORDER_INCREMENTAL_AUTHORISATION_FAILED": "not_paid",
    "ORDER_PAYMENT_AUTHENTICATED": "not_paid",
    "ORDER_PAYMENT_AUTHENTICATION_CHALLENGED": "not_paid",
    "ORDER_PAYMENT_AUTHORISATION_STARTED": "not_paid",
    "ORDER_PAYMENT_DECLINED": "not_paid",
    "ORDER_PAYMENT_FAILED": "not_paid",
    "PAYOUT_COMPLETED": "payout",
    "PAYOUT_FAILED": "payout",
    "PAYOUT_INITIATED": "payout",
    "SUBSCRIPTION_CANCELLED": "no_money_moved",
    "SUBSCRIPTION_FINISHED": "no_money_moved",
    "SUBSCRIPTION_INITIATED": "no_money_moved",
    "SUBSCRIPTION_OVERDUE": "no_money_moved",
}
