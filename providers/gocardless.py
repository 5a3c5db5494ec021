"""GoCardless.

Quirks:
- An event holds ids only, so what moves money is read back from the API with an access token. A
  request holds up to 250 events; each is read back and told by itself.
- A payment is counted when it is `confirmed`. `paid_out` is the same money on its way to you.
- A refund is counted when it is `paid`, not when it is `created`: until then it can be cancelled
  or fail. If it comes back after that (its earlier events are asked for), its money returns, once,
  under the id `RF…:returned`. Which of `failed`, `bounced`, `funds_returned` tell of it is uncertain.
- A payment can fail after it was confirmed, when the bank's word is late. `payments.failed` does
  not say so; the payment's earlier events do, and are asked for. `late_failure_settled` may follow
  for the same money. Both carry the id `PM…:late_failure`, so that it is taken back once.
- A chargeback that is cancelled returns the money. A failed payment keeps its id when it is collected
  again: that second arrival of the money is not told.
- Whether a subscription's payment is its first is not said: left to the ledger, with the day on which
  the subscription's first payment is charged. An instalment is a part of one purchase, nothing
  renews: one-time. There are no trials, only a later start date.
- The metadata of a subscription or of an instalment schedule does not seem to be copied to its
  payments (uncertain), so it is read as well when the payment names no visitor.
- Sandbox events say so in no signed place: what is read from the sandbox's API is a test.
- The dashboard's "send test webhook" makes events up: they are signed, their ids begin with EVTEST
  (seen in deliveries, not documented). They are tests, and ignored if what they name does not exist.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from relay import money, visitor
from relay.errors import FetchError, PayloadError
from relay.model import Event, Ignored, Kind, Payment, Received, Recurrence
from relay.payload import Payload
from relay.provider import Api, Mapper, Setting, Setup
from relay.verify import BodyHmac

TITLE = "GoCardless"
DOCS = "https://developer.gocardless.com/getting-started/stay-up-to-date-with-webhooks-v2"

_SANDBOX = "https://api-sandbox.gocardless.com"

SETUP = Setup(
    where="Dashboard, Developers, Create, Webhook endpoint. All events are sent, there is nothing "
    "to tick; the relay acts on those listed here. The sandbox is an account of its own: make a "
    f"source of its own for it, with `api_base: {_SANDBOX}`.",
    events=(
        "payments.confirmed",
        "payments.failed",
        "payments.late_failure_settled",
        "payments.charged_back",
        "payments.chargeback_cancelled",
        "refunds.paid",
        "refunds.failed",
        "refunds.bounced",
        "refunds.funds_returned",
    ),
    secret="The secret that is shown when you create the webhook endpoint. Besides it, `api_key` is "
    "an access token: Developers, Create, Access token, read-only.",
    visitor="In `metadata` of the payment, subscription or instalment schedule. Where you create "
    "none of them yourself, in `metadata` of the customer.",
    checkout="""\
