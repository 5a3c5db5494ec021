"""PayPal.

Quirks:
- The signed text holds the webhook's id, which is not in the request, and of the body only its
  CRC32: who has seen one genuine delivery could make another body that fits. So the source's URL
  and PayPal's headers are worth keeping private, and a delivery older than four days is refused.
  PayPal tries for three days and calls the signed time that of the transmission; whether a retry
  gets a new one was not to be found out, so nothing stricter is asked (the event's id, which stays
  the same, stops repetitions).
- The simulator signs with the webhook id `WEBHOOK_ID`, and anybody can use it: that id counts only
  in a source with `simulator: true`, where every event is a test. Its subscription events carry
  the impossible date 2018-19-12.
- Two shapes of everything: v2 has `amount.value`, `currency_code`, `status` and `custom_id`, v1 has
  `amount.total`, `currency`, `state` and `custom`. Refunds of v1 come with either sign.
- A sale does not say whether it is the first of its subscription, and some lack `custom`: both are
  left to the ledger. BILLING.SUBSCRIPTION.ACTIVATED says when the subscription began and whose it
  is; it can come again later (uncertain), so what counts in it is `start_time`. A free trial makes no
  sale, only that event.
- `custom_id` is the visitor, or else the owner's own reference; failing that, `invoice_id` is.
- A v2 refund or reversal names its capture in a link; a v1 reversal names nothing but itself.
- A dispute counts when it is opened, since PayPal as a rule holds the money from then on, and
  when it is lost, under the same id. A reversal or refund of the same payment has an id of its own:
  that they are one loss can be seen only by the payment they name. A dispute that ends in the
  seller's favour, is cancelled or denied gives the money back. RESOLVED_WITH_PAYOUT (PayPal may pay
  either side), ACCEPTED and NONE do not say that it does, so the loss stays told.
- There is no event for a reversal that is cancelled.
- No e-mail and no name in captures and sales. They, and first or renewal, could be asked of
  PayPal's API; this version asks nothing.
"""

import base64
import hashlib
import re
import secrets
import zlib
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from relay import certificates, money, visitor
from relay.errors import RelayError, VerificationError
from relay.model import Event, Ignored, Kind, Payment, Received, Recurrence, Trust
from relay.payload import Payload
from relay.provider import Mapper, Setting, Setup
from relay.verify import Rehearsal, Signature, fresh, header

TITLE = "PayPal"
DOCS = "https://developer.paypal.com/api/rest/webhooks/"

API_BASE = "https://api.paypal.com"
CERTIFICATES = "/v1/notifications/certs/"
SIMULATOR = "WEBHOOK_ID"

SETUP = Setup(
    where="developer.paypal.com, Apps & Credentials, Live (or Sandbox), your app, Webhooks, Add "
    "Webhook: paste the URL and tick the events. Live and Sandbox have webhooks of their own: make "
    "a source for each, the sandbox's with `api_base: https://api.sandbox.paypal.com`.",
    events=(
        "PAYMENT.CAPTURE.COMPLETED",
        "PAYMENT.CAPTURE.REFUNDED",
        "PAYMENT.CAPTURE.REVERSED",
        "PAYMENT.SALE.COMPLETED",
        "PAYMENT.SALE.REFUNDED",
        "PAYMENT.SALE.REVERSED",
        "CUSTOMER.DISPUTE.CREATED",
        "CUSTOMER.DISPUTE.RESOLVED",
        "BILLING.SUBSCRIPTION.ACTIVATED",
    ),
    secret="The webhook's id, shown in the app's list of webhooks once it is saved (about 17 "
    "capital letters and digits; not the app's client id or secret).",
    visitor="In `custom_id` of the order's purchase unit or of the subscription: the bare id, or "
    "JSON with it, up to 127 characters.",
    checkout="""\
const visitor = document.cookie.match(/datafast_visitor_id=([^;]+)/)?.[1];
// one payment: in the order that you create (v2/checkout/orders)
purchase_units: [{ amount: { currency_code: "EUR", value: "19.90" }, custom_id: visitor }]
// subscription: in the JavaScript SDK's buttons
createSubscription: (data, actions) =>
  actions.subscription.create({ plan_id: "P-…", custom_id: visitor })""",
    notes="The webhook simulator needs a source of its own, with the webhook id WEBHOOK_ID and "
    "`simulator: true`.",
)

