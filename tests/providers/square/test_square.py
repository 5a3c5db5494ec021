import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from providers import square
from relay import mapping, provider, samples
from relay.errors import VerificationError
from relay.model import Event, Headers, Ignored, Kind, Payment, Received, Recurrence, Trust
from relay.payload import Payload
from relay.samples import Sample

HOME = Path(__file__).parent
PROVIDER = provider.load("square")
KEY = {"api_key": "example-access-token"}


class Refusing:
    """An API that may be asked and says nothing, as it does to a key without permissions."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.headers: Mapping[str, str] = {}

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> Payload:
        raise NotImplementedError

    def get_or_none(self, path: str, headers: Mapping[str, str] | None = None) -> Payload | None:
        self.asked.append(path)
        self.headers = headers or {}
        return None


def recorded(name: str) -> Sample:
    return samples.read(HOME / f"{name}.http")


def told(name: str, settings: Mapping[str, Any] = {}, **changes: Any) -> Event:
    """The recorded event with `changes` in its payment, refund or dispute; None takes one away."""
    request = recorded(name).request
    body = json.loads(request.body)
    ((kind, found),) = body["data"]["object"].items()
    kept = {key: value for key, value in (found | changes).items() if value is not None}
    body["data"]["object"] = {kind: kept}
    changed = replace(request, body=json.dumps(body).encode())
    (event,) = mapping.events(PROVIDER, changed, PROVIDER.defaults() | settings)
    return event


def become(name: str, settings: Mapping[str, Any] = {}, **changes: Any) -> Payment | Ignored:
    return mapping.payment(PROVIDER, told(name, settings, **changes))


def paid(name: str, settings: Mapping[str, Any] = {}, **changes: Any) -> Payment:
    found = become(name, settings, **changes)
    assert isinstance(found, Payment)
    return found


# The signature


def test_the_other_published_vector_is_genuine() -> None:
    claimed = "Cxt7+aTi4rKgcA0bC4g9EHdVtLSDWdqccmL5MvihU4U="
    request = Received(
        body=b'{"data":{"type":"webhooks","id":">id<"}}',
        headers=Headers([("x-square-hmacsha256-signature", claimed)]),
        received_at=datetime(2026, 3, 1, tzinfo=UTC),
        url="https://webhook.site/webhooks",
    )
    square.SIGNATURE.verify(request, Trust(("signature-key",), 300, {}, lambda _: b""))


@pytest.mark.parametrize(
    "url",
    [
        "https://relay.example.com/webhooks/square/",
        "https://relay.example.com/webhooks/square?k=1",
        "http://relay.example.com/webhooks/square",
        "https://relay.example.org/webhooks/square",
        "",
    ],
)
def test_what_was_signed_for_another_url_is_refused(url: str) -> None:
    sample = recorded("payment.updated.tip_note")
    with pytest.raises(VerificationError, match="matches none"):
        square.SIGNATURE.verify(replace(sample.request, url=url), sample.trust())


# Payments


def test_a_payment_told_again_after_a_refund_is_the_same_whole_charge() -> None:
    first, again = paid("payment.updated.tip_note"), paid("payment.updated.after_refund")
    assert (first.transaction_id, first.amount) == (again.transaction_id, again.amount)
    assert first.amount == Decimal("23.00")


def test_only_what_a_subscription_may_have_charged_waits_for_the_ledger() -> None:
    name, product = "payment.updated.yen", {"square_product": "INVOICES"}
    on_file = {"entry_method": "ON_FILE"}
    assert paid(name, card_details=on_file).recurrence is Recurrence.UNKNOWN
    assert paid(name, application_details=product).recurrence is Recurrence.UNKNOWN
    assert paid(name, card_details=None, source_type="CASH").recurrence is Recurrence.ONE_TIME


def test_an_order_of_the_sites_own_is_no_visitor_even_if_it_is_a_uuid() -> None:
    order = "0b6a5c1e-7d2f-4c3b-9a8e-1f2e3d4c5b6a"
    found = paid("payment.updated.yen", reference_id=order, note="two seats, please")
    assert (found.visitor_id, found.reference) == (None, order)


def test_a_sandbox_is_known_by_its_api_or_by_a_header() -> None:
    sandbox = {"api_base": "https://connect.squareupsandbox.com"}
    assert paid("refund.updated.full", sandbox).test
    assert not paid("refund.updated.full").test


# What is asked of the API


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("payment.updated.fetched", {}),
        ("payment.created.approved", KEY),
        ("refund.updated.full", KEY),
        ("subscription.created", KEY),
    ],
)
def test_nothing_is_asked_without_a_key_or_a_need(name: str, settings: Mapping[str, Any]) -> None:
    api, event = Refusing(), told(name, settings)
    assert square.fetch(event, api) == [event]
    assert not api.asked


def test_a_key_that_may_read_nothing_costs_no_payment() -> None:
    api, event = Refusing(), told("payment.updated.fetched", KEY)
    (found,) = mapping.complete(PROVIDER, event, api)
    assert len(api.asked) == 2
    assert api.headers["Authorization"] == "Bearer example-access-token"
    assert mapping.payment(PROVIDER, found) == mapping.payment(PROVIDER, event)


def test_an_invoice_of_no_subscription_only_tells_the_customer() -> None:
    api, event = Refusing(), told("invoice.payment_made.first", KEY, subscription_id=None)
    (found,) = square.fetch(event, api)
    assert not api.asked
    meaning = mapping.payment(PROVIDER, found)
    assert isinstance(meaning, Ignored)
    assert (meaning.reason, meaning.email) == ("told_by_payment.updated", "jordan@example.com")


# Money that goes back


@pytest.mark.parametrize("status", ["PENDING", "REJECTED", "FAILED"])
def test_a_refund_that_is_not_completed_is_ignored(status: str) -> None:
    assert become("refund.updated.full", status=status) == Ignored("not_refunded")


def test_an_unlinked_refund_names_no_payment() -> None:
    found = paid("refund.updated.full", payment_id=None, unlinked=True)
    assert (found.kind, found.original_id) == (Kind.REFUND, None)


@pytest.mark.parametrize("state", ["EVIDENCE_REQUIRED", "PROCESSING", "LOST", "ACCEPTED"])
def test_all_states_of_one_dispute_are_one_movement_of_money(state: str) -> None:
    found = paid("dispute.state.updated.won", state=state)
    assert found.kind is Kind.DISPUTE
    assert found.transaction_id == paid("dispute.created.opened").transaction_id


@pytest.mark.parametrize("state", ["INQUIRY_PROCESSING", "INQUIRY_CLOSED", "A_WORD_OF_TOMORROW"])
def test_an_inquiry_takes_nothing(state: str) -> None:
    assert become("dispute.created.opened", state=state) == Ignored("no_money_moved")
