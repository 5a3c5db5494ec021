"""Braintree.

Quirks:
- A notification is a form: `bt_payload` is base64 with line breaks of XML, `bt_signature` is one or
  more `public_key|hex`. What is signed is the text of `bt_payload`, in SHA1 throughout. The check of
  the URL (`bt_challenge`) is answered with a signature of the same kind, so that a payload which
  could be a challenge is refused.
- The XML has no id for the event, and names elements with dashes or underscores, in one document.
- Nothing tells that a card was charged once. The nearest is `transaction_disbursed`, days later, only
  where Braintree pays out the money itself, and it is deprecated. Refunds are told only there, and
  for bank debits by `transaction_settled`. A sale that is voided is told nowhere.
- A subscription's notifications list its 20 latest transactions, newest first, failed ones and
  refunds among them. A charge for an upgrade comes like that of a cycle.
- `transaction_settlement_declined` can follow `transaction_settled` when a bank takes it back. It
  counts only if the transaction's history, or its subscription, shows that it was told before.
- A chargeback takes the money when it is opened, and one that is won returns it. A retrieval takes
  nothing; of a pre-arbitration that is uncertain, so it counts when it is lost.
- `subscription_went_active` needs a first transaction, says the documentation. So a trial may be told
  only by `subscription_trial_ended`, with nothing about the customer. It counts from the day on
  which the subscription was created.
- Subscriptions carry no custom fields; their transactions can show the customer's. Uncertain: the
  full XML, of which no live one was seen. Small ones lack the currency: it is the source's then.
"""

import base64
import hashlib
import hmac
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit
from xml.etree.ElementTree import Element, ParseError

from defusedxml.ElementTree import fromstring

from relay import money, visitor
from relay.errors import PayloadError, VerificationError
from relay.model import Event, Ignored, Kind, Payment, Received, Recurrence, Reply, Trust
from relay.payload import Payload
from relay.provider import Mapper, Setting, Setup
from relay.verify import Rehearsal, Signature, matches

TITLE = "Braintree"
DOCS = "https://developer.paypal.com/braintree/docs/guides/webhooks/overview"

SETUP = Setup(
    where="Control Panel, gear icon, API, Webhooks, Create new webhook. Sandbox has a control panel of "
    "its own: make a source for it.",
    events=(
        "subscription_charged_successfully",
        "subscription_went_active",
        "subscription_trial_ended",
        "transaction_disbursed",
        "transaction_settled",
        "transaction_settlement_declined",
        "local_payment_completed",
        "local_payment_funded",
        "dispute_opened",
        "dispute_lost",
        "dispute_accepted",
        "dispute_auto_accepted",
        "dispute_expired",
        "dispute_won",
    ),
    secret="Control Panel, gear icon, API, Keys: the public key and the private key, with a colon "
    "between them.",
    visitor="In a custom field of the transaction or the customer with the API name "
    "`datafast_visitor_id`. Add it first: gear icon, Transactions, Custom Fields, `Store and pass back`.",
    checkout="""\
// on your server (Node); for subscriptions give it to gateway.customer.create
await gateway.transaction.sale({
  amount,
  paymentMethodNonce,
  orderId,
  customFields: { datafast_visitor_id: request.cookies.datafast_visitor_id },
  options: { submitForSettlement: true },
});""",
    notes="Cards that are charged once are told by `transaction_disbursed`, days later. If your own "
    "server tells DataFast of them, leave that event out.",
)

SETTINGS = (
    Setting(
        "test",
        "true if this source's webhook belongs to the sandbox; the notifications do not say it",
        default=False,
    ),
)

_CHALLENGE = re.compile(r"[0-9a-f]{20,32}")
# No challenge, which is shorter, can pass for a payload.
_PAYLOAD = re.compile(r"[A-Za-z0-9+/=\n]{40,}")

_NOT_PAID = frozenset(
    {
        "authorization_expired",
        "failed",
        "gateway_rejected",
        "processor_declined",
        "settlement_declined",
        "settlement_failed",
        "voided",
    }
)


