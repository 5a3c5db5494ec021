"""FastSpring.

Quirks:
- One request holds many events. A manual repetition gives them new ids, so an order is one movement
  of money by its own id, whatever event tells of it.
- The signature is sent only if the webhook has a secret; without it nothing is accepted. No time is
  signed, and there is no published vector.
- With "webhook expansion" orders, accounts and subscriptions are whole objects, without it their ids
  alone. Both are read, but then a renewal knows no e-mail address.
- `order.completed` is a one-off purchase or a subscription's first; `subscription.charge.completed`
  every later charge, a proration too, and the first after a trial: the ledger knows the trial.
- A trial is a subscription in the state `trial`: told by its activation, and by the order of 0 if
  expanded. An order of 0 can as well be a coupon's. Uncertain: whether each trial has an order.
- Subscriptions that are billed together are told by `subscription.group.charge.completed`.
  Uncertain: whether each is told as well; by the order's id it would be counted once.
- The id of a chargeback is that of its order. Nothing tells when it is won, and nothing of refunds
  of the tax alone. Uncertain: whether a chargeback is told as a return as well.
- Amounts are numbers in major units; `...InPayoutCurrency` is what FastSpring settles, not the price.
- `live` is on the event, and not on all that is in it.
"""

from decimal import Decimal
from typing import Any

from relay import money, visitor
from relay.model import Event, Ignored, Kind, Payment, Received, Recurrence
from relay.payload import Payload
from relay.provider import Mapper, Setup
from relay.verify import BodyHmac

TITLE = "FastSpring"
DOCS = "https://developer.fastspring.com/reference/webhooks-overview"

SETUP = Setup(
    where="FastSpring App, Developer Tools, Webhooks, Configuration, Add Webhook: live orders (and a "
    "second one for test orders, if you want them). Tick Enable Webhook Expansion. Then Add URL "
    "Endpoint: paste the URL, type a secret, tick the events.",
    events=(
        "order.completed",
        "subscription.activated",
        "subscription.charge.completed",
        "subscription.group.charge.completed",
        "return.created",
        "chargeback.created",
    ),
    secret="The HMAC SHA256 Secret that you type with the URL; make it long (`openssl rand -hex 32`). "
    "The field is optional at FastSpring, here it is not.",
    visitor="In `tags` of the order.",
    checkout="""\
// Store Builder, on your page, before the checkout opens
const visitor = document.cookie.match(/(?:^|; )datafast_visitor_id=([^;]+)/)?.[1];
if (visitor) fastspring.builder.push({ tags: { datafast_visitor_id: visitor } });
// or on your server: POST https://api.fastspring.com/sessions
{ "items": [...], "tags": { "datafast_visitor_id": cookies.get("datafast_visitor_id") } }""",
    notes="Without webhook expansion, renewals get their customer and visitor from the first order.",
)

# https://developer.fastspring.com/reference/message-security
SIGNATURE = BodyHmac("X-FS-Signature", encoding="base64")


def parse(request: Received) -> list[Event]:
    """All events of the batch."""
    batch = Payload.json(request.body).object()
    return [Event(it.text("id"), it.text("type"), it) for it in batch.items("events")]


def ordered(event: Event) -> Payment | Ignored:
    """`order.completed`: one-off, a subscription's first, or the order of 0 that begins a trial."""
    order = event.data.object("data")
    subscription = subscription_of(order)
    if order.decimal("total") == 0 and is_trial(subscription):
        return trial(event, subscription)
    return payment(
        event,
        kind=Kind.CHARGE,
        transaction_id=order.text("id"),
        amount="total",
        recurrence=Recurrence.FIRST if subscription else Recurrence.ONE_TIME,
    )


def charged(event: Event) -> Payment | Ignored:
    """`subscription.charge.completed`, also for a group: a later charge."""
    data = event.data.object("data")
    if data.text("status") != "successful":
        return Ignored("not_paid")
    group_order = data.text_or_none("cotermGroupOrderId")
    return payment(
        event,
        kind=Kind.CHARGE,
        transaction_id=group_order or id_of(data.at("order")) or data.text("order"),
        amount="total",
        moment=("data", "timestamp"),
        recurrence=Recurrence.RENEWAL,
    )


def activated(event: Event) -> Payment | Ignored:
    """`subscription.activated`: a trial, or what its first order tells."""
    subscription = event.data.object("data")
    if is_trial(subscription):
        return trial(event, subscription)
    return Ignored("told_by_order.completed", **about(event))


def trial(event: Event, subscription: Payload) -> Payment:
    """A trial, told by the subscription or by its order; `changed` is when it began."""
    return Payment(
        kind=Kind.TRIAL,
        transaction_id=f"{subscription.text('id')}:trial",
        amount=Decimal(0),
        currency=money.currency(event.data, "data", "currency"),
        occurred_at=event.data.unix_time("data", "changed", unit=1_000),
        **about(event),
    )


