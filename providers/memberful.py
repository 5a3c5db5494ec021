"""Memberful.

Quirks (there is no published vector of a signature, and no official SDK for Python):
- No event has an id: an order's is its type, its order and that order's status; any other's is the
  digest of its body.
- No currency is named: it is the source's `currency`. Amounts are in its smallest unit, of which
  there are 100, or one where `zero_decimals` is set.
- `order.purchased` is a first or one-off payment, a trial (0 with `in_trial_period`), or a later
  order of an old subscription, which is left to the ledger. Uncertain: whether the charge for an
  upgrade comes so; documented for upgrades is only `subscription.updated`, which has no order.
- The first payment after a trial is a `subscription.renewed` (uncertain); it counts as the first if
  it is made at the trial's end.
- An order in `order.*` has no time: that of receipt stands in. In `subscription.*` times are text,
  elsewhere Unix seconds.
- `order.refunded` does not say how much: it is told as all that is left of the order, when it says
  `refunded`. Memberful can refund a part. Uncertain: what it then sends; any other status is dead
  with `unknown_refund_amount`, to be seen by its owner. A second refund of an order is not told.
- Disputes are told by nobody: `order.suspended` is set by hand, for any reason.
- The dashboard's test webhook is an invented order of a member whose `id` is 0.
- `tracking_params` are the member's, from its first visit to the checkout.
"""

import hashlib
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from relay import money, visitor
from relay.errors import PayloadError
from relay.model import Event, Ignored, Kind, Payment, Received, Recurrence
from relay.payload import Payload
from relay.provider import Mapper, Setting, Setup
from relay.verify import BodyHmac

TITLE = "Memberful"
DOCS = "https://memberful.com/help/custom-development-and-api/webhooks/"

SETUP = Setup(
    where="Dashboard, Settings, Webhooks, Add a new webhook: paste the URL and tick the events. An "
    "endpoint that fails for five days is deleted there; add it again then.",
    events=("order.purchased", "subscription.renewed", "order.refunded"),
    secret="The webhook's secret, on its page under Settings, Webhooks.",
    visitor="In `utm_content` of the link to the checkout; Memberful keeps it with the member as "
    "`tracking_params`. A member's custom field that holds nothing but the visitor's id will do too.",
    checkout="""\
<!-- at the end of the page that links to your checkout -->
<script>
  const visitor = document.cookie.match(/(?:^|; )datafast_visitor_id=([^;]+)/)?.[1];
  if (visitor)
    for (const link of document.querySelectorAll('a[href*="/checkout?plan="]')) {
      const url = new URL(link.href);
      url.searchParams.set("utm_content", visitor);
      link.href = url;
    }
</script>""",
    notes="Set `currency` of the source to that of your account, for the events do not name it; and "
    "`zero_decimals: true` if it has no decimals. While your site is in test mode set `test: true`.",
)

SETTINGS = (
    Setting("zero_decimals", "true if your currency has no decimals, as JPY", default=False),
    Setting("test", "true if your site is in test mode; the events do not say it", default=False),
)

# https://memberful.com/help/custom-development-and-api/webhooks/#verify-requests
SIGNATURE = BodyHmac("X-Memberful-Webhook-Signature")

_AT_ONCE = timedelta(hours=1)


def parse(request: Received) -> list[Event]:
    """One event a request. Its time is that of receipt."""
    body = Payload.json(request.body).object()
    type, order = body.text("event"), body.at("order")
    names = [order.text_or_none(key) for key in ("uuid", "status")]
    digest = hashlib.sha256(request.body).hexdigest()
    id = ":".join([type, *filter(None, names)]) if names[0] else digest
    return [Event(id, type, body, request.received_at)]


def purchased(event: Event) -> Payment | Ignored:
    """`order.purchased`: a first or one-off payment, or a trial."""
    subscription = event.data.at("order", "subscriptions", 0)
    if not event.data.integer("order", "total") and subscription.flag("in_trial_period"):
        return trial(event, subscription)
    began_at = moment(subscription, "created_at")
    recurrence = Recurrence.UNKNOWN if subscription else Recurrence.ONE_TIME
    return charge(event, subscription, recurrence, began_at)


def renewed(event: Event) -> Payment | Ignored:
    """`subscription.renewed`: a later payment, or the first after a trial."""
    subscription = event.data.object("subscription")
    return charge(event, subscription, Recurrence.RENEWAL, moment(subscription, "trial_end_at"))