# https://developer.paypal.com/braintree/docs/guides/webhooks/parse
@dataclass(frozen=True)
class FormSignature(Signature):
    """Both halves of the form; a secret is `public_key:private_key`."""

    summary = "HMAC-SHA1 of the payload in the form"
    place = "body"

    def verify(self, request: Received, trust: Trust) -> None:
        """See Signature. Raises malformed_body, bad_signature."""
        try:
            signature, payload = halves(request)
        except PayloadError as error:
            raise VerificationError("malformed_body", error.message) from None
        ours = {secret.partition(":")[0] for secret in trust.secrets}
        claimed = [it for it in signature.split("&") if it.partition("|")[0] in ours]
        # Braintree's own libraries accept a payload that lost its last line break.
        messages = (payload, payload + "\n")
        matches(claimed, [signed(key, it) for key in trust.secrets for it in messages])

    def sign(self, request: Received, trust: Trust) -> Received:
        """See Signature."""
        _, payload = halves(request)
        form = {"bt_signature": signed(trust.secrets[0], payload), "bt_payload": payload}
        return replace(request, body=urlencode(form).encode())

    def flaw(self, secret: str) -> str | None:
        """See Signature."""
        public, _, private = secret.partition(":")
        if not (public and private) or {"|", "&"} & set(public):
            return "the public key and the private key are wanted, with a colon between them"
        return super().flaw(secret)

    def rehearse(self) -> Rehearsal:
        """See Signature."""
        return Rehearsal((f"{secrets.token_hex(8)}:{secrets.token_hex(16)}",))


SIGNATURE = FormSignature()


def signed(secret: str, message: str) -> str:
    """`public_key|hex`; the HMAC's key is the digest of the private key."""
    public, _, private = secret.partition(":")
    key = hashlib.sha1(private.encode()).digest()  # noqa: S324 - Braintree's choice
    return f"{public}|{hmac.digest(key, message.encode(), 'sha1').hex()}"


def halves(request: Received) -> tuple[str, str]:
    """`bt_signature` and `bt_payload`. Raises PayloadError."""
    form = Payload.form(request.body)
    # Not as a `text`, which has a limit that 20 transactions can reach.
    signature, payload = (str(form.at(name).value) for name in ("bt_signature", "bt_payload"))
    if not _PAYLOAD.fullmatch(payload):
        msg = "a form is wanted with `bt_signature`, and base64 in `bt_payload`"
        raise PayloadError("malformed_form", form.path, msg)
    return signature, payload


def challenge(request: Received, trust: Trust) -> Reply | None:
    """The check of the URL that older accounts make: `GET ?bt_challenge=`."""
    asked = parse_qs(urlsplit(request.url).query).get("bt_challenge", [""])[0]
    if request.method != "GET" or not _CHALLENGE.fullmatch(asked):
        return None
    return Reply(signed(trust.secrets[0], asked))


def parse(request: Received) -> list[Event]:
    """One event a request, known by its kind and what moved; else by its subscription and time."""
    body = notification(request).object()
    kind, subject = body.text("kind"), body.at("subject")
    id = (transaction(subject) or subject.at("dispute")).text_or_none("id")
    if id is None:
        id = f"{subject.text_or_none('subscription', 'id') or ''}:{body.text('timestamp')}"
    return [Event(f"{kind}:{id}", kind, subject, body.time("timestamp"))]


def notification(request: Received) -> Payload:
    """The XML in `bt_payload`. Raises PayloadError."""
    try:
        root = fromstring(base64.b64decode(halves(request)[1]).strip(), forbid_dtd=True)
        return Payload(tree(root), "$.bt_payload")
    except (ValueError, ParseError, LookupError, RecursionError) as error:
        hint = f"not XML in base64 ({type(error).__name__})"
        raise PayloadError("malformed_xml", "$.bt_payload", hint) from None


