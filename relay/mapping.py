"""An event becomes a payment; a payment becomes the body of one POST. Pure.

Mapping happens in the worker, from the stored bytes, so that a mapper that is mended also mends a
replay.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from dataclasses import fields as fields_of
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, TypeVar

import simplejson
from marshmallow import Schema, ValidationError, fields, validate

from relay import visitor
from relay.errors import PayloadError, RelayError
from relay.model import TAKES_BACK, Event, Ignored, Kind, Payment, Received, Recurrence
from relay.provider import Api, Provider

T = TypeVar("T")

UNREADABLE = "unreadable"

_LONGEST_ID = 255
_UNSTORABLE = re.compile("[\0\ud800-\udfff]")
# What DataFast refuses when it is malformed, and money does not need.
_DISPENSABLE = ("datafast_visitor_id", "email", "name", "customer_id")


def _uuid_v4(text: str) -> None:
    if not visitor.is_valid(text):
        msg = "not a UUID v4"
        raise ValidationError(msg)


class PaymentSchema(Schema):
    """The body of `POST /api/v1/payments`.

    Source: https://datafa.st/docs/api/website/payments
    """

    amount = fields.Decimal(required=True, allow_nan=False, validate=validate.Range(min=0))
    currency = fields.String(required=True, validate=validate.Regexp(r"[A-Z]{3}\Z"))
    transaction_id = fields.String(required=True, validate=validate.Length(1, _LONGEST_ID))
    datafast_visitor_id = fields.String(validate=_uuid_v4)
    email = fields.Email()
    name = fields.String()
    customer_id = fields.String()
    renewal = fields.Boolean()
    refunded = fields.Boolean()
    is_free_trial = fields.Boolean()
    timestamp = fields.AwareDateTime(format="iso", required=True)


SCHEMA = PaymentSchema()


@dataclass(frozen=True)
class Body:
    """What is posted, and what had to be left out of it (field: why)."""

    fields: dict[str, Any]
    left_out: dict[str, str]

    @property
    def json(self) -> str:
        """The bytes' text; amounts stand in it digit by digit as they are."""
        return simplejson.dumps(self.fields, use_decimal=True, ensure_ascii=False)


def events(provider: Provider, request: Received, settings: Mapping[str, Any]) -> list[Event]:
    """The events in a request, each once. Raises PayloadError, also for ids no table could hold."""
    return _checked(_ask(provider.parse, request), settings)


def complete(provider: Provider, event: Event, api: Api) -> list[Event]:
    """What a thin event turns out to be. Raises PayloadError and FetchError."""
    if provider.fetch is None:
        return [event]
    return _checked(_ask(provider.fetch, event, api), event.settings)


def find(events: list[Event], event_id: str) -> Event | None:
    """The event called `event_id`."""
    return next((event for event in events if event.id == event_id), None)


def _ask(function: Callable[..., T], *arguments: object) -> T:
    """Call an adapter. Whatever breaks in one is about this event, and must not cost it."""
    try:
        return function(*arguments)
    except RelayError:
        raise
    except Exception as error:
        msg = f"the adapter broke ({type(error).__name__}); mend it, then replay"
        raise PayloadError("adapter_error", "$", msg) from error


def _checked(events: list[Event], settings: Mapping[str, Any]) -> list[Event]:
    found = {}
    for event in events:
        _check("the event's id", event.id, event)
        _check("the event's type", event.type or "-", event)
        found[event.id] = replace(event, settings=settings)
    return list(found.values())


def _check(name: str, id: str, event: Event) -> None:
    """Whether a table can hold this id."""
    if not 0 < len(id) <= _LONGEST_ID or _UNSTORABLE.search(id):
        msg = f"{name} is empty, no text, or over {_LONGEST_ID} characters"
        raise PayloadError("bad_id", event.data.path, msg)


def payment(provider: Provider, event: Event, currency: str | None = None) -> Payment | Ignored:
    """What the event means, by its provider's mapper; or why it is nothing for DataFast.

    `currency` is the source's own, for providers that name none. Raises PayloadError.
    """
    mapper = provider.events.get(event.type)
    if mapper is None:
        return Ignored(provider.ignored.get(event.type, "unknown_type"))
    found = _ask(mapper, event)
    if isinstance(found, Ignored):
        return found
    if found.kind is Kind.TRIAL:
        free = found.currency or currency or "USD"
        found = replace(found, amount=Decimal(0), recurrence=None, currency=free)
    elif found.amount == 0:
        return zero(found)
    if found.amount is None and (found.kind not in TAKES_BACK or found.original_id is None):
        msg = "only a refund or dispute of a known payment can be of all that is left"
        raise PayloadError("missing_amount", event.data.path, msg)
    if not (found.currency or currency or found.amount is None):
        msg = f"{provider.title} names no currency; set `currency` of this source"
        raise PayloadError("missing_currency", event.data.path, msg)
    _check("the payment's id", found.transaction_id, event)
    _check("the original's id", found.original_id or "-", event)
    if len(found.currency or "") > 3:
        raise PayloadError("bad_currency", event.data.path, "the currency is no code of ISO 4217")
    return replace(found, currency=found.currency or currency)


def zero(payment: Payment) -> Ignored:
    """Nothing was paid. DataFast would take it for a free trial."""
    known = {it.name: getattr(payment, it.name) for it in fields_of(Ignored) if it.name != "reason"}
    return Ignored("zero_amount", **known)


def body(payment: Payment, transaction_id: str | None = None) -> Body:
    """The body to post. `transaction_id` stands in for the payment's own (a refund's policy).

    What DataFast would refuse and money does not need (a visitor id that is no UUID v4, an e-mail
    address that is none) is left out and named. Raises PayloadError when what money needs is wrong.
    """
    wire = {
        "amount": payment.amount,
        "currency": payment.currency,
        "transaction_id": transaction_id or payment.transaction_id,
        "datafast_visitor_id": payment.visitor_id,
        "email": payment.email,
        "name": payment.name,
        "customer_id": payment.customer_id,
        "renewal": payment.recurrence is Recurrence.RENEWAL or None,
        "refunded": payment.kind in TAKES_BACK or None,
        "is_free_trial": payment.kind is Kind.TRIAL or None,
        "timestamp": iso(payment.occurred_at),
    }
    wire = {name: value for name, value in wire.items() if value is not None}
    wrong = SCHEMA.validate(wire)
    left_out = {name: " ".join(wrong.pop(name)) for name in _DISPENSABLE if name in wrong}
    if wrong:
        raise PayloadError("wrong_payment", "$", f"DataFast would refuse it: {wrong}")
    return Body({name: value for name, value in wire.items() if name not in left_out}, left_out)


def iso(moment: datetime) -> str:
    """ISO 8601 in UTC with a Z, to the millisecond, as JavaScript writes it."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
