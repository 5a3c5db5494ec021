"""Razorpay's traps."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from relay import mapping, provider, samples
from relay.model import Ignored, Kind, Payment, Recurrence

HERE = Path(__file__).parent
RAZORPAY = provider.load("razorpay")

Edit = Callable[[dict[str, Any]], object]


def becomes(name: str, edit: Edit = lambda _: None) -> Payment | Ignored:
    """What the recorded event becomes after an edit of its `payload`."""
    request = samples.read(HERE / f"{name}.http").request
    body = json.loads(request.body)
    edit(body["payload"])
    changed = replace(request, body=json.dumps(body).encode())
    (event,) = mapping.events(RAZORPAY, changed, RAZORPAY.defaults())
    return mapping.payment(RAZORPAY, event)


def paid(name: str, edit: Edit = lambda _: None) -> Payment:
    found = becomes(name, edit)
    assert isinstance(found, Payment)
    return found


def test_a_dispute_that_is_won_gives_back_what_was_deducted_at_its_onset() -> None:
    taken, returned = paid("payment.dispute.created.deducted"), paid("payment.dispute.won.deducted")
    assert (taken.kind, returned.kind) == (Kind.DISPUTE, Kind.REINSTATED)
    assert (taken.amount, taken.original_id) == (returned.amount, returned.original_id)
    assert returned.transaction_id == f"{taken.transaction_id}:won"
    assert returned.occurred_at > taken.occurred_at


def test_a_dispute_that_took_nothing_gives_nothing_back() -> None:
    assert becomes("payment.dispute.won") == Ignored("nothing_was_taken")


def test_a_subscription_without_a_trial_is_remembered_with_its_visitor() -> None:
    found = becomes("subscription.authenticated.at_once")
    assert isinstance(found, Ignored)
    assert (found.reason, found.subscription_id) == ("no_trial", "sub_Ex4mPl3N0Tr1aL")
    assert found.visitor_id == "7f3b1c2e-5d4a-4e6f-8a9b-0c1d2e3f4a5b"


def test_an_activation_after_a_halt_does_not_make_the_subscription_new() -> None:
    found = becomes("subscription.activated")
    assert found.occurred_at == datetime(2019, 9, 5, 13, 24, 55, tzinfo=UTC)


def test_a_subscription_begins_when_it_was_made_if_no_start_is_set() -> None:
    found = paid(
        "subscription.charged.renewal",
        lambda payload: payload["subscription"]["entity"].update(start_at=None),
    )
    assert found.recurrence is Recurrence.RENEWAL
    assert found.subscribed_at == datetime(2019, 9, 5, 13, 24, 55, tzinfo=UTC)


def test_empty_notes_are_a_list_and_hold_no_visitor() -> None:
    assert paid("payment.captured.upi").visitor_id is None
