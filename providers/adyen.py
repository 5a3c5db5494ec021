"""Adyen (standard webhooks).

Quirks:
- The signature of an item covers eight fields: references, account, amount, event code, success.
  Not the time, not `live`, and nothing of `additionalData`: the visitor id, the e-mail and what says
  first or renewal are unsigned. Only HTTP Basic protects them: set `basic_user`, `basic_password`.
- The eight fields are joined by colons and nothing is escaped. A colon is therefore refused in
  every field but `merchantReference`: else a genuine text could be cut into other references.
- AUTHORISATION and CAPTURE tell of one payment, under the AUTHORISATION's reference: the setting
  `charge_on` says which is believed. Automatic captures send no CAPTURE, and a CAPTURE seldom has
  the metadata. Of several partial captures of one payment only the first is counted.
- Adyen has no subscriptions, only charges that a server starts. `ContAuth` alone is no renewal: it
  is also the one-click payment of a returning customer (then the model is `CardOnFile`). What
  neither field tells is unknown. `shopperReference` stands in for a subscription's id.
- A value of 0 stores a card. It is a trial only if you say so: metadata `datafast_trial: "true"`.
- All events of one dispute share its `pspReference`. CHARGEBACK takes money, CHARGEBACK_REVERSED
  returns it, SECOND_CHARGEBACK takes it again: three movements. The latter two name the payment
  only if a setting is on (see below); without it, they are dead.
- A refund can fail after its REFUND was told: REFUND_FAILED and REFUNDED_REVERSED return its money,
  once.
- Amounts are in minor units, with four exceptions from ISO 4217.
- `success` and `live` are the texts "true" and "false".

Uncertain: whether a chargeback's amount is always in the payment's currency; whether
REFUND_WITH_DATA always names the payment (a refund without one is told without its original);
whether money moves with PREARBITRATION_WON and PREARBITRATION_LOST, which are not told.
"""

import base64
import hashlib
import hmac
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from relay import money, visitor
from relay.errors import PayloadError, VerificationError
from relay.model import Event, Ignored, Kind, Payment, Received, Recurrence, Reply, Trust
from relay.payload import Key, Payload
from relay.provider import Mapper, Setting, Setup
from relay.verify import Signature, encode, header, matches, well_formed, with_header

TITLE = "Adyen"
DOCS = "https://docs.adyen.com/development-resources/webhooks/"

SETUP = Setup(
    where="Customer Area, Developers, Webhooks, + Webhook, Standard webhook; method JSON. Test and "
    "live have webhooks and keys of their own. Set a user name and password (basic "
    "authentication) and give them to this source as basic_user and basic_password: the "
    "signature leaves much open. Under Additional settings switch on: metadata, shopper details, "
    "card holder name, shopper interaction, recurring processing model and, under Risk, the "
    "originalReference for CHARGEBACK_REVERSED events.",
    events=(
        "AUTHORISATION",
        "CAPTURE",
        "REFUND",
        "CANCEL_OR_REFUND",
        "REFUND_WITH_DATA",
        "CHARGEBACK",
        "CHARGEBACK_REVERSED",
        "SECOND_CHARGEBACK",
        "REFUND_FAILED",
        "REFUNDED_REVERSED",
    ),
    secret="The HMAC key: in the webhook, Security, Generate new HMAC key; 64 hexadecimal digits. It "
    "works about a minute after the webhook is saved.",
    visitor="In `metadata` of the session, payment or payment link.",
    checkout="""\
// on your server: POST /sessions, /payments or /paymentLinks
metadata: { datafast_visitor_id: cookies.get("datafast_visitor_id") },
shopperReference: customer.id,
shopperEmail: customer.email,
// if a subscription begins with it
recurringProcessingModel: "Subscription",
// and on each of its renewals, which your server starts by POST /payments
shopperInteraction: "ContAuth",""",
    notes='For a free trial that begins with a payment of 0, add `datafast_trial: "true"` to the '
    "metadata. A delivery that fails holds up all that follow it: do not leave one failing.",
)

SETTINGS = (
    Setting(
        "charge_on",
        "which event tells of a payment: `capture` only if your account captures by hand",
        default="authorisation",
        choices=("authorisation", "capture"),
    ),
    Setting("basic_user", "the user name of the webhook's basic authentication"),
    Setting("basic_password", "the password of the webhook's basic authentication", secret=True),
)

