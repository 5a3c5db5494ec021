"""Checkout.com's traps."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from providers import checkout_com
from relay import mapping, provider, samples
from relay.errors import PayloadError
from relay.model import Event, Ignored, Kind, Payment, Recurrence
from relay.payload import Payload

HERE = Path(__file__).parent
CHECKOUT = provider.load("checkout_com")
KEY = {"api_key": "example-secret-api-key"}

Edit = Callable[[dict[str, Any]], object]


class Answering:
    """An API with one answer, which may be none."""

    def __init__(self, answer: Mapping[str, Any] | None = None) -> None:
        self.answer = answer
        self.asked: list[tuple[str, Mapping[str, str] | None]] = []

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> Payload:
        raise NotImplementedError

    def get_or_none(self, path: str, headers: Mapping[str, str] | None = None) -> Payload | None:
        self.asked.append((path, headers))
        return Payload(self.answer) if self.answer else None


def told(name: str, edit: Edit = lambda _: None, settings: Mapping[str, Any] = {}) -> Event:
    """The recorded event after an edit of its `data`."""
    request = samples.read(HERE / f"{name}.http").request
    body = json.loads(request.body)
    edit(body["data"])
    changed = replace(request, body=json.dumps(body).encode())
    (event,) = mapping.events(CHECKOUT, changed, CHECKOUT.defaults() | settings)
    return event


def paid(
    name: str,
    edit: Edit = lambda _: None,
    answer: Mapping[str, Any] | None = None,
    settings: Mapping[str, Any] = KEY,
) -> Payment:
    (event,) = mapping.complete(CHECKOUT, told(name, edit, settings), Answering(answer))
    found = mapping.payment(CHECKOUT, event)
    assert isinstance(found, Payment)
    return found


def test_a_refund_is_not_taken_for_its_payment_though_it_has_its_id() -> None:
    one, other = paid("payment_refunded.partial"), paid("payment_refunded.rest")
    assert one.original_id == other.original_id == paid("payment_captured.one_time").transaction_id
    assert one.transaction_id != other.transaction_id
    assert (one.amount, other.amount) == (Decimal("10.00"), Decimal("14.20"))


def test_a_payment_captured_in_parts_is_counted_in_parts() -> None:
    first, further = (paid(f"payment_captured.in_parts.{which}") for which in ("first", "further"))
    assert first.transaction_id == told("payment_captured.in_parts.first").data.text("data", "id")
    assert first.transaction_id != further.transaction_id
    assert (first.amount, further.amount) == (Decimal("10.00"), Decimal("14.20"))


def test_a_capture_without_balances_goes_by_the_payments_id() -> None:
    found = paid("payment_captured.one_time", lambda data: data.pop("balances"))
    assert found.transaction_id == "pay_ex4mpl3payment000000000aa"


@pytest.mark.parametrize(
    ("amount", "currency", "wanted"),
    [
        (1500, "JPY", "1500"),
        (12340, "BHD", "12.340"),
        (150000, "CLP", "1500"),
        (2420, "EUR", "24.20"),
    ],
)
def test_amounts_follow_iso_4217_but_for_chilean_pesos(
    amount: int, currency: str, wanted: str
) -> None:
    change = {"amount": amount, "currency": currency, "balances": {}}
    found = paid("payment_captured.yen.no_key", lambda data: data.update(change))
    assert (found.amount, found.currency) == (Decimal(wanted), currency)


@pytest.mark.parametrize(
    ("answer", "wanted"),
    [
        (None, Recurrence.UNKNOWN),
        ({"payment_type": "Regular"}, Recurrence.ONE_TIME),
        ({"payment_type": "MOTO"}, Recurrence.ONE_TIME),
        ({"payment_type": "Regular", "previous_payment_id": "pay_1"}, Recurrence.ONE_TIME),
        ({"payment_type": "Recurring"}, Recurrence.UNKNOWN),
        ({"payment_type": "Recurring", "previous_payment_id": "pay_1"}, Recurrence.RENEWAL),
        (
            {"payment_type": "Regular", "metadata": {"subscription_id": "sub-77"}},
            Recurrence.UNKNOWN,
        ),
    ],
)
def test_only_a_later_payment_of_a_series_is_a_renewal(
    answer: Mapping[str, Any] | None, wanted: Recurrence
) -> None:
    assert paid("payment_captured.yen.no_key", answer=answer).recurrence is wanted


def test_the_api_is_asked_for_captures_only_and_only_with_a_key() -> None:
    api = Answering()
    for name, settings in (("payment_captured.one_time", {}), ("payment_refunded.partial", KEY)):
        checkout_com.fetch(told(name, settings=settings), api)
    assert not api.asked
    checkout_com.fetch(told("payment_captured.one_time", settings=KEY), api)
    path = "/payments/pay_ex4mpl3payment000000000aa"
    assert api.asked == [(path, {"Authorization": "Bearer example-secret-api-key"})]


def test_a_payment_id_cannot_lead_elsewhere_in_the_api() -> None:
    api = Answering()
    event = told("payment_captured.one_time", lambda data: data.update(id="../disputes?x=1"), KEY)
    checkout_com.fetch(event, api)
    assert api.asked[0][0] == "/payments/..%2Fdisputes%3Fx%3D1"


def test_an_authorisation_lends_its_customer_to_the_capture() -> None:
    found = mapping.payment(CHECKOUT, told("payment_approved"))
    assert isinstance(found, Ignored)
    assert found.email == "jordan@example.com"
    assert found.transaction_id == paid("payment_captured.one_time").transaction_id


@pytest.mark.parametrize("word", ["evidence_required", "accepted", "expired", "lost"])
def test_all_that_is_told_of_a_dispute_is_one_movement(word: str) -> None:
    found = paid(f"dispute_{word}")
    assert found.kind is Kind.DISPUTE
    assert found.transaction_id == paid("dispute_received").transaction_id


@pytest.mark.parametrize("word", ["canceled", "arbitration_won"])
def test_the_money_of_a_dispute_returns_once(word: str) -> None:
    found = paid(f"dispute_{word}")
    assert found.kind is Kind.REINSTATED
    assert found.transaction_id == paid("dispute_won").transaction_id


def test_a_dispute_won_without_its_amount_is_unreadable_and_not_guessed() -> None:
    with pytest.raises(PayloadError) as caught:
        paid("dispute_won", lambda data: data.pop("amount"))
    assert caught.value.path == "$.data.amount"


def test_a_sandbox_is_known_by_its_links_or_by_its_api() -> None:
    sandbox = {"api_base": "https://example.api.sandbox.checkout.com"}
    assert paid("payment_captured.sandbox").test
    assert paid("payment_refunded.partial", settings=sandbox).test
    assert not paid("payment_refunded.partial").test
