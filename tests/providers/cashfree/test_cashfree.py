"""Cashfree's traps."""

import json
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from providers import cashfree
from relay import mapping, provider, samples
from relay.errors import PayloadError, VerificationError
from relay.model import Event, Ignored, Kind, Payment, Recurrence
from relay.samples import Sample

HERE = Path(__file__).parent
CASHFREE = provider.load("cashfree")
PAID = "PAYMENT_SUCCESS_WEBHOOK.visitor"
AUTH = "SUBSCRIPTION_PAYMENT_SUCCESS.auth"


def recorded(name: str) -> Sample:
    return samples.read(HERE / f"{name}.http")


def told(name: str, *path: str, **changes: Any) -> Event:
    """The recorded event with `changes` in the part of its data at `path`."""
    sample = recorded(name)
    body = json.loads(sample.request.body, parse_float=str)
    place = body["data"]
    for key in path:
        place = place[key]
    place.update(changes)
    request = replace(sample.request, body=json.dumps(body).encode())
    settings = CASHFREE.defaults() | dict(sample.settings)
    (event,) = mapping.events(CASHFREE, request, settings)
    return event


def become(name: str, *path: str, currency: str = "", **changes: Any) -> Payment | Ignored:
    return mapping.payment(CASHFREE, told(name, *path, **changes), currency or None)


def paid(name: str, *path: str, currency: str = "", **changes: Any) -> Payment:
    found = become(name, *path, currency=currency, **changes)
    assert isinstance(found, Payment)
    return found


# The signature


def test_a_body_that_was_parsed_and_written_again_is_refused() -> None:
    sample = recorded(PAID)
    assert b"170.00" in sample.request.body
    again = sample.request.body.replace(b"170.00", b"170.0")
    with pytest.raises(VerificationError):
        cashfree.SIGNATURE.verify(replace(sample.request, body=again), sample.trust())


def test_another_timestamp_than_the_signed_one_is_refused() -> None:
    sample = recorded(PAID)
    for stamp in ("1772347831001", "1772347832", "now", "1" * 14):
        headers = sample.request.headers.replaced(x_webhook_timestamp=stamp)
        with pytest.raises(VerificationError):
            cashfree.SIGNATURE.verify(replace(sample.request, headers=headers), sample.trust())


def test_a_late_try_is_genuine_and_still_the_same_event() -> None:
    sample = recorded(PAID)
    headers = sample.request.headers.replaced(x_webhook_attempt="4", x_idempotency_key="another")
    at = sample.request.received_at + timedelta(minutes=42)
    late = replace(sample.request, headers=headers, received_at=at)
    cashfree.SIGNATURE.verify(late, sample.trust())
    assert cashfree.parse(late)[0].id == cashfree.parse(sample.request)[0].id


# Payments


def test_what_was_paid_counts_not_what_the_order_was_before_the_offer() -> None:
    assert paid("PAYMENT_SUCCESS_WEBHOOK.offer").amount == Decimal(1)


def test_a_payment_and_its_refund_agree_on_the_id_whether_text_or_number() -> None:
    as_number = paid(PAID, "payment", cf_payment_id=1453000001)
    assert as_number.transaction_id == paid("REFUND_STATUS_WEBHOOK.partial").original_id


def test_a_links_visitor_is_kept_for_the_payment_that_lacks_it() -> None:
    known = become("PAYMENT_LINK_EVENT.visitor")
    assert isinstance(known, Ignored)
    payment = paid(PAID, "payment", cf_payment_id=known.transaction_id)
    assert payment.transaction_id == known.transaction_id
    assert known.visitor_id == "7f3b1c2e-5d4a-4e6f-8a9b-0c1d2e3f4a5b"


# Subscriptions


def test_a_mandates_payment_counts_only_if_the_seller_keeps_it() -> None:
    assert paid(AUTH).recurrence is Recurrence.FIRST
    found = become(AUTH, "authorization_details", authorization_amount_refund=True)
    assert isinstance(found, Ignored)
    assert (found.reason, found.subscription_id) == ("authorization_only", "sub_1001")


def test_a_time_without_a_zone_is_not_taken_for_the_beginning() -> None:
    assert paid(AUTH, "authorization_details", authorization_time="").subscribed_at is None
    assert paid("SUBSCRIPTION_PAYMENT_SUCCESS.old_version", currency="INR").subscribed_at is None


def test_a_subscriptions_refund_needs_the_sources_currency() -> None:
    name = "SUBSCRIPTION_REFUND_STATUS.full"
    assert paid(name, currency="INR").currency == "INR"
    with pytest.raises(PayloadError, match="currency"):
        become(name)


# Money that goes back


@pytest.mark.parametrize("state", ["PENDING", "ONHOLD", "CANCELLED", "FAILED"])
def test_a_refund_that_is_not_done_is_ignored(state: str) -> None:
    found = become("REFUND_STATUS_WEBHOOK.full", "refund", refund_status=state)
    assert found == Ignored("not_refunded")


@pytest.mark.parametrize("end", ["MERCHANT_LOST", "MERCHANT_ACCEPTED", "INSUFFICIENT_EVIDENCE"])
def test_every_way_to_lose_takes_the_money_once(end: str) -> None:
    lost = paid("DISPUTE_CLOSED.won", "dispute", dispute_status=f"CHARGEBACK_{end}")
    assert lost == paid("DISPUTE_CREATED.chargeback")
    soft = paid("DISPUTE_CLOSED.lost.partial", "dispute", dispute_status=f"DISPUTE_{end}")
    assert (soft.kind, soft.amount) == (Kind.DISPUTE, Decimal(70))


def test_winning_returns_only_what_was_taken() -> None:
    assert paid("DISPUTE_CLOSED.won").kind is Kind.REINSTATED
    won = "RETRIEVAL_MERCHANT_WON"
    found = become("DISPUTE_CREATED.retrieval", "dispute", dispute_status=won)
    assert found == Ignored("nothing_was_taken")
