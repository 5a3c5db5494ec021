"""Superwall.

Quirks:
- This reads the webhooks that Superwall calls legacy. Its newer ones, V2, are said to hold the same
  facts in another payload, which was not to be seen: their events end as dead with the path that is
  missing, and can be replayed once it is known.
- Superwall sends through Svix: the key is the base64 after `whsec_`.
- `price` is always in US dollars. What the customer paid is `priceInPurchasedCurrency`, with
  `currencyCode`; the dollars are told only where that is not known.
- Any type is a refund when its price is negative; mostly it is a `cancellation`. It has the charge's
  `transactionId`, so its own id is the event's. There are no disputes.
- The first paid charge after a trial is called `renewal`; `isTrialConversion` tells it apart, or a
  `periodType` that is still TRIAL. Only an `initial_purchase` of that type, at no price, is a trial.
- A purchase shared within a family has a price for the one who pays and 0 for the others: those
  are no trials, whatever their `periodType` says.
- `purchasedAt` of a refund is the charge's (so it is understood); it happened at `ts`.
- `originalAppUserId` is the first user that was seen with the subscription. It can be null, or made
  up by Superwall (`$SuperwallAlias:…`). Attributes of the user come in `userAttributes`, which the
  published example does not have yet.
- The event `test` holds hardly anything; should it lack an id, the delivery's counts.
"""

from decimal import Decimal

from relay import money, visitor
from relay.model import Event, Ignored, Kind, Payment, Received, Recurrence
from relay.payload import Payload
from relay.provider import Mapper, Setting, Setup
from relay.verify import StandardWebhooks

TITLE = "Superwall"
DOCS = "https://superwall.com/docs/integrations/webhooks"

SETUP = Setup(
    where="superwall.com, your app, Integrations, Webhooks: add an endpoint with this source's URL. "
    "Revenue tracking must be on. One source is enough for production and sandbox, the events say "
    "which they are.",
    events=(
        "initial_purchase",
        "renewal",
        "non_renewing_purchase",
        "cancellation",
        "expiration",
    ),
    secret="Open the webhook, Copy Secret: it begins with whsec_. Each webhook has its own.",
    visitor="In the user's attribute `datafast_visitor_id`, set once the app knows it (from a link or "
    "a login), before the purchase.",
    checkout="""\
// Swift; the SDKs for Android, Flutter and React Native have the same call
Superwall.shared.setUserAttributes([
    "datafast_visitor_id": visitorId,
    "email": user.email,
])""",
    notes="Only webhooks in the format that Superwall calls legacy are understood so far. The "
    "attributes `email` and `name` are used too. If your app identifies its users by DataFast's "
    "visitor id, set `app_user_id_is_visitor`.",
)

SETTINGS = (
    Setting(
        "app_user_id_is_visitor",
        "true if your app user ids are DataFast's visitor ids (and not your own users' UUIDs)",
        default=False,
    ),
)

# https://superwall.com/docs/integrations/webhooks/verify
SIGNATURE = StandardWebhooks(prefix="svix-")


def parse(request: Received) -> list[Event]:
    """One event a request; a retry repeats both its id and the delivery's."""
    body = Payload.json(request.body).object()
    bought = body.object("data")
    id = bought.text_or_none("id") or request.headers.get("svix-id") or ""
    return [Event(id, body.text("type"), bought)]


def initial_purchase(event: Event) -> Payment | Ignored:
    """`initial_purchase`: a subscription's first charge, or its trial."""
    is_trial = event.data.text_or_none("periodType") == "TRIAL" and not event.data.at("price")
    return moved(event, Kind.TRIAL if is_trial else Kind.CHARGE, Recurrence.FIRST)


def renewal(event: Event) -> Payment | Ignored:
    """`renewal`: a later charge, or the first one after a trial."""
    was_trial = event.data.text_or_none("periodType") == "TRIAL"
    converts = event.data.flag("isTrialConversion") or was_trial
    return moved(event, Kind.CHARGE, Recurrence.FIRST if converts else Recurrence.RENEWAL)


def non_renewing_purchase(event: Event) -> Payment | Ignored:
    """`non_renewing_purchase`: a single charge."""
    return moved(event, Kind.CHARGE, Recurrence.ONE_TIME)


def change(event: Event) -> Payment | Ignored:
    """Every other type: a refund if its price is negative, else nothing."""
    return refund(event) or Ignored("no_money_moved")


def moved(event: Event, kind: Kind, recurrence: Recurrence) -> Payment | Ignored:
    """What the customer bought, tries, or got back; not what another member of the family paid."""
    if event.data.flag("isFamilyShare") and not event.data.at("price"):
        return Ignored("family_share")
    return refund(event) or payment(event, kind, None if kind is Kind.TRIAL else recurrence)


def refund(event: Event) -> Payment | None:
    """The money that was given back, if any was."""
    prices = (event.data.at(key) for key in ("price", "priceInPurchasedCurrency"))
    is_refund = any(price.decimal() < 0 for price in prices if price)
    return payment(event, Kind.REFUND) if is_refund else None


def payment(event: Event, kind: Kind, recurrence: Recurrence | None = None) -> Payment:
    """What the movements have in common. A refund names its charge as its own transaction."""
    bought, is_refund = event.data, kind is Kind.REFUND
    id = bought.text("transactionId")
    moment = bought.unix_time("ts" if is_refund else "purchasedAt", unit=1000)
    price, currency = priced(bought)
    user_id = bought.text_or_none("originalAppUserId")
    is_made_up = (user_id or "").startswith("$SuperwallAlias:")
    return Payment(
        kind=kind,
        transaction_id=event.id if is_refund else id,
        amount=Decimal(0) if kind is Kind.TRIAL else money.major_units(price),
        currency=currency,
        occurred_at=moment,
        recurrence=recurrence,
        original_id=id if is_refund else None,
        # A single purchase has an originalTransactionId as well, but no end.
        subscription_id=bought.text_or_none("originalTransactionId")
        if bought.at("expirationAt")
        else None,
        subscribed_at=moment if recurrence is Recurrence.FIRST else None,
        customer_id=user_id,
        email=attribute(bought, "email"),
        name=attribute(bought, "name"),
        visitor_id=visitor_id(event),
        reference=None if is_made_up else user_id,
        test=bought.text_or_none("environment") == "SANDBOX",
    )


def priced(bought: Payload) -> tuple[Payload, str]:
    """The price in the currency it was paid in; in US dollars where that one is not known."""
    price = bought.at("priceInPurchasedCurrency")
    if price.value is None or not bought.at("currencyCode"):
        return bought.at("price"), "USD"
    return price, money.currency(bought, "currencyCode")


def attribute(bought: Payload, name: str) -> str | None:
    """An attribute of the user, if it is a text. They are the owner's own: anything may be there."""
    found = bought.at("userAttributes", name)
    return found.text_or_none() if isinstance(found.value, str) else None


def visitor_id(event: Event) -> str | None:
    """From the user's attributes; from the user id only if told so."""
    places = [event.data.at("userAttributes")]
    if event.settings["app_user_id_is_visitor"]:
        places.append(event.data.at("originalAppUserId"))
    return visitor.find(*places)


# https://superwall.com/docs/integrations/webhooks
EVENTS: dict[str, Mapper] = {
    "initial_purchase": initial_purchase,
    "renewal": renewal,
    "non_renewing_purchase": non_renewing_purchase,
    "cancellation": change,
    "expiration": change,
    "uncancellation": change,
    "billing_issue": change,
    "product_change": change,
    "subscription_paused": change,
}

IGNORED = {"test": "test_event"}
