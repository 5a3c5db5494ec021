"""The traps of YooKassa."""

import base64
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import simplejson

from relay import mapping, provider, samples
from relay.errors import FetchError
from relay.fetch import RecordedApi
from relay.model import Event, Ignored, Payment, Received, Recurrence
from relay.payload import Payload
from relay.samples import Sample

HERE = Path(__file__).parent
LOADED = provider.load("yookassa")
KEY = {"shop_id": "466001", "api_key": "example"}


class Answers:
    """An API that gives one object, whatever is asked, and notes what was asked."""

    def __init__(self, answer: dict[str, Any]) -> None:
        self.answer = answer
        self.asked: list[tuple[str, Mapping[str, str]]] = []

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> Payload:
        self.asked.append((path, headers or {}))
        return Payload(self.answer)

    def get_or_none(self, path: str, headers: Mapping[str, str] | None = None) -> Payload | None:
        return self.get(path, headers)


def recorded(name: str) -> Sample:
    return samples.read(HERE / f"{name}.http")


def body(name: str) -> dict[str, Any]:
    return dict(simplejson.loads(recorded(name).request.body, use_decimal=True))


def changed(name: str, **fields: Any) -> Received:
    """The recorded request with some fields of its object changed."""
    told = body(name)
    told["object"].update(fields)
    request = recorded(name).request
    return replace(request, body=simplejson.dumps(told, use_decimal=True).encode())


def event(request: Received, **settings: Any) -> Event:
    (found,) = mapping.events(LOADED, request, LOADED.defaults() | settings)
    return found


def told(name: str, /, **fields: Any) -> Payment | Ignored:
    return mapping.payment(LOADED, event(changed(name, **fields)))


def paid(found: Payment | Ignored) -> Payment:
    assert isinstance(found, Payment), found
    return found


# Read back


def test_what_the_api_says_counts_and_not_what_was_posted() -> None:
    forged = changed("payment.succeeded.one-time", amount={"value": "1.00", "currency": "USD"})
    answers = Answers(body("payment.succeeded.one-time")["object"])
    (found,) = mapping.complete(LOADED, event(forged, **KEY), answers)
    payment = paid(mapping.payment(LOADED, found))
    assert (str(payment.amount), payment.currency) == ("999.00", "RUB")
    basic = base64.b64encode(b"466001:example").decode()
    path = "/v3/payments/2e8dd95a-000f-5000-a000-000000000001"
    assert answers.asked == [(path, {"Authorization": f"Basic {basic}"})]


def test_what_the_api_does_not_know_is_never_forwarded() -> None:
    with pytest.raises(FetchError):
        mapping.complete(
            LOADED, event(recorded("payment.succeeded.one-time").request, **KEY), RecordedApi([])
        )


@pytest.mark.parametrize("status", ["pending", "waiting_for_capture"])
def test_what_is_still_pending_is_asked_for_again(status: str) -> None:
    answers = Answers(body("payment.succeeded.one-time")["object"] | {"status": status})
    with pytest.raises(FetchError) as failed:
        mapping.complete(
            LOADED, event(recorded("payment.succeeded.one-time").request, **KEY), answers
        )
    assert not failed.value.permanent


def test_an_id_cannot_lead_to_another_path_of_the_api() -> None:
    answers = Answers(body("payment.succeeded.one-time")["object"])
    forged = changed("payment.succeeded.one-time", id="../refunds/7?a#b")
    mapping.complete(LOADED, event(forged, **KEY), answers)
    assert answers.asked[0][0] == "/v3/payments/..%2Frefunds%2F7%3Fa%23b"


@pytest.mark.parametrize(
    ("name", "settings"), [("payment.succeeded.one-time", {}), ("payment.waiting_for_capture", KEY)]
)
def test_nothing_is_asked_without_a_key_or_of_what_is_ignored(
    name: str, settings: dict[str, str]
) -> None:
    answers = Answers({})
    mapping.complete(LOADED, event(recorded(name).request, **settings), answers)
    assert not answers.asked


# What it means


def test_a_payment_and_its_refund_are_different_events_even_with_one_id() -> None:
    id = "2e8dd95a-000f-5000-a000-000000000001"
    refund = event(changed("refund.succeeded.partial", id=id))
    assert refund.id != event(recorded("payment.succeeded.one-time").request).id


def test_the_payment_that_saved_the_method_is_the_first_and_others_are_left_to_the_ledger() -> None:
    first = paid(told("payment.succeeded.first"))
    later = paid(told("payment.succeeded.saved-method"))
    assert (first.recurrence, later.recurrence) == (Recurrence.FIRST, Recurrence.UNKNOWN)
    assert first.subscription_id == later.subscription_id


def test_a_method_that_is_not_saved_belongs_to_no_subscription() -> None:
    assert paid(told("payment.succeeded.one-time")).subscription_id is None


def test_a_refund_without_a_key_is_a_tests_only_if_the_source_says_so() -> None:
    request = recorded("refund.succeeded.partial").request
    for test in (False, True):
        assert paid(mapping.payment(LOADED, event(request, test=test))).test is test


def test_a_payment_happened_when_it_was_captured() -> None:
    captured = paid(told("payment.succeeded.one-time"))
    created = paid(told("payment.succeeded.one-time", captured_at=None))
    assert captured.occurred_at > created.occurred_at


def test_an_amount_that_is_a_number_is_read_too() -> None:
    amount = {"value": 250, "currency": "RUB"}
    assert paid(told("refund.succeeded.partial", amount=amount)).amount == 250


def test_a_customers_id_is_an_address_only_if_it_looks_like_one() -> None:
    for id, email in (("user-7", None), ("jordan@example.com", "jordan@example.com")):
        found = paid(told("payment.succeeded.one-time", merchant_customer_id=id))
        assert (found.reference, found.email) == (id, email)