def tree(element: Element) -> Any:  # noqa: ANN401 - foreign data
    """An element as JSON would have it; of elements with the same name the first counts."""
    if element.get("type") == "array":
        return [tree(child) for child in element]
    if len(element):
        return {child.tag.replace("-", "_"): tree(child) for child in reversed(element)}
    return (element.text or "").strip() or None


def transaction(subject: Payload) -> Payload:
    """The one transaction that a notification is about; a subscription's newest sale."""
    local = subject.at("local_payment") or subject.at("local_payment_funded")
    return next(iter(sales(subject)), (local or subject).at("transaction"))


def sales(subject: Payload) -> list[Payload]:
    """The subscription's sales that were paid, newest first."""
    listed = subject.at("subscription", "transactions")
    return [it for it in (listed.items() if listed else ()) if is_paid(it) and not is_refund(it)]


def is_paid(moved: Payload) -> bool:
    """Whether a transaction moves money, or will in a moment."""
    return moved.text_or_none("status") not in _NOT_PAID


def is_refund(moved: Payload) -> bool:
    """Whether a transaction goes to the customer."""
    return moved.text_or_none("type") == "credit"


def charged(event: Event) -> Payment | Ignored:
    """`subscription_charged_successfully`: the newest of the subscription's sales."""
    newest, *earlier = sales(event.data) or [Payload(None)]
    if not newest:
        return Ignored("no_transaction")
    cycle = event.data.at("subscription", "current_billing_cycle")
    if earlier or (cycle and cycle.integer() > 1):
        recurrence = Recurrence.RENEWAL
    else:
        recurrence = Recurrence.FIRST if cycle else Recurrence.UNKNOWN
    return payment(event, newest, Kind.CHARGE, recurrence=recurrence)


def settled(event: Event) -> Payment | Ignored:
    """A transaction by itself: a sale or a refund."""
    moved = transaction(event.data)
    if not moved or not is_paid(moved):
        return Ignored("not_paid" if moved else "no_transaction")
    if is_refund(moved):
        original_id = moved.text_or_none("refunded_transaction_id")
        return payment(event, moved, Kind.REFUND, original_id=original_id)
    recurs = moved.at("subscription_id")
    recurrence = Recurrence.UNKNOWN if recurs else Recurrence.ONE_TIME
    return payment(event, moved, Kind.CHARGE, recurrence=recurrence)


def declined(event: Event) -> Payment | Ignored:
    """`transaction_settlement_declined`: undoes what was told before, if it was."""
    moved = event.data.object("transaction")
    history = moved.items("status_history") if moved.at("status_history") else ()
    was_told = any(it.at("status").value == "settled" for it in history)
    if is_refund(moved):
        kind, original_id = Kind.REINSTATED, moved.text_or_none("refunded_transaction_id")
    else:
        kind, original_id = Kind.DISPUTE, moved.text("id")
        was_told = was_told or bool(moved.at("subscription_id"))
    if not was_told:
        return Ignored("not_paid")
    return undone(event, payment(event, moved, kind, original_id=original_id), kind, "declined")


def undone(event: Event, told: Payment, kind: Kind, how: str) -> Payment:
    """A later turn of what was told: it has no id of its own, and happens now."""
    id, moment = f"{told.transaction_id}:{how}", event.occurred_at or told.occurred_at
    return replace(told, kind=kind, transaction_id=id, occurred_at=moment)


# https://developer.paypal.com/braintree/docs/reference/general/webhooks/dispute
def dispute(event: Event) -> Payment | Ignored:
    """`dispute_*`: what was taken, by whichever event is the first to say so; or came back."""
    disputed = event.data.object("dispute")
    kind, won = disputed.text_or_none("kind"), event.type == "dispute_won"
    if kind == "retrieval":
        return Ignored("nothing_was_taken")
    if kind == "pre_arbitration" and event.type in {"dispute_opened", "dispute_won"}:
        return Ignored("nothing_was_taken" if won else "nothing_taken_yet")
    amounts = ("amount_won", "amount_disputed") if won else ("amount_disputed",)
    amount = next((it for it in amounts if disputed.at(it)), "amount")
    original_id = disputed.at("transaction").text_or_none("id")
    taken = payment(event, disputed, Kind.DISPUTE, amount, original_id=original_id)
    return undone(event, taken, Kind.REINSTATED, "won") if won else taken