SETTINGS = (
    Setting(
        "api_base",
        "where PayPal's certificates may come from; https://api.sandbox.paypal.com for a sandbox",
        default=API_BASE,
    ),
    Setting(
        "simulator",
        "true if this source is for PayPal's webhook simulator: the webhook id WEBHOOK_ID then "
        "counts, and every event is a test",
        default=False,
    ),
    Setting(
        "trusted_root",
        "PEM text of the certificate that PayPal's must lead to; without it, DigiCert's public ones",
    ),
    Setting(
        "signing_key",
        "PEM text of a private key, only for rehearsals with a certificate of your own",
        secret=True,
    ),
)

# Every transmission of PayPal's three days of retries is younger than this.
_LONGEST_AGE = timedelta(days=4).total_seconds()
_CERTIFICATE_NAME = re.compile(r"[A-Za-z0-9_-]{1,100}")
_TRANSMISSION_ID = re.compile(r"[A-Za-z0-9-]{1,64}")
_WEBHOOK_ID = re.compile(r"[A-Za-z0-9]{10,50}")
_ALGORITHM = "SHA256withRSA"


# https://developer.paypal.com/api/rest/webhooks/rest/ (self verification)
@dataclass(frozen=True)
class TransmissionSignature(Signature):
    """`PAYPAL-TRANSMISSION-SIG` signs `id|time|webhook id|CRC32 of the body`, by RSA and SHA-256.

    The key is that of the certificate at `PAYPAL-CERT-URL`, which is taken only from under the
    setting `api_base` and must lead to a trusted root. A source's secrets are its webhook ids.
    """

    summary = "RSA-SHA256 of id, time, webhook id and CRC32 of the body; certificate by URL"

    def verify(self, request: Received, trust: Trust) -> None:
        """See Signature. Raises missing_…, malformed_…, stale_…, bad_… and those of certificates."""
        if header(request, "PAYPAL-AUTH-ALGO") != _ALGORITHM:
            raise VerificationError("malformed_header", f"PAYPAL-AUTH-ALGO is not {_ALGORITHM}")
        signature = _decoded(header(request, "PAYPAL-TRANSMISSION-SIG"))
        texts = [signed_text(request, id) for id in _webhook_ids(trust)]
        fresh(_signed_at(request), request.received_at, _LONGEST_AGE)
        key = _certified_key(header(request, "PAYPAL-CERT-URL"), request.received_at, trust)
        for text in texts:
            with suppress(InvalidSignature):
                key.verify(signature, text, PKCS1v15(), SHA256())
                return
        msg = "the signature fits none of the source's webhook ids; is it this webhook's id?"
        raise VerificationError("bad_signature", msg)

    def sign(self, request: Received, trust: Trust) -> Received:
        """See Signature. Raises cannot_sign without `signing_key`: PayPal keeps its own key."""
        signed = replace(
            request,
            headers=request.headers.replaced(
                paypal_transmission_id=hashlib.sha256(request.body).hexdigest()[:32],
                paypal_transmission_time=request.received_at.strftime("%Y-%m-%dT%H:%M:%SZ"),
                paypal_cert_url=_api_base(trust) + CERTIFICATES + "CERT-rehearsal",
                paypal_auth_algo=_ALGORITHM,
                paypal_auth_version="v2",
            ),
        )
        text = signed_text(signed, trust.secrets[0])
        signature = base64.b64encode(_signing_key(trust).sign(text, PKCS1v15(), SHA256())).decode()
        return replace(signed, headers=signed.headers.replaced(paypal_transmission_sig=signature))

    def flaw(self, secret: str) -> str | None:
        """See Signature."""
        if secret == SIMULATOR or _WEBHOOK_ID.fullmatch(secret):
            return None
        return "a webhook id is about 17 letters and digits, as shown in the app's list of webhooks"

    def rehearse(self) -> Rehearsal:
        """See Signature. The certificates are made once in a process; only the id is new."""
        root, leaf, key = certificates.rehearsal("messageverificationcerts.paypal.com")
        return Rehearsal(
            (secrets.token_hex(9)[:17].upper(),),
            settings={"trusted_root": root, "signing_key": key},
            downloads={CERTIFICATES + "CERT-rehearsal": leaf.encode()},
        )


SIGNATURE = TransmissionSignature()


