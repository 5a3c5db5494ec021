"""Apple App Store.

App Store Server Notifications, version 2.

Quirks:
- There is no secret. Apple signs with a certificate that leads to its root, for all apps alike, so
  the bundle id that was signed must be the source's own. Inside the signed notification the
  transaction is signed once more; that the outer signature covers it is enough. Whether Apple has
  revoked a certificate is not asked, since that needs the network.
- The same notification can be signed again at any time (a retry, the notification history), so no
  age is asked; its id stops repetitions. Its certificate must be valid when it is received.
- `price` is in thousandths of the currency's unit, whatever the currency, for the whole quantity.
  It is what the customer was charged by Apple's record, and may differ from the financial reports.
- A refund has no id, no amount and the charge's `transactionId`: what was taken back so far is
  `revocationPercentage` of the price, rounded to the currency's decimals. Older notifications lack
  it and are of the whole price. When a refund is reversed these fields are gone, so the whole price
  is told, and the ledger takes no more of it than was refunded. Chargebacks are refunds here.
- The first paid charge after a trial is a `DID_RENEW`; the ledger knows the trial. Whoever comes
  back after a lapse (RESUBSCRIBE) buys anew, under the old `originalTransactionId`.
- A free offer that a subscriber redeems while subscribed is no trial: a charge of 0.
- An upgrade is charged at once, as a renewal (of a trial: the ledger knows). Apple pays the rest of
  the old period back, which is not announced as far as is known (uncertain). A downgrade is charged
  at the next renewal.
- Family members have transactions of their own, with a price that only one of them paid.
- A subscription is renewed up to a day ahead, and `purchaseDate` can then lie in the future.
- Uncertain: whether `price` is one month's where a year is paid by the month (`commitmentInfo`).
- No e-mail and no name, only what the app itself set: `appAccountToken`, a UUID.
"""

import base64
import json
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import (
    decode_dss_signature,
    encode_dss_signature,
)
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from relay import certificates, money, visitor
from relay.errors import PayloadError, RelayError, VerificationError
from relay.model import Event, Ignored, Kind, Payment, Received, Recurrence, Trust
from relay.payload import Payload
from relay.provider import Mapper, Setting, Setup
from relay.verify import Rehearsal, Signature

TITLE = "Apple App Store"
DOCS = "https://developer.apple.com/documentation/appstoreservernotifications"

SETUP = Setup(
    where="App Store Connect, your app, App Information, App Store Server Notifications: paste the "
    "URL as production and as sandbox server URL, version 2. The sandbox's events are told as tests.",
    events=(
        "SUBSCRIBED",
        "DID_RENEW",
        "ONE_TIME_CHARGE",
        "OFFER_REDEEMED",
        "DID_CHANGE_RENEWAL_PREF",
        "REFUND",
        "REFUND_REVERSED",
    ),
    secret="The app's bundle id, such as com.example.app (App Store Connect, App Information). It is "
    "no secret, but says whose notifications count; a list of them is for several apps.",
    visitor="In the purchase's `appAccountToken`, once the app knows the id (from the link that "
    "opened it, or from your server after a login); set `app_account_token_is_visitor`.",
    checkout="""\
// in the app (StoreKit 2); `visitor` is the text of the cookie datafast_visitor_id
let token = UUID(uuidString: visitor).map { Product.PurchaseOption.appAccountToken($0) }
let result = try await product.purchase(options: Set([token].compactMap { $0 }))""",
    notes="There is nothing to tick: Apple sends all types. Renewals repeat the token of the purchase.",
)

SETTINGS = (
    Setting(
        "app_account_token_is_visitor",
        "true if your app sets DataFast's visitor id (and not your own user's UUID) as the token",
        default=False,
    ),
    Setting(
        "trusted_root",
        "PEM text of the root that certificates must lead to; without it, Apple Root CA - G3",
    ),
    Setting(
        "signing_key",
        "PEM text of a private key, its certificate and the issuer's, only for rehearsals",
        secret=True,
    ),
)

