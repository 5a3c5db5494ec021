"""Coinbase Commerce.

Quirks:
- What was paid is in `payments[].value.local`; `pricing.local` is what was asked. The two differ
  when too little or too much was paid, and old charges without a price have no `pricing.local`.
  The asked price counts only for a confirmed charge that lists no payment with a value.
- A charge can be paid in several transfers; those that are confirmed are added up. The status of a
  payment is `CONFIRMED` in old charges and `confirmed` in on-chain ones.
- `charge:confirmed` and `charge:resolved` of one charge are one movement, under the charge's `code`
  (the published examples have no `id`). If somebody pays a second time after the confirmation and
  the seller accepts that too, the second amount is not told.
- `charge:resolved` says that the seller settled a charge that was paid short, over or late. One
  that was settled by giving the money back looks the same.
- The id of the event is inside; the outer `id` is that of the delivery.
- There are no subscriptions, trials or disputes; refunds are made by hand, and no event tells them.
- There is no test mode. The example charge of the documentation (`66BEOV2A`) counts as a test; that
  the dashboard's test deliveries hold it is likely, but none with a payment was seen.
- A price in a crypto currency is no currency of ISO 4217: such an event is dead (unknown_currency).
- Current documentation names four event types; `charge:delayed` and `charge:resolved` belong to
  older accounts, the `invoice:*` types to invoices. That an invoice's payment is told by
  `charge:confirmed` too is likely, not certain.
- Coinbase moves sellers to Coinbase Business, whose webhooks are others: not covered.
"""

from decimal import Decimal

from relay import money, visitor
from relay.errors import PayloadError
from relay.model import Event, Kind, Payment, Received, Recurrence
from relay.payload import Payload
from relay.provider import Mapper, Setup
from relay.verify import BodyHmac

TITLE = "Coinbase Commerce"
DOCS = "https://docs.cdp.coinbase.com/commerce/api-arcitecture/webhooks-overview"

SETUP = Setup(
    where="commerce.coinbase.com, Settings, Notifications, Webhook subscriptions, Add an endpoint.",
    events=("charge:confirmed", "charge:resolved"),
    secret="Settings, Notifications, Webhook subscriptions: Show shared secret. It is not "
    "the API key.",
    visitor="In `metadata` of the charge. A hosted checkout page takes none: create a charge for "
    "each sale, on your server.",
    checkout="""\
// on your server, where the charge is created; send the customer to its hosted_url
await fetch("https://api.commerce.coinbase.com/charges", {
  method: "POST",
  headers: { "Content-Type": "application/json", "X-CC-Api-Key": process.env.COINBASE_KEY },
  body: JSON.stringify({
    name: "Your product", description: "What it is", pricing_type: "fixed_price",
    local_price: { amount: "64.00", currency: "USD" },
    metadata: { datafast_visitor_id: cookies.get("datafast_visitor_id"), email: user.email },
  }),
});""",
    notes="Tick `charge:resolved` if it is offered: it tells the payments that you accept though "
    "they came short or late. `customer_id`, `email`, `name` and `order_id` in `metadata` are used "
    "too. Refunds that you send by hand are not told; DataFast keeps those sales.",
)

# https://docs.cdp.coinbase.com/commerce/api-arcitecture/webhooks-overview
SIGNATURE = BodyHmac("X-CC-Webhook-Signature")

# The example charge of the documentation and of the SDKs.
_EXAMPLE = "66BEOV2A"


def parse(request: Received) -> list[Event]:
    """One event a request."""
    event = Payload.json(request.body).object("event")
    return [Event(event.text("id"), event.text("type"), event, event.time_or_none("created_at"))]


def confirmed(event: Event) -> Payment:
    """`charge:confirmed`: what was paid; the price if the charge lists no payment."""
    charge = event.data.object("data")
    return payment(event, paid(charge) or [charge.object("pricing", "local")])


def resolved(event: Event) -> Payment:
    """`charge:resolved`: what was paid, never the price, since the two differ here."""
    charge = event.data.object("data")
    return payment(event, paid(charge) or [charge.object("payments", 0, "value", "local")])


def paid(charge: Payload) -> list[Payload]:
    """The values of the confirmed payments, or of all where none is called confirmed."""
    if not charge.at("payments"):
        return []
    payments = [each for each in charge.items("payments") if each.at("value", "local")]
    final = [it for it in payments if (it.text_or_none("status") or "").lower() == "confirmed"]
    return [each.object("value", "local") for each in final or payments]


def payment(event: Event, values: list[Payload]) -> Payment:
    """The charge as one movement of money, however many payments it took."""
    charge = event.data.object("data")
    metadata = charge.at("metadata")
    currency = money.currency(values[0], "currency")
    if any(money.currency(each, "currency") != currency for each in values):
        raise PayloadError(
            "mixed_currencies", charge.at("payments").path, "its payments do not add up"
        )
    return Payment(
        kind=Kind.CHARGE,
        transaction_id=charge.text("code"),
        amount=sum((money.major_units(each, "amount") for each in values), Decimal(0)),
        currency=currency,
        occurred_at=event.data.time("created_at"),
        recurrence=Recurrence.ONE_TIME,
        customer_id=first(metadata, "customer_id"),
        email=first(metadata, "email", "customer_email"),
        name=first(metadata, "name", "customer_name"),
        visitor_id=visitor.find(metadata),
        reference=first(metadata, "order_id"),
        test=charge.text("code") == _EXAMPLE,
    )


def first(metadata: Payload, *names: str) -> str | None:
    """The first of `names` that holds text. The map is the owner's own: anything may be in it."""
    found = (metadata.at(name) for name in names)
    return next((it.text_or_none() for it in found if it and isinstance(it.value, str)), None)


# https://docs.cdp.coinbase.com/commerce/api-arcitecture/webhooks-fields
EVENTS: dict[str, Mapper] = {"charge:confirmed": confirmed, "charge:resolved": resolved}

IGNORED = {
    "charge:created": "not_paid",
    "charge:pending": "not_confirmed_yet",
    "charge:failed": "not_accepted",
    "charge:delayed": "not_accepted",
    "invoice:created": "not_paid",
    "invoice:viewed": "not_paid",
    "invoice:payment_pending": "not_confirmed_yet",
    "invoice:paid": "told_by_charge:confirmed",
    "invoice:unresolved": "not_accepted",
    "invoice:voided": "no_money_moved",
}
