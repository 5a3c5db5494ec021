"""NOWPayments.

Quirks:
- What is signed is not the body as it came but the body written again, sorted, as JavaScript would:
  `20.0` becomes `20`, `0.0000001` becomes `1e-7`, nothing beyond JSON's needs is escaped. The event
  is read from that text too, so that no digit counts that is not signed.
- The documentation's own examples disagree about lists and nested objects, which only `fee` and
  `payment_extra_ids` can be: all four readings are accepted. In one of them the contents of `fee`
  are not signed; nothing here reads them. There is no published vector and no SDK that is right.
- What was paid is told in crypto (`actually_paid`); in money there is only the price. A payment that
  is short or over by what your settings let pass counts with its price. `actually_paid_at_fiat` is
  mostly 0.
- A price in a crypto currency is no currency of ISO 4217: such an event is dead (unknown_currency).
- A second deposit to the same address is a payment of its own, with `parent_payment_id`, and mostly
  without `order_id`. Uncertain: whether its `price_amount` is always worth what was deposited.
- `refunded` has no amount: it takes all that is left. It can also come for a payment that never was
  `finished` (too little, too late); then there is nothing here that it could be held against.
- `partially_paid` is not told, not even if you deliver all the same.
- `updated_at` is missing in some bodies: then the time of receipt counts.
- Withdrawals and transfers between balances come to the same address, signed alike.
- No subscription, e-mail or name is told. The sandbox is another account; no body says so.
"""

import hmac
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from relay import money, visitor
from relay.errors import PayloadError, VerificationError
from relay.model import Event, Kind, Payment, Received, Recurrence, Trust
from relay.payload import Payload
from relay.provider import Mapper, Setting, Setup
from relay.verify import Signature, encode, header, matches, well_formed, with_header

TITLE = "NOWPayments"
DOCS = "https://documenter.getpostman.com/view/7907941/S1a32n38"

SETUP = Setup(
    where="Dashboard, Settings, Payments, Instant payment notifications: generate the IPN secret "
    "and set the number of repetitions. The URL is given with every payment or invoice, as "
    "`ipn_callback_url`.",
    events=("finished", "refunded"),
    secret="The IPN secret key; it is shown in full only once. It is not the API key.",
    visitor="In `order_id`, behind your own id and a `|`.",
    checkout="""\
// on your server, where the invoice is created; send the customer to its invoice_url
const visitor = cookies.get("datafast_visitor_id");
await fetch("https://api.nowpayments.io/v1/invoice", {
  method: "POST",
  headers: { "Content-Type": "application/json", "x-api-key": process.env.NOWPAYMENTS_KEY },
  body: JSON.stringify({
    price_amount: 24.2, price_currency: "eur",
    order_id: visitor ? `${order.id}|${visitor}` : order.id,
    ipn_callback_url: "https://relay.example.com/webhooks/nowpayments",
  }),
});""",
    notes="Price in a currency such as usd or eur, not in crypto. `order_description` is searched "
    "for the visitor's id too, if `order_id` is not yours to change.",
)

SETTINGS = (
    Setting(
        "test",
        "true if this source's payments come from the sandbox; the events do not say it",
        default=False,
    ),
)

HEADER = "x-nowpayments-sig"


@dataclass(frozen=True)
class JavaScriptHmac(Signature):
    """A header that holds the HMAC-SHA512 of the body, sorted and written by JavaScript."""

    summary = "HMAC-SHA512 of the body, sorted as JavaScript would"

    def verify(self, request: Received, trust: Trust) -> None:
        """See Signature. Raises missing_header, malformed_…, bad_signature."""
        claimed = header(request, HEADER)
        well_formed(claimed, HEADER, "sha512", "hex")
        texts = self._texts(request)
        matches([claimed], (_digest(it, text) for it in trust.secrets for text in texts))

    def sign(self, request: Received, trust: Trust) -> Received:
        """See Signature. As the documentation's example in JavaScript does."""
        return with_header(request, HEADER, _digest(trust.secrets[0], self._texts(request)[0]))

    def _texts(self, request: Received) -> list[bytes]:
        try:
            body = Payload.json(request.body).object().value
            return [javascript(it) for it in readings(body)]
        except (PayloadError, RecursionError, OverflowError):
            msg = "the body is no JSON object that could be signed"
            raise VerificationError("malformed_body", msg) from None


SIGNATURE = JavaScriptHmac()


# https://documenter.getpostman.com/view/7907941/S1a32n38 (Instant Payments Notifications)
def readings(body: dict[str, Any]) -> Iterator[Any]:
    """The orders in which the body may have been signed, the most likely first."""
    yield ordered(body, lambda it: {str(index): each for index, each in enumerate(it)})
    yield ordered(body, list)
    yield ordered(body, None)
    yield only(body, in_order(body))


