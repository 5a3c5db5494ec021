"""Paystack.

Quirks:
- Signed with the API secret key itself (HMAC-SHA512); there is no secret of the webhook's own.
- A charge does not name its subscription, only its plan and its customer. The pair of the two
  stands in for the subscription, here and in `subscription.create`, which tells when it began.
- A charge of a plan that was paid at a checkout begins a subscription. One that Paystack makes by
  itself has `invoice_action` in its metadata: `update` on a renewal, `create` mostly on the first
  after a later start; but public examples of `create` were all made by the hourly run, which for
  hourly and daily plans may mean a renewal (uncertain). So `create` is left to the ledger.
- `invoice.update` tells of a plan's charge again, `paymentrequest.success` of a paid request's.
- `metadata` can be an object, JSON in a text, `""`, 0 or null. `data` can be a list.
- Amounts are integers in charges and text in refunds. Every currency has two decimals here, XOF
  and RWF as well (as Paystack's WooCommerce plug-in sends them; no event in them was seen).
- Refunds have no time: theirs is that of receipt. They do not say whether they are full.
- A dispute that is opened has taken nothing. Accepted, by the owner or by waiting too long, it
  takes `refund_amount`. Uncertain: whether `refund.processed` tells of the same money then.
- Events have no id; it is made of the type and of the id or reference inside.
- The test key signs events of `domain` test. There is no published vector of a signature, and no
  official SDK for Python.
"""

import hashlib

from relay import money, visitor
from relay.errors import PayloadError
from relay.model import Event, Ignored, Kind, Payment, Received, Recurrence
from relay.payload import Payload
from relay.provider import Mapper, Setup
from relay.verify import BodyHmac

TITLE = "Paystack"
DOCS = "https://paystack.com/docs/payments/webhooks/"

SETUP = Setup(
    where="Dashboard, Settings, API Keys & Webhooks: paste the URL as Live Webhook URL, and as Test "
    "Webhook URL if you want to see test payments. There is one URL for each mode, and every event "
    "is sent to it: if another service needs it too, that one has to pass the events on.",
    events=(
        "charge.success",
        "refund.processed",
        "charge.dispute.resolve",
        "subscription.create",
        "preauthorization.capture.success",
    ),
    secret="The Secret Key on the same page (sk_live_...). Add the test key (sk_test_...) as a second "
    "secret if test events come to the same URL. The public key signs nothing.",
    visitor="In `metadata` of the transaction. Renewals and refunds do not repeat it.",
    checkout="""\
// on your server, where the transaction is initialised
body: JSON.stringify({
  email, amount: 250000,
  metadata: { datafast_visitor_id: cookies.get("datafast_visitor_id") },
})

// or in the browser
new PaystackPop().newTransaction({
  key: "pk_live_...", email, amount: 250000,
  metadata: { datafast_visitor_id: visitorId },
});""",
)

# https://paystack.com/docs/payments/webhooks/#verify-event-origin
SIGNATURE = BodyHmac("x-paystack-signature", "sha512")

_DECIMALS = {"XOF": 2, "RWF": 2}
_CHECKOUTS = {"transaction_initialize", "request_inline"}
_ACCEPTED = {"accepted", "auto-accepted", "merchant-accepted"}
_IDS = ("id", "reference", "refund_reference", "subscription_code")


def parse(request: Received) -> list[Event]:
    """One event a request. What has no id or reference is known by its digest."""
    body = Payload.json(request.body).object()
    type, data = body.text("event"), body.at("data")
    ids = (data.text_or_none(key) for key in _IDS)
    id = next(filter(None, ids), None) or hashlib.sha256(request.body).hexdigest()
    told_at = request.received_at if type.startswith("refund.") else None
    return [Event(f"{type}:{id}", type, data, told_at)]


def charge(event: Event) -> Payment | Ignored:
    """`charge.success`: all that is paid, the charges of plans included."""
    if event.data.text("status") != "success":
        return Ignored("not_paid")
    return payment(
        event,
        kind=Kind.CHARGE,
        transaction_id=event.data.text("reference"),
        recurrence=recurrence(event.data),
    )


def recurrence(paid: Payload) -> Recurrence:
    """By what Paystack notes in the metadata of its own charges, or by where it was paid."""
    action = metadata(paid).text_or_none("invoice_action")
    if not action and not paid.at("plan"):
        return Recurrence.ONE_TIME
    if action:
        return Recurrence.RENEWAL if action == "update" else Recurrence.UNKNOWN
    at_checkout = paid.text_or_none("source", "entry_point") in _CHECKOUTS
    return Recurrence.FIRST if at_checkout else Recurrence.UNKNOWN


def captured(event: Event) -> Payment | Ignored:
    """`preauthorization.capture.success`: a reserved amount, or a part of it, that is now paid."""
    return payment(
        event,
        "captured_amount",
        kind=Kind.CHARGE,
        transaction_id=event.data.text("reference"),
        recurrence=Recurrence.ONE_TIME,
        times=("captured_at",),
    )


