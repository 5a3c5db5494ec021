"""Google Play.

Quirks:
- A notification comes through Cloud Pub/Sub, in base64, and holds a purchase token and no money. The
  purchase and its order are read from Google's API, with the key of a service account.
- The secret in the URL counts always. If the push subscription authenticates itself, set
  `push_account`: Google's token (a JWT) must then be there as well. It proves the sender, not the
  body, and there is no published vector of it (the key of Google's example is gone).
- A purchase tells only its latest order. Renewals are numbered (`GPA.…..0`), so the order of the
  purchase itself is always found; a renewal that is read after the next one is told as that one.
- The first paid charge after a trial is a RENEWED; the ledger knows the trial. What counts as one
  is an order that says so and costs nothing, not any order of 0.
- A subscription that follows another (upgrade, return before the end) is PURCHASED under a new
  token, with `linkedPurchaseToken`: a renewal. If it begins later, its only order is the old one's.
  Add-ons that are bought later are not told.
- A voided purchase names no amount. A full refund is what was paid, less what was told before; of
  a partial one the order lists the parts. Uncertain: whether every partial refund is announced.
  A chargeback is told by the order's `refundReason`; that it was reversed is told by nobody.
- Neither metadata nor, as a rule, an e-mail: only two texts of 64 characters that the app sets.
- Purchases by licence testers are tests. Uncertain: whether their orders can be read.
- Google's API takes a token that the service account signs itself, without a round of OAuth. That is
  documented for its APIs at large, and used by others for this one; it was not tried here.
"""

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from urllib.parse import quote

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import (
    RSAPrivateKey,
    RSAPublicKey,
    RSAPublicNumbers,
)
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from relay import money, verify, visitor
from relay.errors import FetchError, PayloadError, RelayError, VerificationError
from relay.model import Event, Ignored, Kind, Payment, Received, Recurrence, Trust
from relay.payload import Payload
from relay.provider import Api, Mapper, Setting, Setup

TITLE = "Google Play"
DOCS = "https://developer.android.com/google/play/billing/rtdn-reference"

API_BASE = "https://androidpublisher.googleapis.com"
KEYS = "https://www.googleapis.com/oauth2/v3/certs"
ISSUERS = frozenset({"https://accounts.google.com", "accounts.google.com"})

SETUP = Setup(
    where="Google Cloud, Pub/Sub: create a topic, let "
    "google-play-developer-notifications@system.gserviceaccount.com publish to it, and add a "
    "subscription of type push with this source's URL and its secret (payload unwrapping off). Play "
    "Console, Monetisation setup, Real-time developer notifications: the topic's name; choose the "
    "content that includes one-time products and voided purchases.",
    events=(
        "subscriptionNotification.PURCHASED",
        "subscriptionNotification.RENEWED",
        "subscriptionNotification.RECOVERED",
        "oneTimeProductNotification.PURCHASED",
        "voidedPurchaseNotification",
    ),
    secret="One that you make up (`openssl rand -hex 24`); it is the last part of the URL.",
    visitor="In the obfuscated profile id (or, without accounts, the account id) of the purchase, as "
    "`datafast_visitor_id=…`, once the app knows it (from a link or a login).",
    checkout="""\
// Kotlin, where the purchase is started; Google wants the account id beside the profile id
val params = BillingFlowParams.newBuilder()
    .setProductDetailsParamsList(products)
    .setObfuscatedAccountId(accountId)
    .setObfuscatedProfileId("datafast_visitor_id=$visitorId")
    .build()
billingClient.launchBillingFlow(activity, params)""",
    notes="`service_account_key` is the JSON key of a service account of a project with the Google "
    "Play Android Developer API, invited in Play Console (Users and permissions) to view financial "
    "data and to manage orders. Enable authentication of the push subscription and set "
    "`push_account` to its service account; `audience` only if you typed one there.",
)

SETTINGS = (
    Setting(
        "service_account_key",
        "JSON key of the service account that purchases and orders are read with",
        required=True,
        secret=True,
    ),
    Setting(
        "push_account",
        "e-mail of the service account that the push subscription authenticates with; without it "
        "only the secret in the URL is checked",
    ),
    Setting("audience", "audience of the push subscription, if it is not the source's whole URL"),
    Setting(
        "account_id_is_visitor",
        "true if your obfuscated ids are DataFast's visitor ids (and not your own users' UUIDs)",
        default=False,
    ),
    Setting("api_base", "where Google Play's API is", default=API_BASE),
)