def signed_text(request: Received, webhook_id: str) -> bytes:
    """What PayPal signs, with the times and ids exactly as they stand in the headers."""
    id = header(request, "PAYPAL-TRANSMISSION-ID")
    if not _TRANSMISSION_ID.fullmatch(id):
        raise VerificationError("malformed_header", "PAYPAL-TRANSMISSION-ID is not an id")
    time = header(request, "PAYPAL-TRANSMISSION-TIME")
    return f"{id}|{time}|{webhook_id}|{zlib.crc32(request.body)}".encode("utf-8", "replace")


def _signed_at(request: Received) -> datetime:
    try:
        moment = datetime.fromisoformat(header(request, "PAYPAL-TRANSMISSION-TIME"))
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        msg = "PAYPAL-TRANSMISSION-TIME is not a time in ISO 8601"
        raise VerificationError("malformed_timestamp", msg) from None


def _decoded(claimed: str) -> bytes:
    """The signature's bytes, from the one spelling that base64 has for them."""
    try:
        signature = base64.b64decode(claimed, validate=True)
    except ValueError:
        signature = b""
    if not signature or base64.b64encode(signature).decode() != claimed:
        raise VerificationError("malformed_header", "PAYPAL-TRANSMISSION-SIG is not base64")
    return signature


def _webhook_ids(trust: Trust) -> list[str]:
    """The ids that count: anybody can make the simulator sign, so its id must be asked for."""
    ids = [id for id in trust.secrets if id != SIMULATOR or trust.settings.get("simulator")]
    if not ids:
        msg = "the simulator's WEBHOOK_ID counts only in a source with `simulator: true`"
        raise VerificationError("simulator_not_wanted", msg)
    return ids


# Keys and certificates


def _api_base(trust: Trust) -> str:
    return str(trust.settings.get("api_base") or API_BASE).rstrip("/")


def _signing_key(trust: Trust) -> RSAPrivateKey:
    try:
        key = load_pem_private_key(str(trust.settings.get("signing_key")).encode(), None)
    except (ValueError, TypeError):
        key = None
    if not isinstance(key, RSAPrivateKey):
        msg = "only PayPal can sign for PayPal: set `signing_key` to an RSA key (PEM) and "
        msg += "`trusted_root` to its certificate's root, or use PayPal's webhook simulator"
        raise RelayError("cannot_sign", msg)
    return key


def _certified_key(url: str, received_at: datetime, trust: Trust) -> RSAPublicKey:
    """The key of the certificate at `url`, if that is PayPal's and valid at this moment."""
    base = _api_base(trust) + CERTIFICATES
    # Compared as text: no other port, user, `..`, query or spelling of the host gets through.
    if not (url.startswith(base) and _CERTIFICATE_NAME.fullmatch(url.removeprefix(base))):
        msg = f"PAYPAL-CERT-URL does not lie under {base}; is `api_base` right (live or sandbox)?"
        raise VerificationError("foreign_certificate", msg)
    try:
        document = trust.download(url)
    except RelayError as error:
        msg = f"the certificate could not be had: {error.message}"
        raise VerificationError("certificate_unavailable", msg) from None
    try:
        trusted = trust.settings.get("trusted_root")
        trusted = trusted or certificates.public_anchors("DigiCert", _INTERMEDIATES)
        found = certificates.check(document, trusted, "paypal.com")
    except (ValueError, OSError):
        found = None
    if not found or not isinstance(found.key, RSAPublicKey):
        msg = "no certificate of PayPal's that leads to a trusted root; should its issuer have "
        msg += "changed, set `trusted_root` to the issuer's certificate"
        raise VerificationError("bad_certificate", msg)
    if not found.since <= received_at <= found.until:
        msg = f"the certificate is valid from {found.since:%Y-%m-%d} to {found.until:%Y-%m-%d} only"
        raise VerificationError("certificate_not_valid", msg)
    return found.key