// on your server; the same `metadata` goes into client.subscriptions.create
await client.payments.create({
  amount: 2900, currency: "GBP", links: { mandate: mandateId },
  metadata: { datafast_visitor_id: cookies.get("datafast_visitor_id") },
});""",
    notes="Metadata holds at most 3 keys. Direct debits are confirmed some days after the "
    "customer signed up: that is when the payment appears.",
)

SETTINGS = (
    Setting("api_key", "an access token with read-only access", required=True, secret=True),
    Setting(
        "api_base",
        f"where the API is; {_SANDBOX} for the sandbox",
        default="https://api.gocardless.com",
    ),
)

SIGNATURE = BodyHmac("Webhook-Signature")

# An id becomes part of a path: letters, digits and _ only.
_ID = re.compile(r"[0-9A-Za-z_]{2,64}", re.ASCII)
# What these mean depends on what happened to the same resource before.
_ASKS_FOR_HISTORY = {
    "payments.failed": "payment",
    "refunds.failed": "refund",
    "refunds.bounced": "refund",
    "refunds.funds_returned": "refund",
}


def parse(request: Received) -> list[Event]:
    """Every event of the request, with its own id, which stays the same in another request."""
    found = []
    for each in Payload.json(request.body).items("events"):
        type = f"{each.text('resource_type')}.{each.text('action')}"
        found.append(Event(each.text("id"), type, each.object(), each.time_or_none("created_at")))
    return found


@dataclass(frozen=True, repr=False)
class _Reader:
    """Reads what a resource links to."""

    api: Api
    headers: Mapping[str, str]

    def get(self, name: str, linked_by: Payload) -> Payload:
        path = f"/{name}s/{_linked(name, linked_by)}"
        return self.api.get(path, self.headers).object(f"{name}s")

    def get_or_none(self, name: str, linked_by: Payload) -> Payload:
        try:
            path = f"/{name}s/{_linked(name, linked_by)}"
        except PayloadError:
            return Payload(None)
        answer = self.api.get_or_none(path, self.headers)
        return answer.at(f"{name}s") if answer else Payload(None)


def _linked(name: str, linked_by: Payload) -> str:
    id = linked_by.text("links", name)
    if not _ID.fullmatch(id):
        raise PayloadError("bad_id", linked_by.at("links", name).path, f"this is no id of a {name}")
    return id


# https://developer.gocardless.com/api-reference/#api-usage-making-requests
def fetch(event: Event, api: Api) -> list[Event]:
    """The same event with all that it names beside it; what moves no money asks nothing."""
    if event.type not in EVENTS:
        return [event]
    try:
        return [_complete(event, api)]
    except (FetchError, PayloadError) as error:
        if _is_made_up(event) and getattr(error, "permanent", True):
            return [event]  # it names what does not exist
        raise


def _complete(event: Event, api: Api) -> Event:
    token = event.settings["api_key"]
    headers = {"Authorization": f"Bearer {token}", "GoCardless-Version": "2015-07-06"}
    reader = _Reader(api, headers)
    found = {"event": event.data}
    name = _ASKS_FOR_HISTORY.get(event.type)
    if name:
        history = api.get_or_none(f"/events?{name}={_linked(name, event.data)}", headers)
        found["history"] = history.at("events") if history else Payload([])
        if not _was_done(_together(event, found).data):
            return _together(event, found)
    if event.type.startswith("refunds."):
        found["refund"] = reader.get("refund", event.data)
        # A refund stands without its payment, and can be one of a mandate.
        found["payment"] = reader.get_or_none("payment", found["refund"])
    else:
        found["payment"] = reader.get("payment", event.data)
    return _together(event, found | _background(reader, found))


def _background(reader: _Reader, found: Mapping[str, Payload]) -> dict[str, Payload]:
    """Who paid, and where else the visitor's id may stand."""
    paid = found["payment"]
    mandate = reader.get_or_none("mandate", paid or found.get("refund", paid))
    background = {
        "mandate": mandate,
        "customer": reader.get_or_none("customer", mandate),
        "subscription": reader.get_or_none("subscription", paid),
    }
    if not visitor.find(paid.at("metadata"), found["event"].at("resource_metadata")):
        background["instalment_schedule"] = reader.get_or_none("instalment_schedule", paid)
    return background


def _together(event: Event, found: Mapping[str, Payload]) -> Event:
    return replace(event, data=Payload({name: piece.value for name, piece in found.items()}))


def _is_made_up(event: Event) -> bool:
    return event.id.startswith("EVTEST")


def _was_done(data: Payload) -> bool:
    """Whether the payment was confirmed, or the refund paid, before this event."""
    now, kind = data.time("event", "created_at"), data.text("event", "resource_type")
    done = (kind, {"payments": "confirmed", "refunds": "paid"}.get(kind))
    return any(
        (each.at("resource_type").value, each.at("action").value) == done
        and each.time("created_at") < now
        for each in data.items("history")
    )


def charge(event: Event) -> Payment | Ignored:
    """`payments.confirmed`: enough time has passed for the bank to refuse, and it has not."""
    subscription = event.data.at("payment").text_or_none("links", "subscription")
    recurrence = Recurrence.UNKNOWN if subscription else Recurrence.ONE_TIME
    return movement(event, Kind.CHARGE, recurrence=recurrence)


def refund(event: Event) -> Payment | Ignored:
    """`refunds.paid`: this refund's amount."""
    original_id = event.data.at("refund").text_or_none("links", "payment")
    return movement(event, Kind.REFUND, original_id=original_id)


def returned(event: Event) -> Payment | Ignored:
    """`refunds.failed` and the like: the refund's money is back, if it had been paid."""
    if not event.data.at("history") or not _was_done(event.data):
        return Ignored("refund_failed")
    original_id = event.data.at("refund").text_or_none("links", "payment")
    return movement(event, Kind.REINSTATED, original_id=original_id, suffix=":returned")


