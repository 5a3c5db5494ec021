"""What may be posted to `/api/v1/payments`, field by field.

Source: https://datafa.st/docs/api/website/payments/create. Open there, and read strictly here:
null is no value of an optional field; a currency is an ISO 4217 code in upper case; a visitor id
is a UUID v4; a body is announced as JSON. A timestamp without a zone is taken as UTC. How large an
amount may be is open too: the bound only keeps nonsense out.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from relay import money
from relay.sandbox.answers import ApiError, read_object, storable

_UUID_V4 = re.compile(
    r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", re.IGNORECASE
)
_CURRENCY = re.compile(r"[A-Z]{3}")
_LARGEST = Decimal(10) ** 15
_MOST_DECIMALS = 30


@dataclass(frozen=True)
class Posted:
    """One payment, refund, renewal or free trial as it was posted; None for what was left out."""

    amount: Decimal
    currency: str
    transaction_id: str
    datafast_visitor_id: str | None
    email: str | None
    name: str | None
    customer_id: str | None
    renewal: bool | None
    refunded: bool | None
    is_free_trial: bool | None
    timestamp: str
    occurred_at: datetime

    @property
    def kind(self) -> str:
        """What it is counted as: refund, trial, renewal or payment."""
        if self.refunded:
            return "refund"
        if self.is_free_trial:
            return "trial"
        return "renewal" if self.renewal else "payment"


def read(body: bytes, content_type: str, now: datetime) -> Posted:
    """Read a request's body. Raises ApiError(400) that names the field."""
    if content_type != "application/json" and not content_type.endswith("+json"):
        raise ApiError(400, "Content-Type must be application/json")
    data = read_object(body)
    amount = _amount(data)
    # An id that holds no visible character could be neither found nor deleted again.
    transaction_id = _text(data, "transaction_id") or ""
    if not transaction_id.strip():
        raise ApiError(400, "transaction_id is required and must be a non-empty string")
    timestamp = _text(data, "timestamp") or now.isoformat(timespec="milliseconds")
    return Posted(
        amount=amount,
        currency=_currency(data),
        transaction_id=transaction_id,
        datafast_visitor_id=_visitor(data),
        email=_text(data, "email", "customer_email"),
        name=_text(data, "name", "customer_name"),
        customer_id=_text(data, "customer_id"),
        renewal=_flag(data, "renewal"),
        refunded=_flag(data, "refunded"),
        is_free_trial=_flag(data, "is_free_trial") if amount else True,
        timestamp=timestamp,
        occurred_at=read_time(timestamp, "timestamp"),
    )


def is_uuid_v4(text: str) -> bool:
    """Whether `text` is what DataFast puts into its visitor cookie."""
    return _UUID_V4.fullmatch(text) is not None


def read_time(text: str, field: str) -> datetime:
    """The moment that `text` spells in ISO 8601, in UTC. Raises ApiError(400)."""
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise ApiError(400, f"{field} must be an ISO 8601 date") from None


def _amount(data: dict[str, Any]) -> Decimal:
    value = data.get("amount")
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        raise ApiError(400, "amount is required and must be a number")
    amount = Decimal(value)
    exponent = amount.as_tuple().exponent
    if amount < 0:
        raise ApiError(400, "amount must be zero or greater; send refunded: true for a refund")
    if amount >= _LARGEST or not isinstance(exponent, int) or abs(exponent) > _MOST_DECIMALS:
        raise ApiError(400, "amount must be a number that a payment can have")
    return abs(amount)  # JSON can spell -0.0


def _currency(data: dict[str, Any]) -> str:
    code = _text(data, "currency") or ""
    if not _CURRENCY.fullmatch(code) or money.exponent(code) is None:
        raise ApiError(400, "currency is required and must be an ISO 4217 code in upper case")
    return code


def _visitor(data: dict[str, Any]) -> str | None:
    visitor = _text(data, "datafast_visitor_id")
    if visitor is not None and not is_uuid_v4(visitor):
        raise ApiError(400, "datafast_visitor_id must be a UUID v4")
    return visitor


def _text(data: dict[str, Any], *names: str) -> str | None:
    """The text under the first of `names` that is there; its aliases follow it."""
    name = next((name for name in names if name in data), None)
    if name is None:
        return None
    value = data[name]
    if not isinstance(value, str) or not storable(value):
        raise ApiError(400, f"{name} must be a string")
    return value


def _flag(data: dict[str, Any], name: str) -> bool | None:
    value = data.get(name)
    if name in data and not isinstance(value, bool):
        raise ApiError(400, f"{name} must be true or false")
    return value