# The header of the newer families: recurring.token.*, platforms and management.
HEADER = "HmacSignature"

# https://docs.adyen.com/development-resources/webhooks/secure-webhooks/verify-hmac-signatures
SIGNED: tuple[tuple[Key, ...], ...] = (
    ("pspReference",),
    ("originalReference",),
    ("merchantAccountCode",),
    ("merchantReference",),
    ("amount", "value"),
    ("amount", "currency"),
    ("eventCode",),
    ("success",),
)

_HEX = re.compile(r"([0-9A-Fa-f]{2})+")


@dataclass(frozen=True)
class ItemHmac(Signature):
    """HMAC-SHA256 of each item's SIGNED fields; of the raw body where there are no items."""

    summary = "HMAC-SHA256 of 8 fields of each item"
    covers_body = False
    place = "body"

    def verify(self, request: Received, trust: Trust) -> None:
        """See Signature. Raises bad_credentials, missing_…, malformed_…, bad_signature."""
        _check_basic(request, trust.settings)
        for claimed, message in _claims(request):
            well_formed(claimed, "the signature", "sha256", "base64")
            matches([claimed], (_digest(secret, message) for secret in trust.secrets))

    def sign(self, request: Received, trust: Trust) -> Received:
        """See Signature. Standard webhooks get another body: the signatures are in it."""
        authorization = _basic(trust.settings)
        if authorization:
            request = with_header(request, "Authorization", authorization)
        if not _is_standard(Payload.json(request.body)):
            return with_header(request, HEADER, _digest(trust.secrets[0], request.body))
        body = json.loads(request.body)
        for item in items(Payload(body)):
            extra = {**_additional(item).value}
            extra["hmacSignature"] = _digest(trust.secrets[0], signed_text(item))
            item.value["additionalData"] = extra
        return replace(request, body=json.dumps(body, ensure_ascii=False).encode())

    def flaw(self, secret: str) -> str | None:
        """See Signature."""
        if _HEX.fullmatch(secret):
            return None
        return "the HMAC key is hexadecimal digits only; copy it from the webhook's settings"


SIGNATURE = ItemHmac()


def signed_text(item: Payload) -> bytes:
    """What the signature of one item is made of. Raises PayloadError."""
    texts = []
    for keys in SIGNED:
        found = item.at(*keys)
        value = "" if found.value is None else found.value
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise PayloadError("wrong_type", found.path, "text or a whole number is wanted")
        text = str(value)
        if ":" in text and keys != ("merchantReference",):
            raise PayloadError("ambiguous_text", found.path, "a signed field holds a colon")
        texts.append(text)
    return ":".join(texts).encode("utf-8", "replace")


def _claims(request: Received) -> list[tuple[str, bytes]]:
    """Every signature in the request, and the bytes it is of."""
    try:
        body = Payload.json(request.body)
        if not _is_standard(body):
            return [(header(request, HEADER), request.body)]
        return [(_claimed(item), signed_text(item)) for item in items(body)]
    except PayloadError as error:
        raise VerificationError("malformed_body", error.message) from None


def _claimed(item: Payload) -> str:
    claimed = item.at("additionalData", "hmacSignature").value
    if not isinstance(claimed, str):
        msg = f"{item.path} is not signed; has the webhook an HMAC key?"
        raise VerificationError("missing_signature", msg)
    return claimed


def _digest(secret: str, message: bytes) -> str:
    if not _HEX.fullmatch(secret):
        msg = "the configured secret is not hexadecimal; `relay check` says which"
        raise VerificationError("unusable_secret", msg)
    return encode(hmac.digest(bytes.fromhex(secret), message, "sha256"), "base64")


def _basic(settings: Mapping[str, Any]) -> str | None:
    """The header Authorization that is wanted, or None."""
    user, password = settings.get("basic_user"), settings.get("basic_password")
    if not user and not password:
        return None
    return "Basic " + base64.b64encode(f"{user or ''}:{password or ''}".encode()).decode()


def _check_basic(request: Received, settings: Mapping[str, Any]) -> None:
    wanted = _basic(settings)
    if wanted is None:
        return
    try:
        matches([header(request, "Authorization")], [wanted])
    except VerificationError:
        msg = "user name or password are not this source's basic_user and basic_password"
        raise VerificationError("bad_credentials", msg) from None


def acknowledge() -> Reply:
    """What webhooks that were set up years ago still wait for."""
    return Reply("[accepted]")