# What an app's purchases are signed with, and who issues it:
# https://developer.apple.com/documentation/appstoreserverapi/jwstransaction
# https://www.apple.com/certificateauthority/
_MARKS = ("1.2.840.113635.100.6.11.1", "1.2.840.113635.100.6.2.1")
_BUNDLE_ID = re.compile(r"[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+")
_APPS = ("data", "summary", "externalPurchaseToken", "appData")

# SHA-256 63:34:3A:BF:B8:9A:6A:03:EB:B5:7E:9B:3F:5F:A7:BE:7C:4F:5C:75:6F:30:17:B3:A8:C4:88:C3:65:3E:91:79
_APPLE_ROOT_CA_G3 = """\
-----BEGIN CERTIFICATE-----
MIICQzCCAcmgAwIBAgIILcX8iNLFS5UwCgYIKoZIzj0EAwMwZzEbMBkGA1UEAwwS
QXBwbGUgUm9vdCBDQSAtIEczMSYwJAYDVQQLDB1BcHBsZSBDZXJ0aWZpY2F0aW9u
IEF1dGhvcml0eTETMBEGA1UECgwKQXBwbGUgSW5jLjELMAkGA1UEBhMCVVMwHhcN
MTQwNDMwMTgxOTA2WhcNMzkwNDMwMTgxOTA2WjBnMRswGQYDVQQDDBJBcHBsZSBS
b290IENBIC0gRzMxJjAkBgNVBAsMHUFwcGxlIENlcnRpZmljYXRpb24gQXV0aG9y
aXR5MRMwEQYDVQQKDApBcHBsZSBJbmMuMQswCQYDVQQGEwJVUzB2MBAGByqGSM49
AgEGBSuBBAAiA2IABJjpLz1AcqTtkyJygRMc3RCV8cWjTnHcFBbZDuWmBSp3ZHtf
TjjTuxxEtX/1H7YyYl3J6YRbTzBPEVoA/VhYDKX1DyxNB0cTddqXl5dvMVztK517
IDvYuVTZXpmkOlEKMaNCMEAwHQYDVR0OBBYEFLuw3qFYM4iapIqZ3r6966/ayySr
MA8GA1UdEwEB/wQFMAMBAf8wDgYDVR0PAQH/BAQDAgEGMAoGCCqGSM49BAMDA2gA
MGUCMQCD6cHEFl4aXTQY2e3v9GwOAEZLuN+yRhHFD/3meoyhpmvOwgPUnPWTxnS4
at+qIxUCMG1mihDK1A3UT82NQz60imOlM27jbdoXt2QfyFMm+YhidDkLF1vLUagM
6BgD56KyKA==
-----END CERTIFICATE-----
"""


@dataclass(frozen=True)
class Jws:
    """A JWS taken apart, and not checked: what it says, and what says so."""

    header: Payload
    claims: Payload
    signed: bytes
    signature: bytes