def trial(event: Event) -> Payment | Ignored:
    """`subscription_went_active` of a trial, `subscription_trial_ended` of any that was not told."""
    subscription = event.data.object("subscription")
    in_trial = subscription.flag("trial_period") and not subscription.at("transactions")
    if event.type == "subscription_went_active" and not in_trial:
        return Ignored("told_by_subscription_charged_successfully")
    return Payment(
        kind=Kind.TRIAL,
        transaction_id=f"{subscription.text('id')}:trial",
        amount=Decimal(0),
        currency=None,
        occurred_at=subscription.time("created_at"),
        **about(event, transaction(event.data)),
    )


def payment(
    event: Event,
    moved: Payload,
    kind: Kind,
    amount: str = "amount",
    *,
    recurrence: Recurrence | None = None,
    original_id: str | None = None,
) -> Payment:
    """What the movements have in common. `moved` is the transaction or the dispute."""
    paid = moved.at("transaction") or moved
    named = moved.at("currency_iso_code")
    return Payment(
        kind=kind,
        transaction_id=moved.text("id"),
        amount=money.major_units(moved, amount),
        currency=money.currency(named) if named else None,
        occurred_at=moved.time_or_none("created_at")
        or event.occurred_at
        or moved.time("created_at"),
        recurrence=recurrence,
        original_id=original_id,
        **about(event, paid),
    )


def about(event: Event, paid: Payload) -> Mapping[str, Any]:
    """Whom an event is about, by its transaction and its subscription."""
    customer, subscription = paid.at("customer"), event.data.at("subscription")
    names = [customer.text_or_none(part) for part in ("first_name", "last_name")]
    had_trial = subscription.flag("trial_period")
    fields = [holder.at("custom_fields") for holder in (paid, customer)]
    return {
        "subscription_id": subscription.text_or_none("id") or paid.text_or_none("subscription_id"),
        "subscribed_at": None if had_trial else subscription.time_or_none("created_at"),
        "customer_id": customer.text_or_none("id"),
        "email": customer.text_or_none("email"),
        "name": " ".join(filter(None, names)) or None,
        "visitor_id": visitor.find(*fields),
        "reference": paid.text_or_none("order_id"),
        "test": event.settings["test"],
    }


# https://developer.paypal.com/braintree/docs/reference/general/webhooks/overview
EVENTS: dict[str, Mapper] = {
    "subscription_charged_successfully": charged,
    "subscription_went_active": trial,
    "subscription_trial_ended": trial,
    "transaction_disbursed": settled,
    "transaction_settled": settled,
    "transaction_settlement_declined": declined,
    "local_payment_completed": settled,
    "local_payment_funded": settled,
    "dispute_opened": dispute,
    "dispute_lost": dispute,
    "dispute_accepted": dispute,
    "dispute_auto_accepted": dispute,
    "dispute_expired": dispute,
    "dispute_won": dispute,
}

IGNORED = {
    "check": "test_button",
    "disbursement": "told_by_transaction_disbursed",
    "disbursement_exception": "no_money_moved",
    "dispute_disputed": "told_by_dispute_opened",
    "dispute_under_review": "told_by_dispute_opened",
    "local_payment_expired": "no_money_moved",
    "local_payment_reversed": "no_transaction",
    "refund_failed": "refund_failed",
    "subscription_billing_skipped": "no_money_moved",
    "subscription_canceled": "no_money_moved",
    "subscription_charged_unsuccessfully": "no_money_moved",
    "subscription_expired": "no_money_moved",
    "subscription_went_past_due": "no_money_moved",
    "transaction_retried": "no_money_moved",
    "transaction_reviewed": "no_money_moved",
}
