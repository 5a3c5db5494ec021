"""Creem.

Quirks:
- `subscription.paid` tells of the first charge and of every later one; `subscription.active` of the
  first once more. The product's `price` is the list price: what was paid is in `last_transaction`.
  Live events have it, the documented ones do not; then the transaction is fetched.
- `checkout.completed` tells of one-off payments, and once more of a subscription's first charge.
  Both name the transaction, so that the two become one movement of money. An order that names
  none is left to `subscription.paid`, or looked up when it is one-off. `order.amount` is net.
- Nothing says first or renewal. First is what was charged within an hour of the subscription's
  creation; a later charge in the first period (a late payment, an upgrade) is left to the ledger.
- A trial can be paid: such a one is no free trial, and its fee is told by `checkout.completed`.
- `refund.created` may be of a refund that is `pending` (or failed); it is ignored. Uncertain:
  whether Creem tells again when it has succeeded.
- A dispute takes the whole payment back at once; nothing tells when it is won.
- `mode` is `prod` in live events. The `mode` of a dispute itself can differ from its transaction's.
- Orders can have `fx_amount` and `fx_currency`. Uncertain what they mean, so they are not read.
- `credits.auto_recharged` is a charge whose event does not name its amount; it is not counted.
- There is no published vector of a signature; the judge is a Python SDK that is not Creem's own.
"""

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from urllib.parse import quote

from relay import money, visitor
from relay.model import Event, Ignored, Kind, Payment, Received, Recurrence
from relay.payload import Payload
from relay.provider import Api, Mapper, Setting, Setup
from relay.verify import BodyHmac

TITLE = "Creem"
DOCS = "https://docs.creem.io/code/webhooks"

SETUP = Setup(
    where="Dashboard, Developers, Webhooks: add a webhook with the URL. Test mode has webhooks and "
    "API keys of its own: make a second source for it, with `api_base` https://test-api.creem.io.",
    events=(
        "checkout.completed",
        "subscription.paid",
        "subscription.trialing",
        "refund.created",
        "dispute.created",
    ),
    secret="The webhook's signing secret, on its page under Developers, Webhooks. The API key that "
    "transactions are read with is under Developers as well.",
    visitor="In `metadata` of the checkout; Creem copies it to the subscription.",
    checkout="""\
// on your server, where the checkout is created
const checkout = await creem.checkouts.create({
  productId: "prod_...",
  successUrl: "https://example.com/thanks",
  metadata: { datafast_visitor_id: cookies.get("datafast_visitor_id") },
});""",
    notes="A payment link that was made in the dashboard carries no metadata: create the checkout "
    "on your server.",
)

SETTINGS = (
    Setting(
        "api_key",
        "API key that a subscription's transactions are read with",
        required=True,
        secret=True,
    ),
    Setting("api_base", "where Creem's API is", default="https://api.creem.io"),
)

# https://docs.creem.io/code/webhooks#webhook-signatures
SIGNATURE = BodyHmac("creem-signature")

_AT_ONCE = timedelta(hours=1)
_TEST_MODES = {"test", "sandbox", "local"}


def parse(request: Received) -> list[Event]:
    """One event a request."""
    body = Payload.json(request.body).object()
    occurred_at = body.unix_time("created_at", unit=1_000)
    return [Event(body.text("id"), body.text("eventType"), body.object("object"), occurred_at)]


# https://docs.creem.io/api-reference/endpoint/get-transaction
def fetch(event: Event, api: Api) -> list[Event]:
    """The transaction, where the event does not say what was paid."""
    data, headers = event.data, {"x-api-key": event.settings["api_key"]}
    if event.type == "subscription.paid" and not says(data.at("last_transaction"), "id"):
        id = quote(data.text("last_transaction_id"), safe="")
        found = api.get(f"/v1/transactions?transaction_id={id}", headers).object()
    elif event.type == "checkout.completed" and is_told_here_only(data.at("order")):
        id = quote(data.text("order", "id"), safe="")
        found = api.get(f"/v1/transactions/search?order_id={id}", headers).at("items", 0).object()
    else:
        return [event]
    whole = {**data.value, "last_transaction": found.value}
    return [replace(event, data=Payload(whole, data.path))]


def is_told_here_only(order: Payload) -> bool:
    """Whether a one-off order is paid, and names no transaction or not what was paid."""
    kind, status = order.text_or_none("type"), order.text_or_none("status")
    return (kind, status) == ("onetime", "paid") and not says(order, "transaction")


def says(moved: Payload, id: str) -> bool:
    """Whether an order or transaction says what was paid, and in which transaction if it was not 0."""
    paid = moved.at("amount_paid").value
    return paid == 0 or (paid is not None and bool(moved.at(id)))


def bought(event: Event) -> Payment | Ignored:
    """`checkout.completed`: a one-off payment, or the first of a subscription."""
    order, fetched = event.data.at("order"), event.data.at("last_transaction")
    if order.text_or_none("status") != "paid":
        return Ignored("not_paid")
    recurring = order.text_or_none("type") == "recurring"
    if recurring and not says(order, "transaction"):
        return Ignored("told_by_subscription.paid")
    id = fetched.text_or_none("id") or order.text_or_none("transaction")
    return payment(
        event,
        fetched or order,
        kind=Kind.CHARGE,
        transaction_id=id or order.text("id"),  # only a free order has come here without one
        recurrence=Recurrence.FIRST if recurring else Recurrence.ONE_TIME,
    )


