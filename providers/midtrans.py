"""Midtrans.

Quirks:
- The signature covers `order_id`, `status_code` and `gross_amount`, joined without a mark between
  them, and nothing else: not the status, not the transaction's id, not the visitor's. A payment
  counts only with the signed code 200. Give this source its `server_key` too: then each notification
  is looked up at Midtrans before it counts. There is no published vector and no SDK that verifies.
- The signed values are those of the body as they are spelt there: `"10000.00"`, but also `10000`.
- A card is told by `capture` and a day later by `settlement`, under one transaction's id: one
  movement. A capture counts only with `fraud_status` accept; a challenge that is accepted later is
  the same status again, so that `fraud_status` is part of the event's id.
- A refund has the payment's `transaction_id`; its own id is the `refund_key`. Every notification
  lists the refunds so far: each becomes an event of its own, once.
- A captured card can be cancelled before it settles: all that is left goes back. Uncertain: that a
  card that was only authorised never comes with an `approval_code` (such a cancel would end dead).
- Uncertain: the bodies of `chargeback` (told as all that is left) and `partial_chargeback` (dead if
  it names no `refund_amount`); that a `settlement` can be denied later, which is not told.
- First or renewal is not told: with a `subscription_id` it is unknown, else taken for a single sale.
- Times have no zone; they are Jakarta's (UTC+7). Chargebacks and cancels have none of their own: the
  time of receipt counts. No body says that it is from the sandbox. The e-mail is mostly missing.
"""

import base64
import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from urllib.parse import quote

from relay import money, visitor
from relay.errors import PayloadError, VerificationError
from relay.model import Event, Ignored, Kind, Payment, Received, Recurrence, Trust
from relay.payload import Payload
from relay.provider import Api, Mapper, Setting, Setup
from relay.verify import Signature, matches, well_formed

TITLE = "Midtrans"
DOCS = "https://docs.midtrans.com/docs/https-notification-webhooks"

SETUP = Setup(
    where="Dashboard (MAP), Settings, Payment, Configuration: Payment Notification URL, and the same "
    "in Recurring Notification URL. Sandbox and production have settings and keys of their own: make "
    "a source for each.",
    events=(
        "settlement",
        "capture",
        "refund",
        "partial_refund",
        "chargeback",
        "partial_chargeback",
    ),
    secret="The Server Key: Settings, Access Keys. Not the Client Key.",
    visitor="In `custom_field1` of the transaction (2 and 3 and `metadata` are searched too).",
    checkout="""\
// on your server, where the Snap transaction is created
const transaction = await snap.createTransaction({
  transaction_details: { order_id: order.id, gross_amount: 150000 },
  customer_details: { email: user.email },
  custom_field1: cookies.get("datafast_visitor_id"),
});""",
    notes="All kinds of notifications come to the one URL; there is nothing to tick.",
)

SETTINGS = (
    Setting(
        "test",
        "true if this source's notifications come from the sandbox; the events do not say it",
        default=False,
    ),
    Setting(
        "server_key",
        "the server key once more: then every notification is looked up at Midtrans, since its "
        "signature protects little of it",
        secret=True,
    ),
    Setting(
        "api_base",
        "Midtrans' API; for the sandbox: https://api.sandbox.midtrans.com",
        default="https://api.midtrans.com",
    ),
)

# As strict as can be: without a mark between them, one value could borrow digits of the next.
SIGNED = {
    "order_id": re.compile(r".{1,255}", re.DOTALL),
    "status_code": re.compile(r"[0-9]{3}"),
    "gross_amount": re.compile(r"(0|[1-9][0-9]*)(\.[0-9]{1,2})?"),
}