def parse(request: Received) -> list[Event]:
    """The items of a standard webhook; a request of a newer family is one event."""
    body = Payload.json(request.body).object()
    if _is_standard(body):
        return [_event(body, item) for item in items(body)]
    id = body.text_or_none("eventId") or hashlib.sha256(request.body).hexdigest()
    return [Event(id, body.text("type"), body, body.time_or_none("createdAt"))]


def items(body: Payload) -> list[Payload]:
    """The items of a standard webhook, at least one. Raises PayloadError."""
    found = [each.object("NotificationRequestItem") for each in body.items("notificationItems")]
    if not found:
        raise PayloadError("missing_field", body.at("notificationItems").path, "it is empty")
    return found


def _is_standard(body: Payload) -> bool:
    return body.at("notificationItems").value is not None


# https://docs.adyen.com/development-resources/webhooks/handle-webhook-events (duplicates)
def _event(body: Payload, item: Payload) -> Event:
    type = item.text("eventCode")
    success = "true" if item.flag("success") else "false"
    id = f"{type}:{item.text('pspReference')}:{success}"
    whole = Payload({**item.value, "live": body.at("live").value}, item.path)
    return Event(id, type, whole, item.time_or_none("eventDate"))


def authorisation(event: Event) -> Payment | Ignored:
    """`AUTHORISATION`: the payment, unless captures tell of it; of 0, a card stored or a trial."""
    if not event.data.flag("success"):
        return Ignored("no_money_moved")
    if not event.data.integer("amount", "value"):
        is_trial = _additional(event.data).text_or_none("metadata.datafast_trial") == "true"
        return payment(event, Kind.TRIAL if is_trial else Kind.CHARGE)
    held = payment(event, Kind.CHARGE)
    if event.settings["charge_on"] != "capture":
        return held
    # Not its subscription: this would look like the beginning of one.
    return Ignored(
        "told_by_CAPTURE",
        transaction_id=held.transaction_id,
        occurred_at=held.occurred_at,
        customer_id=held.customer_id,
        email=held.email,
        name=held.name,
        visitor_id=held.visitor_id,
        reference=held.reference,
        test=held.test,
    )


def capture(event: Event) -> Payment | Ignored:
    """`CAPTURE`: the same payment, for accounts that capture by hand."""
    if not event.data.flag("success"):
        return Ignored("no_money_moved")
    if event.settings["charge_on"] != "capture":
        return Ignored("told_by_AUTHORISATION")
    charge = payment(event, Kind.CHARGE)
    return replace(charge, transaction_id=event.data.text("originalReference"))


def refund(event: Event) -> Payment | Ignored:
    """`REFUND`, `REFUND_WITH_DATA`: a refund that was done, and not only asked for."""
    if not event.data.flag("success"):
        return Ignored("no_money_moved")
    original = event.data.text_or_none("originalReference")
    return replace(payment(event, Kind.REFUND), original_id=original)


def cancel_or_refund(event: Event) -> Payment | Ignored:
    """`CANCEL_OR_REFUND`: a refund if the money had been captured by then."""
    if _additional(event.data).text_or_none("modification.action") != "refund":
        return Ignored("no_money_moved")
    return refund(event)


# https://docs.adyen.com/risk-management/disputes-api/dispute-notifications
def dispute(event: Event) -> Payment | Ignored:
    """`CHARGEBACK`, `SECOND_CHARGEBACK`: money taken back, unless the dispute is won already."""
    status = _additional(event.data).text_or_none("disputeStatus")
    if not event.data.flag("success") or status == "Won":
        return Ignored("no_money_moved")
    taken = replace(payment(event, Kind.DISPUTE), original_id=event.data.text("originalReference"))
    if event.type == "SECOND_CHARGEBACK":
        return replace(taken, transaction_id=f"{taken.transaction_id}:second")
    return taken


def returned(event: Event) -> Payment | Ignored:
    """`CHARGEBACK_REVERSED`, `REFUND_FAILED`, `REFUNDED_REVERSED`: the money comes back."""
    if not event.data.flag("success"):
        return Ignored("no_money_moved")
    how = "won" if event.type == "CHARGEBACK_REVERSED" else "returned"
    again = payment(event, Kind.REINSTATED)
    id, original = f"{again.transaction_id}:{how}", event.data.text("originalReference")
    return replace(again, transaction_id=id, original_id=original)


