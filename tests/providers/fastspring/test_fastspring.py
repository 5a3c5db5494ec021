"""FastSpring's traps."""

import json
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from providers import fastspring
from relay import mapping, provider, samples
from relay.errors import PayloadError, VerificationError
from relay.model import Headers, Ignored, Kind, Payment, Recurrence

HERE = Path(__file__).parent
FASTSPRING = provider.load("fastspring")

Edit = Callable[[dict[str, Any]], object]


def becomes(name: str, edit: Edit = lambda _: None) -> Payment | Ignored:
    """What the recorded request's last event becomes after an edit of its `data`."""
    request = samples.read(HERE / f"{name}.http").request
    body = json.loads(request.body)
    edit(body["events"][-1]["data"])
    changed = replace(request, body=json.dumps(body).encode())
    return mapping.payment(FASTSPRING, mapping.events(FASTSPRING, changed, {})[-1])


def paid(name: str, edit: Edit = lambda _: None) -> Payment:
    found = becomes(name, edit)
    assert isinstance(found, Payment)
    return found


def test_a_request_of_a_webhook_without_a_secret_is_refused() -> None:
    sample = samples.read(HERE / "order.completed.one_time.http")
    unsigned = [pair for pair in sample.request.headers.pairs if pair[0] != "x-fs-signature"]
    with pytest.raises(VerificationError, match="missing"):
        fastspring.SIGNATURE.verify(
            replace(sample.request, headers=Headers(unsigned)), sample.trust()
        )


def test_three_events_in_one_request_are_three_events_and_one_charge() -> None:
    request = samples.read(HERE / "order.completed.first.batch.http").request
    found = [
        mapping.payment(FASTSPRING, event) for event in mapping.events(FASTSPRING, request, {})
    ]
    assert [isinstance(it, Payment) for it in found] == [False, False, True]


def test_a_purchase_is_the_same_with_and_without_webhook_expansion() -> None:
    whole = paid("subscription.charge.completed.expanded")
    ids = paid("subscription.charge.completed.ids")
    for name in ("transaction_id", "amount", "subscription_id", "customer_id", "occurred_at"):
        assert getattr(whole, name) == getattr(ids, name)
    assert (whole.email, ids.email) == ("jordan@example.com", None)


def test_a_manual_repetition_under_another_event_id_is_the_same_movement() -> None:
    request = samples.read(HERE / "order.completed.one_time.http").request
    again = replace(request, body=request.body.replace(b"Ev3nt000000001w", b"Ev3nt000000099w"))
    first, second = (mapping.events(FASTSPRING, it, {})[0] for it in (request, again))
    assert first.id != second.id
    assert mapping.payment(FASTSPRING, first) == mapping.payment(FASTSPRING, second)


def test_a_trial_is_one_trial_whether_its_order_or_its_activation_tells_it() -> None:
    by_order, by_activation = paid("order.completed.trial"), paid("subscription.activated.trial")
    assert by_order.kind is by_activation.kind is Kind.TRIAL
    assert by_order.transaction_id == by_activation.transaction_id
    assert by_order.visitor_id
    assert not by_activation.visitor_id


def test_a_subscription_bought_with_a_coupon_for_all_of_it_is_no_trial() -> None:
    def activate(order: dict[str, Any]) -> None:
        order["items"][0]["subscription"]["state"] = "active"

    found = becomes("order.completed.trial", activate)
    assert isinstance(found, Ignored)
    assert (found.reason, found.subscription_id) == ("zero_amount", "Ex4mpl3Sub5cr1pt0002w")


def test_an_order_with_a_subscription_among_other_things_is_its_first() -> None:
    def add(order: dict[str, Any]) -> None:
        order["items"].append({"product": "plan", "subscription": "Ex4mpl3Sub5cr1pt0009w"})

    found = paid("order.completed.one_time", add)
    assert (found.recurrence, found.subscription_id) == (Recurrence.FIRST, "Ex4mpl3Sub5cr1pt0009w")


def test_yen_are_whole_and_the_settlement_is_not_what_was_paid() -> None:
    yen = {"currency": "JPY", "total": 1500, "totalInPayoutCurrency": 9.99}
    found = paid("order.completed.one_time", lambda order: order.update(yen))
    assert (found.amount, found.currency) == (Decimal(1500), "JPY")


@pytest.mark.parametrize("status", ["failed", "pending"])
def test_a_charge_that_did_not_succeed_is_ignored(status: str) -> None:
    found = becomes("subscription.charge.completed.ids", lambda data: data.update(status=status))
    assert found == Ignored("not_paid")


def test_a_return_that_is_not_processed_is_ignored() -> None:
    found = becomes("return.created.full", lambda data: data.update(completed=False))
    assert found == Ignored("not_refunded")


def test_a_chargeback_is_not_taken_for_its_order() -> None:
    order, chargeback = paid("order.completed.one_time"), paid("chargeback.created")
    assert chargeback.original_id == order.transaction_id
    assert chargeback.transaction_id != order.transaction_id


def test_an_event_without_an_order_says_where_it_is_missing() -> None:
    with pytest.raises(PayloadError) as caught:
        becomes("subscription.charge.completed.ids", lambda data: data.pop("order"))
    assert caught.value.path == "$.events[0].data.order"
