import base64
import json
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from providers import whop
from relay import mapping, provider, samples
from relay.errors import PayloadError, VerificationError
from relay.model import Headers, Ignored, Kind, Payment, Recurrence
from relay.samples import Sample

HOME = Path(__file__).parent
PROVIDER = provider.load("whop")


def recorded(name: str) -> Sample:
    return samples.read(HOME / f"{name}.http")


def become(name: str, **changes: Any) -> Payment | Ignored:
    """What the recorded request becomes with `changes` in its data; None takes a field away."""
    request = recorded(name).request
    body = json.loads(request.body)
    body["data"] |= changes
    body["data"] = {key: value for key, value in body["data"].items() if value is not None}
    changed = replace(request, body=json.dumps(body).encode())
    (event,) = mapping.events(PROVIDER, changed, {"test": False})
    return mapping.payment(PROVIDER, event)


def paid(name: str, **changes: Any) -> Payment:
    found = become(name, **changes)
    assert isinstance(found, Payment)
    return found


def test_the_secret_is_the_key_as_it_stands() -> None:
    sample = recorded("payment.succeeded.first")
    (secret,) = sample.secrets
    decoded = (secret.removeprefix("ws_"), f"whsec_{base64.b64encode(secret.encode()).decode()}")
    for other in decoded:
        with pytest.raises(VerificationError, match="matches none"):
            whop.SIGNATURE.verify(sample.request, replace(sample.trust(), secrets=(other,)))


def test_the_id_in_the_header_is_the_one_in_the_body() -> None:
    request = recorded("payment.succeeded.first").request
    (told,) = whop.parse(request)
    (bare,) = whop.parse(replace(request, headers=Headers()))
    assert told.id == bare.id


@pytest.mark.parametrize("reason", ["subscription_update", "subscription", "of_tomorrow", None])
def test_what_may_or_may_not_be_the_first_is_left_to_the_ledger(reason: str | None) -> None:
    found = paid("payment.succeeded.first", billing_reason=reason)
    assert (found.recurrence, found.subscription_id) == (Recurrence.UNKNOWN, "mem_Ex4mpl30000001")


@pytest.mark.parametrize("reason", ["one_time", "manual"])
def test_the_membership_of_a_one_off_purchase_is_no_subscription(reason: str) -> None:
    found = paid("payment.succeeded.first", billing_reason=reason)
    assert (found.recurrence, found.subscription_id) == (Recurrence.ONE_TIME, None)


def test_a_payment_refunded_by_the_time_it_is_told_is_still_the_whole_charge() -> None:
    found = paid("payment.succeeded.one_time", substatus="refunded", refunded_amount=49.99)
    assert (found.kind, found.amount) == (Kind.CHARGE, Decimal("49.99"))


def test_what_a_dated_payment_settles_in_counts_only_if_nothing_else_was_paid() -> None:
    same = paid("payment.succeeded.dated", presentment_total=None)
    assert (same.amount, same.currency) == (Decimal("31.32"), "USD")


def test_a_coin_is_not_taken_for_a_currency() -> None:
    with pytest.raises(PayloadError) as caught:
        become("payment.succeeded.first", currency="usdt")
    assert (caught.value.reason, caught.value.path) == ("unknown_currency", "$.data.currency")


def test_a_trial_is_one_whether_its_payment_or_its_membership_tells_of_it() -> None:
    by_payment = paid("payment.succeeded.trial")
    by_membership = paid("membership.activated.trial", id=by_payment.subscription_id)
    assert by_payment.kind is by_membership.kind is Kind.TRIAL
    assert by_payment.transaction_id == by_membership.transaction_id


def test_a_trial_that_costs_something_is_told_by_its_payment() -> None:
    price = {"amount": "5.00", "currency": "usd", "decimals": 2, "display_decimals": 2}
    assert become("membership.activated.trial", initial_price=price) == Ignored("paid_trial")
    older = {"initial_price": None, "initial_price_paid": "$5.00"}
    assert become("membership.activated.trial", **older) == Ignored("paid_trial")
    assert paid("payment.succeeded.trial", total=5.0).kind is Kind.CHARGE


@pytest.mark.parametrize("status", ["pending", "requires_action", "failed", "canceled"])
def test_a_refund_that_has_not_succeeded_is_ignored(status: str) -> None:
    assert become("refund.created.partial", status=status) == Ignored("not_refunded")


def test_an_inquiry_takes_nothing_until_it_becomes_a_dispute() -> None:
    assert become("dispute.created", status="warning_needs_response") == Ignored("inquiry")
    risen = paid("dispute.created.inquiry", inquiry=False, status="needs_response")
    assert risen.kind is Kind.DISPUTE
    assert risen.transaction_id == paid("dispute.updated.lost").transaction_id


def test_a_dispute_that_is_prevented_is_lost_and_one_that_is_closed_says_nothing() -> None:
    assert paid("dispute.updated.lost", status="prevented").kind is Kind.DISPUTE
    assert become("dispute.updated.lost", status="closed") == Ignored("no_money_moved")
