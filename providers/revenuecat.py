"""RevenueCat.

Quirks:
- Nothing is signed: RevenueCat sends the `Authorization` header that you type, and none at all if
  you leave it empty. Here it must be set, and its whole value is compared. So there is no official
  check to ask, and no published vector.
- `price` is always in US dollars. What the customer paid is `price_in_purchased_currency`; where
  RevenueCat does not know that, the dollars are told. Both are its estimate of what the store
  charged, prorated after a change of plan (so its staff).
- The first paid charge after a trial is called `RENEWAL`; `is_trial_conversion` tells it apart.
- A purchase shared within a family and one that RevenueCat grants have the price 0 and are no
  trials; only `period_type` TRIAL is one.
- A refund is a `CANCELLATION` for the reason CUSTOMER_SUPPORT, with the charge's `transaction_id`
  and a negative price. An older note of RevenueCat's says that the price is 0 then, and it can be
  unknown: both are read as all that is left of the charge. The refund's id is the event's.
- Only a refund of a subscription's latest period is told, and what a store pays back of the old
  plan at an upgrade most likely is not. Only Apple tells that a refund was reversed.
- `purchased_at_ms` of a refund is the charge's; it happened at `event_timestamp_ms`.
- Not certain: that Amazon, Roku and Paddle give each renewal a `transaction_id` of its own (Apple
  and Google do), and whether renewals repeat the `metadata` of a purchase on the web.
"""

from decimal import Decimal

from relay import money, visitor
from relay.model import Event, Ignored, Kind, Payment, Received, Recurrence
from relay.payload import Payload
from relay.provider import Mapper, Setting, Setup
from relay.verify import StaticToken

TITLE = "RevenueCat"
DOCS = "https://www.revenuecat.com/docs/integrations/webhooks"

SETUP = Setup(
    where="Your project, Integrations, Webhooks, Add new configuration. Choose all apps; one source "
    "is enough for production and sandbox, the events say which they are.",
    events=(
        "INITIAL_PURCHASE",
        "RENEWAL",
        "NON_RENEWING_PURCHASE",
        "CANCELLATION",
        "REFUND_REVERSED",
    ),
    secret="What you type as authorization header, all of it (with `Bearer ` if you typed that). "
    "RevenueCat makes none up: use `openssl rand -hex 24`.",
    visitor="On the web in `metadata` of the purchase; in an app in the customer attribute "
    "`datafast_visitor_id`, once the app knows it (from a link or a login).",
    checkout="""\
// on your website, with RevenueCat's Web SDK
const visitor = document.cookie.match(/(?:^|; )datafast_visitor_id=([^;]+)/)?.[1];
await Purchases.getSharedInstance().purchase({
  rcPackage,
  metadata: { datafast_visitor_id: visitor ?? null },
});

// in the app (React Native; the other SDKs have the same call)
await Purchases.setAttributes({ datafast_visitor_id: visitor });""",
    notes="A web purchase link takes no metadata, only an app user id. If you put the visitor's id "
    "there, set `app_user_id_is_visitor`.",
)

SETTINGS = (
    Setting(
        "app_user_id_is_visitor",
        "true if your app user ids are DataFast's visitor ids (and not your own users' UUIDs)",
        default=False,
    ),
)

SIGNATURE = StaticToken("Authorization")

# What the price 0, or none, stands for: a trial is free, a refund is of all that is left.
_UNPRICED: dict[Kind, Decimal | None] = {Kind.TRIAL: Decimal(0), Kind.REFUND: None}


def parse(request: Received) -> list[Event]:
    """One event a request; a retry repeats its id."""
    event = Payload.json(request.body).object("event")
    return [Event(event.text("id"), event.text("type"), event)]


def initial_purchase(event: Event) -> Payment | Ignored:
    """`INITIAL_PURCHASE`: a subscription's first charge, or its trial."""
    return purchase(event, Recurrence.FIRST)


def renewal(event: Event) -> Payment | Ignored:
    """`RENEWAL`: a later charge, or the first one after a trial."""
    converts = event.data.flag("is_trial_conversion")
    return purchase(event, Recurrence.FIRST if converts else Recurrence.RENEWAL)


def non_renewing_purchase(event: Event) -> Payment | Ignored:
    """`NON_RENEWING_PURCHASE`: a single charge."""
    return purchase(event, Recurrence.ONE_TIME)


def purchase(event: Event, recurrence: Recurrence) -> Payment | Ignored:
    """What the customer bought, or tries; not what somebody else paid or nobody."""
    if event.data.flag("is_family_share"):
        return Ignored("family_share")
    if event.data.text_or_none("store") == "PROMOTIONAL":
        return Ignored("granted_for_free")
    if event.data.text_or_none("period_type") == "TRIAL":
        return payment(event, Kind.TRIAL)
    return payment(event, Kind.CHARGE, recurrence)