# https://cloud.google.com/pubsub/docs/authenticate-push-subscriptions
@dataclass(frozen=True)
class PubSubPush(verify.UrlSecret):
    """The secret in the URL, and Google's token for one account and audience if the source asks."""

    summary = "none: secret in the URL, and Google's JWT if `push_account` is set"

    def verify(self, request: Received, trust: Trust) -> None:
        """See Signature. Raises missing_…, malformed_…, bad_…, wrong_…, stale_…, keys_unavailable."""
        super().verify(request, trust)
        account = trust.settings.get("push_account")
        if not account:
            return
        claims = claims_of(verify.header(request, "authorization"), trust)
        wanted = {
            "issuer": claims.at("iss").value in ISSUERS,
            "audience": claims.at("aud").value == (trust.settings.get("audience") or request.url),
            "account": claims.at("email").value == account
            and claims.at("email_verified").value is True,
        }
        wrong = next((name for name, is_right in wanted.items() if not is_right), None)
        if wrong:
            msg = f"Google's token is for another {wrong} than this source is set to"
            raise VerificationError(f"wrong_{wrong}", msg)
        now = request.received_at.timestamp()
        begins, ends = (claims.at(name).value for name in ("iat", "exp"))
        if not (isinstance(begins, int) and isinstance(ends, int)):
            raise VerificationError("malformed_timestamp", "Google's token lacks its times")
        if not begins - trust.tolerance <= now <= ends + trust.tolerance:
            raise VerificationError("stale_timestamp", "Google's token is not valid at this time")

    def sign(self, request: Received, trust: Trust) -> Received:
        """See Signature. Raises cannot_sign where Google's own token is asked for."""
        if trust.settings.get("push_account"):
            msg = (
                "only Google can sign for Google: leave `push_account` out of a rehearsal's source"
            )
            raise RelayError("cannot_sign", msg)
        return super().sign(request, trust)


SIGNATURE = PubSubPush()


def claims_of(authorization: str, trust: Trust) -> Payload:
    """What a bearer token says, once its RS256 signature is found to be by one of Google's keys."""
    scheme, _, token = authorization.partition(" ")
    parts = token.split(".")
    if scheme != "Bearer" or len(parts) != 3:
        raise VerificationError("malformed_header", "authorization holds no token of Google's")
    head, claims, signature = (decoded(part) for part in parts)
    try:
        facts, said = Payload.json(head).object(), Payload.json(claims).object()
    except PayloadError:
        raise VerificationError("malformed_header", "Google's token is not JSON") from None
    if facts.at("alg").value != "RS256":
        raise VerificationError("malformed_header", "Google's token is not signed by RS256")
    try:
        key = public_key(facts.at("kid").value, trust)
        key.verify(signature, f"{parts[0]}.{parts[1]}".encode(), PKCS1v15(), SHA256())
    except InvalidSignature:
        raise VerificationError("bad_signature", "Google's token is not by its key") from None
    return said


def public_key(id: object, trust: Trust) -> RSAPublicKey:
    """Google's public key of this name. The address is ours, never the token's."""
    try:
        keys = Payload.json(trust.download(KEYS)).items("keys")
        found = next((it for it in keys if it.text("kid") == id), None)
        if found:
            n, e = (int.from_bytes(decoded(found.text(name))) for name in ("n", "e"))
            return RSAPublicNumbers(e, n).public_key()
    except (RelayError, ValueError):
        msg = "Google's public keys could not be had, so that its token proves nothing"
        raise VerificationError("keys_unavailable", msg) from None
    raise VerificationError("bad_signature", "Google's token is by none of its present keys")


def decoded(part: str) -> bytes:
    """The bytes of a part of a token, from the one spelling that base64url has for them."""
    try:
        found = base64.b64decode(part + "=" * (-len(part) % 4), b"-_", validate=True)
    except ValueError:
        found = b""
    if not found or encoded(found) != part:
        raise VerificationError("malformed_header", "Google's token is not base64url")
    return found


