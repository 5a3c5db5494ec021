"""BTCPay Server.

Quirks:
- The webhook holds no amount: the invoice is fetched from your own server.
- A price in BTC or SATS is no currency of ISO 4217: such an event is dead (unknown_currency).
- What counts is the invoice's `amount`, since what was paid in coins is that much only after
  rounding. If it was overpaid, `paidAmount` counts, rounded to the currency. One that was marked
  as settled by hand counts as paid in full.
- `InvoiceProcessing` is paid but not confirmed. Not told: an invoice that is marked as invalid after
  it was settled. Fetched later than that, it is ignored.
- A refund is a payout that names no invoice, so none is told. There are no disputes.
- BTCPay's subscriptions are prepaid credit: its invoices are the money, and `SubscriberCharged` only
  uses credit up. An invoice with `planId` and `offeringId` is a new subscriber's first. Later ones
  look like any other invoice and are told as one-off, unless you write `subscription_id` into the
  metadata yourself. Uncertain: older versions, and the bodies of subscribers' events (read in the
  source code, where the offering is called `offer` or `offering`).
- A delivery sent again has another `deliveryId`, but the same `originalDeliveryId`.
- The button "Test" sends invented ids between `__test__`. Nothing else says test: regtest and testnet
  are servers of their own.
- There is no published vector of BTCPay's own, and no official SDK for Python; a public middleware's
  test has one.
"""

from dataclasses import replace
from decimal import Decimal
from urllib.parse import quote

from relay import money, visitor
from relay.model import Event, Ignored, Kind, Payment, Received, Recurrence
from relay.payload import Payload
from relay.provider import Api, Mapper, Setting, Setup
from relay.verify import BodyHmac

TITLE = "BTCPay Server"
DOCS = "https://docs.btcpayserver.org/API/Greenfield/v1/#tag/Webhooks"

SETUP = Setup(
    where="Your store, Settings, Webhooks, Create Webhook: paste the URL, leave automatic redelivery "
    "on, choose specific events.",
    events=("InvoiceSettled", "SubscriberPhaseChanged"),
    secret="The secret in the same form; BTCPay invents one, the eye shows it. The API key is made in "
    "Account, Manage account, API keys, with the one permission to view invoices "
    "(`btcpay.store.canviewinvoices`).",
    visitor="In `metadata` of the invoice, which comes with the webhook.",
    checkout="""\
// on your server, where the invoice is created
const metadata = { orderId: order.id, buyerEmail: user.email,
  datafast_visitor_id: cookies.get("datafast_visitor_id") };
// only if you bill the same customer again and again: your own id of the subscription
metadata.subscription_id = subscription.id;
await fetch(`${server}/api/v1/stores/${store}/invoices`, { method: "POST",
  headers: { Authorization: `token ${apiKey}`, "Content-Type": "application/json" },
  body: JSON.stringify({ amount: "24.20", currency: "EUR", metadata }) });""",
    notes="Write prices in a currency such as EUR or USD. Set `api_base` to your own server. Refunds "
    "are not told by BTCPay. A plan's checkout takes the same metadata as `invoiceMetadata`.",
)

SETTINGS = (
    Setting(
        "api_key",
        "API key that may view the store's invoices: they hold the amount",
        required=True,
        secret=True,
    ),
    Setting("api_base", "your server, such as https://btcpay.example.com", required=True),
    Setting("test", "true if this server is on testnet or regtest", default=False),
)

_TEST = "TestDelivery"

# https://docs.btcpayserver.org/API/Greenfield/v1/#tag/Webhooks
SIGNATURE = BodyHmac("BTCPay-Sig", prefix="sha256=")


def parse(request: Received) -> list[Event]:
    """One event a request, by the id of its first delivery. Test deliveries are a type of their own."""
    body = Payload.json(request.body).object()
    id, type = body.text("originalDeliveryId"), body.text("type")
    occurred_at = body.unix_time("timestamp") if body.at("timestamp") else None
    return [Event(id, _TEST if id.startswith("__test__") else type, body, occurred_at)]


def fetch(event: Event, api: Api) -> list[Event]:
    """The event with its invoice."""
    if event.type != "InvoiceSettled":
        return [event]
    store, id = (quote(event.data.text(it), safe="") for it in ("storeId", "invoiceId"))
    headers = {"Authorization": f"token {event.settings['api_key']}"}
    invoice = api.get(f"/api/v1/stores/{store}/invoices/{id}", headers)
    return [replace(event, data=Payload(event.data.value | {"invoice": invoice.value}))]


