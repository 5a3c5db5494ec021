"""Buy Me a Coffee's traps, beside what `test_providers.py` asks of every provider."""

import json
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from relay import mapping, provider, samples
from relay.errors import PayloadError
from relay.model import Event, Ignored, Payment

HERE = Path(__file__).parent
LOADED = provider.load("buymeacoffee")


def event(name: str, envelope: dict[str, Any] | None = None, **data: Any) -> Event:
    """The recorded event, with some fields of its envelope and its data set."""
    request = samples.read(HERE / f"{name}.http").request
    body = json.loads(request.body)
    body |= envelope or {}
    body["data"] |= data
    [found] = mapping.events(LOADED, replace(request, body=json.dumps(body).encode()), {})
    return found


def meaning(name: str, **data: Any) -> Payment | Ignored:
    return mapping.payment(LOADED, event(name, **data))


def payment(name: str, **data: Any) -> Payment:
    found = meaning(name, **data)
    assert isinstance(found, Payment)
    return found


def test_what_was_charged_counts_and_the_price_only_where_nothing_else_is_said() -> None:
    assert payment("donation.created.fee_on_supporter").amount == Decimal("5.45")
    without = payment("donation.created.fee_on_supporter", total_amount_charged=None)
    assert without.amount == Decimal(5)


def test_a_payment_that_did_not_succeed_is_not_counted() -> None:
    assert meaning("donation.created", status="failed") == Ignored("not_paid")


@pytest.mark.parametrize("no", ["false", False])
def test_a_refund_that_says_it_is_none_takes_nothing_back(no: object) -> None:
    assert meaning("donation.refunded", refunded=no) == Ignored("not_refunded")


def test_a_refund_without_its_time_has_the_time_of_its_event() -> None:
    recorded = event("donation.refunded")
    found = payment("donation.refunded", refunded_at=None)
    assert found.occurred_at == recorded.data.unix_time("created")


def test_the_update_in_the_second_of_the_start_is_no_second_payment() -> None:
    found = meaning("recurring_donation.updated.same_period")
    assert found == Ignored("told_by_recurring_donation.started")


def test_every_update_within_a_later_period_tells_of_the_same_payment() -> None:
    first = payment("membership.updated.renewal")
    later = payment("membership.updated.renewal", membership_level_name="Renamed")
    assert first.transaction_id == later.transaction_id
    assert first.transaction_id != payment("membership.started").transaction_id


@pytest.mark.parametrize(
    "state", [{"paused": "true"}, {"paused": True}, {"status": "canceled"}, {"status": "past_due"}]
)
def test_a_subscription_that_is_not_paid_for_tells_no_renewal(state: dict[str, Any]) -> None:
    assert meaning("membership.updated.renewal", **state) == Ignored("not_active")


def test_a_subscription_is_never_the_transaction_itself() -> None:
    found = payment("recurring_donation.started")
    assert found.transaction_id != found.subscription_id
    with pytest.raises(PayloadError, match="missing"):
        payment("recurring_donation.started", current_period_start=None)


def test_test_events_of_two_types_do_not_swallow_each_other_nor_a_live_one() -> None:
    test = {"event_id": 1, "live_mode": False}
    ids = {event(name, test).id for name in ("donation.created", "membership.started")}
    assert len(ids | {event("donation.created", {"event_id": 1}).id}) == 3


def test_a_retry_has_the_id_of_the_first_attempt() -> None:
    name = "donation.created.test_mode"
    assert event(name, {"attempt": 4}).id == event(name).id


def test_only_what_says_so_is_a_test() -> None:
    found = mapping.payment(LOADED, event("donation.created", {"live_mode": None}))
    assert isinstance(found, Payment)
    assert not found.test