def cancellation(event: Event) -> Payment | Ignored:
    """`CANCELLATION`: a refund if support gave one or the price is negative; else a wish to leave."""
    cancelled, price = event.data, priced(event.data)[0]
    by_support = cancelled.text_or_none("cancel_reason") == "CUSTOMER_SUPPORT"
    is_free = cancelled.text_or_none("period_type") == "TRIAL" or cancelled.flag("is_family_share")
    if is_free or not (by_support or (price and price.decimal() < 0)):
        return Ignored("no_money_moved")
    return payment(event, Kind.REFUND)


def refund_reversed(event: Event) -> Payment | Ignored:
    """`REFUND_REVERSED`: the store takes a refund back, and the money returns."""
    return payment(event, Kind.REINSTATED)


def payment(event: Event, kind: Kind, recurrence: Recurrence | None = None) -> Payment:
    """What the movements have in common. Money that goes back names the charge as its own id."""
    bought, is_new = event.data, kind in {Kind.CHARGE, Kind.TRIAL}
    id = bought.text("transaction_id")
    moment = bought.unix_time("purchased_at_ms" if is_new else "event_timestamp_ms", unit=1000)
    price, currency = priced(bought)
    amount = _UNPRICED[kind] if kind in _UNPRICED and not price else money.major_units(price)
    user_id = bought.text_or_none("app_user_id")
    is_anonymous = (user_id or "").startswith("$RCAnonymousID:")
    # A single purchase has an original_transaction_id as well, but no end.
    ends = bought.at("expiration_at_ms")
    return Payment(
        kind=kind,
        transaction_id=id if is_new else event.id,
        amount=amount,
        currency=None if amount is None else currency,
        occurred_at=moment,
        recurrence=recurrence,
        original_id=None if is_new else id,
        subscription_id=bought.text_or_none("original_transaction_id") if ends else None,
        subscribed_at=moment if recurrence is Recurrence.FIRST else None,
        customer_id=user_id,
        email=bought.text_or_none("subscriber_attributes", "$email", "value"),
        name=bought.text_or_none("subscriber_attributes", "$displayName", "value"),
        visitor_id=visitor_id(event),
        reference=None if is_anonymous else user_id,
        test=bought.text_or_none("environment") == "SANDBOX",
    )


def priced(bought: Payload) -> tuple[Payload, str]:
    """The price in the currency it was paid in; in US dollars where that one is not known."""
    price = bought.at("price_in_purchased_currency")
    if price.value is None or not bought.at("currency"):
        return bought.at("price"), "USD"
    return price, money.currency(bought, "currency")


def visitor_id(event: Event) -> str | None:
    """From the purchase's metadata or the customer's attributes; from the user id only if told so."""
    attributes = event.data.at("subscriber_attributes")
    named = {name: attributes.at(name, "value").value for name in visitor.SPELLINGS}
    places = [event.data.at("metadata"), Payload(named)]
    if event.settings["app_user_id_is_visitor"]:
        places += [event.data.at("app_user_id"), event.data.at("original_app_user_id")]
    return visitor.find(*places)


# https://www.revenuecat.com/docs/integrations/webhooks/event-types-and-fields
EVENTS: dict[str, Mapper] = {
    "INITIAL_PURCHASE": initial_purchase,
    "RENEWAL": renewal,
    "NON_RENEWING_PURCHASE": non_renewing_purchase,
    "CANCELLATION": cancellation,
    "REFUND_REVERSED": refund_reversed,
}

IGNORED = {
    "PRODUCT_CHANGE": "told_by_RENEWAL",
    "TEMPORARY_ENTITLEMENT_GRANT": "told_by_INITIAL_PURCHASE",
    "INVOICE_ISSUANCE": "not_paid",
    "TEST": "test_event",
    "BILLING_ISSUE": "no_money_moved",
    "EXPERIMENT_ENROLLMENT": "no_money_moved",
    "EXPIRATION": "no_money_moved",
    "PURCHASE_REDEEMED": "no_money_moved",
    "SUBSCRIBER_ALIAS": "no_money_moved",
    "SUBSCRIPTION_EXTENDED": "no_money_moved",
    "SUBSCRIPTION_PAUSED": "no_money_moved",
    "TRANSFER": "no_money_moved",
    "UNCANCELLATION": "no_money_moved",
    "VIRTUAL_CURRENCY_TRANSACTION": "no_money_moved",
}
