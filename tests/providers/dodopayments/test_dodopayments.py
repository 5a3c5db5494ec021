import json
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, get_args

import pytest
from dodopayments.types.webhook_event_type import WebhookEventType

from providers import dodopayments
from relay import mapping, provider, samples
from relay.errors import PayloadError, VerificationError
from relay.model import Headers, Ignored, Kind, Payment, Received, Recurrence, Trust
from relay.samples import Sample

HOME = Path(__file__).parent
PROVIDER = provider.load("dodopayments")


def recorded(name: str) -> Sample:
    return samples.read(HOME / f"{name}.http")


def become(
    name: str, *, test: bool = False, timestamp: str | None = None, **changes: Any
) -> Payment | Ignored:
    """What the recorded request becomes with `changes` in its data; None takes a field away."""
    request = recorded(name).request
    body = json.loads(request.body)
    body["data"] |= changes
    body["data"] = {key: value for key, value in body["data"].items() if value is not None}
    body["timestamp"] = timestamp or body["timestamp"]
    changed = replace(request, body=json.dumps(body).encode())
    (event,) = mapping.events(PROVIDER, changed, {"test": test})
    return mapping.payment(PROVIDER, event)


def paid(name: str, **changes: Any) -> Payment:
    found = become(name, **changes)
    assert isinstance(found, Payment)
    return found


# The signature


def test_the_reference_vector_of_standard_webhooks_is_genuine() -> None:
    request = Received(
        body=b'{"test": 2432232314}',
        headers=Headers(
            [
                ("webhook-id", "msg_p5jXN8AQM9LWM0D4loKWxJek"),
                ("webhook-timestamp", "1614265330"),
                ("webhook-signature", "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="),
            ]
        ),
        received_at=datetime.fromtimestamp(1614265330, UTC),
    )
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    dodopayments.SIGNATURE.verify(request, Trust((secret,), 300, {}, lambda _: b""))


def test_either_of_two_signatures_is_enough_while_a_secret_is_rotated() -> None:
    sample = recorded("payment.succeeded.rotated")
    both = sample.request.headers.get("webhook-signature") or ""
    assert both.count("v1,") == 2
    _, new = both.split(" ")
    for claimed in (f"{new} v1,AAAA", f"v1a,AAAA {new}", new):
        headers = sample.request.headers.replaced(webhook_signature=claimed)
        dodopayments.SIGNATURE.verify(replace(sample.request, headers=headers), sample.trust())


def test_an_old_signature_alone_is_refused_once_its_secret_is_gone() -> None:
    sample = recorded("payment.succeeded.rotated")
    old, _ = (sample.request.headers.get("webhook-signature") or "").split(" ")
    headers = sample.request.headers.replaced(webhook_signature=old)
    with pytest.raises(VerificationError, match="matches none"):
        dodopayments.SIGNATURE.verify(replace(sample.request, headers=headers), sample.trust())


# Which events count


def test_every_type_of_the_sdk_that_can_mean_money_is_declared() -> None:
    families = ("payment.", "refund.", "dispute.", "subscription.")
    known = {type for type in get_args(WebhookEventType) if type.startswith(families)}
    assert known <= set(dodopayments.EVENTS) | set(dodopayments.IGNORED)


def test_a_body_without_an_id_in_the_headers_is_known_by_its_digest() -> None:
    request = replace(recorded("subscription.renewed").request, headers=Headers())
    (first,), (again,) = dodopayments.parse(request), dodopayments.parse(request)
    assert first.id == again.id
    assert len(first.id) == 64


def test_a_payment_that_is_refunded_by_the_time_it_is_told_is_still_the_whole_charge() -> None:
    refund = {"refund_id": "ref_Ex4mPl3R3fund01", "status": "succeeded", "amount": 4900}
    found = paid("payment.succeeded.one_time", refunds=[refund], refund_status="full")
    assert (found.kind, found.amount) == (Kind.CHARGE, Decimal("49.00"))


def test_a_new_payment_method_is_no_sale_even_if_it_costs_something() -> None:
    found = become("payment.succeeded.payment_method", total_amount=100)
    assert found == Ignored("payment_method_update")


@pytest.mark.parametrize("status", ["pending", "failed", "review"])
def test_a_refund_that_has_not_succeeded_is_ignored(status: str) -> None:
    assert become("refund.succeeded.full", status=status) == Ignored("not_refunded")


def test_a_refund_without_an_amount_is_not_guessed() -> None:
    with pytest.raises(PayloadError) as caught:
        become("refund.succeeded.full", amount=None)
    assert caught.value.path == "$.data.amount"


# First or renewal


@pytest.mark.parametrize("charge_type", ["plan_change", "on_demand", "a_word_of_tomorrow"])
def test_a_charge_that_may_or_may_not_be_the_first_is_left_to_the_ledger(charge_type: str) -> None:
    found = paid("payment.succeeded.first", charge_type=charge_type)
    assert found.recurrence is Recurrence.UNKNOWN


