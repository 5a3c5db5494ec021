"""Coinbase Commerce's traps, beside what `test_providers.py` asks of every provider."""

import json
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from relay import mapping, provider, samples
from relay.errors import PayloadError
from relay.model import Payment

HERE = Path(__file__).parent
LOADED = provider.load("coinbase_commerce")


def charge(name: str, change: Callable[[dict[str, Any]], None] = lambda _: None) -> Payment:
    """What the recorded request becomes once its charge was changed."""
    request = samples.read(HERE / f"{name}.http").request
    body = json.loads(request.body)
    change(body["event"]["data"])
    [event] = mapping.events(LOADED, replace(request, body=json.dumps(body).encode()), {})
    found = mapping.payment(LOADED, event)
    assert isinstance(found, Payment)
    return found


def paid(amount: str, currency: str = "USD", status: str = "CONFIRMED") -> dict[str, Any]:
    return {"status": status, "value": {"local": {"amount": amount, "currency": currency}}}


def test_what_was_paid_counts_where_less_than_the_price_was_let_pass() -> None:
    found = charge("charge.confirmed.fixed_price", lambda it: it.update(payments=[paid("62.50")]))
    assert found.amount == Decimal("62.50")


def test_several_payments_are_added_up_exactly() -> None:
    two = [paid("40.10"), paid("23.93")]
    found = charge("charge.resolved.underpaid", lambda it: it.update(payments=two))
    assert found.amount == Decimal("64.03")


@pytest.mark.parametrize("status", ["PENDING", "pending", "FAILED"])
def test_a_payment_beside_a_confirmed_one_is_not_counted_before_it_is_confirmed(
    status: str,
) -> None:
    two = [paid("64.00", status="confirmed"), paid("64.00", status=status)]
    found = charge("charge.confirmed.onchain", lambda it: it.update(payments=two))
    assert found.amount == Decimal("64.00")


@pytest.mark.parametrize("payments", [None, [], [{}], [{"status": "confirmed", "value": {}}]])
def test_a_confirmed_charge_that_lists_no_payment_counts_with_its_price(payments: Any) -> None:
    found = charge("charge.confirmed.onchain", lambda it: it.update(payments=payments))
    assert (found.amount, found.currency) == (Decimal("29.90"), "EUR")


def test_the_price_never_stands_in_for_what_a_resolved_charge_brought() -> None:
    with pytest.raises(PayloadError, match="missing"):
        charge("charge.resolved.underpaid", lambda it: it.update(payments=[]))


def test_payments_in_different_currencies_are_not_added_up() -> None:
    two = [paid("40.00"), paid("24.00", "EUR")]
    with pytest.raises(PayloadError) as error:
        charge("charge.resolved.underpaid", lambda it: it.update(payments=two))
    assert error.value.reason == "mixed_currencies"


def test_a_price_in_a_crypto_currency_is_refused_and_not_guessed() -> None:
    with pytest.raises(PayloadError) as error:
        charge("charge.confirmed.onchain", lambda it: it.update(payments=[paid("5", "USDC")]))
    assert error.value.reason == "unknown_currency"


def test_confirmed_and_resolved_tell_of_one_movement_with_or_without_an_id() -> None:
    first = charge("charge.confirmed.fixed_price", lambda it: it.pop("id"))
    second = charge("charge.resolved.underpaid", lambda it: it.update(code=first.transaction_id))
    assert first.transaction_id == second.transaction_id == "EX4MPL31"


@pytest.mark.parametrize("metadata", [None, [], "none", {"email": {"a": 1}, "name": True}])
def test_whatever_the_owner_put_into_metadata_costs_no_payment(metadata: Any) -> None:
    found = charge("charge.confirmed.fixed_price", lambda it: it.update(metadata=metadata))
    assert (found.email, found.name, found.visitor_id) == (None, None, None)


def test_the_event_is_known_by_its_own_id_and_not_by_the_deliverys() -> None:
    request = samples.read(HERE / "charge.created.published.http").request
    body = json.loads(request.body)
    body |= {"id": 2, "attempt_number": 2}
    again = replace(request, body=json.dumps(body).encode())
    assert [it.id for it in LOADED.parse(request)] == [it.id for it in LOADED.parse(again)]