def refund(event: Event) -> Payment | Ignored:
    """`refund.processed`: this refund's amount, of the transaction that it names."""
    return payment(
        event,
        kind=Kind.REFUND,
        transaction_id=event.data.text_or_none("refund_reference") or event.id,
        original_id=event.data.text("transaction_reference"),
    )


def dispute(event: Event) -> Payment | Ignored:
    """`charge.dispute.resolve`: what an accepted dispute takes, which may be a part."""
    if event.data.text_or_none("resolution") not in _ACCEPTED:
        return Ignored("no_money_moved")
    return payment(
        event,
        "refund_amount",
        kind=Kind.DISPUTE,
        transaction_id=f"dispute:{event.data.text('id')}",
        original_id=event.data.text("transaction", "reference"),
        times=("resolvedAt", "updated_at"),
    )


def subscribed(event: Event) -> Ignored:
    """`subscription.create`: no money, but when the subscription of a customer to a plan began."""
    return Ignored(
        "no_money_moved",
        subscription_id=subscription_id(event.data),
        subscribed_at=event.data.time_or_none("createdAt"),
        occurred_at=event.data.time_or_none("createdAt"),
        customer_id=event.data.text_or_none("customer", "customer_code"),
        email=event.data.text_or_none("customer", "email"),
        test=event.data.text_or_none("domain") == "test",
    )


def payment(
    event: Event,
    amount: str = "amount",
    *,
    kind: Kind,
    transaction_id: str,
    times: tuple[str, ...] = ("paid_at", "paidAt", "created_at"),
    recurrence: Recurrence | None = None,
    original_id: str | None = None,
) -> Payment:
    """What the movements have in common."""
    data, customer = event.data, event.data.at("customer")
    code = money.currency(data, "currency")
    time = next((key for key in times if data.at(key)), times[0])
    names = (customer.text_or_none("first_name"), customer.text_or_none("last_name"))
    return Payment(
        kind=kind,
        transaction_id=transaction_id,
        amount=money.minor_units(data, amount, code=code, exceptions=_DECIMALS),
        currency=code,
        occurred_at=event.occurred_at or data.time(time),
        recurrence=recurrence,
        original_id=original_id,
        subscription_id=subscription_id(data),
        customer_id=customer.text_or_none("customer_code"),
        email=customer.text_or_none("email"),
        name=" ".join(filter(None, names)) or None,
        visitor_id=visitor.find(data.at("metadata"), customer.at("metadata")),
        test=data.text_or_none("domain") == "test",
    )


def metadata(data: Payload) -> Payload:
    """The metadata, also when it is JSON in a text."""
    given = data.at("metadata")
    try:
        return Payload.json(given.value.encode()) if isinstance(given.value, str) else given
    except (PayloadError, UnicodeEncodeError):
        return Payload(None)


def subscription_id(data: Payload) -> str | None:
    """Customer and plan, which is all that a charge says of its subscription."""
    customer = data.text_or_none("customer", "customer_code")
    plan = data.text_or_none("plan", "plan_code")
    return f"{customer}:{plan}" if customer and plan else None


# https://paystack.com/docs/payments/webhooks/#supported-events
EVENTS: dict[str, Mapper] = {
    "charge.success": charge,
    "preauthorization.capture.success": captured,
    "refund.processed": refund,
    "charge.dispute.resolve": dispute,
    "subscription.create": subscribed,
}

IGNORED = {
    "charge.failed": "no_money_moved",
    "charge.dispute.create": "nothing_taken_yet",
    "charge.dispute.remind": "nothing_taken_yet",
    "refund.pending": "not_refunded_yet",
    "refund.processing": "not_refunded_yet",
    "refund.needs-attention": "not_refunded_yet",
    "refund.failed": "no_money_moved",
    "invoice.create": "no_money_moved",
    "invoice.update": "told_by_charge.success",
    "invoice.payment_failed": "no_money_moved",
    "subscription.disable": "no_money_moved",
    "subscription.not_renew": "no_money_moved",
    "subscription.expiring_cards": "no_money_moved",
    "paymentrequest.pending": "not_paid",
    "paymentrequest.success": "told_by_charge.success",
    "preauthorization.reserve.success": "not_paid",
    "preauthorization.capture.failed": "no_money_moved",
    "preauthorization.release.success": "no_money_moved",
    "preauthorization.release.failed": "no_money_moved",
    "bank.transfer.rejected": "no_money_moved",
    "transfer.success": "not_a_sale",
    "transfer.failed": "not_a_sale",
    "transfer.reversed": "not_a_sale",
    "customeridentification.success": "no_money_moved",
    "customeridentification.failed": "no_money_moved",
    "dedicatedaccount.assign.success": "no_money_moved",
    "dedicatedaccount.assign.failed": "no_money_moved",
    "direct_debit.authorization.created": "no_money_moved",
    "direct_debit.authorization.active": "no_money_moved",
}