def test_a_payment_of_several_subscriptions_is_not_one_off() -> None:
    several = ["sub_Ex4mPl3Sub5cr1pt01", "sub_Ex4mPl3Sub5cr1pt02"]
    found = paid("payment.succeeded.one_time", subscription_ids=several)
    assert (found.recurrence, found.subscription_id) == (Recurrence.UNKNOWN, None)


# Trials


def test_a_trial_told_by_a_payment_of_nothing_is_the_one_the_subscription_tells() -> None:
    activated = paid("subscription.active.trial")
    nothing = paid(
        "payment.succeeded.zero",
        trial_period_days=14,
        charge_type="new",
        subscription_id=activated.subscription_id,
    )
    assert nothing.kind is activated.kind is Kind.TRIAL
    assert nothing.transaction_id == activated.transaction_id


def test_a_free_renewal_of_a_subscription_that_once_had_a_trial_is_no_trial() -> None:
    found = become("payment.succeeded.zero", trial_period_days=14, charge_type="renewal")
    assert isinstance(found, Ignored)
    assert found.reason == "zero_amount"


def test_a_subscription_taken_up_again_after_its_trial_is_no_trial() -> None:
    again = become("subscription.active.trial", timestamp="2026-04-17T12:00:00.000Z")
    assert isinstance(again, Ignored)
    assert again.reason == "no_trial"
    within = become("subscription.active.trial", timestamp="2026-04-17T11:59:59.000Z")
    assert isinstance(within, Payment)


def test_a_trial_delivered_late_with_a_later_state_is_still_a_trial() -> None:
    later = {"status": "cancelled", "next_billing_date": "2026-08-17T12:00:00.000Z"}
    assert paid("subscription.active.trial", **later).kind is Kind.TRIAL


def test_a_paid_trial_is_told_by_its_payment() -> None:
    activated = become("subscription.active.trial", trial_amount=500)
    assert isinstance(activated, Ignored)
    assert activated.reason == "paid_trial"
    assert paid("payment.succeeded.first", trial_period_days=14).kind is Kind.CHARGE


# Disputes


def test_all_events_of_one_dispute_are_one_movement_of_money() -> None:
    opened, accepted = paid("dispute.opened.text"), paid("dispute.accepted")
    assert opened.transaction_id == accepted.transaction_id
    assert (opened.amount, opened.original_id) == (accepted.amount, accepted.original_id)


@pytest.mark.parametrize("status", ["dispute_challenged", "dispute_expired", "dispute_won"])
def test_a_dispute_that_went_on_by_the_time_it_is_told_was_opened_all_the_same(status: str) -> None:
    assert paid("dispute.opened.integer", dispute_status=status).kind is Kind.DISPUTE


def test_money_returns_once_whether_the_dispute_is_won_or_cancelled() -> None:
    won, cancelled = paid("dispute.won"), paid("dispute.cancelled")
    assert {won.kind, cancelled.kind} == {Kind.REINSTATED}
    assert won.transaction_id == cancelled.transaction_id == "dp_Ex4mPl3D15put301:won"
    assert won.original_id == "pay_Ex4mPl3Paym3nt0008"


def test_a_dispute_is_won_when_it_is_told_and_not_when_it_was_opened() -> None:
    assert paid("dispute.won").occurred_at == datetime(2026, 4, 28, 9, tzinfo=UTC)


def test_an_activation_tells_when_the_subscription_began_even_if_it_comes_again() -> None:
    found = become("subscription.active.paid", timestamp="2026-08-02T10:15:34.000Z")
    assert found.occurred_at == found.subscribed_at == datetime(2026, 5, 2, 10, 15, 30, tzinfo=UTC)
    assert found.subscription_id == "sub_Ex4mPl3Sub5cr1pt01"


@pytest.mark.parametrize("amount", ["24.20", "24.00", 24.0])
def test_a_disputed_amount_with_a_decimal_point_is_refused_and_not_guessed(amount: object) -> None:
    with pytest.raises(PayloadError) as caught:
        become("dispute.opened.text", amount=amount)
    assert (caught.value.reason, caught.value.path) == ("wrong_amount", "$.data.amount")


# Amounts and test mode


def test_what_the_merchant_is_paid_out_does_not_matter() -> None:
    found = paid("payment.succeeded.renewal", settlement_amount=None, settlement_currency=None)
    assert (found.amount, found.currency) == (Decimal("24.20"), "EUR")


def test_currencies_with_three_decimals_are_exact() -> None:
    found = paid("payment.succeeded.one_time", currency="KWD", total_amount=1234)
    assert found.amount == Decimal("1.234")


def test_a_refund_in_test_mode_is_known_by_the_source_only() -> None:
    assert not paid("refund.succeeded.full").test
    assert paid("refund.succeeded.full", test=True).test
