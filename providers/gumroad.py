"""Gumroad.

Quirks ("the source" is Gumroad's own code, which is public: github.com/antiwork/gumroad):
- Nothing is signed: there is the secret in the URL, and `seller_id`, which is compared if it is
  set. A ping about a membership (`cancellation` and the like) has none, and is then refused.
- `price` is in US cents; `currency` is only that of the listing. So say the documentation and the
  source; no live ping of a listing in another currency than USD was seen.
- A gift's ping is the receiver's purchase: `price` 0, the money in `gift_price`, the giver in
  `gifter_email`. Its refund names the giver's purchase, an id that no ping of a sale has told.
- A free trial's start is announced like a sale, most likely at full price, with nothing to tell it
  by; the first charge after it says `is_recurring_charge`. So each sale of a membership is read
  back if there is an `access_token`. Without one, such a start counts as a charge.
- The charge for a change of tier says `is_recurring_charge` too, so it is a renewal here.
- A pre-order's ping has a price, but the card is charged later, as a sale of its own.
- "Send test ping" sends the latest sale again with `test` and no `resource_name`: its event has an
  id of its own, so that it cannot swallow that sale.
- Refunds and disputes have no time, no amount and no id of their own. Their time is that of receipt;
  their ids are the sale's with a suffix. A dispute is taken to be over the whole price, and so is
  what returns when it is won: after a partial refund that may be too much.
- The ping of a partial refund names no amount, and the next one of the same sale is the same bytes:
  each is a hint to read the sale. Without `access_token` its event is dead; replay it with one.
- Gumroad tells only how much has been taken back of a sale so far. A partial refund's id ends in that
  sum (in cents), and its amount is that sum, as a full refund's is the price: they are cumulative.
- When a membership began is said nowhere in a sale; only, in the API's answer, when its trial ends.
- What is left of a sale is told in the listing's currency. Unless that is USD a partial refund is
  not told at all: its event is dead with `unknown_refund_amount`.
- Gumroad tries again only after 499, 500, 502, 503 and 504, three times within a quarter of an hour
  (its documentation says hourly). Any other refusal loses the ping.
"""

from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from urllib.parse import quote

from relay import money, verify, visitor
from relay.errors import FetchError, PayloadError, VerificationError
from relay.model import Event, Ignored, Kind, Payment, Received, Recurrence, Trust
from relay.payload import Payload
from relay.provider import Api, Mapper, Setting, Setup

TITLE = "Gumroad"
DOCS = "https://gumroad.com/ping"

SETUP = Setup(
    where="Sales: Settings, Advanced, Ping endpoint: paste this source's URL with its secret. Refunds "
    "and disputes are never sent there. For them make an application (Settings, Advanced), generate "
    "its access token, and once for each of `refund`, `dispute` and `dispute_won`: curl -X PUT "
    "https://api.gumroad.com/v2/resource_subscriptions -d access_token=TOKEN "
    "-d resource_name=refund -d post_url=URL",
    events=("sale", "refund", "dispute", "dispute_won"),
    secret="One that you make up (`openssl rand -hex 24`); it is the last part of the URL.",
    visitor="In the address of the product: a query parameter comes back in `url_params`. Renewals "
    "and refunds do not repeat it.",
    checkout="""\
<script>
  // on your page, below the links to Gumroad
  const visitor = document.cookie.match(/(?:^|; )datafast_visitor_id=([^;]+)/)?.[1];
  if (visitor) document.querySelectorAll('a[href*="gumroad.com/"]').forEach((link) => {
    const url = new URL(link.href);
    url.searchParams.set("datafast_visitor_id", visitor);
    link.href = url.href;
  });
</script>""",
    notes="Set `access_token` if you give partial refunds or free trials: their pings do not say "
    "enough. `seller_id` is in every ping of a sale: set it once you have seen one.",
)