# DigiCert SHA2 Extended Validation Server CA (issued PayPal's certificates up to 2025; its own root
# is no longer in the public lists) and DigiCert EV RSA CA G2 (under DigiCert Global Root G2).
_INTERMEDIATES = """\
-----BEGIN CERTIFICATE-----
MIIEtjCCA56gAwIBAgIQDHmpRLCMEZUgkmFf4msdgzANBgkqhkiG9w0BAQsFADBs
MQswCQYDVQQGEwJVUzEVMBMGA1UEChMMRGlnaUNlcnQgSW5jMRkwFwYDVQQLExB3
d3cuZGlnaWNlcnQuY29tMSswKQYDVQQDEyJEaWdpQ2VydCBIaWdoIEFzc3VyYW5j
ZSBFViBSb290IENBMB4XDTEzMTAyMjEyMDAwMFoXDTI4MTAyMjEyMDAwMFowdTEL
MAkGA1UEBhMCVVMxFTATBgNVBAoTDERpZ2lDZXJ0IEluYzEZMBcGA1UECxMQd3d3
LmRpZ2ljZXJ0LmNvbTE0MDIGA1UEAxMrRGlnaUNlcnQgU0hBMiBFeHRlbmRlZCBW
YWxpZGF0aW9uIFNlcnZlciBDQTCCASIwDQYJKoZIhvcNAQEBBQADggEPADCCAQoC
ggEBANdTpARR+JmmFkhLZyeqk0nQOe0MsLAAh/FnKIaFjI5j2ryxQDji0/XspQUY
uD0+xZkXMuwYjPrxDKZkIYXLBxA0sFKIKx9om9KxjxKws9LniB8f7zh3VFNfgHk/
LhqqqB5LKw2rt2O5Nbd9FLxZS99RStKh4gzikIKHaq7q12TWmFXo/a8aUGxUvBHy
/Urynbt/DvTVvo4WiRJV2MBxNO723C3sxIclho3YIeSwTQyJ3DkmF93215SF2AQh
cJ1vb/9cuhnhRctWVyh+HA1BV6q3uCe7seT6Ku8hI3UarS2bhjWMnHe1c63YlC3k
8wyd7sFOYn4XwHGeLN7x+RAoGTMCAwEAAaOCAUkwggFFMBIGA1UdEwEB/wQIMAYB
Af8CAQAwDgYDVR0PAQH/BAQDAgGGMB0GA1UdJQQWMBQGCCsGAQUFBwMBBggrBgEF
BQcDAjA0BggrBgEFBQcBAQQoMCYwJAYIKwYBBQUHMAGGGGh0dHA6Ly9vY3NwLmRp
Z2ljZXJ0LmNvbTBLBgNVHR8ERDBCMECgPqA8hjpodHRwOi8vY3JsNC5kaWdpY2Vy
dC5jb20vRGlnaUNlcnRIaWdoQXNzdXJhbmNlRVZSb290Q0EuY3JsMD0GA1UdIAQ2
MDQwMgYEVR0gADAqMCgGCCsGAQUFBwIBFhxodHRwczovL3d3dy5kaWdpY2VydC5j
b20vQ1BTMB0GA1UdDgQWBBQ901Cl1qCt7vNKYApl0yHU+PjWDzAfBgNVHSMEGDAW
gBSxPsNpA/i/RwHUmCYaCALvY2QrwzANBgkqhkiG9w0BAQsFAAOCAQEAnbbQkIbh
hgLtxaDwNBx0wY12zIYKqPBKikLWP8ipTa18CK3mtlC4ohpNiAexKSHc59rGPCHg
4xFJcKx6HQGkyhE6V6t9VypAdP3THYUYUN9XR3WhfVUgLkc3UHKMf4Ib0mKPLQNa
2sPIoc4sUqIAY+tzunHISScjl2SFnjgOrWNoPLpSgVh5oywM395t6zHyuqB8bPEs
1OG9d4Q3A84ytciagRpKkk47RpqF/oOi+Z6Mo8wNXrM9zwR4jxQUezKcxwCmXMS1
oVWNWlZopCJwqjyBcdmdqEU79OX2olHdx3ti6G8MdOu42vi/hw15UJGQmxg7kVkn
8TUoE6smftX3eg==
-----END CERTIFICATE-----
-----BEGIN CERTIFICATE-----
MIIFPDCCBCSgAwIBAgIQAWePH++IIlXYsKcOa3uyIDANBgkqhkiG9w0BAQsFADBh
MQswCQYDVQQGEwJVUzEVMBMGA1UEChMMRGlnaUNlcnQgSW5jMRkwFwYDVQQLExB3
d3cuZGlnaWNlcnQuY29tMSAwHgYDVQQDExdEaWdpQ2VydCBHbG9iYWwgUm9vdCBH
MjAeFw0yMDA3MDIxMjQyNTBaFw0zMDA3MDIxMjQyNTBaMEQxCzAJBgNVBAYTAlVT
MRUwEwYDVQQKEwxEaWdpQ2VydCBJbmMxHjAcBgNVBAMTFURpZ2lDZXJ0IEVWIFJT
QSBDQSBHMjCCASIwDQYJKoZIhvcNAQEBBQADggEPADCCAQoCggEBAK0eZsx/neTr
f4MXJz0R2fJTIDfN8AwUAu7hy4gI0vp7O8LAAHx2h3bbf8wl+pGMSxaJK9ffDDCD
63FqqFBqE9eTmo3RkgQhlu55a04LsXRLcK6crkBOO0djdonybmhrfGrtBqYvbRat
xenkv0Sg4frhRl4wYh4dnW0LOVRGhbt1G5Q19zm9CqMlq7LlUdAE+6d3a5++ppfG
cnWLmbEVEcLHPAnbl+/iKauQpQlU1Mi+wEBnjE5tK8Q778naXnF+DsedQJ7NEi+b
QoonTHEz9ryeEcUHuQTv7nApa/zCqes5lXn1pMs4LZJ3SVgbkTLj+RbBov/uiwTX
tkBEWawvZH8CAwEAAaOCAgswggIHMB0GA1UdDgQWBBRqTlC/mGidW3sgddRZAXlI
ZpIyBjAfBgNVHSMEGDAWgBROIlQgGJXm427mD/r6uRLtBhePOTAOBgNVHQ8BAf8E
BAMCAYYwHQYDVR0lBBYwFAYIKwYBBQUHAwEGCCsGAQUFBwMCMBIGA1UdEwEB/wQI
MAYBAf8CAQAwNAYIKwYBBQUHAQEEKDAmMCQGCCsGAQUFBzABhhhodHRwOi8vb2Nz
cC5kaWdpY2VydC5jb20wewYDVR0fBHQwcjA3oDWgM4YxaHR0cDovL2NybDMuZGln
aWNlcnQuY29tL0RpZ2lDZXJ0R2xvYmFsUm9vdEcyLmNybDA3oDWgM4YxaHR0cDov
L2NybDQuZGlnaWNlcnQuY29tL0RpZ2lDZXJ0R2xvYmFsUm9vdEcyLmNybDCBzgYD
VR0gBIHGMIHDMIHABgRVHSAAMIG3MCgGCCsGAQUFBwIBFhxodHRwczovL3d3dy5k
aWdpY2VydC5jb20vQ1BTMIGKBggrBgEFBQcCAjB+DHxBbnkgdXNlIG9mIHRoaXMg
Q2VydGlmaWNhdGUgY29uc3RpdHV0ZXMgYWNjZXB0YW5jZSBvZiB0aGUgUmVseWlu
ZyBQYXJ0eSBBZ3JlZW1lbnQgbG9jYXRlZCBhdCBodHRwczovL3d3dy5kaWdpY2Vy
dC5jb20vcnBhLXVhMA0GCSqGSIb3DQEBCwUAA4IBAQBSMgrCdY2+O9spnYNvwHiG
+9lCJbyELR0UsoLwpzGpSdkHD7pVDDFJm3//B8Es+17T1o5Hat+HRDsvRr7d3MEy
o9iXkkxLhKEgApA2Ft2eZfPrTolc95PwSWnn3FZ8BhdGO4brTA4+zkPSKoMXi/X+
WLBNN29Z/nbCS7H/qLGt7gViEvTIdU8x+H4l/XigZMUDaVmJ+B5d7cwSK7yOoQdf
oIBGmA5Mp4LhMzo52rf//kXPfE3wYIZVHqVuxxlnTkFYmffCX9/Lon7SWaGdg6Rc
k4RHhHLWtmz2lTZ5CEo2ljDsGzCFGJP7oT4q6Q8oFC38irvdKIJ95cUxYzj4tnOI
-----END CERTIFICATE-----
"""


