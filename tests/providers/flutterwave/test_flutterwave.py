"""Flutterwave's traps, beside what `test_providers.py` asks of every provider."""

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from providers import flutterwave
from relay import mapping, provider, samples
from relay.errors import FetchError, VerificationError
from relay.model import Event, Ignored, Payment, Received, Recurrence
from relay.payload import Payload

HERE = Path(__file__).parent
LOADED = provider.load("flutterwave")
KEY = {"api_key": "FLWSECK-example"}


class Api:
    """An API that answers one payment to whoever asks, or refuses."""

    def __init__(self, **payment: Any) -> None:
        self.asked: list[str] = []
        self.answer = Payload({"data": payment}) if payment else None

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> Payload:
        answer = self.get_or_none(path, headers)
        if answer is None:
            raise FetchError("fetch_401", "the provider's API answered 401")
        return answer

    def get_or_none(self, path: str, headers: Mapping[str, str] | None = None) -> Payload | None:
        self.asked.append(path)
        return self.answer


def request(name: str, **changes: Any) -> Received:
    """The recorded request, with some fields of its payment or refund set."""
    recorded = samples.read(HERE / f"{name}.http").request
    body = json.loads(recorded.body)
    body.get("data", body).update(changes)
    return replace(recorded, body=json.dumps(body).encode())


def event(name: str, settings: Mapping[str, Any] = {}, **changes: Any) -> Event:
    all_settings = LOADED.defaults() | settings
    (found,) = mapping.events(LOADED, request(name, **changes), all_settings)
    return found


def meaning(told: Event, api: Api | None = None) -> Payment | Ignored:
    found = mapping.complete(LOADED, told, api or Api())
    return mapping.payment(LOADED, found[0], "NGN")


def payment(told: Event, api: Api | None = None) -> Payment:
    found = meaning(told, api)
    assert isinstance(found, Payment)
    return found


# The signature


def test_the_signed_body_of_v4_cannot_be_changed_nor_passed_off_as_v3() -> None:
    sample = samples.read(HERE / "charge.completed.v4.http")
    forged = replace(sample.request, body=sample.request.body.replace(b"175", b"275"))
    for hashed in ({}, {"verif_hash": sample.secrets[0]}):
        both = replace(forged, headers=forged.headers.replaced(**hashed))
        with pytest.raises(VerificationError):
            flutterwave.SIGNATURE.verify(both, sample.trust())


def test_a_request_with_neither_header_is_refused() -> None:
    sample = samples.read(HERE / "charge.completed.card.http")
    bare = replace(sample.request, headers=sample.request.headers.replaced(verif_hash=""))
    with pytest.raises(VerificationError, match="verif-hash"):
        flutterwave.SIGNATURE.verify(bare, sample.trust())


# Payments


@pytest.mark.parametrize("name", ["card", "v4", "flat.plan"])
@pytest.mark.parametrize("status", ["failed", "pending", "completed", "SUCCESSFUL?"])
def test_in_every_shape_only_the_status_says_that_it_is_paid(name: str, status: str) -> None:
    found = meaning(event(f"charge.completed.{name}", status=status))
    assert found == Ignored("not_paid")


def test_a_payment_that_failed_first_is_no_repetition_when_it_succeeds() -> None:
    failed, paid = (event("charge.completed.card", status=it) for it in ("failed", "successful"))
    assert failed.id != paid.id


def test_a_time_in_nanoseconds_is_read() -> None:
    paid_at = payment(event("charge.completed.v4")).occurred_at
    assert paid_at == datetime(2026, 3, 1, 7, 47, 2, 537812, UTC)


def test_fees_that_the_customer_took_over_are_no_revenue() -> None:
    assert payment(event("charge.completed.card", charged_amount=10140)).amount == 10000


def test_a_plan_is_known_by_its_address_however_that_is_written() -> None:
    first = payment(event("charge.completed.flat.plan"))
    customer = {"id": 999, "email": "Jordan@Example.com"}
    again = payment(event("charge.completed.flat.plan", id=8900009, customer=customer))
    assert first.subscription_id == again.subscription_id
    assert first.transaction_id != again.transaction_id
    other = payment(event("charge.completed.flat.plan", paymentPlan=7422))
    assert other.subscription_id != first.subscription_id


# What is asked of the API


def test_what_the_api_says_of_a_payment_counts_more_than_an_unsigned_body() -> None:
    told = event("charge.completed.noauth", KEY, amount=99_999_999)
    real = json.loads(request("charge.completed.noauth").body)["data"]
    found = payment(told, Api(**real))
    assert (found.amount, found.recurrence) == (10000, Recurrence.ONE_TIME)
    assert meaning(told, Api(**real | {"status": "failed"})) == Ignored("not_paid")


def test_a_refused_key_costs_no_payment_but_a_refund_waits_for_it() -> None:
    charged = event("charge.completed.card", KEY)
    assert payment(charged, Api()) == payment(event("charge.completed.card"))
    with pytest.raises(FetchError):
        meaning(event("refund.completed.full", KEY), Api())


@pytest.mark.parametrize("name", ["charge.completed.v4", "refund.completed.v4"])
def test_v4_is_not_asked_at_the_api_of_v3(name: str) -> None:
    api, told = Api(), event(name, KEY)
    assert flutterwave.fetch(told, api) == [told]
    assert not api.asked


# Money that goes back


@pytest.mark.parametrize("status", ["new", "pending", "pending-momo", "failed", "cancelled"])
def test_a_refund_that_has_not_moved_is_ignored_and_not_looked_up(status: str) -> None:
    api = Api()
    told = event("refund.completed.full", KEY, status=status)
    assert meaning(told, api) == Ignored("not_refunded")
    assert not api.asked


def test_a_refund_told_twice_on_its_way_is_one_movement_and_no_payments_number() -> None:
    begun, done = (event("refund.completed.full", status=it) for it in ("completed", "successful"))
    assert begun.id != done.id
    assert payment(begun).transaction_id == payment(done).transaction_id == "refund:75001"


def test_the_sandbox_is_known_by_its_reference_or_by_the_source() -> None:
    assert payment(event("refund.completed.full", FlwRef="FLW-MOCK-1")).test
    assert payment(event("charge.completed.v4", {"test": True})).test
    assert not payment(event("charge.completed.v4")).test