SETTINGS = (
    Setting("seller_id", "your `seller_id`, as the pings show it; pings with another are refused"),
    Setting(
        "access_token",
        "token of your application (scope view_sales), to read partial refunds and memberships",
        secret=True,
    ),
    Setting("api_base", "where Gumroad's API is", default="https://api.gumroad.com"),
)

# Where the sale as the API tells it stands in the data, beside the fields of the ping.
_READ = "/v2/sales"


@dataclass(frozen=True)
class SellerUrl(verify.UrlSecret):
    """The secret in the URL, and the seller's id in the body if the source names one."""

    summary = "none: secret in the URL, and `seller_id` if it is set"

    def verify(self, request: Received, trust: Trust) -> None:
        """See Signature. Raises missing_url_secret, bad_url_secret, wrong_seller."""
        super().verify(request, trust)
        wanted = trust.settings.get("seller_id")
        if wanted:
            try:
                verify.matches([body(request).text("seller_id")], [wanted])
            except (PayloadError, VerificationError):
                msg = "the body's `seller_id` is not the one that this source is set to"
                raise VerificationError("wrong_seller", msg) from None


SIGNATURE = SellerUrl()


def parse(request: Received) -> list[Event]:
    """One event a ping. The id is made of what a retry repeats: `refund:<sale>`."""
    ping = body(request)
    type = ping.text_or_none("resource_name") or "sale"
    is_about_sale = type in EVENTS or ping.at("sale_id")
    id = f"{type}:{ping.text('sale_id' if is_about_sale else 'subscription_id')}"
    if ping.flag("test"):
        id += ":test"
    told_at = ping.time_or_none("sale_timestamp") if type == "sale" else request.received_at
    if type == "refund" and not ping.flag("refunded"):
        return [Event(f"{id}:partial", type, ping, told_at, reopens=True)]
    return [Event(id, type, ping, told_at)]


def body(request: Received) -> Payload:
    """The ping: a form, or JSON if the seller switched to it."""
    if request.content_type == "application/json":
        return Payload.json(request.body).object()
    return Payload.form(request.body)


# https://gumroad.com/api#sales
def fetch(event: Event, api: Api) -> list[Event]:
    """The sale, for a partial refund (told by the sum taken back so far) and for a membership."""
    partial, token = event.reopens, event.settings["access_token"]
    membership = event.type == "sale" and event.data.at("subscription_id")
    if not partial and (not token or not membership or event.data.flag("test")):
        return [event]
    if not token:
        msg = "a partial refund's ping names no amount: set access_token of this source, and replay"
        raise FetchError("no_access_token", msg, permanent=True)
    path = f"/v2/sales/{quote(event.data.text('sale_id'), safe='')}"
    sale = api.get(path, {"Authorization": f"Bearer {token}"}).object("sale")
    found = replace(event, data=Payload({**event.data.value, _READ: sale.value}))
    if not partial:
        return [found]
    whole = event.id.removesuffix(":partial")
    if sale.flag("refunded"):
        return [replace(found, id=whole, reopens=False)]
    if not sale.flag("partially_refunded"):
        msg = "Gumroad's API does not know of the refund yet"
        raise FetchError("not_refunded_yet", msg)
    return [replace(found, id=f"{whole}:{cents(taken_back(found.data))}", reopens=False)]


def sale(event: Event) -> Payment | Ignored:
    """`sale`: a purchase, the start of a membership or of its trial, or a renewal."""
    ping = event.data
    if ping.flag("is_preorder_authorization"):
        return Ignored("not_charged_yet")
    has_trial = ping.at(_READ, "free_trial_ends_on")
    if has_trial and not ping.at(_READ).flag("recurring_charge"):
        # A change of tier within the trial is a sale of its own, but no second trial.
        id = f"{ping.text('subscription_id')}:trial"
        return payment(event, Kind.TRIAL, id, Decimal(0))
    recurrence = Recurrence.ONE_TIME
    if ping.flag("is_recurring_charge"):
        # After a trial that may be the first charge of all, which only the ledger knows.
        recurrence = Recurrence.UNKNOWN if has_trial else Recurrence.RENEWAL
    elif ping.at("subscription_id") or ping.at("recurrence"):
        recurrence = Recurrence.FIRST
    return payment(event, Kind.CHARGE, ping.text("sale_id"), price(ping), recurrence)


