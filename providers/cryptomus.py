r"""Cryptomus.

Quirks:
- The signature is in the body, and of the body without it, written again as PHP would: order kept,
  text outside ASCII as it is, every `/` as `\/`. All amounts are texts, so that it never comes to
  how PHP writes a number. There is no published vector: the documentation keeps its key to itself.
- MD5 of the text and the key is the provider's choice, not a good one: let only its address through
  (91.227.144.54) where you can.
- Only the status tells what happened: an event's type is made here, `payment.paid`. Every status of
  a payment has the same `uuid`, the refund's too, and the refund has no amount: it takes all that is
  left. It can also come for a payment that never was `paid`; then there is nothing here to hold it
  against.
- `amount` is what was asked, in `currency`. If that is a crypto currency, what was paid is counted
  in US dollars, as Cryptomus tells it (`payment_amount_usd`); a static wallet has nothing else.
- What was paid beyond a price in money (`paid_over`) is not counted; what came short
  (`wrong_amount`) is not told, not even if you deliver all the same.
- No event says when anything happened: the time of receipt counts.
- No e-mail, name or subscription is told. Recurring invoices look like any other.
- Test webhooks look like real ones: send them to a source of its own.
- Payouts are signed with another key, the payout API key.
- Heleket (heleket.com) is the same API under another name; uncertain whether in all details.
"""

import base64
import hashlib
import json
from dataclasses import dataclass, replace
from typing import Any

from relay import money, visitor
from relay.errors import PayloadError, VerificationError
from relay.model import Event, Kind, Payment, Received, Recurrence, Trust
from relay.payload import Payload
from relay.provider import Mapper, Setting, Setup
from relay.verify import Signature, matches, well_formed

TITLE = "Cryptomus"
DOCS = "https://doc.cryptomus.com/merchant-api/payments/webhook"

SETUP = Setup(
    where="There is no page for it: the URL is given with every invoice (or static wallet), as "
    "`url_callback`.",
    events=("payment.paid", "payment.paid_over", "payment.refund_paid", "wallet.paid"),
    secret="The payment API key: in the merchant's settings, once Cryptomus has approved the project. "
    "Not the payout API key.",
    visitor="In `additional_data` of the invoice, as JSON text (255 characters at most).",
    checkout="""\
// on your server, where the invoice is created; send the customer to its url
const body = JSON.stringify({
  amount: "24.20", currency: "EUR", order_id: order.id,
  url_callback: "https://relay.example.com/webhooks/cryptomus",
  additional_data: JSON.stringify({ datafast_visitor_id: cookies.get("datafast_visitor_id") }),
});
const text = Buffer.from(body).toString("base64") + process.env.CRYPTOMUS_PAYMENT_KEY;
await fetch("https://api.cryptomus.com/v1/payment", {
  method: "POST",
  headers: {
    "Content-Type": "application/json",
    merchant: process.env.CRYPTOMUS_MERCHANT,
    sign: crypto.createHash("md5").update(text).digest("hex"),
  },
  body,
});""",
    notes="The key is also what your own requests to Cryptomus are signed with: keep it apart.",
)

SETTINGS = (
    Setting(
        "test",
        "true if this source is only for test webhooks; the events do not say it",
        default=False,
    ),
)

# What PHP's json_encode escapes beyond Python, even with JSON_UNESCAPED_UNICODE.
_PHP = str.maketrans({"/": "\\/", "\u2028": "\\u2028", "\u2029": "\\u2029"})


# https://doc.cryptomus.com/merchant-api/payments/webhook (Verifying the signature)
@dataclass(frozen=True)
class SignInBody(Signature):
    """MD5 of base64 of PHP's JSON and the key; it stands in the body, which is signed without it."""

    summary = "MD5 of the body as PHP writes it, in the body"
    place = "body"

    def verify(self, request: Received, trust: Trust) -> None:
        """See Signature. Raises malformed_…, missing_signature, bad_signature."""
        body = _object(request)
        claimed = body.pop("sign", None)
        if not isinstance(claimed, str):
            raise VerificationError("missing_signature", "the body holds no `sign`")
        well_formed(claimed, "sign", "md5", "hex")
        text = _php(body)
        matches([claimed], (_digest(text, secret) for secret in trust.secrets))

    def sign(self, request: Received, trust: Trust) -> Received:
        """See Signature. The request gets another body: the signature is in it."""
        body = _object(request)
        body.pop("sign", None)
        body["sign"] = _digest(_php(body), trust.secrets[0])
        return replace(request, body=_php(body))