class SignedPayload(Signature):
    """The body is a JWS by ES256; the certificates in its header lead to Apple's root.

    https://developer.apple.com/documentation/appstoreservernotifications/signedpayload
    A source's secrets are the bundle ids of its apps.
    """

    summary = "JWS by ES256 in the body; its certificates lead to Apple's root"
    place = "body"

    def verify(self, request: Received, trust: Trust) -> None:
        """See Signature. Raises malformed_body, bad_signature, another_app and for certificates."""
        try:
            jws = opened(Payload.json(request.body).at("signedPayload"))
            algorithm = jws.header.text("alg")
            chain = [base64.b64decode(it.text(), validate=True) for it in jws.header.items("x5c")]
            bundle_id = app(jws.claims).text_or_none("bundleId")
        except (PayloadError, ValueError):
            msg = "the body is no signedPayload; is version 2 chosen in App Store Connect?"
            raise VerificationError("malformed_body", msg) from None
        if algorithm != "ES256" or len(jws.signature) != 64:
            raise VerificationError("malformed_body", "the signature is not one of ES256")
        key = _certified_key(chain, request.received_at, trust)
        r, s = (int.from_bytes(half) for half in (jws.signature[:32], jws.signature[32:]))
        try:
            key.verify(encode_dss_signature(r, s), jws.signed, ec.ECDSA(SHA256()))
        except InvalidSignature:
            msg = "the signature does not fit the notification"
            raise VerificationError("bad_signature", msg) from None
        if bundle_id not in trust.secrets:
            msg = "Apple signed it for another app: its bundle id is none of the source's"
            raise VerificationError("another_app", msg)

    def sign(self, request: Received, trust: Trust) -> Received:
        """See Signature. Raises cannot_sign without `signing_key`: Apple keeps its own key."""
        key, chain = _signer(trust)
        claims = opened(Payload.json(request.body).at("signedPayload")).claims.object().value
        apps = {
            name: claims[name] | {"bundleId": trust.secrets[0]} for name in _APPS if name in claims
        }
        text = f"{_part({'alg': 'ES256', 'x5c': chain})}.{_part({**claims, **apps})}"
        pair = decode_dss_signature(key.sign(text.encode(), ec.ECDSA(SHA256())))
        signature = _encoded(b"".join(number.to_bytes(32) for number in pair))
        return replace(request, body=json.dumps({"signedPayload": f"{text}.{signature}"}).encode())

    def flaw(self, secret: str) -> str | None:
        """See Signature."""
        if _BUNDLE_ID.fullmatch(secret):
            return None
        return "it is the app's bundle id that is wanted here, such as com.example.app"

    def rehearse(self) -> Rehearsal:
        """See Signature. The certificates are made once in a process; only the app is new."""
        root, signer = certificates.marked_rehearsal(_MARKS)
        settings = {"trusted_root": root, "signing_key": signer}
        return Rehearsal((f"com.example.rehearsal-{secrets.token_hex(8)}",), settings)


SIGNATURE = SignedPayload()


def opened(jws: Payload) -> Jws:
    """A JWS taken apart; its parts are read only in the one spelling that base64 has for them."""
    try:
        header, claims, signature = (_decoded(part) for part in jws.value.split("."))
    except (AttributeError, ValueError):
        raise PayloadError("malformed_jws", jws.path, "a signed text (JWS) is wanted") from None
    signed = jws.value.rpartition(".")[0].encode()
    return Jws(Payload.json(header, jws.path), Payload.json(claims, jws.path), signed, signature)


def app(claims: Payload) -> Payload:
    """Where a notification says which app it is about."""
    return next((claims.at(name) for name in _APPS if claims.at(name)), claims.at("data"))


def _decoded(part: str) -> bytes:
    value = base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
    if _encoded(value) != part:
        msg = "not base64url without padding"
        raise ValueError(msg)
    return value