def refund(event: Event) -> Payment | Ignored:
    """`return.created`: this return's amount, full or partial, once it is processed."""
    returned = event.data.object("data")
    if returned.at("completed").value is False:
        return Ignored("not_refunded")
    return payment(
        event,
        kind=Kind.REFUND,
        transaction_id=returned.text("return"),
        amount="totalReturn",
        original_id=returned.text("original", "id"),
    )


# https://developer.fastspring.com/reference/order-chargeback
def chargeback(event: Event) -> Payment | Ignored:
    """`chargeback.created`: the money is gone. Its own time is no ISO 8601, so the event's is taken."""
    order_id = event.data.text("data", "order")
    return payment(
        event,
        kind=Kind.DISPUTE,
        transaction_id=f"{order_id}:chargeback",
        amount="chargebackAmount",
        moment=("created",),
        original_id=order_id,
    )


def payment(
    event: Event,
    *,
    kind: Kind,
    transaction_id: str,
    amount: str,
    moment: tuple[str, ...] = ("data", "changed"),
    recurrence: Recurrence | None = None,
    original_id: str | None = None,
) -> Payment:
    """What the movements have in common."""
    data = event.data.object("data")
    return Payment(
        kind=kind,
        transaction_id=transaction_id,
        amount=money.major_units(data, amount),
        currency=money.currency(data, "currency"),
        occurred_at=event.data.unix_time(*moment, unit=1_000),
        recurrence=recurrence,
        original_id=original_id,
        **about(event),
    )


def about(event: Event) -> dict[str, Any]:
    """Whom an event is about."""
    data = event.data.object("data")
    order, account, subscription = data.at("order"), data.at("account"), subscription_of(data)
    customer = data.at("customer") or order.at("customer") or account.at("contact")
    names = (customer.text_or_none(part) for part in ("first", "last"))
    began_at = Payload(None) if is_trial(subscription) else subscription.at("begin")
    group = data.text_or_none("cotermGroupPrimarySubscription")
    return {
        "subscription_id": group or id_of(subscription),
        "subscribed_at": began_at.unix_time(unit=1_000) if began_at else None,
        "customer_id": id_of(account),
        "email": customer.text_or_none("email"),
        "name": " ".join(filter(None, names)) or None,
        "visitor_id": visitor.find(
            data.at("tags"), order.at("tags"), *(it.at("attributes") for it in items_of(data))
        ),
        "test": event.data.at("live").value is False,
    }


def subscription_of(data: Payload) -> Payload:
    """The subscription: the event's own subject, a charge's, or that of an order's first such item."""
    if data.at("state"):
        return data
    of_items = (item.at("subscription") for item in items_of(data))
    return next(filter(None, of_items), data.at("subscription"))


def items_of(data: Payload) -> list[Payload]:
    """What was bought, as far as the event says."""
    return list(data.items("items")) if data.at("items") else []


def is_trial(subscription: Payload) -> bool:
    """Whether the subscription, if it is there as a whole, is in its trial."""
    return subscription.text_or_none("state") == "trial"


def id_of(place: Payload) -> str | None:
    """The id of what is given as a whole or, without expansion, as its id alone."""
    return place.text_or_none("id") if isinstance(place.value, dict) else place.text_or_none()


# https://developer.fastspring.com/reference/webhooks-overview#server-webhook-events
EVENTS: dict[str, Mapper] = {
    "order.completed": ordered,
    "subscription.charge.completed": charged,
    "subscription.group.charge.completed": charged,
    "subscription.activated": activated,
    "return.created": refund,
    "chargeback.created": chargeback,
}

IGNORED = {
    "payoutEntry.created": "told_by_order.completed",
    "order.approval.pending": "not_paid",
    "order.canceled": "no_money_moved",
    "order.failed": "not_paid",
    "order.payment.pending": "not_paid",
    "fulfillment.failed": "no_money_moved",
    "account.created": "no_money_moved",
    "account.updated": "no_money_moved",
    "mailingListEntry.abandoned": "no_money_moved",
    "mailingListEntry.removed": "no_money_moved",
    "mailingListEntry.updated": "no_money_moved",
    "quote.created": "no_money_moved",
    "quote.updated": "no_money_moved",
    "subscription.canceled": "no_money_moved",
    "subscription.charge.failed": "not_paid",
    "subscription.deactivated": "no_money_moved",
    "subscription.paused": "no_money_moved",
    "subscription.payment.overdue": "not_paid",
    "subscription.payment.reminder": "no_money_moved",
    "subscription.resumed": "no_money_moved",
    "subscription.trial.reminder": "no_money_moved",
    "subscription.uncanceled": "no_money_moved",
    "subscription.updated": "no_money_moved",
}