# https://docs.adyen.com/development-resources/currency-codes
EXCEPTIONS = {"CLP": 2, "CVE": 0, "IDR": 0, "ISK": 2}

# The models by which a server charges a stored card on its own; the third is CardOnFile.
STANDING = {"Subscription", "UnscheduledCardOnFile"}


def payment(event: Event, kind: Kind) -> Payment:
    """What the movements have in common."""
    item, extra = event.data, _additional(event.data)
    currency = money.currency(item, "amount", "currency")
    customer = extra.text_or_none("shopperReference")
    standing = extra.text_or_none("recurringProcessingModel") in STANDING
    is_paid = kind in {Kind.CHARGE, Kind.TRIAL}
    return Payment(
        kind=kind,
        transaction_id=item.text("pspReference"),
        amount=money.minor_units(item, "amount", "value", code=currency, exceptions=EXCEPTIONS),
        currency=currency,
        occurred_at=item.time("eventDate"),
        recurrence=recurrence(extra) if kind is Kind.CHARGE else None,
        subscription_id=customer if standing else None,
        customer_id=customer,
        email=extra.text_or_none("shopperEmail"),
        name=extra.text_or_none("cardHolderName"),
        visitor_id=visitor.find(_metadata(extra)),
        # A refund's is its own.
        reference=item.text_or_none("merchantReference") if is_paid else None,
        test=item.text("live") == "false",
    )


# https://docs.adyen.com/online-payments/tokenization/
def recurrence(extra: Payload) -> Recurrence:
    """Who started the charge, and for what; unknown unless both settings are on."""
    model = extra.text_or_none("recurringProcessingModel")
    interaction = extra.text_or_none("shopperInteraction")
    if model in STANDING:
        known = {"ContAuth": Recurrence.RENEWAL, None: Recurrence.UNKNOWN}
        return known.get(interaction, Recurrence.FIRST)
    if model == "CardOnFile" or interaction not in {"ContAuth", None}:
        return Recurrence.ONE_TIME
    return Recurrence.UNKNOWN


def _additional(item: Payload) -> Payload:
    """`additionalData`, or an empty object where there is none."""
    found = item.at("additionalData")
    return found.object() if found else Payload({}, found.path)


def _metadata(extra: Payload) -> Payload:
    """The metadata, which comes back flat: `metadata.name`."""
    pairs = extra.value.items()
    return Payload({name.removeprefix("metadata."): text for name, text in pairs}, extra.path)


# https://docs.adyen.com/development-resources/webhooks/webhook-types
EVENTS: dict[str, Mapper] = {
    "AUTHORISATION": authorisation,
    "CAPTURE": capture,
    "REFUND": refund,
    "REFUND_WITH_DATA": refund,
    "CANCEL_OR_REFUND": cancel_or_refund,
    "CHARGEBACK": dispute,
    "SECOND_CHARGEBACK": dispute,
    "CHARGEBACK_REVERSED": returned,
    "REFUND_FAILED": returned,
    "REFUNDED_REVERSED": returned,
}

IGNORED = {
    "AUTHORISATION_ADJUSTMENT": "no_money_moved",
    "CANCELLATION": "no_money_moved",
    "TECHNICAL_CANCEL": "no_money_moved",
    "EXPIRE": "no_money_moved",
    "OFFER_CLOSED": "no_money_moved",
    "PENDING": "no_money_moved",
    "CAPTURE_FAILED": "capture_failed",
    "POSTPONED_REFUND": "no_money_moved",
    "VOID_PENDING_REFUND": "no_money_moved",
    "NOTIFICATION_OF_CHARGEBACK": "nothing_taken_yet",
    "NOTIFICATION_OF_FRAUD": "nothing_taken_yet",
    "REQUEST_FOR_INFORMATION": "nothing_taken_yet",
    "PREARBITRATION_WON": "told_by_CHARGEBACK_REVERSED",
    "PREARBITRATION_LOST": "told_by_CHARGEBACK",
    "ORDER_OPENED": "told_by_AUTHORISATION",
    "ORDER_CLOSED": "told_by_AUTHORISATION",
    "RECURRING_CONTRACT": "no_money_moved",
    "REPORT_AVAILABLE": "no_money_moved",
    "recurring.token.created": "no_money_moved",
    "recurring.token.updated": "no_money_moved",
    "recurring.token.alreadyExisting": "no_money_moved",
    "recurring.token.disabled": "no_money_moved",
}