SIGNATURE = SignInBody()


def _object(request: Received) -> dict[str, Any]:
    try:
        value: dict[str, Any] = json.loads(request.body)
        return dict(Payload(value).object().value)
    except (ValueError, RecursionError, PayloadError):
        raise VerificationError("malformed_body", "the body is no JSON object") from None


def _php(body: dict[str, Any]) -> bytes:
    try:
        text = json.dumps(body, ensure_ascii=False, separators=(",", ":"))
        return text.translate(_PHP).encode()
    except (ValueError, RecursionError):
        raise VerificationError("malformed_body", "PHP could not write this body") from None


def _digest(text: bytes, secret: str) -> str:
    return hashlib.md5(base64.b64encode(text) + secret.encode(), usedforsecurity=False).hexdigest()


def parse(request: Received) -> list[Event]:
    """One event a request: each status of a payment once."""
    body = Payload.json(request.body).object()
    type, status, id = (body.text(key) for key in ("type", "status", "uuid"))
    name = type if type == "payout" else f"{type}.{status}"
    return [Event(f"{id}:{status}", name, body, request.received_at)]


def paid(event: Event) -> Payment:
    """`payment.paid`, `payment.paid_over`, `wallet.paid`: counted with the price, if it is money."""
    in_dollars = event.data.at("payment_amount_usd").value is not None
    if in_dollars and money.exponent(event.data.text("currency").upper()) is None:
        amount, currency = money.major_units(event.data, "payment_amount_usd"), "USD"
    else:
        currency = money.currency(event.data, "currency")
        amount = money.major_units(event.data, "amount")
    return Payment(
        kind=Kind.CHARGE,
        transaction_id=event.data.text("uuid"),
        amount=amount,
        currency=currency,
        recurrence=Recurrence.ONE_TIME,
        **about(event),
    )


def refunded(event: Event) -> Payment:
    """`payment.refund_paid`: the same payment, all that is left of it."""
    id = event.data.text("uuid")
    return Payment(
        kind=Kind.REFUND,
        transaction_id=f"{id}:refund",
        amount=None,
        currency=None,
        original_id=id,
        **about(event),
    )


def about(event: Event) -> dict[str, Any]:
    """When we heard of it, and what the owner's site gave to the invoice."""
    return {
        "occurred_at": event.occurred_at or event.data.time("created_at"),
        "visitor_id": visitor.find(event.data.at("additional_data"), event.data.at("order_id")),
        "reference": event.data.text_or_none("order_id"),
        "test": event.settings["test"],
    }


# https://doc.cryptomus.com/merchant-api/payments/payment-statuses
EVENTS: dict[str, Mapper] = {
    "payment.paid": paid,
    "payment.paid_over": paid,
    "payment.refund_paid": refunded,
    "wallet.paid": paid,
}

IGNORED = {
    "payment.process": "not_confirmed_yet",
    "payment.check": "not_confirmed_yet",
    "payment.confirm_check": "not_confirmed_yet",
    "payment.wrong_amount": "paid_short",
    "payment.wrong_amount_waiting": "paid_short",
    "payment.cancel": "no_money_moved",
    "payment.fail": "no_money_moved",
    "payment.system_fail": "no_money_moved",
    "payment.locked": "not_accepted",
    "payment.refund_process": "refund_pending",
    "payment.refund_fail": "refund_failed",
    "wallet.process": "not_confirmed_yet",
    "wallet.check": "not_confirmed_yet",
    "wallet.confirm_check": "not_confirmed_yet",
    "wallet.fail": "no_money_moved",
    "wallet.system_fail": "no_money_moved",
    "payout": "not_a_sale",
}