def charged_back(event: Event) -> Payment | Ignored:
    """`payments.charged_back`: the customer's bank took all of the payment back."""
    return whole(event, Kind.DISPUTE, "charged_back")


def chargeback_cancelled(event: Event) -> Payment | Ignored:
    """`payments.chargeback_cancelled`: and gave it back."""
    return whole(event, Kind.REINSTATED, "chargeback_cancelled")


def late_failure(event: Event) -> Payment | Ignored:
    """`payments.late_failure_settled`: a confirmed payment did not arrive after all."""
    return whole(event, Kind.DISPUTE, "late_failure")


def failed(event: Event) -> Payment | Ignored:
    """`payments.failed`: mostly nothing was ever collected; else a late failure."""
    if event.data.at("history") and _was_done(event.data):
        return late_failure(event)
    return Ignored("no_money_moved")


def whole(event: Event, kind: Kind, how: str) -> Payment | Ignored:
    """All of the payment goes back or returns. That has no id of its own, so it gets one."""
    id = event.data.at("payment").text_or_none("id")
    return movement(event, kind, original_id=id, suffix=f":{how}")


def movement(
    event: Event,
    kind: Kind,
    *,
    recurrence: Recurrence | None = None,
    original_id: str | None = None,
    suffix: str = "",
) -> Payment | Ignored:
    """What the movements have in common."""
    if _is_made_up(event) and not event.data.at("payment") and not event.data.at("refund"):
        return Ignored("dashboard_test")
    paid, customer = event.data.at("payment"), event.data.at("customer")
    moved = event.data.at("refund") if event.type.startswith("refunds.") else paid
    currency = money.currency(moved, "currency")
    holders = ("payment", "subscription", "instalment_schedule", "mandate", "customer")
    notes = [event.data.at(holder, "metadata") for holder in holders]
    names = [customer.text_or_none(part) for part in ("given_name", "family_name")]
    return Payment(
        kind=kind,
        transaction_id=moved.text("id") + suffix,
        amount=money.minor_units(moved, "amount", code=currency),
        currency=currency,
        occurred_at=event.data.time("event", "created_at"),
        recurrence=recurrence,
        original_id=original_id,
        subscription_id=paid.text_or_none("links", "subscription"),
        subscribed_at=began(event.data.at("subscription")),
        customer_id=event.data.at("mandate").text_or_none("links", "customer"),
        email=customer.text_or_none("email"),
        name=" ".join(filter(None, names)) or customer.text_or_none("company_name"),
        visitor_id=visitor.find(event.data.at("event", "resource_metadata"), *notes),
        test=_is_made_up(event) or event.settings["api_base"].startswith(_SANDBOX),
    )


# https://developer.gocardless.com/api-reference/#core-endpoints-subscriptions
def began(subscription: Payload) -> datetime | None:
    """The day on which the subscription's first payment is charged."""
    start = Payload(f"{subscription.at('start_date').value}T00:00:00Z")
    return start.time_or_none() or subscription.time_or_none("created_at")


# https://developer.gocardless.com/api-reference/#core-endpoints-events
EVENTS: dict[str, Mapper] = {
    "payments.confirmed": charge,
    "payments.failed": failed,
    "payments.late_failure_settled": late_failure,
    "payments.charged_back": charged_back,
    "payments.chargeback_cancelled": chargeback_cancelled,
    "refunds.paid": refund,
    "refunds.failed": returned,
    "refunds.bounced": returned,
    "refunds.funds_returned": returned,
}

IGNORED = {
    "payments.created": "not_collected_yet",
    "payments.customer_approval_granted": "not_collected_yet",
    "payments.submitted": "not_collected_yet",
    "payments.resubmission_requested": "not_collected_yet",
    "payments.customer_approval_denied": "no_money_moved",
    "payments.cancelled": "no_money_moved",
    "payments.paid_out": "told_by_payments.confirmed",
    "payments.chargeback_settled": "told_by_payments.charged_back",
    "payments.surcharge_fee_debited": "fee",
    "payments.surcharge_fee_credited": "fee",
    "refunds.created": "told_by_refunds.paid",
    "refunds.refund_settled": "told_by_refunds.paid",
    "subscriptions.created": "no_money_moved",
    "subscriptions.payment_created": "not_collected_yet",
    "subscriptions.cancelled": "no_money_moved",
    "subscriptions.finished": "no_money_moved",
    "mandates.created": "no_money_moved",
    "mandates.active": "no_money_moved",
    "mandates.cancelled": "no_money_moved",
    "payouts.paid": "no_money_moved",
}
