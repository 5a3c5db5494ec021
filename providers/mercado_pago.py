"""Mercado Pago.

Quirks:
- A webhook says only which payment or subscription has changed, many times for the same one. It is
  a hint: the payment is fetched with the access token, and each state of it that moved money, and
  each of its refunds, is an event of its own.
- Signed are the query's `data.id`, the header `x-request-id` if there is one, and a time; the body
  is not, nor the event's type. So only the query's id is believed, and all else is fetched. A query
  without `data.id` would leave nothing signed that says anything, and is refused.
- `ts` is in milliseconds or seconds, and retries may carry the first one: it is not compared with the
  clock. Mercado Pago writes that letters in `data.id` are signed in lower case; its SDKs take them
  as they come. Both are tried. QR code notifications and the older IPN are not signed: refused.
- A payment stays `approved` after a part of it was refunded. One that is `refunded`, `charged_back` or
  `in_mediation` was paid before. A `cancelled` one can have a date of approval.
- A chargeback holds the money at once (`in_process`, then `settled`) and gives it back if it is
  `reimbursed`. Uncertain: whether it stands among the `refunds` as well.
- A subscription has no metadata: its visitor travels behind a `|` in `external_reference`. Uncertain:
  whether its payments repeat that; the subscription itself is read for it as well.
- Uncertain: that the payments of every kind of subscription name their number and subscription (they
  stand in `point_of_interaction`); without them the ledger decides.
- Uncertain: whether a site that uses the newer Orders API gets `payment` webhooks as well. Orders
  themselves are not read.
- The simulator sends `live_mode: false` and a payment that does not exist.
- There is no published vector; the SDK's own test computes its value.
"""

import hmac
import re
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from typing import Any
from urllib.parse import parse_qs, urlsplit

from relay import money, visitor
from relay.errors import PayloadError, VerificationError
from relay.model import Event, Ignored, Kind, Payment, Received, Recurrence, Trust
from relay.payload import Payload
from relay.provider import Api, Mapper, Setting, Setup
from relay.verify import Signature, header, matches, well_formed, with_header

TITLE = "Mercado Pago"
DOCS = "https://www.mercadopago.com.br/developers/en/docs/your-integrations/notifications/webhooks"

SETUP = Setup(
    where="Your integrations, the application, Webhooks, Configure notifications: paste the URL for "
    "production mode and tick Payments and Plans and subscriptions. Where that is not offered for "
    "subscriptions, give the URL as `notification_url` when you create one. A `notification_url` of "
    "a payment goes before the application's: end it with ?source_news=webhooks, so that no "
    "unsigned IPN comes.",
    events=(
        "payment.approved",
        "payment.charged_back",
        "payment.reimbursed",
        "refund.approved",
        "subscription.authorized",
    ),
    secret="The secret signature on the same page, shown after saving. The access token that the "
    "payments are read with is under Production credentials.",
    visitor="In `metadata` of the payment or preference. Of a subscription: in `external_reference`, "
    "after your own id and a |.",
    checkout="""\
// on your server: a preference or payment
metadata: { datafast_visitor_id: cookies.get("datafast_visitor_id") }
// or a subscription (preapproval), which has no metadata
external_reference: `${user.id}|${cookies.get("datafast_visitor_id")}`""",
    notes="A proxy before the relay must not change the header x-request-id: it is signed.",
)

SETTINGS = (
    Setting(
        "api_key",
        "access token (APP_USR-…) that payments and subscriptions are read with",
        required=True,
        secret=True,
    ),
    Setting("api_base", "where Mercado Pago's API is", default="https://api.mercadopago.com"),
)

_HEADER = "x-signature"
_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_TIME = re.compile(r"[0-9]{1,16}")


def signed_id(url: str) -> str | None:
    """The id that the signature covers: `data.id` of the query."""
    return next(iter(parse_qs(urlsplit(url).query).get("data.id", ())), None)


# https://www.mercadopago.com.br/developers/en/docs/your-integrations/notifications/webhooks
@dataclass(frozen=True)
class ManifestSignature(Signature):
    """`ts=…,v1=…`, the HMAC of `id:…;request-id:…;ts:…;`; a part that is missing is left out."""

    summary = "HMAC-SHA256 of the id in the query, the request's id and its time"
    covers_body = False

    def verify(self, request: Received, trust: Trust) -> None:
        """See Signature. Raises missing_header, malformed_header, malformed_url, bad_signature."""
        parts = [part.strip().partition("=") for part in header(request, _HEADER).split(",")]
        times = [value for name, _, value in parts if name == "ts"]
        claims = [value for name, _, value in parts if name == "v1"]
        if len(times) != 1 or not _TIME.fullmatch(times[0]) or not claims:
            raise VerificationError("malformed_header", f"{_HEADER} is not ts=…,v1=…")
        for claim in claims:
            well_formed(claim, _HEADER, "sha256", "hex")
        # Plain characters only, or parts of the text could be moved from one place to another.
        id = signed_id(request.url) or ""
        if not _ID.fullmatch(id):
            raise VerificationError("malformed_url", "the query holds no data.id, which is signed")
        texts = [manifest(request, spelling, times[0]) for spelling in (id, id.lower())]
        matches(claims, (digest(it, text) for it in trust.secrets for text in texts))

    def sign(self, request: Received, trust: Trust) -> Received:
        """See Signature."""
        stamp = str(int(request.received_at.timestamp() * 1_000))
        text = manifest(request, signed_id(request.url) or "", stamp)
        value = f"ts={stamp},v1={digest(trust.secrets[0], text)}"
        return with_header(request, _HEADER, value)


