"""Recurly.

Quirks:
- An endpoint sends JSON, which is signed, or XML, which is not: there the user and the password of
  HTTP Basic prove it. A request with a signature is judged by that alone.
- JSON only names an object. XML has no currency, no custom fields, and not what a refund takes back.
  So both are read as "look at this", under the same id, and all else is asked of the API.
- Objects have a short `id` and a `uuid`. XML knows only the `uuid`, so that is the id of a movement;
  a refund names its original by the short one, which is asked for its `uuid`.
- A payment tells its place by its invoice's `origin`: `purchase` or `renewal`. The first after a
  trial is a renewal there; it counts as the first if it is made at the trial's end. Other origins,
  such as `immediate_change`, are left to the ledger.
- A void takes a payment back before it settles, under the payment's own id, and all of it. Voided
  as well are checks of a card (`verify`), which are no money, and refunds, which then return it.
- A chargeback is a refund with the status `chargeback`, made only if the site's invoice settings
  say so. Uncertain: that it is told as refunds are. Its reversal is told by nobody.
- XML writes `nil="true"` beside texts, at least in the documentation; the text counts.
- Only XML says whether it is a test; make a source of its own for a sandbox site, with `test`.
- Uncertain: the JSON names `payment.refunded` and `payment.voided`. The documentation lists these
  words; the bodies seen there are of other events.
"""

import base64
import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from decimal import Decimal
from typing import Any
from urllib.parse import quote
from xml.etree.ElementTree import Element, ParseError

from defusedxml.ElementTree import fromstring

from relay import money, visitor
from relay.errors import PayloadError, VerificationError
from relay.model import Event, Ignored, Kind, Payment, Received, Recurrence, Trust
from relay.payload import Payload
from relay.provider import Api, Mapper, Setting, Setup
from relay.verify import BasicAuth, Signature, fresh, header, matches, unix_time, with_header

TITLE = "Recurly"
DOCS = "https://docs.recurly.com/recurly-subscriptions/docs/webhooks"

_HEADER = "recurly-signature"

SETUP = Setup(
    where="Integrations, Webhooks, Configure, New Endpoint: paste the URL, choose JSON, and under "
    "Configure Notifications tick successful payments, successful refunds, voided payments and new "
    "subscriptions. A sandbox site has endpoints of its own: make a source for it, with `test: true`.",
    events=("payment.succeeded", "payment.refunded", "payment.voided", "subscription.created"),
    secret="The endpoint's secret key, on the page of webhook endpoints. For an XML endpoint: the user "
    "and the password that you type there, with a colon between them.",
    visitor="In a custom field of the account or the subscription called `datafast_visitor_id`; make "
    "it first, under Configuration, Custom Fields.",
    checkout="""\
// on your server, where the account or the purchase is created
await client.createPurchase({
  ...purchase,
  account: {
    ...account,
    customFields: [{ name: "datafast_visitor_id", value: cookies.get("datafast_visitor_id") }],
  },
});""",
    notes="`api_key` is a private key from Integrations, API Credentials; it only reads. For a site in "
    "the EU's data centre set `api_base: https://v3.eu.recurly.com`.",
)

SETTINGS = (
    Setting("api_key", "private API key that payments are read with", required=True, secret=True),
    Setting("api_base", "where the API is", default="https://v3.recurly.com"),
    Setting("test", "true if this source's webhook belongs to a sandbox site", default=False),
)

_AT_ONCE = timedelta(hours=1)
_MILLISECONDS = 1_000
_PAYS = frozenset({"purchase", "capture"})
_FROM_XML = {
    "successful_payment_notification": "payment.succeeded",
    "successful_refund_notification": "payment.refunded",
    "void_payment_notification": "payment.voided",
    "new_subscription_notification": "subscription.created",
}


# https://docs.recurly.com/recurly-subscriptions/docs/signature-verification
@dataclass(frozen=True)
class EndpointSignature(BasicAuth):
    """`<ms>,<hex>[,<hex>…]` of `{timestamp}.{body}`; for XML the user and the password."""

    summary = "JSON: HMAC-SHA256 of {timestamp}.{body}; XML: HTTP Basic"

    def verify(self, request: Received, trust: Trust) -> None:
        """See Signature. Raises missing_header, malformed_…, stale_timestamp, bad_signature."""
        if request.headers.get(_HEADER) is None:
            return super().verify(request, trust)
        stamp, *claimed = header(request, _HEADER).split(",")
        if not claimed:
            raise VerificationError("malformed_header", f"{_HEADER} holds no signature")
        signed_at = unix_time(stamp, _HEADER, _MILLISECONDS)
        fresh(signed_at, request.received_at, trust.tolerance)
        return matches(claimed, (digest(it, stamp, request.body) for it in trust.secrets))

    def sign(self, request: Received, trust: Trust) -> Received:
        """See Signature."""
        if is_xml(request):
            return super().sign(request, trust)
        stamp = str(int(request.received_at.timestamp() * _MILLISECONDS))
        return with_header(
            request, _HEADER, f"{stamp},{digest(trust.secrets[0], stamp, request.body)}"
        )

    def flaw(self, secret: str) -> str | None:
        """See Signature."""
        return super().flaw(secret) if ":" in secret else Signature.flaw(self, secret)