def settled(event: Event) -> Payment | Ignored:
    """`InvoiceSettled`: paid and confirmed, or marked so by hand."""
    invoice = event.data.object("invoice")
    if invoice.text("status") != "Settled":
        return Ignored("not_paid")
    metadata = event.data.at("metadata") or invoice.at("metadata")
    currency = money.currency(invoice, "currency")
    return Payment(
        kind=Kind.CHARGE,
        transaction_id=event.data.text("invoiceId"),
        amount=amount(event, invoice, currency),
        currency=currency,
        occurred_at=event.data.unix_time("timestamp"),
        recurrence=recurrence(metadata),
        subscription_id=metadata.text_or_none("subscription_id"),
        email=metadata.text_or_none("buyerEmail"),
        name=metadata.text_or_none("buyerName"),
        visitor_id=visitor.find(metadata),
        reference=metadata.text_or_none("orderId"),
        test=event.settings["test"],
    )


def amount(event: Event, invoice: Payload, currency: str) -> Decimal:
    """The invoice's price; or what was paid, if that is more."""
    if event.data.flag("overPaid") and invoice.at("paidAmount"):
        return round(money.major_units(invoice, "paidAmount"), money.exponent(currency) or 0)
    return money.major_units(invoice, "amount")


def recurrence(metadata: Payload) -> Recurrence:
    """By what BTCPay writes into a new subscriber's invoice, or the site into its own."""
    if metadata.at("planId") and metadata.at("offeringId"):
        return Recurrence.FIRST
    return Recurrence.UNKNOWN if metadata.at("subscription_id") else Recurrence.ONE_TIME


def phase(event: Event) -> Payment | Ignored:
    """`SubscriberPhaseChanged`: a trial, when one begins."""
    if event.data.text("currentPhase") != "Trial":
        return Ignored("no_money_moved")
    subscriber = event.data.object("subscriber")
    offering = subscriber.at("offer") or subscriber.at("offering")
    plan, customer = subscriber.at("plan"), subscriber.at("customer")
    subscription_id = f"{offering.text('id')}:{customer.text('id')}"
    return Payment(
        kind=Kind.TRIAL,
        transaction_id=f"{subscription_id}:trial",
        amount=Decimal(0),
        currency=money.currency(plan, "currency") if plan.at("currency") else None,
        occurred_at=event.data.unix_time("timestamp"),
        subscription_id=subscription_id,
        customer_id=customer.text("id"),
        reference=customer.text_or_none("externalId"),
        test=event.settings["test"],
    )


# https://docs.btcpayserver.org/API/Greenfield/v1/#tag/Webhooks
EVENTS: dict[str, Mapper] = {
    "InvoiceSettled": settled,
    "SubscriberPhaseChanged": phase,
}

IGNORED = {
    _TEST: "test_notification",
    "InvoiceCreated": "not_paid",
    "InvoiceExpired": "not_paid",
    "InvoiceExpiredPaidPartial": "not_paid",
    "InvoiceInvalid": "not_paid",
    "InvoicePaidAfterExpiration": "not_paid",
    "InvoicePaymentSettled": "told_by_InvoiceSettled",
    "InvoiceProcessing": "not_paid",
    "InvoiceReceivedPayment": "not_paid",
    "PaymentReminder": "no_money_moved",
    "PaymentRequestArchived": "no_money_moved",
    "PaymentRequestCompleted": "told_by_InvoiceSettled",
    "PaymentRequestCreated": "no_money_moved",
    "PaymentRequestStatusChanged": "told_by_InvoiceSettled",
    "PaymentRequestUpdated": "no_money_moved",
    "PayoutApproved": "payout",
    "PayoutCreated": "payout",
    "PayoutUpdated": "payout",
    "PlanStarted": "no_money_moved",
    "SubscriberActivated": "no_money_moved",
    "SubscriberCharged": "told_by_InvoiceSettled",
    "SubscriberCreated": "no_money_moved",
    "SubscriberCredited": "told_by_InvoiceSettled",
    "SubscriberDisabled": "no_money_moved",
    "SubscriberNeedUpgrade": "no_money_moved",
}
