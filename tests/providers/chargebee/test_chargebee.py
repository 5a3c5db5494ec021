"""Chargebee's traps."""

import base64
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from relay import mapping, provider, samples
from relay.errors import VerificationError
from relay.model import Ignored, Kind, Payment, Recurrence

HERE = Path(__file__).parent
CHARGEBEE = provider.load("chargebee")

Edit = Callable[[dict[str, Any]], object]


def becomes(name: str, edit: Edit = lambda _: None) -> Payment | Ignored:
    """What the recorded event becomes after an edit of its `content`."""
    request = samples.read(HERE / f"{name}.http").request
    body = json.loads(request.body)
    edit(body["content"])
    changed = replace(request, body=json.dumps(body).encode())
    (event,) = mapping.events(CHARGEBEE, changed, CHARGEBEE.defaults())
    return mapping.payment(CHARGEBEE, event)


def paid(name: str, edit: Edit = lambda _: None) -> Payment:
    found = becomes(name, edit)
    assert isinstance(found, Payment)
    return found


def basic(text: str) -> str:
    return f"Basic {base64.b64encode(text.encode()).decode()}"


@pytest.mark.parametrize(
    "spelled",
    [
        basic("relay:example-password\n"),
        basic("relay:Example-Password"),
        basic("relay"),
        basic(":example-password"),
        basic("relay:example-password").rstrip("="),
        "Bearer relay:example-password",
        "relay:example-password",
    ],
)
def test_only_the_very_user_and_password_are_accepted(spelled: str) -> None:
    sample = samples.read(HERE / "payment_succeeded.first.http")
    headers = sample.request.headers.replaced(Authorization=spelled)
    with pytest.raises(VerificationError):
        CHARGEBEE.signature.verify(replace(sample.request, headers=headers), sample.trust())


@pytest.mark.parametrize("secret", ["", "password", ":password", "relay:", " relay:password"])
def test_a_secret_needs_a_user_and_a_password(secret: str) -> None:
    assert CHARGEBEE.signature.flaw(secret)
    assert CHARGEBEE.signature.flaw("relay:a:b") is None


def test_an_invoice_that_is_recurring_is_not_yet_a_renewal() -> None:
    assert paid("payment_succeeded.first").recurrence is Recurrence.FIRST
    assert paid("payment_succeeded.renewal").recurrence is Recurrence.RENEWAL


def test_what_the_invoice_does_not_say_is_left_to_the_ledger() -> None:
    found = paid("payment_succeeded.renewal", lambda it: it["invoice"].pop("first_invoice"))
    assert found.recurrence is Recurrence.UNKNOWN


def test_an_invoice_for_several_subscriptions_is_no_single_charge() -> None:
    def consolidated(content: dict[str, Any]) -> None:
        del content["transaction"]["subscription_id"], content["subscription"]

    found = paid("payment_succeeded.renewal", consolidated)
    assert (found.subscription_id, found.recurrence) == (None, Recurrence.RENEWAL)


def test_a_pause_does_not_make_the_subscription_new() -> None:
    assert paid("payment_succeeded.renewal").subscribed_at == datetime(2026, 3, 1, 9, tzinfo=UTC)


@pytest.mark.parametrize("key", ["refunded_txn_id", "reference_transaction_id"])
def test_the_original_is_found_wherever_it_is_named(key: str) -> None:
    def named(content: dict[str, Any]) -> None:
        content["transaction"] |= {key: "txn_elsewhere", "linked_payments": []}

    assert paid("payment_refunded.full", named).original_id == "txn_elsewhere"
    found = paid("payment_refunded.full", lambda it: it["transaction"].pop("linked_payments"))
    assert found.original_id is None


def test_a_chargeback_and_a_late_failure_are_no_refunds() -> None:
    for name in ("payment_refunded.chargeback", "transaction_created.payment_reversal"):
        found = paid(name)
        assert (found.kind, found.original_id) == (Kind.DISPUTE, "txn_16EX4MPL3TX0001")


@pytest.mark.parametrize("status", ["in_progress", "failure", "timeout", "voided"])
def test_a_refund_that_is_not_through_takes_nothing(status: str) -> None:
    found = becomes("payment_refunded.full", lambda it: it["transaction"].update(status=status))
    assert found == Ignored("not_settled")


def test_what_was_paid_counts_and_not_what_was_invoiced() -> None:
    found = paid("payment_succeeded.first", lambda it: it["transaction"].update(amount=1000))
    assert found.amount == Decimal(10)


def test_the_subscriptions_visitor_comes_before_the_customers() -> None:
    def two(content: dict[str, Any]) -> None:
        content["subscription"]["cf_datafast_visitor_id"] = "00000000-0000-4000-8000-000000000001"

    assert paid("payment_succeeded.first", two).visitor_id == "00000000-0000-4000-8000-000000000001"
