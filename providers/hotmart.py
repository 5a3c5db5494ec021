"""Hotmart.

Quirks:
- Nothing is signed: Hotmart sends a constant token, the hottok, in the header `X-Hotmart-Hottok`. So
  there is no official check to ask, and no published vector. Bodies of version 1 have it in the JSON
  as well, and another shape: they are not read here.
- A sale is told twice: `PURCHASE_APPROVED` when it is paid, and `PURCHASE_COMPLETE` when its guarantee
  is over. Counted is the first.
- The amount is `price`. `full_price` has fees on top (of paying in instalments, most likely),
  `original_offer_price` is before a coupon, and `commissions` are shares of it. Uncertain: whether
  `price` holds a tax that Hotmart adds at the checkout.
- Its currency is in `currency_value`, in some bodies in `currency_code`.
- `recurrence_number` counts the charges of a subscription. Without it the ledger decides.
  Uncertain: whether the first paid charge after a free trial is number 1, and how the trial itself is
  told; a charge of 0 is not taken for one.
- Refunds and chargebacks have no id and no amount of their own: they repeat the sale, and are taken to
  be over all of it. A refund whose sale is PARTIALLY_REFUNDED (a status that the documentation
  names) is dead with `unknown_refund_amount`. That a chargeback was won is not told.
- The only id beside the sale's is the subscriber's code, one for each subscription. The buyer has none.
- "Send test" has the product id 0, and one and the same sale each time, approved in 2017. Its charge is
  told with the event's id, so that the second test is not taken for a repetition of the first.
- Uncertain: how often Hotmart tries again; an address that keeps failing is switched off.
"""

from relay import money, visitor
from relay.errors import PayloadError
from relay.model import Event, Ignored, Kind, Payment, Received, Recurrence
from relay.payload import Payload
from relay.provider import Mapper, Setup
from relay.verify import StaticToken

TITLE = "Hotmart"
DOCS = "https://developers.hotmart.com/docs/en/2.0.0/webhook/purchase-webhook/"

SETUP = Setup(
    where="app.hotmart.com, Tools, Webhook (API and notifications), Register webhook: paste the URL, "
    "choose all products and version 2.0.0.",
    events=("PURCHASE_APPROVED", "PURCHASE_REFUNDED", "PURCHASE_CHARGEBACK"),
    secret="The hottok: on the same page, under Authentication. It is one for the whole account.",
    visitor="In `sck`, a parameter of the address of the checkout; it comes back in `purchase.origin`. "
    "`xcod` is read too, if you need `sck` for your campaigns.",
    checkout="""\
<script>
  // on your page, below the links to Hotmart
  const visitor = document.cookie.match(/(?:^|; )datafast_visitor_id=([^;]+)/)?.[1];
  if (visitor) document.querySelectorAll('a[href*="pay.hotmart.com/"]').forEach((link) => {
    const url = new URL(link.href);
    url.searchParams.set("sck", visitor);
    link.href = url.href;
  });
</script>""",
    notes="Hotmart's report of sales by origin shows what stands in `sck`.",
)

SIGNATURE = StaticToken("X-Hotmart-Hottok")


def parse(request: Received) -> list[Event]:
    """One event a request; a retry repeats its id."""
    body = Payload.json(request.body).object()
    return [Event(body.text("id"), body.text("event"), body)]


def approved(event: Event) -> Payment | Ignored:
    """`PURCHASE_APPROVED`: a sale, a subscription's first charge or a later one."""
    data, purchase = event.data.object("data"), event.data.object("data", "purchase")
    recurrence = Recurrence.UNKNOWN if data.at("subscription") else Recurrence.ONE_TIME
    if purchase.at("recurrence_number"):
        number = purchase.integer("recurrence_number")
        if number > 1:
            recurrence = Recurrence.RENEWAL
        elif data.at("subscription"):
            recurrence = Recurrence.FIRST
    id = event.id if is_test(data) else purchase.text("transaction")
    return payment(event, Kind.CHARGE, id, recurrence)


def refunded(event: Event) -> Payment | Ignored:
    """`PURCHASE_REFUNDED`: all of the sale."""
    purchase = event.data.object("data", "purchase")
    if purchase.text_or_none("status") == "PARTIALLY_REFUNDED":
        msg = "a part of the sale was refunded, and Hotmart does not say how much"
        raise PayloadError("unknown_refund_amount", purchase.at("price").path, msg)
    return payment(event, Kind.REFUND, f"{purchase.text('transaction')}:refund")


def charged_back(event: Event) -> Payment | Ignored:
    """`PURCHASE_CHARGEBACK`: the buyer's bank took all of the sale back."""
    id = event.data.text("data", "purchase", "transaction")
    return payment(event, Kind.DISPUTE, f"{id}:chargeback")


def payment(event: Event, kind: Kind, id: str, recurrence: Recurrence | None = None) -> Payment:
    """What the movements have in common. All repeat the sale, `approved_date` included."""
    data, purchase = event.data.object("data"), event.data.object("data", "purchase")
    is_sale = kind is Kind.CHARGE
    dated = purchase.at("approved_date") if is_sale else Payload(None)
    moment = (dated or event.data.at("creation_date")).unix_time(unit=1000)
    price, origin = purchase.object("price"), purchase.at("origin")
    currency = "currency_value" if price.at("currency_value") else "currency_code"
    return Payment(
        kind=kind,
        transaction_id=id,
        amount=money.major_units(price, "value"),
        currency=money.currency(price, currency),
        occurred_at=moment,
        recurrence=recurrence,
        original_id=None if is_sale else purchase.text("transaction"),
        cumulative=kind is Kind.REFUND,
        subscription_id=data.text_or_none("subscription", "subscriber", "code"),
        subscribed_at=moment if recurrence is Recurrence.FIRST else None,
        email=data.text_or_none("buyer", "email"),
        name=data.text_or_none("buyer", "name"),
        visitor_id=visitor.find(
            origin.at("sck"), origin.at("xcod"), origin.at("src"), purchase.at("sckPaymentLink")
        ),
        test=is_test(data),
    )


def is_test(data: Payload) -> bool:
    """Whether it is of the product that the dashboard's test events are about."""
    return data.text_or_none("product", "id") == "0"


# https://developers.hotmart.com/docs/en/2.0.0/webhook/about-webhook/
EVENTS: dict[str, Mapper] = {
    "PURCHASE_APPROVED": approved,
    "PURCHASE_REFUNDED": refunded,
    "PURCHASE_CHARGEBACK": charged_back,
}

IGNORED = {
    "PURCHASE_COMPLETE": "told_by_PURCHASE_APPROVED",
    "PURCHASE_PROTEST": "refund_asked_for",
    "PURCHASE_BILLET_PRINTED": "not_paid",
    "PURCHASE_CANCELED": "not_paid",
    "PURCHASE_DELAYED": "not_paid",
    "PURCHASE_EXPIRED": "not_paid",
    "PURCHASE_OUT_OF_SHOPPING_CART": "not_paid",
    "CLUB_FIRST_ACCESS": "no_money_moved",
    "CLUB_MODULE_COMPLETED": "no_money_moved",
    "ORDER_FULFILLMENT": "no_money_moved",
    "SUBSCRIPTION_CANCELLATION": "no_money_moved",
    "SWITCH_PLAN": "no_money_moved",
    "UPDATE_SUBSCRIPTION_CHARGE_DATE": "no_money_moved",
}
