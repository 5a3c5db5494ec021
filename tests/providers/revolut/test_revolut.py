"""Revolut's traps."""

import json
from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from providers import revolut
from relay import fetch, mapping, provider, samples
from relay.errors import VerificationError
from relay.model import Document, Event, Ignored, Kind, Payment, Recurrence
from relay.payload import Payload
from relay.samples import Sample

HERE = Path(__file__).parent
REVOLUT = provider.load("revolut")
PAYMENT = "ORDER_COMPLETED.payment"
RENEWAL = "ORDER_COMPLETED.subscription.renewal"
TRIAL = "ORDER_COMPLETED.subscription.trial"


class Asked:
    """An API that notes what it is asked, and knows nothing."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Mapping[str, str] | None]] = []

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> Payload:
        self.asked.append((path, headers))
        return Payload({})

    def get_or_none(self, path: str, headers: Mapping[str, str] | None = None) -> Payload | None:
        raise NotImplementedError


def recorded(name: str) -> Sample:
    return samples.read(HERE / f"{name}.http")


def told(sample: Sample) -> Event:
    settings = REVOLUT.defaults() | dict(sample.settings)
    (event,) = mapping.events(REVOLUT, sample.request, settings)
    return event


def become(name: str, without: str = "nothing", **changes: Any) -> Payment | Ignored:
    """What the event means if its first document has `changes`, and those at `without` are refused."""
    sample = recorded(name)
    first, *others = (it for it in sample.documents if without not in (it.path or ""))
    edited = json.dumps(json.loads(first.body) | changes).encode()
    documents = [Document(first.path, edited, first.fetched_at), *others]
    (event,) = mapping.complete(REVOLUT, told(sample), fetch.RecordedApi(documents))
    return mapping.payment(REVOLUT, event)


def paid(name: str, without: str = "nothing", **changes: Any) -> Payment:
    found = become(name, without, **changes)
    assert isinstance(found, Payment)
    return found


def signed(sample: Sample, value: str) -> None:
    """Check the recorded request with another signature header."""
    headers = sample.request.headers.replaced(Revolut_Signature=value)
    revolut.SIGNATURE.verify(replace(sample.request, headers=headers), sample.trust())


# The signature


def test_any_of_several_signatures_is_enough_while_the_secret_is_rotated() -> None:
    sample = recorded(PAYMENT)
    good = sample.request.headers.get("revolut-signature") or ""
    signed(sample, f"v1={'0' * 64},{good}")
    signed(sample, f"{good}, v1={'0' * 64}")


def test_a_signature_of_another_version_does_not_count() -> None:
    sample = recorded(PAYMENT)
    good = sample.request.headers.get("revolut-signature") or ""
    for value in (good.replace("v1=", "v0="), good.removeprefix("v1="), good.upper()):
        with pytest.raises(VerificationError):
            signed(sample, value)


# What is asked of the API


def test_an_id_cannot_lead_the_key_to_another_address() -> None:
    api, event = Asked(), told(recorded(PAYMENT))
    hostile = replace(event, data=Payload({"order_id": "../customers?x="}))
    revolut.fetch(hostile, api)
    ((path, headers),) = api.asked
    assert path == "/api/orders/..%2Fcustomers%3Fx%3D"
    assert headers == {"Authorization": "Bearer sk_example", "Revolut-Api-Version": "2026-08-17"}


def test_nothing_is_asked_for_what_moves_no_money() -> None:
    api = Asked()
    for name in ("ORDER_AUTHORISED", "SUBSCRIPTION_INITIATED", "TransactionStateChanged.published"):
        assert revolut.fetch(told(recorded(name)), api)
    assert not api.asked


# Payments


def test_the_time_is_the_payments_not_that_of_a_later_refund() -> None:
    found = paid(PAYMENT)
    assert found.occurred_at.isoformat() == "2026-03-01T10:00:03+00:00"
    assert found.amount == Decimal("24.20")


def test_an_answer_that_lags_behind_the_event_costs_no_payment() -> None:
    assert paid(PAYMENT, state="processing") == paid(PAYMENT)
    assert become(PAYMENT, state="failed") == Ignored("not_paid")


def test_a_key_that_may_not_read_subscriptions_leaves_the_recurrence_to_the_ledger() -> None:
    found = paid(RENEWAL, without="/subscriptions/")
    assert found.recurrence is Recurrence.UNKNOWN
    assert found.subscription_id == paid(RENEWAL).subscription_id


def test_a_charge_within_a_trials_cycle_is_no_trial_and_nothing_without_one_is() -> None:
    assert paid(TRIAL).kind is Kind.TRIAL
    assert paid(TRIAL, amount=100).kind is Kind.CHARGE
    zero = become("ORDER_COMPLETED.subscription.first", amount=0)
    assert isinstance(zero, Ignored)
    assert zero.reason == "zero_amount"


def test_a_bare_uuid_in_a_subscriptions_reference_is_no_visitor() -> None:
    uuid = "7f3b1c2e-5d4a-4e6f-8a9b-0c1d2e3f4a5b"
    data = Payload({"subscription": {"external_reference": uuid}})
    event = replace(told(recorded(PAYMENT)), data=data)
    assert revolut.about(event, Payload({}))["visitor_id"] is None
    assert paid(RENEWAL).visitor_id == uuid


def test_a_sites_own_subscription_is_left_to_the_ledger() -> None:
    found = paid(PAYMENT, metadata={"subscription_id": "sub-77"})
    assert (found.recurrence, found.subscription_id) == (Recurrence.UNKNOWN, "sub-77")


# Money that goes back


def test_all_events_of_one_dispute_are_one_movement_until_it_is_won() -> None:
    opened, reviewed = paid("DISPUTE_ACTION_REQUIRED"), paid("DISPUTE_UNDER_REVIEW")
    assert opened == reviewed
    won = paid("DISPUTE_WON")
    assert (won.kind, won.original_id) == (Kind.REINSTATED, opened.original_id)
    assert won.transaction_id != opened.transaction_id


def test_an_order_of_an_unknown_type_is_no_charge() -> None:
    assert become(PAYMENT, type="credit_reimbursement") == Ignored("no_money_moved")