def ordered(value: Any, as_list: Callable[[list[Any]], Any] | None) -> Any:  # noqa: ANN401 - JSON
    """Keys sorted in every object. Lists become what `as_list` says, or stay as they are."""
    if isinstance(value, dict):
        return {key: ordered(value[key], as_list) for key in in_order(value)}
    if not isinstance(value, list) or as_list is None:
        return value
    return as_list([ordered(each, as_list) for each in value])


def only(value: Any, names: list[str]) -> Any:  # noqa: ANN401 - JSON
    """What `JSON.stringify(body, names)` keeps: these names, in this order, at every depth."""
    if isinstance(value, dict):
        return {key: only(value[key], names) for key in names if key in value}
    return [only(each, names) for each in value] if isinstance(value, list) else value


def in_order(value: dict[str, Any]) -> list[str]:
    """The keys, sorted by UTF-16 as JavaScript does."""
    return sorted(value, key=lambda key: key.encode("utf-16-be", "surrogatepass"))


def javascript(value: Any) -> bytes:  # noqa: ANN401 - JSON
    """The JSON that JavaScript would write."""
    return _written(value).encode("utf-8", "backslashreplace")


def _written(value: Any) -> str:  # noqa: ANN401 - JSON
    if isinstance(value, dict):
        pairs = (f"{json.dumps(key, ensure_ascii=False)}:{_written(value[key])}" for key in value)
        return "{" + ",".join(pairs) + "}"
    if isinstance(value, list):
        return "[" + ",".join(_written(each) for each in value) + "]"
    if isinstance(value, int | Decimal) and not isinstance(value, bool):
        return number(value)
    return json.dumps(value, ensure_ascii=False)


# https://tc39.es/ecma262/#sec-numeric-types-number-tostring
def number(value: int | Decimal) -> str:
    """The number as JavaScript writes it, once it has fitted it into 64 bits. OverflowError."""
    exact = Decimal(repr(float(value))).normalize()
    if not exact.is_finite():
        raise OverflowError
    if not exact:
        return "0"
    return f"{exact:f}" if -7 < exact.adjusted() < 21 else f"{exact:e}"


def _digest(secret: str, text: bytes) -> str:
    return encode(hmac.digest(secret.encode(), text, "sha512"), "hex")


def parse(request: Received) -> list[Event]:
    """One event a request: a status of a payment, once; or something that is no payment."""
    try:
        text = javascript(Payload.json(request.body).object().value)
    except (RecursionError, OverflowError):
        raise PayloadError("malformed_json", "$", "it cannot be what was signed") from None
    body = Payload.json(text)
    if body.at("payment_status").value is None:
        type = "withdrawal" if body.at("batch_withdrawal_id").value is not None else "transfer"
        return [Event(f"{type}:{body.text('id')}:{body.text('status')}", type, body)]
    status = body.text("payment_status")
    id = f"{body.text('payment_id')}:{status}"
    return [Event(id, status, body, updated_at(body) or request.received_at)]


def updated_at(body: Payload) -> datetime | None:
    """When the status changed: milliseconds in deliveries, ISO 8601 in the API's answers."""
    found = body.at("updated_at")
    if isinstance(found.value, int | Decimal):
        return found.unix_time(unit=1000)
    return found.time_or_none()


def finished(event: Event) -> Payment:
    """`finished`: paid, confirmed and on its way to the seller; counted with its price."""
    return Payment(
        kind=Kind.CHARGE,
        transaction_id=event.data.text("payment_id"),
        amount=money.major_units(event.data, "price_amount"),
        currency=money.currency(event.data, "price_currency"),
        recurrence=Recurrence.ONE_TIME,
        **about(event),
    )


def refunded(event: Event) -> Payment:
    """`refunded`: the same payment, all that is left of it."""
    id = event.data.text("payment_id")
    return Payment(
        kind=Kind.REFUND,
        transaction_id=f"{id}:refund",
        amount=None,
        currency=None,
        original_id=id,
        **about(event),
    )


def about(event: Event) -> dict[str, Any]:
    """When it was, and what the owner put into the order id: `1001|<visitor's id>`."""
    order, description = (
        (event.data.text_or_none(it) or "").split("|") for it in ("order_id", "order_description")
    )
    found = visitor.find(*(Payload(part) for part in (*order, *description)))
    return {
        "occurred_at": event.occurred_at or event.data.unix_time("updated_at", unit=1000),
        "visitor_id": found,
        "reference": (order[0].strip() or None) if not visitor.find(Payload(order[0])) else None,
        "test": event.settings["test"],
    }


# https://documenter.getpostman.com/view/7907941/S1a32n38 (Get payment status)
EVENTS: dict[str, Mapper] = {"finished": finished, "refunded": refunded}

IGNORED = {
    "waiting": "not_paid",
    "confirming": "not_confirmed_yet",
    "confirmed": "not_confirmed_yet",
    "sending": "not_confirmed_yet",
    "partially_paid": "paid_short",
    "wrong_asset_confirmed": "not_accepted",
    "failed": "no_money_moved",
    "expired": "no_money_moved",
    "withdrawal": "not_a_sale",
    "transfer": "not_a_sale",
}
