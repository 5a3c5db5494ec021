"""The traps of Creem."""

import json
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from relay import fetch, mapping, provider, samples
from relay.errors import FetchError
from relay.model import Ignored, Kind, Payment, Recurrence

HOME = Path(__file__).parent
CREEM = provider.load("creem")


def told(name: str, change: Callable[[dict[str, Any]], Any] | None = None) -> Payment | Ignored:
    """What a recorded request becomes after a change of its `object`."""
    sample = samples.read(HOME / f"{name}.http")
    body = json.loads(sample.request.body)
    if change:
        change(body["object"])
    request = replace(sample.request, body=json.dumps(body).encode())
    (hint,) = mapping.events(CREEM, request, CREEM.defaults())
    (event,) = mapping.complete(CREEM, hint, fetch.RecordedApi(sample.documents))
    return mapping.payment(CREEM, event)


def paid(name: str, change: Callable[[dict[str, Any]], Any] | None = None) -> Payment:
    found = told(name, change)
    assert isinstance(found, Payment)
    return found


def test_checkout_and_subscription_tell_the_first_charge_under_one_id() -> None:
    checkout, subscription = (
        paid("checkout.completed.subscription"),
        paid("subscription.paid.first"),
    )
    assert checkout.transaction_id == subscription.transaction_id
    assert (checkout.amount, checkout.recurrence) == (subscription.amount, subscription.recurrence)


@pytest.mark.parametrize("name", ["subscription.paid.first", "subscription.paid.renewal"])
def test_the_list_price_is_never_what_was_paid(name: str) -> None:
    price = paid(name, lambda it: it["product"].update(price=99_900, currency="USD"))
    assert (price.amount, price.currency) == (paid(name).amount, "EUR")


def test_nothing_is_made_up_when_the_transaction_cannot_be_read() -> None:
    with pytest.raises(FetchError):
        told("subscription.paid.first", lambda it: it.update(last_transaction_id="tran_other"))


def test_a_transaction_id_cannot_change_the_query() -> None:
    with pytest.raises(FetchError, match="tran_1%26customer_id%3D2"):
        told(
            "subscription.paid.first",
            lambda it: it.update(last_transaction_id="tran_1&customer_id=2"),
        )


@pytest.mark.parametrize(
    ("charged", "began", "recurrence"),
    [
        ("2024-10-12T11:58:47.109Z", "2024-10-12T11:58:38.000Z", Recurrence.FIRST),
        ("2024-10-12T19:00:00.000Z", "2024-10-12T11:58:38.000Z", Recurrence.UNKNOWN),
        ("2024-10-13T11:58:47.109Z", "2024-10-13T11:58:38.000Z", Recurrence.RENEWAL),
        ("2024-10-20T11:58:47.109Z", None, Recurrence.UNKNOWN),
        (None, None, Recurrence.UNKNOWN),
    ],
    ids=["at_once", "late_in_the_first_period", "a_day_later", "no_period", "no_dates"],
)
def test_first_and_renewal_need_evidence(
    charged: str | None, began: str | None, recurrence: Recurrence
) -> None:
    dates = {"last_transaction_date": charged, "current_period_start_date": began}
    assert paid("subscription.paid.renewal", lambda it: it.update(dates)).recurrence is recurrence


def test_the_fee_of_a_paid_trial_is_a_charge_and_no_free_trial() -> None:
    assert told("subscription.trialing.paid") == Ignored("paid_trial")
    fee = paid("checkout.completed.subscription", lambda it: it["order"].update(amount_paid=121))
    assert (fee.kind, fee.amount, fee.recurrence) == (
        Kind.CHARGE,
        Decimal("1.21"),
        Recurrence.FIRST,
    )


def test_the_beginning_of_a_trial_is_not_taken_for_the_beginning_of_paid_time() -> None:
    renewal = paid(
        "subscription.paid.renewal", lambda it: it["product"].update(trial_period_days=7)
    )
    assert (renewal.subscribed_at, paid("subscription.trialing.free").subscribed_at) == (None, None)


@pytest.mark.parametrize("status", ["pending", "requiresAction", "failed", "canceled"])
def test_a_refund_counts_only_when_it_has_succeeded(status: str) -> None:
    assert told("refund.created.full", lambda it: it.update(status=status)) == Ignored(
        "not_refunded"
    )


@pytest.mark.parametrize(
    ("whole", "transaction", "expected"),
    [("local", "prod", False), ("local", "sandbox", True), ("prod", "test", True)],
)
def test_the_mode_of_the_transaction_outweighs_that_of_the_dispute(
    whole: str, transaction: str, *, expected: bool
) -> None:
    def change(it: dict[str, Any]) -> None:
        it["mode"], it["transaction"]["mode"] = whole, transaction

    assert paid("dispute.created", change).test is expected


def test_a_refund_may_give_ids_in_place_of_objects() -> None:
    short = {"subscription": "sub_1", "customer": "cust_1", "checkout": None, "order": None}
    refund = paid("refund.created.full", lambda it: it.update(short))
    assert (refund.subscription_id, refund.customer_id, refund.email) == ("sub_1", "cust_1", None)


@pytest.mark.parametrize("order", [None, {"status": "pending", "type": "onetime", "id": "ord_1"}])
def test_a_checkout_without_a_paid_order_moved_no_money(order: Any) -> None:
    assert told("checkout.completed.one-time", lambda it: it.update(order=order)) == Ignored(
        "not_paid"
    )


def test_an_order_that_does_not_say_what_was_paid_is_looked_up_or_left_to_the_other_event() -> None:
    with pytest.raises(FetchError, match="order_id=ord_3Ex4mPl3Ord3r00001"):
        told("checkout.completed.one-time", lambda it: it["order"].pop("amount_paid"))
    recurring = told("checkout.completed.subscription", lambda it: it["order"].pop("amount_paid"))
    assert recurring == Ignored("told_by_subscription.paid")


@pytest.mark.parametrize("name", ["checkout.completed.one-time", "checkout.completed.subscription"])
def test_a_free_order_needs_no_transaction_and_is_no_payment(name: str) -> None:
    free = told(name, lambda it: it["order"].update(amount_paid=0, transaction=None))
    assert isinstance(free, Ignored)
    assert (free.reason, free.email) == ("zero_amount", "jordan@example.com")