def charge(
    event: Event, subscription: Payload, recurrence: Recurrence, began_at: datetime | None
) -> Payment | Ignored:
    """An order that was paid; the first of its subscription if it was just when that began."""
    if is_invented(event):
        return Ignored("test_event", test=True)
    order = event.data.object("order")
    paid_at = moment(order, "created_at") or event.occurred_at or order.time("created_at")
    if began_at and abs(paid_at - began_at) < _AT_ONCE:
        recurrence = Recurrence.FIRST
    like = "JPY" if event.settings["zero_decimals"] else "USD"
    return Payment(
        kind=Kind.CHARGE,
        transaction_id=order.text("uuid"),
        amount=money.minor_units(order, "total", code=like),
        currency=None,
        occurred_at=paid_at,
        recurrence=recurrence,
        **about(event, subscription),
    )


def trial(event: Event, subscription: Payload) -> Payment | Ignored:
    """A subscription that begins with a trial."""
    if is_invented(event):
        return Ignored("test_event", test=True)
    began_at = moment(subscription, "trial_start_at") or event.occurred_at
    return Payment(
        kind=Kind.TRIAL,
        transaction_id=f"{subscription.text('id')}:trial",
        amount=Decimal(0),
        currency=None,
        occurred_at=began_at or subscription.unix_time("trial_start_at"),
        **about(event, subscription),
    )


def refund(event: Event) -> Payment | Ignored:
    """`order.refunded`: all that is left of the order."""
    order = event.data.object("order")
    if is_invented(event):
        return Ignored("test_event", test=True)
    if not order.integer("total"):
        return Ignored("nothing_was_taken")
    if order.text("status") != "refunded":
        hint = "Memberful does not say how much; enter this refund in DataFast by hand"
        raise PayloadError("unknown_refund_amount", order.at("status").path, hint)
    original_id = order.text("uuid")
    return Payment(
        kind=Kind.REFUND,
        transaction_id=f"{original_id}:refund",
        amount=None,
        currency=None,
        occurred_at=event.occurred_at or order.time("created_at"),
        original_id=original_id,
        **about(event, order.at("subscriptions", 0)),
    )


def about(event: Event, subscription: Payload) -> dict[str, Any]:
    """Whom an event is about: the member, and the subscription."""
    member = member_of(event)
    tracked = member.at("tracking_params")
    places = (tracked, tracked.at("utm_content"), member.at("custom_field"))
    began_at = moment(subscription, "trial_end_at") or moment(subscription, "created_at")
    return {
        "subscription_id": subscription.text_or_none("id"),
        "subscribed_at": began_at,
        "customer_id": member.text_or_none("id"),
        "email": member.text_or_none("email"),
        "name": member.text_or_none("full_name"),
        "visitor_id": visitor.find(*places),
        "test": event.settings["test"],
    }


def member_of(event: Event) -> Payload:
    """The member that an order or a subscription belongs to."""
    return event.data.at("order", "member") or event.data.at("subscription", "member")


def is_invented(event: Event) -> bool:
    """Whether it is the dashboard's test webhook."""
    return member_of(event).text_or_none("id") == "0"


def moment(place: Payload, key: str) -> datetime | None:
    """The time at `key`, Unix seconds or text, which need not be there."""
    found = place.at(key)
    if not found:
        return None
    return found.unix_time() if isinstance(found.value, int) else found.time()


# https://memberful.com/help/custom-development-and-api/webhook-event-reference/
EVENTS: dict[str, Mapper] = {
    "order.purchased": purchased,
    "subscription.renewed": renewed,
    "order.refunded": refund,
}

IGNORED = {
    "order.completed": "set_by_hand",
    "order.suspended": "set_by_hand",
    "subscription.created": "told_by_order.purchased",
    "subscription.updated": "no_money_moved",
    "subscription.activated": "no_money_moved",
    "subscription.deactivated": "no_money_moved",
    "subscription.deleted": "no_money_moved",
    "member_signup": "no_money_moved",
    "member_updated": "no_money_moved",
    "member.deleted": "no_money_moved",
    "custom_fields.updated": "no_money_moved",
    "tax_id.updated": "no_money_moved",
    "subscription_plan.created": "no_money_moved",
    "subscription_plan.updated": "no_money_moved",
    "subscription_plan.deleted": "no_money_moved",
    "download.created": "no_money_moved",
    "download.updated": "no_money_moved",
    "download.deleted": "no_money_moved",
}