# https://docs.midtrans.com/docs/https-notification-webhooks (Verifying notification authenticity)
@dataclass(frozen=True)
class FieldsHash(Signature):
    """SHA-512 of the SIGNED fields and the server key, in the body."""

    summary = "SHA-512 of 3 fields and the key, in the body"
    covers_body = False
    place = "body"

    def verify(self, request: Received, trust: Trust) -> None:
        """See Signature. Raises malformed_…, missing_signature, bad_signature."""
        body = _object(request)
        claimed = body.at("signature_key").value
        if not isinstance(claimed, str):
            raise VerificationError("missing_signature", "the body holds no `signature_key`")
        well_formed(claimed, "signature_key", "sha512", "hex")
        text = _signed_text(body)
        matches([claimed], (_digest(text, secret) for secret in trust.secrets))

    def sign(self, request: Received, trust: Trust) -> Received:
        """See Signature. The request gets another body: the signature is in it."""
        digest = _digest(_signed_text(_object(request)), trust.secrets[0]).encode()
        member = re.compile(rb'"signature_key"\s*:\s*"[^"]*"')
        signed = b'"signature_key":"' + digest + b'"'
        if member.search(request.body):
            return replace(request, body=member.sub(signed, request.body))
        return replace(request, body=request.body.replace(b"{", b"{" + signed + b",", 1))

    def flaw(self, secret: str) -> str | None:
        """See Signature."""
        if "Mid-client-" in secret:
            return "this is the client key; the server key is wanted"
        return super().flaw(secret)


SIGNATURE = FieldsHash()


def _object(request: Received) -> Payload:
    try:
        return Payload.json(request.body).object()
    except PayloadError as error:
        raise VerificationError("malformed_body", error.message) from None


def _signed_text(body: Payload) -> str:
    texts = []
    for key, form in SIGNED.items():
        value = body.at(key).value
        if isinstance(value, bool | dict | list | None) or not form.fullmatch(str(value)):
            raise VerificationError("malformed_body", f"`{key}` is not what is signed")
        texts.append(str(value))
    return "".join(texts)


def _digest(text: str, secret: str) -> str:
    return hashlib.sha512((text + secret).encode("utf-8", "replace")).hexdigest()


def parse(request: Received) -> list[Event]:
    """One event for each status of a transaction; for refunds one for each refund that is listed."""
    body = Payload.json(request.body).object()
    id, status = body.text("transaction_id"), body.text("transaction_status")
    if status in {"refund", "partial_refund"}:
        return [
            Event(f"{id}:refund:{_key(each)}", status, _with(body, each), request.received_at)
            for each in _refunds(body)
        ]
    if status == "partial_chargeback":
        *_, last = _refunds(body)
        key = last.text_or_none("refund_chargeback_id") or "-"
        return [Event(f"{id}:{status}:{key}", status, _with(body, last), request.received_at)]
    # A challenge that is accepted is told by the same status again.
    doubt = body.text_or_none("fraud_status") if status == "capture" else None
    id = f"{id}:{status}:{doubt}" if doubt else f"{id}:{status}"
    return [Event(id, status, body, request.received_at)]


def _refunds(body: Payload) -> Iterator[Payload]:
    """Those that are listed; the body itself where there is no list."""
    return (each.object() for each in body.items("refunds")) if body.at("refunds") else iter([body])


def _key(refund: Payload) -> str:
    return refund.text_or_none("refund_key") or refund.text("refund_chargeback_id")


def _with(body: Payload, taken: Payload) -> Payload:
    """The body, and which of its refunds is meant."""
    return Payload({**body.value, "taken": taken.value}, body.path)


# https://docs.midtrans.com/reference/get-transaction-status
def fetch(event: Event, api: Api) -> list[Event]:
    """The same event, with what Midtrans itself says; if the source has its `server_key`."""
    key, order_id = event.settings["server_key"], event.data.text("order_id")
    if not key or event.type not in EVENTS:
        return [event]
    basic = base64.b64encode(f"{key}:".encode()).decode()
    path = f"/v2/{quote(order_id, safe='')}/status"
    said = api.get(path, {"Authorization": f"Basic {basic}"}).object()
    same = all(said.text(it) == event.data.text(it) for it in ("transaction_id", "order_id"))
    # A payment may have gone on since; a refund or partial chargeback is looked for in the list.
    settled = event.type in PAID or event.data.at("taken")
    if not same or not (settled or said.text("transaction_status") == event.type):
        raise PayloadError("not_confirmed", said.path, "Midtrans itself says something else")
    data = Payload({**event.data.value, **said.value}, said.path)
    if event.data.at("taken"):
        wanted = _key(event.data.object("taken"))
        listed = [each for each in _refunds(said) if _key(each) == wanted]
        if not listed:
            raise PayloadError("not_confirmed", said.path, "Midtrans itself lists no such refund")
        data = _with(data, listed[0])
    return [replace(event, data=data)]