def encoded(part: bytes) -> str:
    """Base64url without padding, as tokens have it."""
    return base64.urlsafe_b64encode(part).rstrip(b"=").decode()


# The events

# https://developer.android.com/google/play/billing/rtdn-reference
_NAMES: Mapping[str, Mapping[str, str]] = {
    "subscriptionNotification": {
        "1": "RECOVERED",
        "2": "RENEWED",
        "3": "CANCELED",
        "4": "PURCHASED",
        "5": "ON_HOLD",
        "6": "IN_GRACE_PERIOD",
        "7": "RESTARTED",
        "8": "PRICE_CHANGE_CONFIRMED",
        "9": "DEFERRED",
        "10": "PAUSED",
        "11": "PAUSE_SCHEDULE_CHANGED",
        "12": "REVOKED",
        "13": "EXPIRED",
        "17": "ITEMS_CHANGED",
        "18": "CANCELLATION_SCHEDULED",
        "19": "PRICE_CHANGE_UPDATED",
        "20": "PENDING_PURCHASE_CANCELED",
        "22": "PRICE_STEP_UP_CONSENT_UPDATED",
    },
    "oneTimeProductNotification": {"1": "PURCHASED", "2": "CANCELED"},
    "voidedPurchaseNotification": {},
    "pendingRefundReviewNotification": {},
    "testNotification": {},
}

_PARTIAL, _ONE_TIME = "2", "2"


def parse(request: Received) -> list[Event]:
    """One event a message: `subscriptionNotification.RENEWED`. A retry repeats the message's id."""
    message = Payload.json(request.body).object("message")
    place = message.at("data")
    try:
        told = Payload.json(base64.b64decode(place.text(), validate=True), place.path).object()
    except ValueError:
        raise PayloadError("malformed_base64", place.path, "this is not base64") from None
    type = next((name for name in _NAMES if told.at(name).value is not None), "unknown")
    number = told.at(type).text_or_none("notificationType")
    if number:
        type += f".{_NAMES[type].get(number, number)}"
    time = told.unix_time("eventTimeMillis", unit=1000) if told.at("eventTimeMillis") else None
    return [Event(message.text("messageId"), type, told, time)]


# https://developers.google.com/android-publisher/api-ref/rest/v3/orders
def fetch(event: Event, api: Api) -> list[Event]:
    """The purchase, and the order that the event is about; of voided ones what can be had."""
    if event.type not in EVENTS:
        return [event]
    told = event.data.object(event.type.partition(".")[0])
    is_void = event.type == "voidedPurchaseNotification"
    # A token is good for minutes only, so this is the one place that must know the time.
    key = str(event.settings["service_account_key"] or "")
    headers = {"Authorization": f"Bearer {bearer(key, datetime.now(UTC))}"}
    ask = api.get_or_none if is_void else api.get
    base = f"/androidpublisher/v3/applications/{quote(event.data.text('packageName'), safe='')}"
    kind = "productsv2" if is_single(event) else "subscriptionsv2"
    token = quote(told.text("purchaseToken"), safe="")
    purchase = ask(f"{base}/purchases/{kind}/tokens/{token}", headers)
    ids = {told.text("orderId")} if is_void or not purchase else order_ids(event, purchase)
    orders = [ask(f"{base}/orders/{quote(id, safe='')}", headers) for id in sorted(ids)]
    known = [order for order in orders if order]
    order = max(known, key=lambda it: it.time("createTime")) if known else None
    found = {"purchase": purchase, "order": order}
    values = {name: each.value if each else None for name, each in found.items()}
    return [replace(event, data=Payload({**event.data.value, **values}))]


def order_ids(event: Event, purchase: Payload) -> set[str]:
    """The orders a purchase tells: mostly one. That of a PURCHASED has no number of a renewal."""
    items = purchase.items("lineItems") if purchase.at("lineItems") else ()
    found = {item.text_or_none("latestSuccessfulOrderId") for item in items}
    ids = {id for id in (*found, purchase.text_or_none("orderId")) if id}
    return {id.partition("..")[0] for id in ids} if event.type.endswith("PURCHASED") else ids