def manifest(request: Received, id: str, stamp: str) -> str:
    """What is signed."""
    given = request.headers.all("x-request-id")
    if len(given) > 1 or ";" in "".join(given):
        raise VerificationError("malformed_header", "the header x-request-id is doubled or odd")
    request_id = f"request-id:{given[0].strip()};" if given and given[0].strip() else ""
    return f"id:{id};{request_id}ts:{stamp};"


def digest(secret: str, text: str) -> str:
    """The HMAC of the text, keyed with the secret's own characters."""
    return hmac.digest(secret.encode(), text.encode("utf-8", "replace"), "sha256").hex()


SIGNATURE = ManifestSignature()

_PATHS = {"payment": "/v1/payments/", "subscription_preapproval": "/preapproval/"}


def parse(request: Received) -> list[Event]:
    """One hint a request: the same event each time, so that each time it is looked at again."""
    body = Payload.json(request.body).object()
    type, id = body.text("type"), signed_id(request.url) or body.text("data", "id")
    if not _ID.fullmatch(id):
        raise PayloadError("bad_id", "$.data.id", "this is no id of Mercado Pago's")
    occurred_at = body.time_or_none("date_created")
    return [Event(f"{type}:{id}", type, body, occurred_at, reopens=type in _PATHS)]


# https://www.mercadopago.com.br/developers/en/reference/payments/_payments_id/get
def fetch(event: Event, api: Api) -> list[Event]:
    """The payment or subscription as it stands now, and each refund of the payment."""
    if event.type not in _PATHS:
        return [event]
    path = _PATHS[event.type] + event.id.partition(":")[2]
    headers = {"Authorization": f"Bearer {event.settings['api_key']}"}
    is_live = event.data.at("live_mode").value is not False
    found = api.get(path, headers) if is_live else api.get_or_none(path, headers)
    if found is None:
        return [replace(event, type="simulation")]
    if event.type == "subscription_preapproval":
        id, status = found.text("id"), found.text("status")
        data = Payload({"subscription": found.value, "is_test": not is_live})
        return [Event(f"subscription:{id}:{status}", f"subscription.{status}", data)]
    refunds = found.at("refunds")
    if not refunds and found.at("transaction_amount_refunded"):
        refunds = api.get(f"{path}/refunds", headers)
    return payment_events(found.object(), refunds)


# https://www.mercadopago.com.br/developers/en/docs/checkout-api/response-handling/query-results
_PAID = frozenset({"approved", "refunded", "charged_back", "in_mediation"})


def payment_events(paid: Payload, refunds: Payload) -> list[Event]:
    """What a payment has come to: that it was paid, charged back, reimbursed, refunded."""
    id, status = paid.text("id"), paid.text("status")
    states = ["approved"] if status in _PAID else [status]
    if status == "charged_back":
        states.append("charged_back")
        if paid.at("status_detail").value == "reimbursed":
            states.append("reimbursed")
    data = {"payment": paid.value}
    events = [Event(f"payment:{id}:{it}", f"payment.{it}", Payload(data)) for it in states]
    for refund in refunds.items() if refunds else ():
        state = refund.text_or_none("status") or "approved"
        both = Payload(data | {"refund": refund.value})
        events.append(Event(f"refund:{refund.text('id')}:{state}", f"refund.{state}", both))
    return events


# Money that is put into an account, moved on or invested: nothing was sold.
_NO_SALES = frozenset({"account_fund", "investment", "money_transfer"})


def charge(event: Event) -> Payment | Ignored:
    """A payment that was approved: all of it, whatever was taken back since."""
    paid = event.data.object("payment")
    if paid.at("operation_type").value in _NO_SALES:
        return Ignored("not_a_sale")
    amount = money.major_units(paid, "transaction_amount")
    found = payment(event, Kind.CHARGE, paid.text("id"), amount, paid.time("date_approved"))
    return replace(found, recurrence=recurrence(paid), original_id=None)


def recurrence(paid: Payload) -> Recurrence:
    """By the payment's number in its subscription, if it belongs to one."""
    told = paid.at("point_of_interaction", "transaction_data")
    is_recurring = paid.at("operation_type").value == "recurring_payment"
    if not is_recurring and not told.at("subscription_id"):
        return Recurrence.ONE_TIME
    number, is_first = told.at("subscription_sequence", "number"), told.at("first_time_use").value
    if number:
        return Recurrence.RENEWAL if number.integer() > 1 else Recurrence.FIRST
    if isinstance(is_first, bool):
        return Recurrence.FIRST if is_first else Recurrence.RENEWAL
    return Recurrence.UNKNOWN