# The events


def parse(request: Received) -> list[Event]:
    """One event a request. An impossible time is no time; the resource has one of its own."""
    body = Payload.json(request.body).object()
    occurred_at = body.time_or_none("create_time")
    return [Event(body.text("id"), body.text("event_type"), body, occurred_at)]


def moved(event: Event) -> Payment | Ignored:
    """A capture, a sale, or a refund or reversal of one: the resource, whatever its type says."""
    resource = event.data.object("resource")
    state = resource.text_or_none("status") or resource.text_or_none("state") or ""
    if state.lower() in _NOT_MOVED:
        return Ignored("not_completed")
    kind = _KINDS[event.type.rpartition(".")[2]]
    amount, currency = money_at(resource.object("amount"))
    subscription_id = resource.text_or_none("billing_agreement_id")
    recurrence = Recurrence.UNKNOWN if subscription_id else Recurrence.ONE_TIME
    return Payment(
        kind=kind,
        transaction_id=resource.text("id"),
        amount=amount,
        currency=currency,
        occurred_at=moment(event, "create_time"),
        recurrence=recurrence if kind is Kind.CHARGE else None,
        original_id=None if kind is Kind.CHARGE else original(resource),
        subscription_id=subscription_id,
        visitor_id=visitor.find(resource.at("custom_id"), resource.at("custom")),
        reference=reference(resource) if kind is Kind.CHARGE else None,
        test=is_test(event),
    )