# https://developers.google.com/identity/protocols/oauth2/service-account#jwt-auth
def bearer(key: str, now: datetime) -> str:
    """A token that the service account signs itself; an access token stays as it is."""
    if not key.lstrip().startswith("{"):
        return key
    try:
        account = Payload.json(key.encode()).object()
        signer = load_pem_private_key(account.text("private_key").encode(), None)
        email, id = account.text("client_email"), account.text("private_key_id")
    except (RelayError, ValueError, TypeError):
        signer = None
    if not isinstance(signer, RSAPrivateKey):
        msg = "service_account_key is no JSON key of a service account, as Google Cloud makes them"
        raise FetchError("bad_service_account_key", msg, permanent=True)
    at = int(now.timestamp())
    times = {"iat": at, "exp": at + 1_800}
    claims = {"iss": email, "sub": email, "aud": f"{API_BASE}/", **times}
    head = {"alg": "RS256", "typ": "JWT", "kid": id}
    text = ".".join(encoded(json.dumps(part).encode()) for part in (head, claims))
    return f"{text}.{encoded(signer.sign(text.encode(), PKCS1v15(), SHA256()))}"


def purchased(event: Event) -> Payment | Ignored:
    """`subscriptionNotification.PURCHASED`: the first charge or the trial, unless it follows another."""
    follows = event.data.at("purchase").text_or_none("linkedPurchaseToken")
    if follows and follows == event.data.at("order").text_or_none("purchaseToken"):
        return Ignored("no_money_moved")  # the change comes into force, and is paid, later
    return charge(event, Recurrence.RENEWAL if follows else Recurrence.FIRST)


def renewed(event: Event) -> Payment | Ignored:
    """`subscriptionNotification.RENEWED` and `.RECOVERED`: a later charge."""
    return charge(event, Recurrence.RENEWAL)


def bought(event: Event) -> Payment | Ignored:
    """`oneTimeProductNotification.PURCHASED`: a single charge."""
    return charge(event, Recurrence.ONE_TIME)


def charge(event: Event, recurrence: Recurrence) -> Payment | Ignored:
    """What the order says that the customer paid, with its taxes."""
    order, purchase = event.data.at("order"), event.data.at("purchase")
    if not order:
        return Ignored("no_order")
    if order.text("state") in {"PENDING", "CANCELED"}:
        return Ignored("not_paid")
    amount = amount_of(order.object("total"))
    is_trial = is_free_trial(order) and not amount
    processed_at = order.time_or_none("orderHistory", "processedEvent", "eventTime")
    return Payment(
        kind=Kind.TRIAL if is_trial else Kind.CHARGE,
        transaction_id=order.text("orderId"),
        amount=amount,
        currency=money.currency(order, "total", "currencyCode"),
        occurred_at=processed_at or order.time("createTime"),
        recurrence=None if is_trial else recurrence,
        subscribed_at=None if is_trial else purchase.time_or_none("startTime"),
        **about(event),
    )


def is_single(event: Event) -> bool:
    """Whether it is about a one-time product, whose token is no subscription."""
    voided_type = event.data.at("voidedPurchaseNotification").text_or_none("productType")
    return event.type.startswith("oneTime") or voided_type == _ONE_TIME


def is_free_trial(order: Payload) -> bool:
    """Whether the order says so, in its present words or in those before."""
    items = order.items("lineItems") if order.at("lineItems") else ()
    return any(
        each.at("offerPhaseDetails", "freeTrialDetails").value is not None
        or each.at("offerPhase").value == "FREE_TRIAL"
        for each in (item.at("subscriptionDetails") for item in items)
    )


def voided(event: Event) -> Payment | Ignored:
    """`voidedPurchaseNotification`: a refund or a chargeback, of all or of a part."""
    told, order = event.data.object("voidedPurchaseNotification"), event.data.at("order")
    id, event_at = told.text("orderId"), event.data.unix_time("eventTimeMillis", unit=1000)
    back = order.at("orderHistory", "refundEvent")
    kind, suffix, parts = Kind.REFUND, "refund", [order.at("total")] if order else []
    if back.at("refundReason").value == "CHARGEBACK":
        kind, suffix = Kind.DISPUTE, "chargeback"
    is_partial = told.text_or_none("refundType") == _PARTIAL
    if is_partial or order.at("state").value == "PARTIALLY_REFUNDED":
        events = list(order.object("orderHistory").items("partialRefundEvents"))
        parts = [each.object("refundDetails", "total") for each in events]
        suffix = f"refund:{len(parts)}"
    return Payment(
        kind=kind,
        transaction_id=f"{id}:{suffix}",
        # Without the order: all that is left.
        amount=sum(map(amount_of, parts), Decimal(0)) if parts else None,
        currency=money.currency(parts[0], "currencyCode") if parts else None,
        occurred_at=back.time_or_none("eventTime") or event_at,
        original_id=id,
        cumulative=bool(parts),
        **about(event),
    )