def paid(event: Event) -> Payment | Ignored:
    """`settlement`, `capture`: paid, unless the bank's or Midtrans' doubts remain."""
    fraud = event.data.text_or_none("fraud_status") or "accept"
    if event.data.text("status_code") != "200" or fraud != "accept":
        return Ignored("not_paid")
    settled = "settlement_time" if event.data.at("settlement_time") else "transaction_time"
    subscription = event.data.text_or_none("subscription_id")
    return Payment(
        kind=Kind.CHARGE,
        transaction_id=event.data.text("transaction_id"),
        amount=money.major_units(event.data, "gross_amount"),
        currency=currency(event.data),
        occurred_at=jakarta(event.data, settled),
        recurrence=Recurrence.UNKNOWN if subscription else Recurrence.ONE_TIME,
        **about(event),
    )


def refund(event: Event) -> Payment:
    """`refund`, `partial_refund`: one of the refunds, with its own amount."""
    return taken_back(event, Kind.REFUND, f"refund:{_key(event.data.object('taken'))}")


def dispute(event: Event) -> Payment:
    """`chargeback`, `partial_chargeback`: money that the card's owner took back."""
    key = event.data.at("taken").text_or_none("refund_chargeback_id")
    return taken_back(event, Kind.DISPUTE, f"{event.type}:{key}" if key else event.type)


def cancelled(event: Event) -> Payment | Ignored:
    """`cancel`: nothing, unless the card's money had been captured by then."""
    bank, fraud = (event.data.text_or_none(it) for it in ("approval_code", "fraud_status"))
    if event.data.text_or_none("payment_type") != "credit_card" or not bank or fraud != "accept":
        return Ignored("no_money_moved")
    return taken_back(event, Kind.REFUND, "cancel")


def taken_back(event: Event, kind: Kind, id: str) -> Payment:
    """What refunds, disputes and cancels have in common; without an amount, all that is left."""
    original_id = event.data.text("transaction_id")
    taken = event.data.at("taken")
    created_at = jakarta(taken, "created_at") if taken.at("created_at") else event.occurred_at
    return Payment(
        kind=kind,
        transaction_id=f"{original_id}:{id}",
        amount=money.major_units(taken.object(), "refund_amount") if taken else None,
        currency=currency(event.data) if taken else None,
        occurred_at=created_at or jakarta(event.data, "transaction_time"),
        original_id=original_id,
        **about(event),
    )


def about(event: Event) -> dict[str, Any]:
    """Whom it is about: what the owner's site gave to the transaction."""
    fields = ("custom_field1", "custom_field2", "custom_field3", "metadata")
    customer = event.data.at("customer_details")
    return {
        "subscription_id": event.data.text_or_none("subscription_id"),
        "email": customer.text_or_none("email"),
        "name": customer.text_or_none("full_name") or customer.text_or_none("first_name"),
        "visitor_id": visitor.find(*(event.data.at(it) for it in fields)),
        "reference": event.data.text_or_none("order_id"),
        "test": event.settings["test"],
    }


def currency(data: Payload) -> str:
    """The currency; old notifications name none and are in rupiah."""
    return money.currency(data, "currency") if data.at("currency") else "IDR"


def jakarta(data: Payload, key: str) -> datetime:
    """The moment at `key`, which has no zone and is in UTC+7."""
    return Payload(f"{data.text(key)}+07:00", data.at(key).path).time()


PAID = {"settlement": paid, "capture": paid}

# https://docs.midtrans.com/docs/transaction-status-cycle
EVENTS: dict[str, Mapper] = {
    **PAID,
    "refund": refund,
    "partial_refund": refund,
    "chargeback": dispute,
    "partial_chargeback": dispute,
    "cancel": cancelled,
}

IGNORED = {
    "pending": "not_paid",
    "authorize": "not_paid",
    "deny": "no_money_moved",
    "expire": "no_money_moved",
    "failure": "no_money_moved",
}
