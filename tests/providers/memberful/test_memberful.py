"""Memberful's traps."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from relay import mapping, provider, samples
from relay.errors import PayloadError
from relay.model import Ignored, Kind, Payment, Received, Recurrence

HERE = Path(__file__).parent
MEMBERFUL = provider.load("memberful")

Edit = Callable[[dict[str, Any]], object]


def sent(name: str, edit: Edit = lambda _: None) -> Received:
    """The recorded request after an edit of its body."""
    request = samples.read(HERE / f"{name}.http").request
    body = json.loads(request.body)
    edit(body)
    return replace(request, body=json.dumps(body).encode())


def becomes(name: str, edit: Edit = lambda _: None, **settings: bool) -> Payment | Ignored:
    (event,) = mapping.events(MEMBERFUL, sent(name, edit), MEMBERFUL.defaults() | settings)
    return mapping.payment(MEMBERFUL, event, "EUR")


def paid(name: str, edit: Edit = lambda _: None, **settings: bool) -> Payment:
    found = becomes(name, edit, **settings)
    assert isinstance(found, Payment)
    return found


def test_only_the_source_knows_how_many_decimals_an_amount_has() -> None:
    name = "order.purchased.first"
    assert paid(name).amount == Decimal(99)
    assert paid(name, zero_decimals=True).amount == Decimal(9900)


def test_without_a_currency_nothing_is_guessed() -> None:
    (event,) = mapping.events(MEMBERFUL, sent("order.purchased.first"), MEMBERFUL.defaults())
    with pytest.raises(PayloadError) as refused:
        mapping.payment(MEMBERFUL, event)
    assert refused.value.reason == "missing_currency"


def test_the_dashboards_test_webhook_is_no_sale() -> None:
    for name in ("order.purchased.trial", "order.refunded.full"):
        found = becomes(name, lambda it: it["order"]["member"].update(id=0))
        assert found == Ignored("test_event", test=True)
    found = becomes("subscription.renewed", lambda it: it["subscription"]["member"].update(id=0))
    assert found == Ignored("test_event", test=True)


def test_an_order_of_an_old_subscription_is_left_to_the_ledger() -> None:
    found = paid("order.purchased.old_subscription")
    assert found.recurrence is Recurrence.UNKNOWN
    assert found.subscribed_at == datetime(2026, 3, 1, 10, tzinfo=UTC)


def test_the_payment_at_the_end_of_a_trial_is_the_first_and_the_next_is_not() -> None:
    name = "subscription.renewed.after_trial"
    assert paid(name).recurrence is Recurrence.FIRST
    later = paid(name, lambda it: it["order"].update(created_at="2026-04-08T10:01:30Z"))
    assert later.recurrence is Recurrence.RENEWAL


def test_times_are_read_as_text_and_as_unix_seconds() -> None:
    found = paid("subscription.renewed", lambda it: it["order"].update(created_at=1775037600))
    assert found.occurred_at == paid("subscription.renewed").occurred_at


def test_a_purchase_that_says_its_time_counts_from_then() -> None:
    found = paid(
        "order.purchased.first", lambda it: it["order"].update(created_at="2026-03-01T09:59:00Z")
    )
    assert found.occurred_at == datetime(2026, 3, 1, 9, 59, tzinfo=UTC)


def test_a_refund_is_of_all_that_is_left_and_names_its_order() -> None:
    found, charge = paid("order.refunded.full"), paid("order.purchased.first")
    assert (found.kind, found.amount) == (Kind.REFUND, None)
    assert found.original_id == charge.transaction_id != found.transaction_id


def test_a_refund_of_a_free_order_takes_nothing() -> None:
    found = becomes("order.refunded.full", lambda it: it["order"].update(total=0))
    assert found == Ignored("nothing_was_taken")


def test_a_part_that_is_refunded_does_not_hide_the_rest() -> None:
    ids = {
        event.id
        for name in ("order.refunded.partial", "order.refunded.full")
        for event in mapping.events(MEMBERFUL, sent(name), MEMBERFUL.defaults())
    }
    assert len(ids) == 2


def test_a_custom_field_counts_only_if_it_is_a_visitors_id() -> None:
    def bare(body: dict[str, Any], text: str) -> None:
        body["order"]["member"] |= {"tracking_params": None, "custom_field": text}

    visitor_id = "00000000-0000-4000-8000-000000000001"
    assert paid("order.purchased.first", lambda it: bare(it, visitor_id)).visitor_id == visitor_id
    assert paid("order.purchased.first", lambda it: bare(it, "a friend")).visitor_id is None


def test_a_late_delivery_of_a_first_order_is_left_to_the_ledger() -> None:
    request = sent("order.purchased.first")
    late = replace(request, received_at=request.received_at + timedelta(days=1))
    (event,) = mapping.events(MEMBERFUL, late, MEMBERFUL.defaults())
    found = mapping.payment(MEMBERFUL, event, "EUR")
    assert isinstance(found, Payment)
    assert found.recurrence is Recurrence.UNKNOWN
