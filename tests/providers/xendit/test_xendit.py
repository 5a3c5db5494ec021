import base64
import json
from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from providers import xendit
from relay import mapping, provider, samples
from relay.errors import VerificationError
from relay.model import Event, Ignored, Payment, Recurrence
from relay.payload import Payload

HOME = Path(__file__).parent
PROVIDER = provider.load("xendit")
VISITOR = "7f3b1c2e-5d4a-4e6f-8a9b-0c1d2e3f4a5b"


class Refusing:
    """An API that may be asked and says nothing."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Mapping[str, str]]] = []

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> Payload:
        raise NotImplementedError

    def get_or_none(self, path: str, headers: Mapping[str, str] | None = None) -> Payload | None:
        self.asked.append((path, headers or {}))
        return None


def told(name: str, settings: Mapping[str, Any] = {}, **changes: Any) -> Event:
    """The recorded event with `changes` in its data; None takes one away."""
    request = samples.read(HOME / f"{name}.http").request
    body = json.loads(request.body)
    data = body.get("data", body)
    data.update(changes)
    for key in [key for key in changes if changes[key] is None]:
        del data[key]
    changed = replace(request, body=json.dumps(body).encode())
    (event,) = mapping.events(PROVIDER, changed, PROVIDER.defaults() | settings)
    return event


def become(name: str, **changes: Any) -> Payment | Ignored:
    return mapping.payment(PROVIDER, told(name, **changes), currency="IDR")


def paid(name: str, **changes: Any) -> Payment:
    found = become(name, **changes)
    assert isinstance(found, Payment)
    return found


@pytest.mark.parametrize("token", ["example-xendit-callback-toke", "EXAMPLE-XENDIT-CALLBACK-TOKEN"])
def test_a_token_that_is_nearly_right_is_refused(token: str) -> None:
    sample = samples.read(HOME / "invoice.paid.http")
    headers = sample.request.headers.replaced(x_callback_token=token)
    with pytest.raises(VerificationError):
        xendit.SIGNATURE.verify(replace(sample.request, headers=headers), sample.trust())


def test_flat_bodies_are_told_apart_by_what_is_in_them() -> None:
    assert told("virtual_account.paid").type == "virtual_account.paid"
    assert told("invoice.expired").type == "invoice.expired"
    assert become("invoice.paid", merchant_name=None) == Ignored("not_read")


@pytest.mark.parametrize(
    ("external_id", "visitor_id", "reference"),
    [
        (f"order-1|{VISITOR}", VISITOR, "order-1"),
        (f"order-1|datafast_visitor_id={VISITOR}", VISITOR, "order-1"),
        (VISITOR, None, VISITOR),
        ("shop|1001", None, "shop|1001"),
    ],
)
def test_only_what_follows_the_bar_of_an_invoice_is_a_visitor(
    external_id: str, visitor_id: str | None, reference: str
) -> None:
    found = paid("invoice.paid", external_id=external_id)
    assert (found.visitor_id, found.reference) == (visitor_id, reference)


def test_what_was_paid_counts_neither_the_asked_nor_the_received_amount() -> None:
    found = paid("invoice.paid", amount=50000, paid_amount=50250, adjusted_received_amount=47500)
    assert found.amount == Decimal(50250)


def test_a_paid_and_a_settled_invoice_are_one_movement_of_money() -> None:
    assert paid("invoice.paid").transaction_id == paid("invoice.settled").transaction_id


def test_a_virtual_account_without_a_currency_takes_the_sources() -> None:
    assert paid("virtual_account.paid", currency=None).currency == "IDR"


def test_a_cycle_goes_by_the_payment_of_the_attempt_that_succeeded() -> None:
    found = paid("recurring.cycle.succeeded.renewal")
    capture = paid("payment.capture.token", payment_id="py-3402feb0-0000-4000-8000-000000000002")
    assert found.transaction_id == capture.transaction_id
    assert capture.recurrence is Recurrence.UNKNOWN


@pytest.mark.parametrize(
    ("number", "recurrence"),
    [(1, Recurrence.FIRST), (2, Recurrence.RENEWAL), (None, Recurrence.UNKNOWN)],
)
def test_a_cycle_is_first_by_its_number(number: int | None, recurrence: Recurrence) -> None:
    found = paid("recurring.cycle.succeeded.first", cycle_number=number)
    assert found.recurrence is recurrence


def test_one_capture_goes_by_the_payments_id() -> None:
    first = told("payment.capture.further-part").data.at("data", "captures", 0).value
    found = paid("payment.capture.further-part", captures=[first])
    assert found.transaction_id == "py-1402feb0-0000-4000-8000-000000000004"
    assert found.amount == Decimal(100000)


@pytest.mark.parametrize(
    "name", ["payment.capture.token", "ewallet.capture", "recurring.cycle.succeeded.first"]
)
@pytest.mark.parametrize("status", ["PENDING", "FAILED", "VOIDED"])
def test_what_has_not_succeeded_is_ignored(name: str, status: str) -> None:
    assert become(name, status=status) == Ignored("not_paid")
    assert become("refund.succeeded.partial", status=status) == Ignored("not_refunded")


def test_a_refund_has_its_own_reference_which_is_no_order() -> None:
    found = paid("refund.succeeded.partial")
    assert (found.reference, found.original_id) == (None, "py-1402feb0-0000-4000-8000-000000000001")


def test_a_customer_is_asked_for_only_with_a_key_and_a_need() -> None:
    key, api = {"api_key": "example-key"}, Refusing()
    for event in (
        told("payment.capture.token"),
        told("invoice.paid", key),
        told("payment.failure", key),
    ):
        assert xendit.fetch(event, api) == [event]
    assert not api.asked
    event = told("payment.capture.token", key)
    (found,) = xendit.fetch(event, api)
    assert mapping.payment(PROVIDER, found) == mapping.payment(PROVIDER, event)
    ((path, headers),) = api.asked
    assert path == "/customers/cust-b98d6f63-0000-4000-8000-000000000001"
    assert base64.b64decode(headers["Authorization"].removeprefix("Basic ")) == b"example-key:"
