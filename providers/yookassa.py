"""YooKassa.

Quirks:
- Nothing is signed: there is the secret in the URL, and for proof the payment or refund is read back
  if there is an `api_key`. What the API does not know is dead with `fetch_404`; what it says is still
  pending is asked for again. (YooKassa also publishes the addresses that it sends from: a firewall
  can check those, the relay does not.)
- An event has no id: it is known by its type and by the id of its payment or refund.
- Nothing says whether a charge renews something: the shop itself starts each automatic payment, with
  a saved payment method. So the saved method stands in for the subscription. It has the id of the
  payment that saved it (so in all examples seen; uncertain), which is then the first; of others the
  ledger decides. A shop that saves cards only to spare its customers the typing gets renewals there.
- A refund names its payment and nothing else: neither customer nor visitor, nor whether it is a
  test's, unless the payment is read with an `api_key`. Else set `test` for a test shop.
- `amount` is what the customer paid; `income_amount` is after the fees.
- There is no customer. An e-mail address is where the shop put one: in `metadata.email` or in
  `merchant_customer_id`. In receipts it does not come back.
- Disputes are not told. Trials are the shop's own business.
- Uncertain: that it is tried again for 24 hours, until it is answered with 200.
"""

import base64
from dataclasses import replace
from urllib.parse import quote

from relay import money, visitor
from relay.errors import FetchError
from relay.model import Event, Ignored, Kind, Payment, Received, Recurrence
from relay.payload import Payload
from relay.provider import Api, Mapper, Setting, Setup
from relay.verify import UrlSecret

TITLE = "YooKassa"
DOCS = "https://yookassa.ru/developers/using-api/webhooks"

SETUP = Setup(
    where="yookassa.ru/my, Integration, HTTP notifications: paste this source's URL with its secret. A "
    "test shop is a shop of its own: make a source for it, with `test: true`.",
    events=("payment.succeeded", "refund.succeeded"),
    secret="One that you make up (`openssl rand -hex 24`); it is the last part of the URL.",
    visitor="In `metadata` of the payment. Automatic payments can repeat it, but need not.",
    checkout="""\
// on your server, where the payment is created (POST https://api.yookassa.ru/v3/payments)
metadata: {
  datafast_visitor_id: cookies.get("datafast_visitor_id"),
  email: customer.email, // optional: YooKassa hands it back nowhere else
}""",
    notes="Set `shop_id` and `api_key`: then nothing counts that YooKassa's API does not confirm, "
    "and a refund is known by its payment.",
)

SETTINGS = (
    Setting("shop_id", "your shopId; goes with `api_key`"),
    Setting(
        "api_key",
        "the shop's secret key (Integration, API keys): each payment and refund is read back",
        secret=True,
    ),
    Setting("test", "true if this source is of a test shop; refunds do not say it", default=False),
    Setting("api_base", "where YooKassa's API is", default="https://api.yookassa.ru"),
)

SIGNATURE = UrlSecret()


def parse(request: Received) -> list[Event]:
    """One event a request, known by its type and its object."""
    body = Payload.json(request.body).object()
    type = body.text("event")
    return [Event(f"{type}:{body.text('object', 'id')}", type, body)]


# https://yookassa.ru/developers/api
def fetch(event: Event, api: Api) -> list[Event]:
    """The event with the payment or refund as the API tells it; and with the refund's payment."""
    shop_id, api_key = event.settings["shop_id"], event.settings["api_key"]
    if not api_key or event.type not in EVENTS:
        return [event]
    basic = base64.b64encode(f"{shop_id or ''}:{api_key}".encode()).decode()
    headers = {"Authorization": f"Basic {basic}"}
    kind = event.type.partition(".")[0]
    told = api.get(f"/v3/{kind}s/{quoted(event.data, 'object', 'id')}", headers).object()
    if told.text("status") in {"pending", "waiting_for_capture"}:
        raise FetchError("not_confirmed_yet", "YooKassa's API does not say yet that it succeeded")
    found = {"object": told.value}
    if kind == "refund":
        payment = api.get_or_none(f"/v3/payments/{quoted(told, 'payment_id')}", headers)
        found["payment"] = payment.value if payment else None
    return [replace(event, data=Payload(found))]


def quoted(place: Payload, *keys: str) -> str:
    """The id at `keys`, as it stands in a path."""
    return quote(place.text(*keys), safe="")


def charge(event: Event) -> Payment | Ignored:
    """`payment.succeeded`: a payment that is captured."""
    paid = event.data.object("object")
    if paid.text("status") != "succeeded":
        return Ignored("not_paid")
    found = payment(event, Kind.CHARGE, paid, paid)
    moment = paid.time_or_none("captured_at") or found.occurred_at
    recurrence = Recurrence.ONE_TIME
    if found.subscription_id:
        is_first = found.subscription_id == found.transaction_id
        recurrence = Recurrence.FIRST if is_first else Recurrence.UNKNOWN
    subscribed_at = moment if recurrence is Recurrence.FIRST else None
    return replace(found, occurred_at=moment, recurrence=recurrence, subscribed_at=subscribed_at)


def refund(event: Event) -> Payment | Ignored:
    """`refund.succeeded`: this refund's amount, full or partial."""
    refunded = event.data.object("object")
    if refunded.text("status") != "succeeded":
        return Ignored("not_refunded")
    found = payment(event, Kind.REFUND, refunded, event.data.at("payment"))
    return replace(found, original_id=refunded.text("payment_id"))


def payment(event: Event, kind: Kind, moved: Payload, paid: Payload) -> Payment:
    """What the movements have in common. `paid` is the payment, which a refund may not know."""
    metadata, method = paid.at("metadata"), paid.at("payment_method")
    customer_id = paid.text_or_none("merchant_customer_id")
    addresses = (metadata.text_or_none("email"), customer_id)
    return Payment(
        kind=kind,
        transaction_id=moved.text("id"),
        amount=money.major_units(moved, "amount", "value"),
        currency=money.currency(moved, "amount", "currency"),
        occurred_at=moved.time("created_at"),
        subscription_id=method.text_or_none("id") if method.flag("saved") else None,
        email=next((it for it in addresses if it and "@" in it), None),
        visitor_id=visitor.find(metadata, moved.at("metadata")),
        reference=customer_id or metadata.text_or_none("order_id"),
        test=paid.flag("test") or event.settings["test"],
    )


# https://yookassa.ru/developers/using-api/webhooks#events-basics
EVENTS: dict[str, Mapper] = {
    "payment.succeeded": charge,
    "refund.succeeded": refund,
}

IGNORED = {
    "payment.waiting_for_capture": "not_paid",
    "payment.canceled": "not_paid",
    "payment_method.active": "no_money_moved",
    "payout.succeeded": "no_sale",
    "payout.canceled": "no_sale",
    "deal.closed": "no_sale",
}