def dispute(event: Event) -> Payment | Ignored:
    """Opened (PayPal holds the money from then on), lost or won, under the dispute's own id."""
    disputed = event.data.at("resource")
    kind, id, time = Kind.DISPUTE, disputed.text("dispute_id"), "create_time"
    taken = disputed.at("dispute_amount")
    if event.type == "CUSTOMER.DISPUTE.RESOLVED":
        outcome, time = disputed.at("dispute_outcome"), "update_time"
        code = outcome.text_or_none("outcome_code")
        if code in _RETURNS:
            kind, id = Kind.REINSTATED, f"{id}:won"
        elif code == "RESOLVED_BUYER_FAVOUR":
            taken = outcome.at("amount_refunded") or taken
        else:
            return Ignored("dispute_not_decided")
    amount, currency = money_at(taken.object())
    transaction = disputed.at("disputed_transactions", 0)
    return Payment(
        kind=kind,
        transaction_id=id,
        amount=amount,
        currency=currency,
        occurred_at=moment(event, time, "create_time"),
        # The seller's transaction is the capture or the sale.
        original_id=transaction.text_or_none("seller_transaction_id"),
        visitor_id=visitor.find(transaction.at("custom")),
        test=is_test(event),
    )


def activated(event: Event) -> Payment | Ignored:
    """`BILLING.SUBSCRIPTION.ACTIVATED`: a free trial, if there is one and nothing was ever paid."""
    subscription = event.data.object("resource")
    billing = subscription.at("billing_info")
    cycles = members(billing, "cycle_executions")
    on_trial = any(it.get("tenure_type") == "TRIAL" for it in cycles)
    charged = any(
        it.get("tenure_type") == "REGULAR" and it.get("cycles_completed") for it in cycles
    )
    id, subscriber = subscription.text("id"), subscription.at("subscriber")
    names = (subscriber.text_or_none("name", part) for part in ("given_name", "surname"))
    about: dict[str, Any] = {
        "subscription_id": id,
        "customer_id": subscriber.text_or_none("payer_id"),
        "email": subscriber.text_or_none("email_address"),
        "name": " ".join(filter(None, names)) or None,
        "visitor_id": visitor.find(subscription.at("custom_id")),
        "reference": reference(subscription),
        "test": is_test(event),
    }
    if not on_trial or charged or billing.at("last_payment"):
        began = subscription.time_or_none("start_time") or subscription.time_or_none("create_time")
        return Ignored("no_trial", occurred_at=began, subscribed_at=began, **about)
    return Payment(
        kind=Kind.TRIAL,
        transaction_id=f"{id}:trial",
        amount=Decimal(0),
        currency=None,
        occurred_at=moment(event, "status_update_time", "create_time"),
        **about,
    )


# The parts

_KINDS = {"COMPLETED": Kind.CHARGE, "REFUNDED": Kind.REFUND, "REVERSED": Kind.DISPUTE}
# https://developer.paypal.com/api/customer-disputes/v1/definitions/dispute_outcome
_RETURNS = frozenset({"RESOLVED_SELLER_FAVOUR", "CANCELED_BY_BUYER", "DENIED"})
_NOT_MOVED = frozenset({"pending", "failed", "cancelled", "denied", "declined"})
_ORIGINAL = re.compile(r"/(?:captures?|sale)/([A-Za-z0-9]{1,64})")
_SANDBOX = re.compile(r"https://[a-z0-9.-]+\.sandbox\.paypal\.com(?:[:/]|$)")