def refund(event: Event) -> Payment | Ignored:
    """One refund of a payment, full or partial."""
    refunded = event.data.object("refund")
    id, amount = refunded.text("id"), money.major_units(refunded, "amount")
    return payment(event, Kind.REFUND, id, amount, refunded.time("date_created"))


def dispute(event: Event) -> Payment | Ignored:
    """A chargeback: what is left of the payment is withheld."""
    paid = event.data.object("payment")
    id, moment = f"{paid.text('id')}:chargeback", paid.time("date_last_updated")
    return replace(payment(event, Kind.DISPUTE, id, None, moment), currency=None)


def reimbursed(event: Event) -> Payment | Ignored:
    """A chargeback decided for the seller: what was withheld is back."""
    paid = event.data.object("payment")
    refunded = paid.at("transaction_amount_refunded")
    left = money.major_units(paid, "transaction_amount")
    left -= money.major_units(refunded) if refunded else 0
    id, moment = f"{paid.text('id')}:chargeback:won", paid.time("date_last_updated")
    return payment(event, Kind.REINSTATED, id, left, moment)


def payment(
    event: Event, kind: Kind, id: str, amount: Decimal | None, occurred_at: datetime
) -> Payment:
    """What the movements have in common."""
    paid = event.data.object("payment")
    payer, told = paid.at("payer"), paid.at("point_of_interaction", "transaction_data")
    names = filter(None, (payer.text_or_none(it) for it in ("first_name", "last_name")))
    return Payment(
        kind=kind,
        transaction_id=id,
        original_id=paid.text("id"),
        amount=amount,
        currency=money.currency(paid, "currency_id"),
        occurred_at=occurred_at,
        subscription_id=told.text_or_none("subscription_id"),
        customer_id=payer.text_or_none("id"),
        email=payer.text_or_none("email"),
        name=" ".join(names) or paid.text_or_none("card", "cardholder", "name"),
        test=paid.at("live_mode").value is False,
        **carried(paid),
    )


# https://www.mercadopago.com.br/developers/en/reference/subscriptions/_preapproval_id/get
def begun(event: Event) -> Payment | Ignored:
    """A subscription that is authorized: a trial, or only whose it is."""
    subscription = event.data.object("subscription")
    about: dict[str, Any] = {
        "subscription_id": subscription.text("id"),
        "customer_id": subscription.text_or_none("payer_id"),
        "email": subscription.text_or_none("payer_email"),
        "occurred_at": subscription.time("date_created"),
        "test": event.data.flag("is_test"),
        **carried(subscription),
    }
    terms = subscription.at("auto_recurring")
    if not terms.at("free_trial"):
        return Ignored("no_money_moved", subscribed_at=about["occurred_at"], **about)
    if subscription.at("summarized", "charged_quantity"):
        return Ignored("trial_is_over", **about)
    return Payment(
        kind=Kind.TRIAL,
        transaction_id=f"{about['subscription_id']}:trial",
        amount=Decimal(0),
        currency=money.currency(terms, "currency_id") if terms.at("currency_id") else None,
        **about,
    )


def carried(place: Payload) -> dict[str, Any]:
    """The visitor in the metadata or behind the owner's own reference, and that reference."""
    own = place.text_or_none("external_reference")
    reference, _, behind = (own or "").partition("|")
    found = visitor.find(Payload(behind))
    return {
        "visitor_id": visitor.find(place.at("metadata")) or found,
        "reference": reference if found else own,
    }


EVENTS: dict[str, Mapper] = {
    "payment.approved": charge,
    "payment.charged_back": dispute,
    "payment.reimbursed": reimbursed,
    "refund.approved": refund,
    "subscription.authorized": begun,
}

# https://www.mercadopago.com.br/developers/en/docs/your-integrations/notifications/webhooks
IGNORED = {
    "payment.authorized": "not_paid",
    "payment.cancelled": "not_paid",
    "payment.in_process": "not_paid",
    "payment.pending": "not_paid",
    "payment.rejected": "not_paid",
    "refund.authorized": "not_refunded",
    "refund.cancelled": "not_refunded",
    "refund.in_process": "not_refunded",
    "refund.pending": "not_refunded",
    "refund.rejected": "not_refunded",
    "subscription.cancelled": "no_money_moved",
    "subscription.paused": "no_money_moved",
    "subscription.pending": "no_money_moved",
    "subscription_authorized_payment": "told_by_payment.approved",
    "subscription_preapproval_plan": "no_money_moved",
    "order": "orders_are_not_read",
    "simulation": "test_notification",
    "topic_chargebacks_wh": "told_by_payment.charged_back",
    "topic_claims_integration_wh": "no_money_moved",
    "topic_merchant_order_wh": "told_by_payment.approved",
}