def paid(event: Event) -> Payment | Ignored:
    """`subscription.paid`: the first charge, a renewal, or the first after a trial."""
    return payment(
        event,
        event.data.object("last_transaction"),
        kind=Kind.CHARGE,
        transaction_id=event.data.text("last_transaction_id"),
        recurrence=recurrence(event.data),
    )


def recurrence(subscription: Payload) -> Recurrence:
    """By when it was charged, and when its period began, after the subscription's creation."""
    created_at = subscription.time_or_none("created_at")
    charged_at = subscription.time_or_none("last_transaction_date")
    period_began_at = subscription.time_or_none("current_period_start_date")
    if created_at and charged_at and charged_at - created_at < _AT_ONCE:
        return Recurrence.FIRST
    if created_at and period_began_at and period_began_at - created_at > _AT_ONCE:
        return Recurrence.RENEWAL
    return Recurrence.UNKNOWN


# https://docs.creem.io/features/trials
def trial(event: Event) -> Payment | Ignored:
    """`subscription.trialing`: a trial, unless the customer pays for it."""
    product = event.data.at("product")
    if product.at("trial_price") and product.integer("trial_price"):
        return Ignored("paid_trial")
    return payment(
        event,
        product,
        kind=Kind.TRIAL,
        transaction_id=f"{event.data.text('id')}:trial",
        amount=None,
    )


def refund(event: Event) -> Payment | Ignored:
    """`refund.created`: this refund's amount, tax included; full or partial."""
    if event.data.text_or_none("status") not in {None, "succeeded"}:
        return Ignored("not_refunded")
    return taken_back(event, Kind.REFUND, "refund_amount", "refund_currency")


def dispute(event: Event) -> Payment | Ignored:
    """`dispute.created`: the money is gone at once."""
    return taken_back(event, Kind.DISPUTE, "amount", "currency")


def taken_back(event: Event, kind: Kind, amount: str, currency: str) -> Payment:
    """A refund or dispute, which names the transaction that it takes back."""
    return payment(
        event,
        event.data,
        kind=kind,
        transaction_id=event.data.text("id"),
        amount=amount,
        currency=currency,
        original_id=event.data.text("transaction", "id"),
    )


def payment(
    event: Event,
    moved: Payload,
    *,
    kind: Kind,
    transaction_id: str,
    amount: str | None = "amount_paid",
    currency: str = "currency",
    recurrence: Recurrence | None = None,
    original_id: str | None = None,
) -> Payment:
    """What the movements have in common. `moved` holds the amount and its currency."""
    data, checkout, customer = event.data, event.data.at("checkout"), event.data.at("customer")
    subscription = data if event.type.startswith("subscription.") else data.at("subscription")
    code = money.currency(moved, currency)
    had_trial = kind is Kind.TRIAL or subscription.at("product", "trial_period_days")
    modes = [it.text_or_none("mode") for it in (data.at("transaction"), moved, data)]
    return Payment(
        kind=kind,
        transaction_id=transaction_id,
        amount=money.minor_units(moved, amount, code=code) if amount else Decimal(0),
        currency=code,
        occurred_at=data.time_or_none("last_transaction_date")
        or event.occurred_at
        or data.unix_time("created_at", unit=1_000),
        recurrence=recurrence,
        original_id=original_id,
        subscription_id=id_of(subscription),
        subscribed_at=None if had_trial else subscription.time_or_none("created_at"),
        customer_id=id_of(customer),
        email=customer.text_or_none("email"),
        name=customer.text_or_none("name"),
        visitor_id=visitor.find(*(it.at("metadata") for it in (data, subscription, checkout))),
        reference=data.text_or_none("request_id") or checkout.text_or_none("request_id"),
        test=next(filter(None, modes), None) in _TEST_MODES,
    )


def id_of(place: Payload) -> str | None:
    """The id of what Creem gives as a whole object, or as its id alone."""
    return place.text_or_none("id") if isinstance(place.value, dict) else place.text_or_none()


# https://docs.creem.io/code/webhooks#event-types
EVENTS: dict[str, Mapper] = {
    "checkout.completed": bought,
    "subscription.paid": paid,
    "subscription.trialing": trial,
    "refund.created": refund,
    "dispute.created": dispute,
}

IGNORED = {
    "subscription.active": "told_by_subscription.paid",
    "subscription.update": "no_money_moved",
    "subscription.scheduled_cancel": "no_money_moved",
    "subscription.canceled": "no_money_moved",
    "subscription.past_due": "no_money_moved",
    "subscription.unpaid": "no_money_moved",
    "subscription.paused": "no_money_moved",
    "subscription.expired": "no_money_moved",
    "credits.granted": "no_money_moved",
    "credits.consumed": "no_money_moved",
    "credits.auto_recharged": "amount_not_told",
    "customer_credits.exhausted": "no_money_moved",
}