SIGNATURE = EndpointSignature()


def digest(secret: str, stamp: str, body: bytes) -> str:
    """The signature of a JSON body."""
    return hmac.digest(secret.encode(), f"{stamp}.".encode() + body, "sha256").hex()


def is_xml(request: Received) -> bool:
    """Whether an endpoint of the older format sent it."""
    return request.body.lstrip().startswith(b"<")


def parse(request: Received) -> list[Event]:
    """One event a request, known by its type and the object's `uuid` in either format."""
    if is_xml(request):
        root = notification(request.body)
        type = _FROM_XML.get(root.tag, root.tag)
        body = Payload({root.tag: tree(root)}).at(root.tag)
        moved, occurred_at = body.at("transaction"), request.received_at
        uuid = moved.text_or_none("id") or body.text_or_none("subscription", "uuid")
        hint = {"uuid": uuid, "test": moved.at("test").value}
    else:
        body = Payload.json(request.body).object()
        type = f"{body.text('object_type')}.{body.text('event_type')}"
        occurred_at = body.time("event_time")
        hint = {"uuid": body.text_or_none("uuid")}
    told_once = type in EVENTS and hint["uuid"]
    id = hint["uuid"] if told_once else hashlib.sha256(request.body).hexdigest()
    return [Event(f"{type}:{id}", type, Payload(hint), occurred_at)]


def notification(body: bytes) -> Element:
    """The XML. Raises PayloadError."""
    try:
        root: Element = fromstring(body.strip(), forbid_dtd=True)
    except (ValueError, ParseError, LookupError, RecursionError) as error:
        hint = f"not XML ({type(error).__name__})"
        raise PayloadError("malformed_xml", "$", hint) from None
    return root


def tree(element: Element) -> dict[str, dict[str, str | None]]:
    """What an element holds, two levels deep: a notification, its objects and their texts."""
    return {
        part.tag: {it.tag: (it.text or "").strip() or None for it in reversed(part)}
        for part in reversed(element)
    }


# https://recurly.com/developers/api/v2021-02-25/
def fetch(event: Event, api: Api) -> list[Event]:
    """The payment or the subscription, and what is needed to understand it."""
    if event.type not in EVENTS:
        return [event]
    key = base64.b64encode(f"{event.settings['api_key']}:".encode()).decode()
    headers = {
        "Authorization": f"Basic {key}",
        "Accept": "application/vnd.recurly.v2021-02-25",
    }

    def path(kind: str, id: str) -> str:
        return f"/{kind}s/{quote(id, safe='')}"

    def ask(kind: str, id: str | None) -> Any:  # noqa: ANN401 - foreign data
        found = api.get_or_none(path(kind, id), headers) if id else None
        return found.value if found else None

    kind = "subscription" if event.type == "subscription.created" else "transaction"
    it = api.get(path(kind, f"uuid-{event.data.text('uuid')}"), headers).object()
    found = {**event.data.value, kind: it.value}
    if event.type == "payment.succeeded":
        found["invoice"] = ask("invoice", it.text_or_none("invoice", "id"))
        found["subscription"] = ask("subscription", it.text_or_none("subscription_ids", 0))
    if event.type in {"payment.succeeded", "subscription.created"}:
        found["account"] = ask("account", it.text_or_none("account", "id"))
    else:
        found["original"] = ask("transaction", it.text_or_none("original_transaction_id"))
    return [replace(event, data=Payload(found))]


def charge(event: Event) -> Payment | Ignored:
    """`payment.succeeded`: a payment, even if it is void by now, which another event tells."""
    moved = event.data.object("transaction")
    if moved.text("type") not in _PAYS or moved.text("status") not in {"success", "void"}:
        return Ignored("not_paid")
    found = payment(event, Kind.CHARGE)
    began_at, origin = found.subscribed_at, event.data.at("invoice", "origin").value
    subscription_id = found.subscription_id or moved.text_or_none("subscription_ids", 0)
    if subscription_id is None:
        recurrence = Recurrence.ONE_TIME
    elif origin == "purchase" or (began_at and abs(found.occurred_at - began_at) < _AT_ONCE):
        recurrence = Recurrence.FIRST
    else:
        recurrence = Recurrence.RENEWAL if origin == "renewal" else Recurrence.UNKNOWN
    return replace(found, subscription_id=subscription_id, recurrence=recurrence)


def refund(event: Event) -> Payment | Ignored:
    """`payment.refunded`: this refund's amount, full or partial; or a chargeback's."""
    status = event.data.text("transaction", "status")
    if status not in {"success", "chargeback"}:
        return Ignored("not_refunded")
    kind = Kind.DISPUTE if status == "chargeback" else Kind.REFUND
    original_id = event.data.at("original").text_or_none("uuid")
    return replace(payment(event, kind), original_id=original_id)


