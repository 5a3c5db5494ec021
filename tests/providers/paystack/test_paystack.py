"""The traps of Paystack."""

import json
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from relay import mapping, provider, samples
from relay.model import Event, Ignored, Payment, Recurrence

HOME = Path(__file__).parent
PAYSTACK = provider.load("paystack")
VISITOR = "7f3b1c2e-5d4a-4e6f-8a9b-0c1d2e3f4a5b"


def event(name: str, change: Callable[[dict[str, Any]], Any] | None = None) -> Event:
    """The event of a recorded request after a change of its `data`."""
    request = samples.read(HOME / f"{name}.http").request
    body = json.loads(request.body)
    if change:
        change(body["data"])
    (found,) = PAYSTACK.parse(replace(request, body=json.dumps(body).encode()))
    return found


def told(name: str, change: Callable[[dict[str, Any]], Any] | None = None) -> Payment | Ignored:
    return mapping.payment(PAYSTACK, event(name, change))


def paid(name: str, change: Callable[[dict[str, Any]], Any] | None = None) -> Payment:
    found = told(name, change)
    assert isinstance(found, Payment)
    return found


@pytest.mark.parametrize(
    ("metadata", "visitor"),
    [
        ({"datafast_visitor_id": VISITOR}, VISITOR),
        (json.dumps({"datafast_visitor_id": VISITOR}), VISITOR),
        *((nothing, None) for nothing in ("", 0, None, [], {}, "{", "no JSON", '"text"', "\ud800")),
    ],
)
def test_metadata_of_any_kind_costs_no_payment(metadata: Any, visitor: str | None) -> None:
    charge = paid("charge.success.one-off", lambda it: it.update(metadata=metadata))
    assert (charge.visitor_id, charge.recurrence) == (visitor, Recurrence.ONE_TIME)


@pytest.mark.parametrize("code", ["NGN", "KES", "USD", "XOF", "RWF"])
def test_every_currency_has_two_decimals_even_where_iso_4217_has_none(code: str) -> None:
    charge = paid("charge.success.one-off", lambda it: it.update(currency=code))
    assert (charge.amount, charge.currency) == (Decimal(2500), code)


@pytest.mark.parametrize("amount", ["5000", 5000])
def test_a_refund_may_write_its_amount_as_text_or_as_a_number(amount: str | int) -> None:
    assert paid("refund.processed", lambda it: it.update(amount=amount)).amount == Decimal(50)


@pytest.mark.parametrize(
    ("metadata", "recurrence"),
    [
        ({"invoice_action": "update"}, Recurrence.RENEWAL),
        ('{"invoice_action": "update"}', Recurrence.RENEWAL),
        ({"invoice_action": "create"}, Recurrence.UNKNOWN),
        ({"cart": 1}, Recurrence.FIRST),
    ],
)
def test_what_paystack_charges_by_itself_is_never_taken_for_a_checkout(
    metadata: Any, recurrence: Recurrence
) -> None:
    charge = paid("charge.success.plan-first", lambda it: it.update(metadata=metadata))
    assert charge.recurrence is recurrence


@pytest.mark.parametrize("source", [None, {"entry_point": "charge"}, {"entry_point": "new"}])
def test_a_plan_alone_is_no_evidence_of_a_first_charge(source: Any) -> None:
    charge = paid("charge.success.plan-first", lambda it: it.update(source=source))
    assert charge.recurrence is Recurrence.UNKNOWN


def test_an_invoice_without_its_plan_is_not_one_off() -> None:
    charge = paid("charge.success.plan-by-invoice", lambda it: it.update(plan={}))
    assert (charge.recurrence, charge.subscription_id) == (Recurrence.UNKNOWN, None)


def test_the_beginning_of_a_subscription_is_known_by_the_name_that_its_charges_use() -> None:
    names = ("subscription.create", "charge.success.plan-first", "charge.success.plan-renewal")
    found = [told(name) for name in names]
    assert {it.subscription_id for it in found} == {"CUS_ex4mpl3cu5t0m3r:PLN_a5vr5skxg72f4lr"}
    assert found[0].subscribed_at is not None


def test_a_dispute_takes_what_was_accepted_which_may_be_a_part() -> None:
    accepted = {"resolution": "merchant-accepted", "refund_amount": 1700}
    dispute = paid("charge.dispute.resolve.accepted", lambda it: it.update(accepted))
    assert (dispute.amount, dispute.original_id) == (Decimal(17), "5qm4pv2mxs9rltp")


def test_two_refunds_without_a_reference_stay_two() -> None:
    first = event("refund.processed", lambda it: it.update(refund_reference=None))
    second = event("refund.processed", lambda it: it.update(refund_reference=None, amount="700"))
    ids = {it.transaction_id for it in map(PAYSTACK.events["refund.processed"], (first, second))}
    assert len(ids | {first.id, second.id}) == 2


def test_a_reserved_amount_counts_by_what_was_captured_of_it() -> None:
    captured = paid("preauthorization.capture.success")
    assert (captured.amount, captured.currency) == (Decimal(8), "ZAR")


@pytest.mark.parametrize("missing", [{"paid_at": None}, {"paid_at": None, "paidAt": None}])
def test_a_charge_without_the_time_of_its_payment_has_that_of_its_creation(
    missing: dict[str, None],
) -> None:
    charge = paid("charge.success.direct-debit", lambda it: it.update(missing))
    assert charge.occurred_at.second == (24 if "paidAt" in missing else 30)