def _encoded(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


def _part(value: Mapping[str, Any]) -> str:
    return _encoded(json.dumps(value, separators=(",", ":")).encode())


def _certified_key(
    chain: list[bytes], received_at: datetime, trust: Trust
) -> ec.EllipticCurvePublicKey:
    """The key of the first certificate, if that is Apple's for this purpose and valid now."""
    root = trust.settings.get("trusted_root") or _APPLE_ROOT_CA_G3
    try:
        # The root that comes along after them proves nothing.
        found = certificates.check_marked(tuple(chain[: len(_MARKS)]), root, _MARKS)
    except ValueError:
        found = None
    if not found or not isinstance(found.key, ec.EllipticCurvePublicKey):
        msg = "no certificates for App Store notifications that lead to Apple's root"
        raise VerificationError("bad_certificate", msg)
    if not found.since <= received_at <= found.until:
        msg = f"the certificate is valid from {found.since:%Y-%m-%d} to {found.until:%Y-%m-%d} only"
        raise VerificationError("certificate_not_valid", msg)
    return found.key


def _signer(trust: Trust) -> tuple[ec.EllipticCurvePrivateKey, list[str]]:
    """The key to rehearse with, and its certificates as they stand in a header."""
    pem = "\n".join(str(trust.settings.get(it)) for it in ("signing_key", "trusted_root")).encode()
    try:
        key, chain = load_pem_private_key(pem, None), x509.load_pem_x509_certificates(pem)
    except (ValueError, TypeError):
        key, chain = None, []
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        msg = "only Apple can sign for Apple: set `signing_key` to an EC key with its certificates "
        msg += "(PEM) and `trusted_root` to their root, or ask Apple for a test notification"
        raise RelayError("cannot_sign", msg)
    return key, [base64.b64encode(it.public_bytes(Encoding.DER)).decode() for it in chain]


# The events


def parse(request: Received) -> list[Event]:
    """One event a request; a retry repeats its `notificationUUID`."""
    told = opened(Payload.json(request.body).at("signedPayload")).claims.object()
    signed_at = told.unix_time("signedDate", unit=1000) if told.at("signedDate") else None
    return [Event(told.text("notificationUUID"), told.text("notificationType"), told, signed_at)]


def bought(event: Event) -> Payment | Ignored:
    """A charge, or the trial that a subscription begins with, as its transaction tells it."""
    sold = transaction(event)
    if is_shared(sold):
        return Ignored("family_share")
    recurrence = place(event, sold)
    is_free = sold.text_or_none("offerDiscountType") == "FREE_TRIAL"
    if is_free and recurrence is Recurrence.FIRST:
        return payment(event, sold, Kind.TRIAL)
    return payment(event, sold, Kind.CHARGE, recurrence)


def plan_changed(event: Event) -> Payment | Ignored:
    """`DID_CHANGE_RENEWAL_PREF`: only an upgrade is charged at once."""
    is_upgrade = event.data.text_or_none("subtype") == "UPGRADE"
    return bought(event) if is_upgrade else Ignored("no_money_moved")


def offer_redeemed(event: Event) -> Payment | Ignored:
    """`OFFER_REDEEMED`: a charge, unless it is for a plan that begins with the next renewal."""
    is_downgrade = event.data.text_or_none("subtype") == "DOWNGRADE"
    return Ignored("no_money_moved") if is_downgrade else bought(event)


def refund(event: Event) -> Payment | Ignored:
    """`REFUND`: the part of the price that was paid back so far."""
    sold = transaction(event)
    if is_shared(sold):
        return Ignored("family_share")
    given = sold.at("revocationPercentage")
    is_partial = sold.text_or_none("revocationType") == "REFUND_PRORATED"
    percent = given.decimal().scaleb(-3) if is_partial or given.value is not None else Decimal(100)
    price, currency = priced(sold)
    smallest = Decimal(1).scaleb(-(money.exponent(currency) or 0))
    return replace(
        payment(event, sold, Kind.REFUND),
        amount=(price * percent / 100).quantize(smallest, ROUND_HALF_UP),
        occurred_at=sold.unix_time("revocationDate", unit=1000),
        cumulative=True,
    )


def refund_reversed(event: Event) -> Payment | Ignored:
    """`REFUND_REVERSED`: the refund is taken back, and the money returns."""
    sold = transaction(event)
    if is_shared(sold):
        return Ignored("family_share")
    moment = event.data.unix_time("signedDate", unit=1000)
    return replace(payment(event, sold, Kind.REINSTATED), occurred_at=moment)


def payment(
    event: Event, sold: Payload, kind: Kind, recurrence: Recurrence | None = None
) -> Payment:
    """What the movements have in common. Money that goes back names the charge as its original."""
    id, is_new = sold.text("transactionId"), kind in {Kind.CHARGE, Kind.TRIAL}
    price, currency = priced(sold)
    charged_at = sold.unix_time("purchaseDate", unit=1000)
    token = sold.text_or_none("appAccountToken")
    is_visitor = event.settings["app_account_token_is_visitor"]
    visitor_id = visitor.find(sold.at("appAccountToken")) if is_visitor else None
    about: dict[str, Any] = {}
    if is_subscription(sold):
        about["subscription_id"] = sold.text_or_none("originalTransactionId")
        if sold.at("originalPurchaseDate"):
            about["subscribed_at"] = sold.unix_time("originalPurchaseDate", unit=1000)
    return Payment(
        kind=kind,
        transaction_id=id if is_new else event.id,
        amount=price,
        currency=currency,
        occurred_at=min(charged_at, event.occurred_at or charged_at),
        recurrence=recurrence,
        original_id=None if is_new else id,
        customer_id=sold.text_or_none("appTransactionId") or token,
        visitor_id=visitor_id,
        reference=None if visitor_id else token,
        test=event.data.text_or_none("data", "environment") != "Production",
        **about,
    )


def transaction(event: Event) -> Payload:
    """The transaction that a notification is about."""
    return opened(event.data.at("data", "signedTransactionInfo")).claims.object()


def priced(sold: Payload) -> tuple[Decimal, str]:
    """The price and its currency: every currency has three decimals here."""
    currency = money.currency(sold, "currency")
    return money.minor_units(sold, "price", code=currency, exceptions={currency: 3}), currency


def place(event: Event, sold: Payload) -> Recurrence:
    """Where a charge stands: whoever upgrades or redeems an offer is a subscriber already."""
    if not is_subscription(sold):
        return Recurrence.ONE_TIME
    begins = event.data.text_or_none("subtype") in {"INITIAL_BUY", "RESUBSCRIBE"}
    is_new = event.type == "SUBSCRIBED" or begins
    is_renewal = sold.text_or_none("transactionReason") == "RENEWAL"
    return Recurrence.FIRST if is_new and not is_renewal else Recurrence.RENEWAL


def is_subscription(sold: Payload) -> bool:
    """Whether it renews by itself; other purchases have an `originalTransactionId` as well."""
    return sold.text_or_none("type") == "Auto-Renewable Subscription"


def is_shared(sold: Payload) -> bool:
    """Whether somebody else in the family paid for it."""
    return sold.text_or_none("inAppOwnershipType") == "FAMILY_SHARED"


# https://developer.apple.com/documentation/appstoreservernotifications/notificationtype
EVENTS: dict[str, Mapper] = {
    "SUBSCRIBED": bought,
    "DID_RENEW": bought,
    "ONE_TIME_CHARGE": bought,
    "OFFER_REDEEMED": offer_redeemed,
    "DID_CHANGE_RENEWAL_PREF": plan_changed,
    "REFUND": refund,
    "REFUND_REVERSED": refund_reversed,
}

IGNORED = {
    "TEST": "test_event",
    "REVOKE": "no_money_moved",
    "REFUND_DECLINED": "refund_declined",
    "CONSUMPTION_REQUEST": "no_money_moved",
    "DID_CHANGE_RENEWAL_STATUS": "no_money_moved",
    "DID_FAIL_TO_RENEW": "no_money_moved",
    "EXPIRED": "no_money_moved",
    "EXTERNAL_PURCHASE_TOKEN": "no_money_moved",
    "GRACE_PERIOD_EXPIRED": "no_money_moved",
    "METADATA_UPDATE": "no_money_moved",
    "MIGRATION": "no_money_moved",
    "PRICE_CHANGE": "no_money_moved",
    "PRICE_INCREASE": "no_money_moved",
    "RENEWAL_EXTENDED": "no_money_moved",
    "RENEWAL_EXTENSION": "no_money_moved",
    "RESCIND_CONSENT": "no_money_moved",
}