def voided(event: Event) -> Payment | Ignored:
    """`payment.voided`: all of a payment is taken back, or a refund returns."""
    moved = event.data.object("transaction")
    type = moved.text("type")
    if moved.text("status") != "void" or type not in _PAYS | {"refund"}:
        return Ignored("nothing_was_taken")
    found = payment(event, Kind.REINSTATED if type == "refund" else Kind.REFUND)
    original_id = event.data.at("original").text_or_none("uuid")
    return replace(
        found,
        transaction_id=f"{found.transaction_id}:void",
        original_id=original_id if type == "refund" else found.transaction_id,
        occurred_at=moved.time_or_none("voided_at") or event.occurred_at or found.occurred_at,
    )


def begun(event: Event) -> Payment | Ignored:
    """`subscription.created`: a trial, if it begins with one."""
    subscription = event.data.object("subscription")
    began_at = subscription.time_or_none("trial_started_at")
    if began_at is None:
        created_at = subscription.time_or_none("activated_at")
        return Ignored("no_trial", occurred_at=created_at, **about(event, subscription))
    return Payment(
        kind=Kind.TRIAL,
        transaction_id=f"{subscription.text('uuid')}:trial",
        amount=Decimal(0),
        currency=money.currency(subscription, "currency"),
        occurred_at=began_at,
        **about(event, subscription),
    )


def payment(event: Event, kind: Kind) -> Payment:
    """What the movements have in common."""
    moved = event.data.object("transaction")
    return Payment(
        kind=kind,
        transaction_id=moved.text("uuid"),
        amount=money.major_units(moved, "amount"),
        currency=money.currency(moved, "currency"),
        occurred_at=moved.time("collected_at" if moved.at("collected_at") else "created_at"),
        **about(event, moved),
    )


def about(event: Event, holder: Payload) -> Mapping[str, Any]:
    """Whom an event is about. `holder` is the transaction or the subscription itself."""
    account, subscription = holder.at("account"), event.data.at("subscription")
    names = [account.text_or_none(part) for part in ("first_name", "last_name")]
    began_at = (subscription.time_or_none(it) for it in ("trial_ends_at", "activated_at"))
    fields = [custom(it) for it in (subscription, event.data.at("account"))]
    return {
        "subscription_id": subscription.text_or_none("uuid"),
        "subscribed_at": next(filter(None, began_at), None),
        "customer_id": account.text_or_none("code"),
        "email": account.text_or_none("email"),
        "name": " ".join(filter(None, names)) or None,
        "visitor_id": visitor.find(*fields),
        "test": event.settings["test"] or event.data.flag("test"),
    }


def custom(holder: Payload) -> Payload:
    """The custom fields, by name."""
    listed = holder.at("custom_fields")
    fields = listed.items() if listed else ()
    return Payload({it.text_or_none("name"): it.at("value").value for it in fields}, listed.path)


# https://docs.recurly.com/recurly-subscriptions/docs/payment-notifications
EVENTS: dict[str, Mapper] = {
    "payment.succeeded": charge,
    "payment.refunded": refund,
    "payment.voided": voided,
    "subscription.created": begun,
}

IGNORED = {
    "payment.failed": "no_money_moved",
    "payment.processing": "not_paid",
    "payment.scheduled": "not_paid",
    "charge_invoice.created": "told_by_payment.succeeded",
    "charge_invoice.paid": "told_by_payment.succeeded",
    "credit_invoice.created": "told_by_payment.refunded",
    "subscription.updated": "no_money_moved",
    "subscription.renewed": "told_by_payment.succeeded",
    "subscription.canceled": "no_money_moved",
    "subscription.expired": "no_money_moved",
    "subscription.paused": "no_money_moved",
    "subscription.resumed": "no_money_moved",
    "account.created": "no_money_moved",
    "account.updated": "no_money_moved",
    "failed_payment_notification": "no_money_moved",
    "processing_payment_notification": "not_paid",
    "scheduled_payment_notification": "not_paid",
    "transaction_authorized_notification": "not_paid",
    "transaction_status_updated_notification": "no_money_moved",
    "new_charge_invoice_notification": "told_by_payment.succeeded",
    "paid_charge_invoice_notification": "told_by_payment.succeeded",
    "new_credit_invoice_notification": "told_by_payment.refunded",
    "new_credit_payment_notification": "no_money_moved",
    "updated_subscription_notification": "no_money_moved",
    "renewed_subscription_notification": "told_by_payment.succeeded",
    "canceled_subscription_notification": "no_money_moved",
    "expired_subscription_notification": "no_money_moved",
    "new_account_notification": "no_money_moved",
    "updated_account_notification": "no_money_moved",
    "billing_info_updated_notification": "no_money_moved",
    "new_dunning_event_notification": "no_money_moved",
}