def money_at(place: Payload) -> tuple[Decimal, str]:
    """Amount and currency in either shape."""
    is_v1 = place.at("total").value is not None
    value, code = ("total", "currency") if is_v1 else ("value", "currency_code")
    return money.major_units(place, value), money.currency(place, code)


def moment(event: Event, *names: str) -> datetime:
    """The first of the resource's times that is one, else the event's own."""
    resource = event.data.at("resource")
    found = (resource.time_or_none(name) for name in names)
    return next(filter(None, found), event.occurred_at) or resource.time(names[0])


def original(refunded: Payload) -> str | None:
    """The charge that is taken back: named in v1 refunds, linked in v2, unsaid in v1 reversals."""
    named = refunded.text_or_none("sale_id") or refunded.text_or_none("capture_id")
    linked = (_ORIGINAL.search(str(link.get("href"))) for link in members(refunded, "links"))
    return named or next((found[1] for found in linked if found), None)


def reference(resource: Payload) -> str | None:
    """What the owner's own code handed to the checkout, where that is not the visitor."""
    names = ("custom_id", "custom", "invoice_id", "invoice_number")
    own = (resource.at(name) for name in names if not visitor.find(resource.at(name)))
    return next(filter(None, (it.text_or_none() for it in own)), None)


def is_test(event: Event) -> bool:
    """The sandbox, by the source's setting or the event's links; or the simulator."""
    links = [*members(event.data, "links"), *members(event.data.at("resource"), "links")]
    addresses = [event.settings.get("api_base"), *(link.get("href") for link in links)]
    in_sandbox = any(_SANDBOX.match(str(address)) for address in addresses)
    return in_sandbox or bool(event.settings.get("simulator"))


def members(place: Payload, key: str) -> list[dict[str, Any]]:
    """The objects in the list at `key`, which need not be there."""
    found = place.at(key).value
    return [it for it in found if isinstance(it, dict)] if isinstance(found, list) else []


# https://developer.paypal.com/api/rest/webhooks/event-names/
EVENTS: dict[str, Mapper] = {
    "PAYMENT.CAPTURE.COMPLETED": moved,
    "PAYMENT.SALE.COMPLETED": moved,
    "PAYMENT.CAPTURE.REFUNDED": moved,
    "PAYMENT.SALE.REFUNDED": moved,
    "PAYMENT.CAPTURE.REVERSED": moved,
    "PAYMENT.SALE.REVERSED": moved,
    "CUSTOMER.DISPUTE.CREATED": dispute,
    "CUSTOMER.DISPUTE.RESOLVED": dispute,
    "BILLING.SUBSCRIPTION.ACTIVATED": activated,
}

IGNORED = {
    "CHECKOUT.ORDER.APPROVED": "told_by_PAYMENT.CAPTURE.COMPLETED",
    "CHECKOUT.ORDER.COMPLETED": "told_by_PAYMENT.CAPTURE.COMPLETED",
    "INVOICING.INVOICE.PAID": "told_by_PAYMENT.CAPTURE.COMPLETED",
    "PAYMENTS.PAYMENT.CREATED": "told_by_PAYMENT.SALE.COMPLETED",
    "PAYMENT.AUTHORIZATION.CREATED": "no_money_moved",
    "PAYMENT.AUTHORIZATION.VOIDED": "no_money_moved",
    "PAYMENT.CAPTURE.PENDING": "no_money_moved",
    "PAYMENT.CAPTURE.DENIED": "no_money_moved",
    "PAYMENT.CAPTURE.DECLINED": "no_money_moved",
    "PAYMENT.SALE.PENDING": "no_money_moved",
    "PAYMENT.SALE.DENIED": "no_money_moved",
    "CUSTOMER.DISPUTE.UPDATED": "no_money_moved",
    "RISK.DISPUTE.CREATED": "told_by_CUSTOMER.DISPUTE.CREATED",
    "BILLING.SUBSCRIPTION.CREATED": "no_money_moved",
    "BILLING.SUBSCRIPTION.UPDATED": "no_money_moved",
    "BILLING.SUBSCRIPTION.EXPIRED": "no_money_moved",
    "BILLING.SUBSCRIPTION.CANCELLED": "no_money_moved",
    "BILLING.SUBSCRIPTION.SUSPENDED": "no_money_moved",
    "BILLING.SUBSCRIPTION.RE-ACTIVATED": "no_money_moved",
    "BILLING.SUBSCRIPTION.PAYMENT.FAILED": "no_money_moved",
}