def amount_of(place: Payload) -> Decimal:
    """Google's `Money`, exactly: whole units (a text) and billionths; what is 0 may be left out."""
    units, nanos = (
        abs(place.integer(key)) if place.at(key).value is not None else 0
        for key in ("units", "nanos")
    )
    text = f"{units}.{nanos:09d}".rstrip("0").rstrip(".")
    return money.major_units(Payload(text, place.path))


def about(event: Event) -> dict[str, Any]:
    """Whom an event is about, as far as the app said it when the purchase was started."""
    purchase = event.data.at("purchase")
    told = event.data.at(event.type.partition(".")[0])
    ids = purchase.at("externalAccountIdentifiers") or purchase
    # Bought again in the Play Store itself: the ids of the subscription before.
    ids = purchase.at("outOfAppPurchaseContext", "expiredExternalAccountIdentifiers") or ids
    account = ids.text_or_none("obfuscatedExternalAccountId")
    texts = (ids.text_or_none("obfuscatedExternalProfileId"), account)
    may_be_bare = event.settings["account_id_is_visitor"]
    visitor_id = visitor.find(*(Payload(it) for it in texts if may_be_bare or "=" in (it or "")))
    own_id = None if account and visitor_id and visitor_id in account else account
    marks = (purchase.at(name).value for name in ("testPurchase", "testPurchaseContext"))
    return {
        # As much of a token as the ledger's table holds; they are mostly shorter.
        "subscription_id": None if is_single(event) else told.text("purchaseToken")[:255],
        "customer_id": own_id,
        "email": purchase.text_or_none("subscribeWithGoogleInfo", "emailAddress"),
        "name": purchase.text_or_none("subscribeWithGoogleInfo", "profileName"),
        "visitor_id": visitor_id,
        "reference": own_id,
        "test": any(mark is not None for mark in marks),
    }


EVENTS: dict[str, Mapper] = {
    "subscriptionNotification.PURCHASED": purchased,
    "subscriptionNotification.RENEWED": renewed,
    "subscriptionNotification.RECOVERED": renewed,
    "oneTimeProductNotification.PURCHASED": bought,
    "voidedPurchaseNotification": voided,
}

IGNORED = {
    "subscriptionNotification.CANCELED": "no_money_moved",
    "subscriptionNotification.ON_HOLD": "no_money_moved",
    "subscriptionNotification.IN_GRACE_PERIOD": "no_money_moved",
    "subscriptionNotification.RESTARTED": "no_money_moved",
    "subscriptionNotification.PRICE_CHANGE_CONFIRMED": "no_money_moved",
    "subscriptionNotification.DEFERRED": "no_money_moved",
    "subscriptionNotification.PAUSED": "no_money_moved",
    "subscriptionNotification.PAUSE_SCHEDULE_CHANGED": "no_money_moved",
    "subscriptionNotification.REVOKED": "told_by_voidedPurchaseNotification",
    "subscriptionNotification.EXPIRED": "no_money_moved",
    "subscriptionNotification.ITEMS_CHANGED": "no_money_moved",
    "subscriptionNotification.CANCELLATION_SCHEDULED": "no_money_moved",
    "subscriptionNotification.PRICE_CHANGE_UPDATED": "no_money_moved",
    "subscriptionNotification.PENDING_PURCHASE_CANCELED": "no_money_moved",
    "subscriptionNotification.PRICE_STEP_UP_CONSENT_UPDATED": "no_money_moved",
    "oneTimeProductNotification.CANCELED": "no_money_moved",
    "pendingRefundReviewNotification": "nothing_taken_yet",
    "testNotification": "test_event",
}