def refund(event: Event) -> Payment | Ignored:
    """`refund`: all of the sale, or what has been taken back so far."""
    ping, id = event.data, f"{event.data.text('sale_id')}:refund"
    if ping.flag("refunded") or ping.at(_READ).flag("refunded"):
        return payment(event, Kind.REFUND, id, price(ping))
    amount = taken_back(ping)
    return payment(event, Kind.REFUND, f"{id}:{cents(amount)}", amount)


def dispute(event: Event) -> Payment | Ignored:
    """`dispute`: a chargeback was opened. By now it may be won, which has a ping of its own."""
    ping = event.data
    return payment(event, Kind.DISPUTE, f"{ping.text('sale_id')}:dispute", price(ping))


def dispute_won(event: Event) -> Payment | Ignored:
    """`dispute_won`: the money returns."""
    ping = event.data
    return payment(event, Kind.REINSTATED, f"{ping.text('sale_id')}:dispute_won", price(ping))


def price(ping: Payload) -> Decimal:
    """What was paid, in USD."""
    key = "gift_price" if ping.flag("is_gift_receiver_purchase") else "price"
    return money.minor_units(ping, key, code="USD")


def taken_back(ping: Payload) -> Decimal:
    """What has been refunded of the sale so far: paid less what could still be refunded."""
    sale = ping.object(_READ)
    place = sale.at("amount_refundable_in_currency")
    for listing in (ping.text_or_none("currency"), sale.text_or_none("currency")):
        if listing and listing.lower() != "usd":
            msg = "what was refunded is told in the listing's currency, which is not USD"
            raise PayloadError("unknown_refund_amount", place.path, msg)
    left = Payload(place.text().replace(",", ""), place.path)
    return money.minor_units(sale, "price", code="USD") - money.major_units(left)


def cents(amount: Decimal) -> int:
    """The amount as it stands in ids."""
    return int(amount * 100)


def payment(
    event: Event, kind: Kind, id: str, amount: Decimal, recurrence: Recurrence | None = None
) -> Payment:
    """What the movements have in common."""
    ping, gift = event.data, event.data.flag("is_gift_receiver_purchase")
    is_sale = kind in {Kind.CHARGE, Kind.TRIAL}
    return Payment(
        kind=kind,
        transaction_id=id,
        amount=amount,
        currency="USD",
        occurred_at=event.occurred_at or ping.time("sale_timestamp"),
        recurrence=recurrence,
        original_id=None if is_sale else ping.text("sale_id"),
        cumulative=kind is Kind.REFUND,
        subscription_id=ping.text_or_none("subscription_id"),
        subscribed_at=paid_from(ping.at(_READ)),
        customer_id=None if gift else ping.text_or_none("purchaser_id"),
        email=ping.text_or_none("gifter_email" if gift else "email"),
        name=None if gift else ping.text_or_none("full_name"),
        visitor_id=visitor.find(ping.at("url_params"), ping.at("custom_fields")),
        test=ping.flag("test"),
    )


def paid_from(sale: Payload) -> datetime | None:
    """The day on which the membership's trial ends ("Mar 8, 2026"), if it had one."""
    try:
        text = f"{sale.at('free_trial_ends_on').value} +0000"
        return datetime.strptime(text, "%b %d, %Y %z")
    except ValueError:
        return None


# https://gumroad.com/api#resource-subscriptions
EVENTS: dict[str, Mapper] = {
    "sale": sale,
    "refund": refund,
    "dispute": dispute,
    "dispute_won": dispute_won,
}

IGNORED = {
    "cancellation": "no_money_moved",
    "subscription_updated": "no_money_moved",
    "subscription_ended": "no_money_moved",
    "subscription_restarted": "no_money_moved",
}
